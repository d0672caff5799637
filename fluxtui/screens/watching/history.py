"""The metrics of one session, read on as the file grows; never on the UI's loop."""

from __future__ import annotations

import math
import os
import threading
from array import array
from bisect import bisect_left
from dataclasses import dataclass, field
from pathlib import Path

from fluxtui.persist.metrics import LINE_LIMIT, StepMetric, decode

CURVES = ("loss", "validation", "rate", "norm", "seconds")
FIRST_READ = 64 << 20  # bytes from the end of a file, at most


@dataclass(slots=True, eq=False)
class History:
    """Every step once, ascending; what a later attempt took anew is gone."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    attempts: array[int] = field(default_factory=lambda: array("q"))
    epochs: array[int] = field(default_factory=lambda: array("q"))
    curves: dict[str, array[float]] = field(default_factory=lambda: {name: array("d") for name in CURVES})
    lock: threading.Lock = field(default_factory=threading.Lock)  # held while steps are added, and while they are drawn

    def window(self, curve: str, first: float, last: float, most: int = 4000) -> tuple[list[int], list[float]]:
        """Steps and values of one curve between two steps, thinned evenly to `most`."""
        with self.lock:
            begin, end = bisect_left(self.steps, first), bisect_left(self.steps, last + 1)
            stride = max(1, -(-(end - begin) // most))
            return list(self.steps[begin:end:stride]), list(self.curves[curve][begin:end:stride])

    def until(self, step: int) -> tuple[int, float, float] | None:
        """Epoch, mean loss of the last 50 steps, newest held-out loss (NaN: none) at a step; None where it was not measured."""
        with self.lock:
            at = bisect_left(self.steps, step)
            if at == len(self.steps) or self.steps[at] != step:
                return None
            recent = [loss for loss in self.curves["loss"][max(0, at - 49) : at + 1] if not math.isnan(loss)]
            held_out = (value for value in reversed(self.curves["validation"][: at + 1]) if not math.isnan(value))
            return self.epochs[at], sum(recent) / len(recent) if recent else math.nan, next(held_out, math.nan)

    def add(self, metric: StepMetric) -> None:
        """One more line of the file, in the order of writing."""
        steps = self.steps
        if steps and metric.step <= steps[-1]:
            if metric.attempt < self.attempts[-1]:
                return
            keep = bisect_left(steps, metric.step)
            del steps[keep:], self.attempts[keep:], self.epochs[keep:]
            for values in self.curves.values():
                del values[keep:]
        steps.append(metric.step)
        self.attempts.append(metric.attempt)
        self.epochs.append(metric.epoch)
        nan = math.nan
        for name, value in (
            ("loss", metric.loss),
            ("validation", metric.validation_loss),
            ("rate", metric.learning_rate),
            ("norm", metric.gradient_norm),
            ("seconds", metric.seconds if metric.step else None),  # at step 0 there is a held-out loss and no step
        ):
            self.curves[name].append(nan if value is None else value)


class HistoryReader:
    """Follows one metrics.jsonl. For one thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.history = History()
        self._offset = 0
        self._inode = 0
        self._rest = b""

    def read_on(self) -> bool:
        """Take in what was written since; whether anything changed. A file that is gone or new starts again."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            had = bool(self.history.steps)
            self._restart(0)
            return had
        try:
            facts = os.fstat(descriptor)
            if facts.st_ino != self._inode or facts.st_size < self._offset:
                self._restart(facts.st_ino)
                self._offset = max(0, facts.st_size - FIRST_READ)  # where that is inside a line, the line is no JSON
            if facts.st_size == self._offset:
                return False
            data = self._rest + os.pread(descriptor, facts.st_size - self._offset, self._offset)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        self._offset = facts.st_size
        *lines, rest = data.split(b"\n")
        self._rest = rest[: LINE_LIMIT + 1]
        metrics = [metric for line in lines if (metric := decode(line)) is not None]
        with self.history.lock:
            for metric in metrics:
                self.history.add(metric)
        return bool(metrics)

    def _restart(self, inode: int) -> None:
        self.history = History()
        self._offset, self._inode, self._rest = 0, inode, b""
