"""The training loop, to be read from top to bottom, and what a single step does."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch
from torch import nn

from fluxtui.engine.send import send
from fluxtui.engine.trainer import draws
from fluxtui.engine.trainer.data.dataset import Batch, Slot
from fluxtui.engine.trainer.exit_reason import NonFiniteError
from fluxtui.engine.trainer.objective import Samples, preservation_losses, sample_losses, weights_of
from fluxtui.engine.trainer.optim import applied_rate, step_if_finite
from fluxtui.engine.trainer.run import Run, Took
from fluxtui.engine.trainer.runtime import Runtime
from fluxtui.engine.wire import TrainerExit


def train(run: Run) -> TrainerExit:
    """Trains to the last step, or until asked to stop. All that changes is in `run.state`, the adapter and the optimizer."""
    run.begin()
    if not advance(run, run.steps):
        return TrainerExit.STOPPED
    run.commit()
    run.finish()
    return TrainerExit.DONE


def advance(run: Run, last_step: int) -> bool:
    """Steps until `last_step` are done. False where a stop was asked before that; the state is committed then."""
    state = run.state
    while state.step < last_step:
        requested = run.requests.take()
        if requested.stop or requested.checkpoint:
            run.commit()
        if requested.sample:
            run.draw()
        run.acknowledge(requested)
        if requested.stop:
            return False

        batches = run.plan(state.epoch)
        took = take_step(run, batches[state.position])
        state.step += 1
        state.position += 1
        epoch_ended = state.position == len(batches)
        if epoch_ended:
            state.epoch, state.position = state.epoch + 1, 0

        run.record(took, run.validate_if_due(epoch_ended))
        run.commit_if_due(epoch_ended)
        run.draw_if_due(epoch_ended)
        if epoch_ended and requested.stop_after_epoch and state.step < run.steps:
            run.commit()
            return False
    return True


def take_step(run: Run, batch: Batch) -> Took:
    """One optimizer step over a global batch: this rank's micro-steps, the sum over ranks, clip, update.

    Each sample weighs its own weight / samples of the global batch, however that is split: 4 micro-steps of 1, a batch of 4
    and two ranks of 2 give the same gradient.
    """
    started = time.monotonic()
    step, spec, runtime = run.state.step, run.job.spec.train, run.runtime
    losses = torch.zeros(2, device=runtime.device)
    for slots in batch.micro_batches(spec.batch_size, runtime.ranks, runtime.rank):
        if slots:  # a partial batch may be too small for all ranks
            losses += micro_step(run, batch, slots, step, run.load)
    losses = sum_over_ranks(runtime, run.parameters, losses)
    norm = clip(run.parameters, spec.max_grad_norm)
    rate = run.rate(step)
    applied = applied_rate(run.optimizer, rate)
    for group, share in zip(run.optimizer.param_groups, run.shares, strict=True):
        group["lr"] = rate * share
    loss, preserved, length = step_if_finite(run.optimizer, torch.cat([losses, norm.view(1)]))
    if not (math.isfinite(loss + preserved) and math.isfinite(length)):
        raise NonFiniteError(f"the {'gradient' if math.isfinite(loss + preserved) else 'loss'} of step {step + 1} is not finite")
    run.optimizer.zero_grad(set_to_none=True)
    if run.job.spec.lora.max_norm:
        for adapter in run.adapters:
            adapter.shorten(run.job.spec.lora.max_norm)
    run.ema.update(step + 1)
    has_class = bool(run.job.spec.dataset.class_word)
    return Took(loss, preserved if has_class else None, length, applied, time.monotonic() - started)


def micro_step(
    run: Run, batch: Batch, slots: tuple[Slot, ...], step: int, load: Callable[[tuple[Slot, ...]], Samples]
) -> torch.Tensor:
    """Forward and backward of some of a batch; gradients are added to what is there. Losses `(2,)`: of the pictures, of what is
    preserved."""
    spec, device = run.job.spec.train, run.runtime.device
    losses = torch.zeros(2, device=device)
    indices = [slot.index for slot in slots]
    run.adapter.place.begin(step, indices, device, run.runtime.dtype)  # before CLIP's forward pass, which is in `load`
    samples = load(slots)
    noise = send(draws.noise(spec.seed, step, indices, tuple(samples.latents.shape[1:])), device)
    sigma = send(draws.sigmas(spec.seed, step, indices, spec, batch.bucket.packed_tokens), device)
    weights = send(torch.tensor([slot.item.weight for slot in slots]), device) * weights_of(spec, sigma)
    part = (weights * sample_losses(run.predict, samples, noise, sigma, run.penalty)).sum() / len(batch.slots)
    part.backward()
    losses[0] += part.detach()
    if samples.class_text is not None:
        weights = send(torch.tensor([float(slot.class_caption is not None) for slot in slots]), device)
        moved = preservation_losses(run.predict, run.predict_base, samples, noise, sigma)
        part = spec.preservation_weight * (weights * moved).sum() / len(batch.slots)
        part.backward()
        losses[1] += part.detach()
    return losses


def sum_over_ranks(runtime: Runtime, parameters: Sequence[nn.Parameter], losses: torch.Tensor) -> torch.Tensor:
    """Gradients (left in the parameters) and losses `(n,)`, summed over the ranks in one float32 all-reduce."""
    if runtime.ranks == 1:
        return losses
    shares = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = runtime.sum(torch.cat([*(share.reshape(-1) for share in shares), losses]))
    for parameter, total in zip(parameters, flat[: -len(losses)].split([p.numel() for p in parameters]), strict=True):
        parameter.grad = total.view_as(parameter)
    return flat[-len(losses) :]


def clip(parameters: Sequence[nn.Parameter], max_norm: float) -> torch.Tensor:
    """The norm of the whole gradient, which is scaled down to `max_norm` where it is longer; 0 leaves it as it is."""
    return nn.utils.clip_grad_norm_(parameters, max_norm or math.inf)
