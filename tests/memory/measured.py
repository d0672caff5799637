"""Real steps of transformers of a few sizes, on the CPU: the memory that they take, beside what was planned.

As a script, `python -m tests.memory.measured`: trains each of `SIZES` for two steps, and prints a JSON line of bytes for each.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fluxtui.engine import quiet
from tests.memory.sharded import Anonymous, anonymous_bytes, write_sharded

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Size:
    """A slice of FLUX.1 of some width, and how it is trained."""

    heads: int  # of 64 channels
    double: int
    single: int
    sets: dict[str, Any] = field(default_factory=dict)


SIZES = {
    "width 768, fp32": Size(12, 2, 5, {"train.batch_size": 2, "dataset.resolution": [256]}),
    "width 1024, int8": Size(16, 3, 8, {"model.precision": "int8", "train.batch_size": 2, "dataset.resolution": [192]}),
    "width 1536, fp32, checkpointed": Size(24, 1, 1, {"train.gradient_checkpointing": True, "dataset.resolution": [192]}),
    "rank 512, schedule-free": Size(6, 1, 4, {
        "lora.rank": 512, "train.optimizer": "schedule_free", "train.scheduler": "constant", "dataset.resolution": [64],
    }),
}


@dataclass(frozen=True)
class Measured:
    """Bytes of anonymous memory beyond what the process had before the base was loaded."""

    planned: int
    peak: int


def measure_all() -> dict[str, Measured]:
    """In a process of its own, whose large blocks of memory go back to the kernel as soon as they are freed."""
    fixed = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": str(64 * 1024), "MALLOC_TRIM_THRESHOLD_": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.memory.measured"], cwd=ROOT, capture_output=True, text=True, timeout=900,
        env=os.environ | fixed,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line["name"]: Measured(line["planned"], line["peak"]) for line in lines}


def _train(folder: Path, name: str, size: Size) -> Measured:
    """Two steps: the optimizer's state is there in the second."""
    from fluxtui.engine.memory.model import model_of
    from fluxtui.engine.memory.phases import memory_of
    from fluxtui.engine.trainer import prepare
    from fluxtui.engine.trainer.loop import take_step
    from tests.trainer.job import Bench, small_spec
    from tests.trainer.tiny_flux import little_pictures, tiny_flux

    model = tiny_flux(folder / "model")
    for file in (model / "transformer").iterdir():
        file.unlink()
    (model / "transformer").rmdir()
    shape = {"num_attention_heads": size.heads, "attention_head_dim": 64, "axes_dims_rope": (16, 24, 24)}
    write_sharded(model, 10**9, num_layers=size.double, num_single_layers=size.single, **shape)
    pictures = little_pictures(folder / "pictures", count=2, size=(256, 256))
    sets = {"lora.rank": 32} | size.sets
    spec = small_spec(model, pictures, name, **{key.replace(".", "__"): value for key, value in sets.items()})
    before = 0
    loads = prepare.load_base

    def load_base(*arguments: Any) -> Any:
        nonlocal before
        gc.collect()
        before = anonymous_bytes()
        return loads(*arguments)

    prepare.load_base = load_base
    run = Bench(folder / "home", spec).prepare_here()
    prepare.load_base = loads
    gc.collect()
    with Anonymous() as memory:
        for _ in range(2):
            run._planned = (-1, ())  # the same batch again, from the beginning of its epoch
            take_step(run, run.plan(0)[0])
    run.close()
    return Measured(memory_of(spec, model_of(model, is_schnell=False), None).training_peak, memory.peak - before)


def main() -> None:
    quiet.hush()
    import torch

    torch.set_num_threads(1)
    os.environ["FLUXTUI_RUNTIME"] = tempfile.mkdtemp()
    with tempfile.TemporaryDirectory() as folder:
        for precision in ("fp32", "int8"):  # what libraries take when they are first used is no step's
            _train(Path(folder) / precision, "warm", Size(2, 1, 1, {"dataset.resolution": [32], "model.precision": precision}))
        for number, (name, size) in enumerate(SIZES.items()):
            found = _train(Path(folder) / str(number), "real", size)
            print(json.dumps({"name": name, "planned": found.planned, "peak": found.peak}), flush=True)
            gc.collect()


if __name__ == "__main__":
    main()
