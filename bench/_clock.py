"""Timing whole commands side by side: A B A B, medians; shared machines drift, so pairs are compared, never single runs."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence


def seconds(command: Sequence[str], environment: Mapping[str, str] | None = None) -> float:
    """Wall seconds of one run; raises where the command fails."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - began


def side_by_side(
    commands: Mapping[str, Sequence[str]], runs: int, environment: Mapping[str, str] | None = None
) -> dict[str, list[float]]:
    """Seconds of each command, run in turn; the first round is thrown away."""
    found: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(runs + 1):
        for name, command in commands.items():
            taken = seconds(command, environment)
            if number:
                found[name].append(taken)
    return found


def row(name: str, values: Sequence[float], limit: float | None = None, unit: str = "s") -> str:
    """One line of a table: median (least-most), and the limit where there is one."""
    text = f"{name:<58}{statistics.median(values):9.3f} {unit}   ({min(values):.3f}-{max(values):.3f})"
    return text if limit is None else f"{text}   limit {limit:g}"
