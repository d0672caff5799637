"""Numbers in few characters: times, sizes, counts."""

from __future__ import annotations

import os
from datetime import UTC, datetime


def duration(seconds: float | None) -> str:
    """Two units at most, at most six characters: "41s", "12m", "1h04m", "3d02h"; empty where not known."""
    if seconds is None or seconds != seconds or seconds < 0:
        return ""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 3600:
        return f"{whole // 60}m"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    if whole < 1000 * 86400:
        return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"
    return ">999d"


def step_time(seconds: float | None) -> str:
    """Seconds a step with three significant digits: "0.072", "1.85", "41.2"."""
    if seconds is None:
        return ""
    return f"{seconds:.1f}" if seconds >= 10 else f"{seconds:.2f}" if seconds >= 1 else f"{seconds:.3f}"


def loss(value: float | None) -> str:
    """Six characters, nine at the extremes: "0.0412", "12.34", "1.2e-5", "nan"."""
    if value is None:
        return ""
    if value != value or value in (float("inf"), float("-inf")):
        return str(value)
    size = abs(value)
    if 0 < size < 0.0005 or size >= 10000:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e") if size >= 10000 else f"{value:.1e}".replace("e-0", "e-")
    return f"{value:.4f}" if size < 10 else f"{value:.2f}" if size < 1000 else f"{value:.0f}"


def size(count: float | None) -> str:
    """Bytes in powers of 1024: "812", "4.0K", "12.1G"."""
    if count is None:
        return ""
    value = float(count)
    for unit in ("", "K", "M", "G", "T"):
        if value < 1024 or unit == "T":
            return f"{value:.0f}{unit}" if not unit or value >= 100 else f"{value:.1f}{unit}"
        value /= 1024
    raise AssertionError("unreachable")


def clock(moment: datetime | None, now: datetime | None = None) -> str:
    """Local time: "14:02" today, "Mon 14:02" within a week, else "2026-11-02"; empty where None."""
    if moment is None:
        return ""
    local = moment.astimezone()
    today = (now or datetime.now(UTC)).astimezone()
    days = abs((today.date() - local.date()).days)
    return local.strftime("%H:%M" if days == 0 else "%a %H:%M" if days < 7 else "%Y-%m-%d")


def place(path: str) -> str:
    """A path as a shell shows it: below the user's home it begins with "~"."""
    home = os.path.expanduser("~")
    return "~" + path[len(home) :] if path.startswith(home + "/") else path


def percent(part: float, whole: float) -> str:
    """Whole percent, rounded down, so that 100 % means all: "57 %"; empty where there is no whole."""
    return f"{int(100 * part / whole)} %" if whole > 0 else ""


def count(number: int, one: str, many: str = "") -> str:
    """ "1 session", "3 sessions"."""
    return f"{number} {one if number == 1 else many or one + 's'}"
