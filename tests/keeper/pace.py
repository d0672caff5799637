"""How slow this machine is now: the times that tests wait and the limits that they set scale by it."""

from __future__ import annotations

import subprocess
import sys
import time


def _slowness() -> float:
    """How many times slower than an idle one it starts an interpreter; at least 1, at most 20."""
    took = []
    for _ in range(5):
        began = time.monotonic()
        subprocess.run([sys.executable, "-S", "-c", "pass"], check=True)
        took.append(time.monotonic() - began)
    return min(20.0, max(1.0, sorted(took)[3] / 0.05))


SLOW = _slowness()
