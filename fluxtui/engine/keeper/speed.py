"""How fast bytes come, and how long the rest will take: of a download, of a load. Pure: the clock is the caller's."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from fluxtui.engine.wire import ProgressLine

WINDOW = 20.0  # seconds that the shown speed is of
_LEAST = 2.0  # seconds before there is one
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(slots=True)
class Speed:
    """The bytes of the present phase, as they were told."""

    _phase: object = None
    _seen: deque[tuple[float, int]] = field(default_factory=deque)  # (seconds, bytes)

    def words(self, now: float, line: ProgressLine) -> str:
        """`, 84.1 MiB/s, 4m10s left` after `1.2 GiB of 22.2 GiB`; empty where the line tells no bytes, or too few yet."""
        if line.phase != self._phase and line.phase is not None:
            self._phase = line.phase
            self._seen.clear()
        if line.item is None or line.unit != "bytes":
            return ""
        if self._seen and line.item < self._seen[-1][1]:
            self._seen.clear()  # bytes were thrown away: begin anew
        self._seen.append((now, line.item))
        while len(self._seen) > 2 and now - self._seen[1][0] >= WINDOW:
            self._seen.popleft()
        seconds = now - self._seen[0][0]
        gained = line.item - self._seen[0][1]
        if seconds < _LEAST or gained <= 0:
            return ""
        rate = gained / seconds
        left = "" if line.items is None or line.item >= line.items else f", {_seconds((line.items - line.item) / rate)} left"
        return f", {bytes_words(rate)}/s{left}"


def bytes_words(count: float) -> str:
    """`84.1 MiB`."""
    size = float(count)
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")


def _seconds(seconds: float) -> str:
    """`45s`, `4m10s`, `1h02m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m{whole % 60:02d}s" if whole < 3600 else f"{whole // 3600}h{whole % 3600 // 60:02d}m"
