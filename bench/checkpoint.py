"""How long the training loop pauses for a checkpoint, beside its floors: rank 16 on all of FLUX.1-dev with Adam, 0.8 GB.

    python bench/checkpoint.py [--rounds N] [--rank R] [--folder DIR] [--json]

The trainer's own `Committer` and optimizer on weights of FLUX.1-dev's shapes; no model is needed. Floors, on the same bytes in
the same run: a copy to memory the process holds (what no checkpoint can do without), the same to memory that is new to it, a
plain write, its fsync, SHA-256. "in the loop" is the same commit waited for. While one is written, steps of a small network
are timed beside those before it: that the loop goes on is the claim, and what it costs on these cores is shown. The pause may
be the copy and the fsync at the most; the first of a run, whose memory is new, that copy and the fsync.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import mmap
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from _clock import row
from torch import nn

from fluxtui.engine.trainer.adapter.ema import Ema
from fluxtui.engine.trainer.checkpoint import state as states
from fluxtui.engine.trainer.checkpoint.committer import Committer
from fluxtui.engine.trainer.reporter import Reporter
from fluxtui.engine.trainer.runtime import Runtime
from fluxtui.engine.wire import TrainJob
from fluxtui.persist.checkpoints.commit import step_name, verify_checkpoint
from fluxtui.persist.home import SessionFolder
from fluxtui.persist.settings.spec import CheckpointSpec, DatasetSpec, ModelSpec, Spec

WIDTH, DOUBLE, SINGLE = 3072, 19, 38  # FLUX.1-dev
FLOORS = ("copy to memory", "copy to new memory", "write", "fsync", "sha-256")


def layers() -> dict[str, tuple[int, int]]:
    """(in, out) of every linear layer of attention and MLPs of FLUX.1-dev, by name."""
    found = {}
    for block in range(DOUBLE):
        for part in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"):
            found[f"transformer_blocks.{block}.attn.{part}"] = (WIDTH, WIDTH)
        for part in ("ff", "ff_context"):
            found[f"transformer_blocks.{block}.{part}.net.0.proj"] = (WIDTH, 4 * WIDTH)
            found[f"transformer_blocks.{block}.{part}.net.2"] = (4 * WIDTH, WIDTH)
    for block in range(SINGLE):
        for part in ("to_q", "to_k", "to_v"):
            found[f"single_transformer_blocks.{block}.attn.{part}"] = (WIDTH, WIDTH)
        found[f"single_transformer_blocks.{block}.proj_mlp"] = (WIDTH, 4 * WIDTH)
        found[f"single_transformer_blocks.{block}.proj_out"] = (5 * WIDTH, WIDTH)
    return found


def make(folder: Path, rank: int) -> Committer:
    """A committer of an adapter of that rank whose Adam has moments."""
    parameters = {}
    for name, (inside, outside) in layers().items():
        parameters[f"{name}.lora_A.weight"] = nn.Parameter(torch.randn(rank, inside))
        parameters[f"{name}.lora_B.weight"] = nn.Parameter(torch.randn(outside, rank))
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-4)
    for parameter in parameters.values():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    session = SessionFolder(folder / "dev")
    session.create()
    spec = Spec(
        name="dev", id="bench", model=ModelSpec(source="black-forest-labs/FLUX.1-dev"), dataset=DatasetSpec(path="demo"),
        checkpoint=CheckpointSpec(keep=2),
    )  # fmt: skip
    job = TrainJob(
        home=str(folder),
        session=str(session.path),
        attempt=1,
        nonce="n",
        run_id="r",
        spec=spec,
        recipe_sha256="0" * 64,
        threads=1,
    )
    runtime = Runtime(torch.device("cpu"), torch.float32, rank=0, ranks=1)
    none = "0" * 64
    return Committer(job, session, Reporter(None), runtime, none, none, none, parameters, optimizer, Ema(0.0, parameters))


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def floors(tensors: list[torch.Tensor], folder: Path) -> dict[str, float]:
    """Seconds of what any way of keeping these bytes has to do."""
    memory = mmap.mmap(-1, sum(tensor.nbytes for tensor in tensors))  # of the system's, so that no page of it is there yet
    copies, at = [], 0
    for tensor in tensors:
        copies.append(torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=at).view(tensor.shape))
        at += tensor.nbytes

    def copy() -> None:
        for held, tensor in zip(copies, tensors, strict=True):
            held.copy_(tensor)

    found = {"copy to new memory": seconds(copy), "copy to memory": seconds(copy)}
    views = [memoryview(copy.reshape(-1).view(torch.uint8).numpy()) for copy in copies]
    digest = hashlib.sha256()
    path = folder / "floor"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        found["write"] = seconds(lambda: [os.write(descriptor, view) for view in views])
        found["fsync"] = seconds(lambda: os.fsync(descriptor))
    finally:
        os.close(descriptor)
        path.unlink()
    found["sha-256"] = seconds(lambda: [digest.update(view) for view in views])
    return found


class Steps:
    """A small network's steps: what the loop does meanwhile."""

    def __init__(self) -> None:
        self.net = nn.Sequential(nn.Linear(512, 1024), nn.GELU(), nn.Linear(1024, 512))
        self.batch = torch.randn(64, 512)

    def take(self) -> None:
        self.net(self.batch).square().mean().backward()
        self.net.zero_grad(set_to_none=True)

    def timed(self, is_over: Callable[[], bool]) -> list[float]:
        """Seconds of each step until it is over."""
        found = []
        while not is_over():
            found.append(seconds(self.take))
        return found


def tensors_of(committer: Committer) -> list[torch.Tensor]:
    """All that a checkpoint holds."""
    tensors = [*committer.parameters.values()]
    tensors += [value for one in committer.optimizer.state.values() for value in one.values() if isinstance(value, torch.Tensor)]
    return [tensor.detach() for tensor in tensors]


def first_pause(committer: Committer, folder: Path) -> tuple[float, float]:
    """Of the run's first commit, whose memory is new: its pause, and that over its floors."""
    found = floors(tensors_of(committer), folder)
    pause = seconds(lambda: committer.commit(states.LoopState(step=0)))
    committer.settle()
    return pause, pause / (found["copy to new memory"] + found["fsync"])


def one_round(committer: Committer, folder: Path, step: int, steps: Steps) -> dict[str, float]:
    """A B: the floors, a commit waited for, a commit written behind."""
    found = floors(tensors_of(committer), folder)
    where = committer.folder.checkpoints

    def waited_for() -> None:
        committer.commit(states.LoopState(step=step))
        committer.settle()

    found["in the loop"] = seconds(waited_for)
    end = time.perf_counter() + 1.0
    alone = steps.timed(lambda: time.perf_counter() > end)
    began = time.perf_counter()
    found["pause"] = seconds(lambda: committer.commit(states.LoopState(step=step + 1)))
    name = step_name(step + 1)
    beside = steps.timed(lambda: (where / name).exists())
    found["durable after"] = time.perf_counter() - began
    committer.settle()
    verify_checkpoint(where / name)
    found["step alone"], found["step beside"] = statistics.median(alone), statistics.median(beside)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; else the system's temporary folder")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    sys.stdout.flush()
    silent = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the committer speaks to the log, which is standard output
    with tempfile.TemporaryDirectory(prefix="fluxtui-checkpoint-", dir=asked.folder) as at:
        committer, steps = make(Path(at), asked.rank), Steps()
        first, first_allowed = first_pause(committer, Path(at))
        rounds = [one_round(committer, Path(at), 2 * number + 1, steps) for number in range(asked.rounds + 1)][1:]
        path = committer.folder.checkpoints / step_name(2 * asked.rounds + 2)
        size = sum(file.stat().st_size for file in path.iterdir())
    os.dup2(silent, 1)
    values = {name: [one[name] for one in rounds] for name in rounds[0]}
    median = {name: statistics.median(found) for name, found in values.items()}
    ratio = statistics.median(one["pause"] / one["copy to memory"] for one in rounds)
    allowed = statistics.median(one["pause"] / (one["copy to memory"] + one["fsync"]) for one in rounds)
    if asked.json:
        print(
            json.dumps({"bytes": size, "pause_over_copy": ratio, "pause_over_copy_and_fsync": allowed, "first": first} | median)
        )
    else:
        print(f"rank {asked.rank} on FLUX.1-dev: {size / 1e6:.0f} MB a checkpoint, {asked.rounds} rounds, {os.cpu_count()} cores")
        for name in FLOORS:
            print(row(f"floor: {name}", values[name]))
        print(row("pause of the loop, were it written in the loop", values["in the loop"]))
        print(row("pause of the loop, written behind", values["pause"]))
        print(f"{'pause over the copy to memory':<58}{ratio:9.3f}")
        print(f"{'pause over copy and fsync':<58}{allowed:9.3f}     limit 1")
        print(f"{'pause of the first, whose memory is new':<58}{first:9.3f} s   {first_allowed:.3f} of copy and fsync, limit 1")
        print(row("durable after", values["durable after"]))
        print(row("a small step alone", [1000 * one for one in values["step alone"]], unit="ms"))
        print(row("the same while a checkpoint is written", [1000 * one for one in values["step beside"]], unit="ms"))
    return 0 if max(allowed, first_allowed) <= 1.0 else 1


if __name__ == "__main__":
    sys.exit(main())
