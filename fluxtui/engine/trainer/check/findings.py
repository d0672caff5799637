"""What the doctor says: findings, folders, buckets, how an epoch goes; `fluxtui check --json` prints it. No torch."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

Level = Literal["error", "warning", "note"]


class Finding(Struct, frozen=True):
    """One thing that was found."""

    level: Level
    kind: str           # a word that scripts can rely on
    file: str           # relative to the folder; "" for the data set as a whole
    sentence: str


class BucketFacts(Struct, frozen=True, kw_only=True):
    """A line of the bucket table."""

    width: int                  # pixels
    height: int
    uses: int                   # a pass over the data, repeats included
    steps: int                  # optimizer steps of an epoch
    mean_crop_loss: float       # share of an image's area
    largest_crop_loss: float


class FolderFacts(Struct, frozen=True, kw_only=True):
    """One folder of the data set."""

    folder: str
    images: int
    captions: int
    repeats: int
    uses: int               # a pass over the data, at all resolutions, repeats included
    trigger: str
    regularisation: int     # images that keep what the model knows


class Plan(Struct, frozen=True, kw_only=True):
    """How an epoch goes."""

    global_batch: int       # samples of an optimizer step: batch size x accumulation x ranks
    uses: int               # samples of an epoch
    steps: int              # optimizer steps of an epoch
    short_steps: int        # of them with fewer samples
    buckets: list[BucketFacts] = field(default_factory=list)


class Report(Struct, frozen=True, kw_only=True):
    """What `fluxtui check --json` prints. `ok` is whether a start would take it."""

    ok: bool
    folder: str             # dataset.path's
    images: int             # of all folders
    captions: int
    plan: Plan
    folders: list[FolderFacts] = field(default_factory=list)
    errors: int = 0
    warnings: int = 0
    findings: list[Finding] = field(default_factory=list)
    decoded: bool                       # False: only headers were read
    tokens_exact: bool                  # False: captions were measured without the model's tokenizer
    seconds: float = 0.0
