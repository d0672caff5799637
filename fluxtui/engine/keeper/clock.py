"""The keeper's watch: monotonic seconds that stand still while the keeper does.

A machine that is frozen, a keeper that is stopped, a disk that holds the keeper in a write: in all of them the trainer may
have stood still too, or spoken without being heard. What the keeper missed is no fault of the trainer, so the time by
which its own tick came late is taken out of every deadline. Jumps of the wall clock are not seen at all.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

LATE = 1.5  # seconds by which a tick may come late before it counts as missed


class Watch:
    """`now()` in seconds; `ticked()` twice a turn of the loop."""

    def __init__(self) -> None:
        self._missed = 0.0
        self._turn = time.monotonic()
        self._began = time.monotonic()
        self._wall = datetime.now(UTC)

    def now(self) -> float:
        """Seconds of watched time."""
        return time.monotonic() - self._missed

    def ticked(self, waited: float) -> float:
        """Called before and after each wait with the seconds that it should have taken at most; returns the seconds missed."""
        turn = time.monotonic()
        late = turn - self._turn - waited
        self._turn = turn
        if late <= LATE:
            return 0.0
        self._missed += late
        return late

    def today(self) -> datetime:
        """Wall clock as it was when this keeper began, plus monotonic time: differences of two are true durations."""
        return self._wall + timedelta(seconds=time.monotonic() - self._began)


def wall() -> datetime:
    """The wall clock, for people."""
    return datetime.now(UTC)
