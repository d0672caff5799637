"""The demo's training by others and by `fluxtui`, one after the other in one run: seconds, and what each file learnt.

    python bench/peer.py [--script SCRIPT --python PYTHON] [--kohya DIR --kohya-python PYTHON] [--steps N] [--runs N]

SCRIPT is `examples/dreambooth/train_dreambooth_lora_flux.py` of diffusers' repository, DIR a clone of kohya's sd-scripts, branch
sd3; the interpreters have what each imports (sd-scripts: its requirements.txt, torch and torchvision). Same pictures, captions,
rank, layers, batch, learning rate, warm-up, steps and distribution of noise levels, float32 on the CPU; what could not be made
equal is printed. Seconds a step are those of a whole run less those of one of two steps; where the machine is busy, CPU seconds
with OMP_NUM_THREADS=1 say more than the clock. Run k has the seed 42 + k. The judge of `fluxtui.demo` counts, for 64 prompts,
how often the new concept is drawn where it is asked for, and the old shapes where they are; a share of 90 % of 64 has a standard
error of 4 %.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import _diffusers
import _kohya
from _clock import row
from _peers import BATCH, RANK, RATE, SEED, STEPS, WARM_UP, Taken, taken_by

from fluxtui.demo.measure import Figures, load, measure
from fluxtui.persist.home import Home

FLUXTUI = str(Path(sys.executable).with_name("fluxtui"))
Train = Callable[[Path, int, int], tuple[Taken, Path]]  # folder, steps, seed -> seconds, LoRA file


def own(folder: Path, steps: int, seed: int) -> tuple[Taken, Path]:
    """What `fluxtui start` takes to the proof, and the LoRA file. Empty caches, no samples."""
    home = folder / f"home-{steps}"
    environment = {**os.environ, "FLUXTUI_HOME": str(home)}
    sets = {
        "sample.prompts": "[]", "sample.at_start": "false", "sample.every_epochs": 0, "checkpoint.every_steps": 0,
        "train.steps": steps, "train.batch_size": BATCH, "train.learning_rate": RATE, "train.warmup_steps": min(WARM_UP, steps),
        "train.seed": seed, "lora.rank": RANK, "lora.alpha": RANK, "hardware.threads": os.environ.get("OMP_NUM_THREADS", "0"),
    }  # fmt: skip
    words = [word for name, value in sets.items() for word in ("--set", f"{name}={value}")]
    new = [FLUXTUI, "new", "peer", "--model", "pico", "--dataset", "demo", *words]
    subprocess.run(new, env=environment, check=True, stdout=2)

    def work() -> None:
        subprocess.run([FLUXTUI, "start", "peer"], env=environment, check=True, stdout=2)
        subprocess.run([FLUXTUI, "wait", "peer", "--timeout", "3600"], env=environment, check=True, stdout=2)

    return taken_by(work), Home.open(home).session("peer").product


def made_ready(options: argparse.Namespace, folder: Path) -> dict[str, tuple[Path, Train]]:
    """The trainers that were asked for, and ours: name -> (its folder, its training)."""
    trainers: dict[str, tuple[Path, Train]] = {}
    if options.script is not None:
        (folder / "diffusers").mkdir()
        _diffusers.prepare(options.script, folder / "diffusers")
        more = ["--cache_latents"] if options.cache_latents else []
        trainers["diffusers' script"] = folder / "diffusers", partial(_diffusers.train, options.python, more=more)
    if options.kohya is not None:
        (folder / "kohya").mkdir()
        python = options.kohya_python or options.python
        _kohya.prepare(options.kohya, folder / "kohya", python)
        trainers["kohya's sd-scripts"] = folder / "kohya", partial(_kohya.train, python)
    trainers["fluxtui"] = folder, own
    return trainers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--script", type=Path, help="diffusers' train_dreambooth_lora_flux.py")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs it")
    parser.add_argument("--kohya", type=Path, help="a folder of kohya's sd-scripts")
    parser.add_argument("--kohya-python", help="the interpreter that runs them, where it is not --python")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--cache-latents", action="store_true", help="for diffusers' script: see bench/_diffusers.py")
    options = parser.parse_args()
    if options.script is None and options.kohya is None:
        print("left out: --script or --kohya name what others train with, which is not shipped here")
        return 0
    short: dict[str, list[Taken]] = {}
    whole: dict[str, list[Taken]] = {}
    learnt: dict[str, list[Figures]] = {"base": [measure(load())]}
    for number in range(options.runs):
        with tempfile.TemporaryDirectory() as made:
            for name, (place, train) in made_ready(options, Path(made)).items():
                short.setdefault(name, []).append(train(place, 2, SEED + number)[0])
                taken, file = train(place, options.steps, SEED + number)
                whole.setdefault(name, []).append(taken)
                learnt.setdefault(name, []).append(measure(load(lora=file)))
    for kind in ("wall", "cpu"):
        for name in whole:
            ends = [getattr(taken, kind) for taken in whole[name]]
            begins = [getattr(taken, kind) for taken in short[name]]
            end = "start to proven file" if name == "fluxtui" else "command to file"
            print(row(f"{name}, {options.steps} steps, {end}, {kind}", ends))
            each = [(b - a) / (options.steps - 2) for a, b in zip(begins, ends, strict=True)]
            print(row(f"{name}, a step, {kind}", each))
    for name, figures in learnt.items():
        print(row(f"{name}, the concept where it is asked for", [100 * found.concept for found in figures], unit="%"))
    for name, figures in learnt.items():
        print(row(f"{name}, the old shapes where they are", [100 * found.old.all_three for found in figures], unit="%"))
    for name, peer in (("diffusers' script", _diffusers), ("kohya's sd-scripts", _kohya)):
        if name in whole:
            print(f"not equal in {name}: {'; '.join(peer.NOT_EQUAL)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
