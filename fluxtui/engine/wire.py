"""What keeper and trainer say to each other: the job, progress lines, requests and exit codes. No torch.

The job is one JSON object on the trainer's standard input. Progress goes up an inherited pipe as JSON lines of at most
4 KiB, written without blocking: what does not fit is dropped, so a slow keeper never holds up a training. Requests come
down a second pipe, read without blocking by rank 0 at step boundaries.
"""

from __future__ import annotations

import enum
from typing import Literal

import msgspec
from msgspec import Struct, field

from fluxtui.persist.sessions.record import Footprint, Phase
from fluxtui.persist.settings.spec import Spec

PROGRESS_FD = "FLUXTUI_PROGRESS_FD"
REQUEST_FD = "FLUXTUI_REQUEST_FD"
KEEPER_PID = "FLUXTUI_KEEPER_PID"
RUN_ID = "FLUXTUI_RUN_ID"
LINE_LIMIT = 4096  # bytes, newline included; also PIPE_BUF, so lines of several ranks never mix
ECHO = "the connection to the other ranks broke"  # how the error of a rank begins that lost another: it explains nothing


class TrainerExit(enum.IntEnum):
    """Exit codes of a trainer. What each means for a retry is the keeper's to say."""

    DONE = 0
    WRONG_PARENT = 70
    STOPPED = 75
    NON_FINITE = 76
    DATA = 77
    CONFIGURATION = 78
    GPU_MEMORY = 79
    STORAGE = 80
    GPU_LOST = 81
    DATA_WORKER = 82
    HUNG = 83
    NETWORK = 84
    PEER = 85  # the connection to another rank broke: an echo of what befell that one


class TrainJob(Struct, frozen=True, kw_only=True):
    """Everything that a trainer is told. One JSON object on its standard input."""

    home: str
    session: str                     # path of the session folder
    attempt: int
    nonce: str
    run_id: str
    spec: Spec                       # with the attempt's overrides applied
    recipe_sha256: str
    threads: int                     # CPU threads of a rank
    resume: str = "auto"             # "auto": newest verified checkpoint, "": none, or a checkpoint's name
    start_from: str = ""             # path of another session's checkpoint to begin with
    accept_changes: bool = False
    model_commit: str = ""           # what the hub id resolved to in an earlier attempt
    devices: list[str] = field(default_factory=list)   # GPU UUIDs; empty: the CPU
    card_memory: int = 0             # bytes of the smallest of them, by the driver; 0: not known


class ProgressLine(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One line up the pipe. A line is progress; what it does not mention is unchanged."""

    rank: int = 0
    alive: bool = False              # only a tick of a thread: explains, never counts as progress
    phase: Phase | None = None
    step: int | None = None          # optimizer steps done
    steps: int | None = None
    epoch: int | None = None
    epochs: int | None = None
    epoch_end: int | None = None     # the step with which the epoch under way ends
    item: int | None = None          # inner progress: items done in this phase
    items: int | None = None
    unit: str = ""                   # of the items: "images", "bytes", "denoising steps"
    waiting: Literal["", "batch"] = ""   # in phase train: the loop waits for the data loader
    loss: float | None = None
    step_seconds: float | None = None
    interlude_seconds: float | None = None  # that samples and held-out losses still to come will take
    checkpoint: str = ""             # a checkpoint was committed: its name
    checkpoint_seconds: float | None = None  # how long that took, from the copy until it was durable
    resumed_from: str = ""           # training goes on from this checkpoint
    model_commit: str = ""
    inexact_since: int | None = None
    acknowledged: str = ""           # id of a request that was carried out
    note: str = ""                   # one sentence for the record ("checkpoint X was damaged and set aside")
    error: str = ""                  # one sentence: why this process is about to end
    remedy: str = ""                 # the one change or command that follows
    versions: dict[str, str] = field(default_factory=dict)
    memory: Footprint | None = None  # of the step that was probed


class RequestLine(Struct, frozen=True, kw_only=True):
    """One line down the pipe."""

    id: str
    verb: Literal["stop", "stop-after-epoch", "checkpoint", "sample"]


def encode(line: ProgressLine | RequestLine) -> bytes:
    """One JSON line, newline included; a `ProgressLine` too long has its texts cut so that it fits `LINE_LIMIT`."""
    data = msgspec.json.encode(line) + b"\n"
    if len(data) <= LINE_LIMIT or isinstance(line, RequestLine):
        return data
    cut = msgspec.structs.replace(line, error=line.error[:500], remedy=line.remedy[:300], note=line.note[:300], versions={})
    return msgspec.json.encode(cut) + b"\n"
