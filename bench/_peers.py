"""The demo's recipe, as the trainers of `bench/peer.py` are all told it, and how one is run."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

RANK, BATCH, STEPS, RATE, SEED = 16, 8, 400, 0.003, 42
WARM_UP, DECAY = 20, 0.2  # steps of rising rate; the last share of them, over which it falls to 0
SIGMA_MEAN = 1.0  # of the logit-normal noise levels: what is drawn is decided at high noise


def seconds_of(command: Sequence[str], folder: Path) -> float:
    """Wall seconds of a command in `folder`, without the hub. Raises `SystemExit` with its last words where it fails."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{Path(command[1]).name} failed: {done.stderr[-3000:]}")
    return time.perf_counter() - began
