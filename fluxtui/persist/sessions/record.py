"""The record of one attempt: `attempts/0001.toml`, written by its keeper alone and final once terminal."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Literal

from msgspec import Struct, field
from msgspec.structs import force_setattr

RECORD_SCHEMA = 1

Status = Literal["queued", "starting", "running", "stopping", "completed", "failed", "stopped"]
ACTIVE: frozenset[str] = frozenset({"queued", "starting", "running", "stopping"})
TERMINAL: frozenset[str] = frozenset({"completed", "failed", "stopped"})
TRANSITIONS: dict[str, frozenset[str]] = {
    "queued": frozenset({"starting", "stopped", "failed"}),
    "starting": frozenset({"running", "stopping", "stopped", "failed"}),
    "running": frozenset({"stopping", "completed", "failed"}),
    "stopping": frozenset({"stopped", "completed", "failed"}),
}


class Phase(enum.StrEnum):
    """What a trainer is busy with; each has its own guard."""

    PREFLIGHT = "preflight"
    DOWNLOAD = "download"
    LOAD = "load"
    ENCODE = "encode"
    CACHE = "cache"
    TRAIN = "train"
    VALIDATE = "validate"
    SAMPLE = "sample"
    CHECKPOINT = "checkpoint"
    EXPORT = "export"
    PROVE = "prove"


class ProcessIdentity(Struct, frozen=True, omit_defaults=True):
    """A process that can be told from a later one with the same pid."""

    pid: int
    start_ticks: int          # field 22 of /proc/PID/stat
    boot_id: str
    run_id: str = ""          # FLUXTUI_RUN_ID in its environment


class Acknowledgement(Struct, frozen=True):
    """A control request that the keeper has consumed."""

    id: str
    verb: str
    at: datetime
    outcome: str              # "accepted", or one sentence on why it was dropped


class Proof(Struct, frozen=True, omit_defaults=True):
    """What the proving process found. `ok` is the only thing that makes a session completed."""

    ok: bool
    what: str = ""            # one sentence: what is missing, where not ok
    file: str = ""
    size: int = 0             # bytes
    sha256: str = ""
    tensors_sha256: str = ""
    mtime_ns: int = 0         # of the file, when it was hashed; a copy of it has others
    ctime_ns: int = 0         # which nobody can set
    checks: list[str] = field(default_factory=list)
    at: datetime | None = None


class Footprint(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a step of the largest pictures takes of a GPU: by the plan, and by one that was taken before training began."""

    planned: int                        # bytes at the peak
    probed: int                         # bytes at the peak
    step_seconds: float                 # of an optimizer step
    card: str = ""                      # the GPU's name


class Record(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One attempt. Unknown keys are ignored on reading, so that either version of FluxTUI shows the other's."""

    schema: int = RECORD_SCHEMA
    session_id: str
    attempt: int
    nonce: str                          # of this attempt; the result file must repeat it
    status: Status
    reason: str = ""                    # one sentence; also "retry 1 of 3 at TIME, after: WHY" while queued
    remedy: str = ""                    # the one command or change that follows
    phase: Phase | None = None
    step: int = 0                       # optimizer steps done, over all attempts
    steps: int = 0                      # optimizer steps planned; 0: not yet known
    epoch: int = 0                      # epochs begun, over all attempts
    epochs: int = 0
    epoch_end: int = 0                  # the step with which the epoch under way ends; 0: not known
    stops_after_epoch: bool = False     # a stop after the epoch under way was asked, and has not come yet
    inner: str = ""                     # progress inside a phase, e.g. "12 of 40 images"
    loss: float | None = None           # mean of the last 50 steps
    step_seconds: float | None = None   # median of the last 50; None before the second step
    interlude_seconds: float = 0.0      # that samples and held-out losses still to come will take, by what the last ones took
    exit_code: int | None = None
    signal: str = ""                    # "SIGKILL"
    queued_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    beat_at: datetime | None = None     # wall clock, for people; never used to time anything out
    waiting_for: str = ""               # who owns the GPU or the CPU, while queued
    priority: int = 0                   # smaller goes first
    host: str
    boot_id: str
    run_id: str
    keeper: ProcessIdentity | None = None
    nodes: list[str] = field(default_factory=list)       # hosts of all machines, node 0 first; empty: one machine
    ranks: list[ProcessIdentity] = field(default_factory=list)  # of the trainer, on this machine
    prover: ProcessIdentity | None = None
    world_size: int = 0                 # ranks that train, on all machines; 0: not yet known, or a record of before it was kept
    gpus: list[str] = field(default_factory=list)        # UUIDs
    threads: int = 0                    # CPU threads of a rank; the first attempt's hold for all
    versions: dict[str, str] = field(default_factory=dict)
    recipe_sha256: str = ""
    overrides: dict[str, object] = field(default_factory=dict)  # "checkpoint.keep" -> 8
    accept_changes: bool = False
    inexact_since: int | None = None    # "not exact since step N"
    model_commit: str = ""              # what a hub id resolved to
    resumed_from: str = ""              # "step-000000480"
    checkpoint: str = ""                # the newest committed one
    retry: int = 0                      # retries without a new checkpoint, this attempt included
    amber: str = ""                     # "step for 41 s (limit 300 s)", while stalled
    memory: Footprint | None = None     # once a step was probed
    gpu_hint: str = ""                  # "GPU under 5 % for 300 s"
    output: str = ""                    # path of the product, once proven
    proof: Proof | None = None
    acks: list[Acknowledgement] = field(default_factory=list)

    def __post_init__(self) -> None:
        """A time without a zone, from an editor or another tool, is of this machine's zone: all times can be compared."""
        for name in ("queued_at", "started_at", "finished_at", "beat_at"):
            moment: datetime | None = getattr(self, name)
            if moment is not None and moment.tzinfo is None:
                force_setattr(self, name, moment.astimezone())


class Result(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a trainer claims when it leaves with code 0: `result.toml`. Nothing is believed before it is proven."""

    nonce: str                          # of the attempt that trained
    attempt: int
    session_id: str
    recipe_sha256: str
    step: int                           # optimizer steps done; must be the plan's last
    file: str                           # name of the product in the session's folder
    size: int                           # bytes
    sha256: str
    tensors_sha256: str
