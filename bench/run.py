"""A whole training, from the command to the proven file, beside the sum of what it cannot do without; and the demo.

    python bench/run.py [--runs N] [--steps N]

The run: `fluxtui start` of the pico model, empty caches, no samples, to the end of `fluxtui wait`, which is the proof.
The floor: three bare interpreters (keeper, trainer, prover), `bench/_bare.py` for the training, and a process in which diffusers
loads the file, for the proof. The demo: `fluxtui demo --headless`, samples and all, start to proven.
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
DEMO_LIMIT = 90.0  # seconds, on 2 cores
LOADED = """
import sys, torch
from pathlib import Path
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from fluxtui.demo import PICO_DIR
from safetensors.torch import load_file
with torch.device("meta"):
    model = FluxTransformer2DModel.from_config(FluxTransformer2DModel.load_config(Path(PICO_DIR) / "transformer"))
model.load_lora_adapter(load_file(sys.argv[1]), prefix="transformer")
"""


def floor(folder: Path, steps: int) -> dict[str, float]:
    """Seconds of each unavoidable part."""
    interpreter = seconds([sys.executable, "-c", "pass"])
    file = folder / "bare.safetensors"
    command = [sys.executable, "-W", "ignore", str(HERE / "_bare.py"), str(steps), str(file)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    parts = json.loads(done.stdout.splitlines()[-1])
    proof = seconds([sys.executable, "-W", "ignore", "-c", LOADED, str(file)])
    return {"three interpreters": 3 * interpreter, **parts, "diffusers loads the file": proof - interpreter}


def product(folder: Path, steps: int) -> float:
    """Wall seconds from calling `fluxtui start` to `fluxtui wait` saying that the file is proven."""
    environment = {**os.environ, "FLUXTUI_HOME": str(folder / "home")}
    sets = ["sample.at_start=false", "sample.every_epochs=0", "sample.prompts=[]", "checkpoint.every_steps=0"]
    words = [word for pair in [*sets, f"train.steps={steps}"] for word in ("--set", pair)]
    new = [FLUXTUI, "new", "whole", "--model", "pico", "--dataset", "demo", *words]
    subprocess.run(new, env=environment, check=True, stdout=2)
    began = time.perf_counter()
    subprocess.run([FLUXTUI, "start", "whole"], env=environment, check=True, stdout=2)
    subprocess.run([FLUXTUI, "wait", "whole", "--timeout", "600"], env=environment, check=True, stdout=2)
    return time.perf_counter() - began


def demo(folder: Path) -> tuple[float, float]:
    """Wall seconds of `fluxtui demo --headless`, and from its start to its first optimizer step, samples of step 0 included."""
    environment = {**os.environ, "FLUXTUI_HOME": str(folder / "demo-home")}
    began, wall = time.perf_counter(), time.time()
    subprocess.run([FLUXTUI, "demo", "--headless"], env=environment, check=True, stdout=2)
    taken = time.perf_counter() - began
    first = json.loads((folder / "demo-home/sessions/demo/metrics.jsonl").read_text().splitlines()[0])
    return taken, datetime.fromisoformat(first["at"]).timestamp() - wall


def main() -> int:
    """0 where the demo's limit holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    os.environ.setdefault("GOMP_SPINCOUNT", "2500")  # the bare training as the keeper gives it to a trainer
    floors: list[dict[str, float]] = []
    runs: list[float] = []
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory() as folder:
            floors.append(floor(Path(folder), options.steps))
            runs.append(product(Path(folder), options.steps))
    for name in floors[0]:
        print(row(f"  floor: {name}", [one[name] for one in floors]))
    sums = [sum(one.values()) for one in floors]
    print(row("sum of the floors", sums))
    print(row(f"fluxtui start to the proven file, {options.steps} steps", runs))
    print(f"{'ratio, pair by pair, median':<58}{statistics.median(a / b for a, b in zip(runs, sums, strict=True)):9.2f}")
    with tempfile.TemporaryDirectory() as folder:
        whole, first = demo(Path(folder))
    print(row("fluxtui demo --headless, start to proven", [whole], DEMO_LIMIT))
    print(row("  its first optimizer step, samples of step 0 included", [first]))
    return int(whole > DEMO_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
