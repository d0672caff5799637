"""One step before training begins, of the largest pictures: what it takes of the GPU, beside what was planned.

Nothing of it stays: gradients are dropped, the optimizer takes no step, and every random number is a function of its place.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

import torch

from fluxtui.engine.memory.fitting import NoMemoryError, fitting
from fluxtui.engine.memory.model import Model, model_of
from fluxtui.engine.memory.phases import MARGIN, Memory, beside, memory_of
from fluxtui.engine.trainer.data.dataset import Batch, Slot, plan_epoch
from fluxtui.engine.trainer.exit_reason import LESS_MEMORY
from fluxtui.engine.trainer.loop import micro_step
from fluxtui.engine.trainer.run import Run
from fluxtui.persist.sessions.record import Footprint, Phase

_PASSES = 2  # the first makes kernels and workspaces ready, the second is timed
_SHORT = 0.05  # of the planned peak: by how much a plan is taken to have been short where memory ran out


class Meter(Protocol):
    """What says how much memory was used."""

    @property
    def name(self) -> str:
        """Of the device."""

    def reset(self) -> None:
        """From now on; what lies there now counts, what was there before does not."""

    def peak(self) -> int:
        """The most bytes since `reset`, once all that was begun is done."""


@dataclass(frozen=True, slots=True)
class CudaMeter:
    """torch's own counts. No GPU has run these lines in a test: see docs/memory.md."""

    device: torch.device

    @property
    def name(self) -> str:
        return torch.cuda.get_device_name(self.device)

    def reset(self) -> None:
        torch.cuda.synchronize(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> int:
        torch.cuda.synchronize(self.device)
        return torch.cuda.max_memory_allocated(self.device)


@dataclass(frozen=True, slots=True)
class Probed:
    """What a micro-step of the largest pictures took."""

    peak: int  # bytes, the optimizer's state in it whether or not that is there already
    seconds: float  # of an optimizer step, all of its micro-steps together


def meter_of(device: torch.device) -> CudaMeter | None:
    """None on the CPU, where nothing is probed."""
    return CudaMeter(device) if device.type == "cuda" else None


def probe_and_tell(run: Run, meter: Meter) -> None:
    """Probes, and puts both numbers into the record. Raises `NoMemoryError` with the change that helps."""
    spec = run.job.spec
    run.reporter.progress(Phase.TRAIN, step=run.state.step, steps=run.steps)
    model = model_of(run.components.folder, is_schnell=not run.components.guidance_embeds)
    memory = memory_of(spec, model, run.runtime.card)
    try:
        found = probe(run, meter, memory.optimizer)
    except torch.OutOfMemoryError:
        raise NoMemoryError(
            f"a step of the largest pictures does not fit the GPU; {memory.training_peak / 2**30:.1f} GiB were planned",
            _remedy(run, model, memory),
        ) from None
    if not run.runtime.is_first:
        return
    seen = Footprint(planned=memory.training_peak, probed=found.peak, step_seconds=found.seconds, card=meter.name)
    run.reporter.progress(Phase.TRAIN, step=run.state.step, memory=seen)
    run.reporter.say(
        f"GPU memory: {seen.probed / 2**30:.2f} GiB at the peak of a step of the largest pictures, "
        f"{seen.planned / 2**30:.2f} GiB planned; {seen.step_seconds:.2f} s a step"
    )


def probe(run: Run, meter: Meter, optimizer_bytes: int) -> Probed:
    """Forward and backward of the largest micro-batch with the draws of step 0. `optimizer_bytes`: of a state yet to be made."""
    batch, slots = _largest(run)
    place, accumulated = run.adapter.place, run.job.spec.train.gradient_accumulation
    before = place.step, place.slots
    encoded, seconds = run.encoded.load(slots), 0.0
    meter.reset()
    try:
        for _ in range(_PASSES):
            if accumulated == 1:  # else those of the micro-steps before lie there when the next one is at its peak
                _drop_gradients(run)
            started = time.monotonic()
            micro_step(run, batch, slots, 0, lambda _: run.to_device(encoded))
            peak = meter.peak()
            seconds = time.monotonic() - started
    finally:
        _drop_gradients(run)
        place.step, place.slots = before
    return Probed(peak + (0 if run.optimizer.state else optimizer_bytes), seconds * accumulated)


def _largest(run: Run) -> tuple[Batch, tuple[Slot, ...]]:
    """The micro-batch of any rank with the most tokens, in the first epoch: no rank is given nothing but the last places of
    small buckets to measure, or nothing at all, and all measure the same."""
    train, here, text = run.job.spec.train, run.runtime, run.components.text_tokens
    parts = [
        (batch, slots)
        for batch in plan_epoch(run.dataset, train, 0, here.ranks)
        for slots in batch.micro_batches(train.batch_size, here.ranks)  # rank 0 has the larger share of each
    ]
    return max(parts, key=lambda part: len(part[1]) * (part[0].bucket.packed_tokens + text))


def _drop_gradients(run: Run) -> None:
    for parameter in run.parameters:
        parameter.grad = None


def _remedy(run: Run, model: Model, memory: Memory) -> str:
    card = run.runtime.card
    if card is None:
        return LESS_MEMORY
    missing = max(0, card - beside(memory) - MARGIN - memory.training_peak) + int(_SHORT * memory.training_peak)
    change = fitting(run.job.spec, model, card, missing)
    return f"set {change}" if change and change.sets else LESS_MEMORY
