"""Seconds per optimizer step of the trainer's loop beside a bare loop on the same model, in one run, A B A B, medians.

    python bench/trainer.py [--rounds N] [--threads N] [--model pico|middle|both]

The bare loop has all its tensors ready on the device, and does forward, backward, clip and AdamW; nothing else. The trainer
loads each batch from the caches, draws noise and noise levels, packs, steps, writes its metrics and its progress, looks for
requests. Limits: 1.05 times the bare loop for the pico model, 1.02 times for 4 + 8 blocks of width 512 at 256 pixels.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "2500")  # before torch: as the keeper gives it to a trainer

import msgspec
import torch
from PIL import Image

from fluxtui.demo import PICO_DIR
from fluxtui.engine import quiet, wire
from fluxtui.engine.life import StopFlag
from fluxtui.engine.trainer import preflight
from fluxtui.engine.trainer.loop import advance
from fluxtui.engine.trainer.prepare import prepare
from fluxtui.engine.trainer.reporter import Reporter
from fluxtui.engine.trainer.run import Run
from fluxtui.persist.home import Home
from fluxtui.persist.settings import recipe
from fluxtui.persist.settings.spec import DatasetSpec, ModelSpec, Spec


@dataclass(frozen=True)
class Size:
    """What is timed: a model, a picture size, how many steps a turn."""

    name: str
    make: Callable[[Path], Path]
    pixels: int
    batch: int
    steps: int
    limit: float


def pico(_folder: Path) -> Path:
    return Path(PICO_DIR)


def middle(folder: Path) -> Path:
    """4 double and 8 single blocks of width 512, 512 text tokens, beside the pico's VAE; random."""
    from diffusers import FluxPipeline, FluxTransformer2DModel
    from transformers import T5Config, T5EncoderModel

    pipeline = FluxPipeline.from_pretrained(PICO_DIR)
    pipeline.tokenizer_2.model_max_length = 512
    config = {**pipeline.transformer.config, "num_layers": 4, "num_single_layers": 8, "attention_head_dim": 64,
              "num_attention_heads": 8, "joint_attention_dim": 1024, "axes_dims_rope": (16, 24, 24)}  # fmt: skip
    pipeline.transformer = FluxTransformer2DModel.from_config(config)
    old = pipeline.text_encoder_2.config
    pipeline.text_encoder_2 = T5EncoderModel(T5Config(**{**old.to_dict(), "d_model": 1024, "d_ff": 1024, "num_layers": 1}))
    pipeline.save_pretrained(folder)
    return folder


SIZES = {
    "pico": Size("pico, 64 px, batch 8", pico, 64, 8, 20, 1.05),
    "middle": Size("4+8 blocks of width 512, 512 text tokens, 256 px, batch 1", middle, 256, 1, 3, 1.02),
}


def pictures(folder: Path, pixels: int, count: int) -> Path:
    """Noise with captions: what is on them does not matter here."""
    folder.mkdir()
    for number in range(count):
        Image.frombytes("RGB", (pixels, pixels), os.urandom(3 * pixels * pixels)).save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(f"a picture of number {number}\n")
    return folder


def new_run(size: Size, folder: Path, threads: int, progress: int) -> Run:
    """The trainer, prepared as in its own process, with a keeper's pipe that is read."""
    home = Home.open(folder / "home")
    spec = Spec(
        name="bench", id=uuid.uuid4().hex, kind="pico", model=ModelSpec(source=str(size.make(folder / "model"))),
        dataset=DatasetSpec(path=str(pictures(folder / "data", size.pixels, 2 * size.batch))),
    )  # fmt: skip
    spec = recipe.apply(spec, {
        "dataset.resolution": [size.pixels], "train.steps": 10_000_000, "train.batch_size": size.batch, "train.warmup_steps": 0,
        "train.gradient_checkpointing": False, "checkpoint.every_epochs": 0, "checkpoint.every_minutes": 0.0,
        "sample.every_epochs": 0,
    })  # fmt: skip
    session = home.session("bench")
    session.create()
    job = wire.TrainJob(
        home=str(home.root), session=str(session.path), attempt=1, nonce="bench", run_id="bench", spec=spec,
        recipe_sha256=recipe.recipe_sha256(spec), threads=threads,
    )  # fmt: skip
    job = msgspec.json.decode(msgspec.json.encode(job), type=wire.TrainJob)
    reporter = Reporter(progress)
    return prepare(job, session, preflight.run(job, session, reporter), reporter, StopFlag())


class Bare:
    """Forward, backward, clip, AdamW on tensors that are ready. The model is the trainer's own, adapter included."""

    def __init__(self, run: Run) -> None:
        from fluxtui.engine.family.flux1 import transformer as flux

        self.model, self.parameters = run.adapter.model, run.parameters
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, weight_decay=0.01, fused=True)
        self.batches = []
        for batch in run.plan(0):
            samples = run.to_device(run.encoded.load(batch.slots))
            noise, sigma = torch.randn_like(samples.latents), torch.rand(len(batch.slots))
            level = sigma.view(-1, 1, 1, 1)
            height, width = noise.shape[-2:]
            noisy = (1 - level) * samples.latents + level * noise
            inputs = {
                "hidden_states": flux.pack(noisy), "timestep": sigma,
                "guidance": torch.ones(len(sigma)) if run.components.guidance_embeds else None,
                "encoder_hidden_states": samples.prompt_embeds, "pooled_projections": samples.pooled,
                "img_ids": flux.image_ids(height, width, noise.device, torch.float32),
                "txt_ids": flux.text_ids(samples.prompt_embeds.shape[1], noise.device, torch.float32), "return_dict": False,
            }  # fmt: skip
            self.batches.append((inputs, flux.pack(noise - samples.latents)))
        self.done = 0

    def advance(self, steps: int) -> None:
        for _ in range(steps):
            inputs, target = self.batches[self.done % len(self.batches)]
            loss = torch.nn.functional.mse_loss(self.model(**inputs)[0], target)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.done += 1


def drained() -> int:
    """The write end of a pipe that is read, as a keeper reads it."""
    read, write = os.pipe()

    def drain() -> None:
        while os.read(read, 65536):
            pass

    threading.Thread(target=drain, daemon=True).start()
    return write


def compare(size: Size, rounds: int, threads: int) -> bool:
    """Prints one row; whether the limit holds."""
    with tempfile.TemporaryDirectory() as name:
        run = new_run(size, Path(name), threads, drained())
        bare = Bare(run)
        taken: dict[str, list[float]] = {"trainer": [], "bare": []}
        busy: dict[str, list[float]] = {"trainer": [], "bare": []}  # CPU seconds: of use with --threads 1, where no thread spins
        turns: dict[str, Callable[[], Any]] = {
            "trainer": lambda: advance(run, run.state.step + size.steps), "bare": lambda: bare.advance(size.steps)
        }  # fmt: skip
        for number in range(rounds + 1):
            for who, turn in turns.items():
                began, worked = time.perf_counter(), time.process_time()
                turn()
                if number:  # the first round warms up
                    taken[who].append((time.perf_counter() - began) / size.steps)
                    busy[who].append((time.process_time() - worked) / size.steps)
        run.close()
    ratios = [ours / theirs for ours, theirs in zip(taken["trainer"], taken["bare"], strict=True)]
    ours, theirs, ratio = (statistics.median(values) for values in (taken["trainer"], taken["bare"], ratios))
    by_cpu = statistics.median(ours / theirs for ours, theirs in zip(busy["trainer"], busy["bare"], strict=True))
    held = ratio <= size.limit
    print(f"{size.name:<60} trainer {ours:8.4f}  bare {theirs:8.4f} s/step  ratio {ratio:.3f} "
          f"({min(ratios):.3f}-{max(ratios):.3f}), in CPU seconds {by_cpu:.3f}, "
          f"limit {size.limit}  {'ok' if held else 'OVER'}")  # fmt: skip
    return held


def main() -> int:
    """0 where every limit holds."""
    quiet.hush()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--model", choices=(*SIZES, "both"), default="both")
    options = parser.parse_args()
    wanted = list(SIZES) if options.model == "both" else [options.model]
    return int(not all([compare(SIZES[name], options.rounds, options.threads) for name in wanted]))


if __name__ == "__main__":
    sys.exit(main())
