"""The demo's recipe, as the trainers of `bench/peer.py` are all told it, and how one is run."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

RANK, BATCH, STEPS, RATE, SEED = 16, 8, 400, 0.003, 42
WARM_UP, DECAY = 20, 0.2  # steps of rising rate; the last share of them, over which it falls to 0
SIGMA_MEAN = 1.0  # of the logit-normal noise levels: what is drawn is decided at high noise


_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


@dataclass(frozen=True, slots=True)
class Taken:
    """Seconds from a command to its end: of the clock, and of all cores of the processes it started."""

    wall: float
    cpu: float


def taken_by(work: Callable[[], object]) -> Taken:
    """What `work` takes, with the processes that it detaches: they become children of this one, and their end is waited for."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    began, used = time.perf_counter(), _cpu()
    work()
    wall = time.perf_counter() - began
    while _left():
        pass
    return Taken(wall, _cpu() - used)


def _left() -> bool:
    """Waits for the end of a child; False where there is none."""
    try:
        os.wait()
    except ChildProcessError:
        return False
    return True


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(command: Sequence[str], folder: Path) -> Taken:
    """A command in `folder`, without the hub. Raises `SystemExit` with its last words where it fails."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf")}

    def work() -> None:
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{Path(command[1]).name} failed: {done.stderr[-3000:]}")

    return taken_by(work)
