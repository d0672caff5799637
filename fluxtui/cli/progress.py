"""The progress of a session in lines on stderr, for those who wait without a UI."""

from __future__ import annotations

import time

from fluxtui.cli.out import duration, say
from fluxtui.persist.sessions.overview import Overview

PERIOD = 5.0  # seconds between two lines of the same phase


class ProgressLines:
    """Given each look at a session; says what is new: at once where state or phase changed, else every few seconds."""

    def __init__(self, period: float = PERIOD) -> None:
        self._period = period
        self._said: tuple[str, str, int] | None = None
        self._line = ""
        self._next = 0.0

    def __call__(self, seen: Overview) -> None:
        key = (seen.state, seen.phase or "", seen.attempt)
        line = line_of(seen)
        now = time.monotonic()
        if key == self._said and (now < self._next or line == self._line):
            return
        self._said, self._line, self._next = key, line, now + self._period
        say(line)


def line_of(seen: Overview) -> str:
    """Name, state, phase, step, loss, speed and what is left, as far as known."""
    parts = [seen.state if not seen.phase or not seen.is_active else f"{seen.state}, {seen.phase}"]
    if seen.inner:
        parts.append(seen.inner)
    if seen.steps:
        parts.append(f"step {seen.step} of {seen.steps}")
    if seen.loss is not None:
        parts.append(f"loss {seen.loss:.4f}")
    if seen.is_active and seen.step_seconds is not None:
        parts.append(f"{seen.step_seconds:.3g} s a step")
    if seen.eta_seconds is not None and seen.phase == "train":
        parts.append(f"{duration(seen.eta_seconds)} left")
    if seen.reason and seen.state not in ("running", "completed"):
        parts.append(seen.reason)
    return f"{seen.name}: {', '.join(parts)}"
