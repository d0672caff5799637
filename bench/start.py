"""Seconds from `fluxtui start` to the first optimizer step, beside the sum of what cannot be avoided, each part listed.

    python bench/start.py [--runs N]

The floor is `bench/_bare.py`: imports, the weights read by diffusers and transformers themselves, each caption and each
picture encoded once, and one training step; and two interpreters. The run is the product: a keeper, a trainer, an empty cache.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from _clock import row, seconds

FLUXTUI = str(Path(sys.executable).with_name("fluxtui"))
HERE = Path(__file__).parent
LIMIT = 15.0  # seconds, on 2 cores
SETS = ["sample.at_start=false", "sample.every_epochs=0", "train.steps=3", "train.warmup_steps=1"]


def bare() -> dict[str, float]:
    """Seconds of each unavoidable part, two interpreters (keeper and trainer) included."""
    interpreter = seconds([sys.executable, "-c", "pass"])
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-W", "ignore", str(HERE / "_bare.py"), "1", str(Path(folder) / "bare.safetensors")]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    parts = json.loads(done.stdout.splitlines()[-1])
    del parts["write the file"]  # after the first step
    return {"two interpreters": 2 * interpreter, **parts}


def product(folder: str) -> float:
    """Wall seconds from calling `fluxtui start` to the line of the first step in metrics.jsonl."""
    environment = {**os.environ, "FLUXTUI_HOME": folder}
    sets = [word for pair in SETS for word in ("--set", pair)]
    new = [FLUXTUI, "new", "first", "--model", "pico", "--dataset", "demo", *sets]
    subprocess.run(new, env=environment, check=True, stdout=2)
    began = time.time()
    subprocess.run([FLUXTUI, "start", "first"], env=environment, check=True, stdout=2)
    subprocess.run([FLUXTUI, "wait", "first", "--timeout", "120"], env=environment, check=True, stdout=2)
    line = json.loads((Path(folder) / "sessions/first/metrics.jsonl").read_text().splitlines()[0])
    return datetime.fromisoformat(line["at"]).timestamp() - began


def main() -> int:
    """0 where the limit holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    floors: list[dict[str, float]] = []
    runs: list[float] = []
    for _ in range(parser.parse_args().runs):
        floors.append(bare())
        with tempfile.TemporaryDirectory() as folder:
            runs.append(product(folder))
    for name in floors[0]:
        print(row(f"  floor: {name}", [floor[name] for floor in floors]))
    sums = [sum(floor.values()) for floor in floors]
    print(row("sum of the floors", sums))
    print(row("fluxtui start to the first optimizer step", runs, LIMIT))
    print(f"{'ratio, pair by pair, median':<58}{statistics.median(a / b for a, b in zip(runs, sums, strict=True)):9.2f}")
    return int(statistics.median(runs) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
