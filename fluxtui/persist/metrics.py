"""`metrics.jsonl`: one line an optimizer step, appended by rank 0 of the trainer.

A line that a kill tore is ignored, and closed before the next one is written. Where a resumed attempt starts again
before the last step of the one before, what the newer attempt says counts, and what the older one did after that
point is history undone: it is not shown.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from fluxtui.persist.errors import NotFoundError, StorageError
from fluxtui.persist.files.durable import write_all
from fluxtui.persist.files.regular import open_for_writing, open_regular

LINE_LIMIT = 4096                  # bytes of a line that is still looked at
READ_LIMIT = 64 * 1024 * 1024      # bytes from the end; about 400,000 steps
BLOCK = 256 * 1024                 # bytes read at once


class StepMetric(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One optimizer step; or, with step 0 and no loss, the held-out loss of what training began with."""

    attempt: int
    step: int                              # optimizer steps done, over all attempts
    epoch: int
    loss: float | None                     # mean over the global batch; None where it was not finite
    learning_rate: float
    gradient_norm: float | None = None     # before clipping
    seconds: float                         # wall time of the step, data included
    at: datetime
    preservation_loss: float | None = None # of what dataset.class_word draws; not part of `loss`
    validation_loss: float | None = None   # where the step was followed by a validation


def open_append(path: Path) -> int:
    """A descriptor for `append`. A last line that was torn is ended first, so that it spoils nothing after it.

    Raises `StorageError`; `DamagedError` where something else than a file lies there: a FIFO would hold the training up for good.
    """
    try:
        descriptor = open_for_writing(path, os.O_RDWR | os.O_APPEND)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            os.write(descriptor, b"\n")
    except OSError as error:
        raise StorageError.of(error, "write", path) from error
    return descriptor


def append(descriptor: int, metric: StepMetric) -> None:
    """Writes one whole line. Raises `StorageError` where the disk does not take all of it."""
    line = msgspec.json.encode(metric) + b"\n"
    try:
        write_all(descriptor, line)
    except OSError as error:
        raise StorageError.of(error, "write", "metrics.jsonl") from error


def read_tail(path: Path, count: int) -> list[StepMetric]:
    """The newest `count` steps, ascending. Raises `NotFoundError` or `StorageError`."""
    return read_all(path, limit=min(READ_LIMIT, max(BLOCK, count * 512)))[-count:] if count > 0 else []


def read_all(path: Path, limit: int = READ_LIMIT) -> list[StepMetric]:
    """Every step in the last `limit` bytes, ascending, each once. Raises `NotFoundError` or `StorageError`."""
    return merge(decode(line) for line in _lines(path, limit))


def merge(metrics: Iterable[StepMetric | None]) -> list[StepMetric]:
    """Lines in the order of writing, as one history without the steps that a later attempt took anew."""
    history: list[StepMetric] = []
    for metric in metrics:
        if metric is None:
            continue
        while history and history[-1].step >= metric.step and metric.attempt >= history[-1].attempt:
            history.pop()
        if not history or metric.step > history[-1].step:
            history.append(metric)
    return history


_decoder = msgspec.json.Decoder(StepMetric)


def decode(line: bytes) -> StepMetric | None:
    """One line, or None where it is torn or not ours."""
    if not line or len(line) > LINE_LIMIT:
        return None
    try:
        return _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, OverflowError):
        return None


def _lines(path: Path, limit: int) -> list[bytes]:
    """The lines that begin in the last `limit` bytes. What follows the last newline is torn, or still being written."""
    try:
        with open(open_regular(path), "rb") as file:
            start = max(0, os.fstat(file.fileno()).st_size - limit)
            file.seek(max(0, start - 1))
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise NotFoundError(f"There is no {path}: no step has been made yet.") from None
    except OSError as error:
        raise StorageError.of(error, "read", path) from error
    lines = data.split(b"\n")[:-1]
    return lines[1:] if start else lines
