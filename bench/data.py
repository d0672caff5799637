"""The data side beside its floors: the cache pass, the doctor's headers, the loop with many pictures.

    python bench/data.py [--images N] [--rounds N]

Cache pass: pictures read, decoded, cut, encoded and written durably, their captions too; the bare VAE has its pixels ready.
Doctor: `fluxtui check --quick` over N pictures of 1024 x 768 with captions; the limit is 10 s for 10,000.
Loop: seconds of a step besides the network's own, with 2 pictures and with N; the second must not be larger (limit 1.2 times).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from _clock import row
from PIL import Image
from trainer import SIZES, drained, new_run

from fluxtui.engine import quiet
from fluxtui.engine.family.flux1.encode import encode_image_mean, pixels_of
from fluxtui.engine.trainer.data.dataset import plan_epoch
from fluxtui.engine.trainer.data.encode import fill_caches
from fluxtui.engine.trainer.loop import advance
from fluxtui.engine.trainer.reporter import Reporter
from fluxtui.engine.trainer.run import Run

FLUXTUI = str(Path(sys.executable).with_name("fluxtui"))
PICTURES, PIXELS = 64, 256  # of the cache pass
STEPS = 300  # of the loop, a turn


def many_pictures(folder: Path, count: int) -> Path:
    """`count` JPEGs with captions that differ by their last bytes alone: what is in them does not matter to headers."""
    folder.mkdir()
    buffer = io.BytesIO()
    Image.frombytes("RGB", (1024, 768), os.urandom(3 * 1024 * 768)).save(buffer, "JPEG", quality=60)
    data = buffer.getvalue()
    for number in range(count):
        (folder / f"{number:05d}.jpg").write_bytes(data[:60_000] + number.to_bytes(8, "big"))
        (folder / f"{number:05d}.txt").write_text(f"a zorp, picture {number}\n")
    return folder


def doctor(folder: Path, images: int) -> bool:
    """Prints the seconds of `check --quick`; whether the limit holds."""
    data = many_pictures(folder / "many", images)
    began = time.perf_counter()
    done = subprocess.run([FLUXTUI, "check", str(data), "--quick", "--json"], capture_output=True, text=True)
    seconds = time.perf_counter() - began
    assert json.loads(done.stdout)["images"] == images, done.stderr
    limit = 10.0 * images / 10_000
    print(f"doctor, headers of {images:,} pictures: {seconds:.2f} s, limit {limit:g}  {'ok' if seconds <= limit else 'OVER'}")
    return seconds <= limit


def cache_pass(run: Run, folder: Path, rounds: int) -> None:
    """Prints pictures a second of the product and of the bare VAE, A B A B."""
    vae = run.components.load_vae(torch.float32, "cpu")
    items = list(run.dataset.items)
    pixels = [pixels_of(Image.open(item.image).convert("RGB")) for item in items]
    ours, bare = [], []
    for number in range(rounds + 1):
        cache = folder / f"cache-{number}"
        began = time.perf_counter()
        fill_caches(run.dataset, run.job.spec, run.components, Reporter(None), run.runtime, cache).close()
        taken = time.perf_counter() - began
        began = time.perf_counter()
        for picture in pixels:
            encode_image_mean(vae, picture)
        if number:  # the first round warms up
            ours.append(len(items) / taken)
            bare.append(len(items) / (time.perf_counter() - began))
    print(row(f"cache pass, {len(items)} pictures of {PIXELS} px and captions", ours, unit="a second"))
    print(row("the bare VAE on ready pixels", bare, unit="a second"))
    ratio = statistics.median(b / a for a, b in zip(ours, bare, strict=True))
    print(f"{'ratio of seconds, pair by pair, median':<58}{ratio:9.3f}")


def loop_overhead(run: Run, images: int, rounds: int) -> bool:
    """Prints what a step takes besides the network, with few and with many pictures; whether it stays."""
    weight = torch.nn.Parameter(torch.ones(()))
    run.predict = lambda noisy, *_: noisy * weight
    run.parameters[:], run.optimizer = [weight], torch.optim.SGD([weight], lr=0.0)
    few = run.dataset
    many = replace(few, items=tuple(few.items[number % len(few.items)] for number in range(images)))
    taken: dict[str, list[float]] = {"few": [], "many": []}
    for number in range(rounds + 1):
        for who, dataset in (("few", few), ("many", many)):
            run.dataset, run._planned = dataset, (-1, ())
            run.state.position = 0
            run.plan(run.state.epoch)  # an epoch's plan is made once an epoch, and timed apart
            began = time.perf_counter()
            advance(run, run.state.step + STEPS)
            if number:
                taken[who].append((time.perf_counter() - began) / STEPS)
    began = time.perf_counter()
    plan_epoch(many, run.job.spec.train, 0)
    print(f"plan of an epoch of {images:,} pictures: {time.perf_counter() - began:.3f} s, once an epoch")
    print(row(f"a step without a network, {len(few.items)} pictures", [1000 * value for value in taken["few"]], unit="ms"))
    print(row(f"a step without a network, {images:,} pictures", [1000 * value for value in taken["many"]], unit="ms"))
    ratio = statistics.median(b / a for a, b in zip(taken["few"], taken["many"], strict=True))
    print(f"ratio {ratio:.3f}, limit 1.2  {'ok' if ratio <= 1.2 else 'OVER'}")
    return ratio <= 1.2


def main() -> int:
    """0 where every limit holds."""
    quiet.hush()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    size = replace(SIZES["pico"], pixels=PIXELS, batch=PICTURES // 2)
    with tempfile.TemporaryDirectory() as name:
        held = [doctor(Path(name), options.images)]
        (Path(name) / "wide").mkdir()
        run = new_run(size, Path(name) / "wide", os.cpu_count() or 1, drained())
        cache_pass(run, Path(name), options.rounds)
        run.close()
        (Path(name) / "small").mkdir()
        run = new_run(replace(SIZES["pico"], batch=1), Path(name) / "small", os.cpu_count() or 1, drained())
        held.append(loop_overhead(run, options.images, options.rounds))
        run.close()
    return int(not all(held))


if __name__ == "__main__":
    sys.exit(main())
