"""Guidance distillation, what makes a FLUX 'dev'. Not part of the pico as shipped: its figures did not need it.

The teacher is the frozen model of stage 2 under classifier-free guidance of scale g; the student learns to give the
same velocity from the guidance embedding alone (Meng et al., 2022, https://arxiv.org/abs/2210.03142). g = 1 is the plain
model, and stays a fifth of the draws, because LoRAs are trained there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from fluxtui.demo.pretrain import checkpoints, flow
from fluxtui.demo.pretrain.bank import Bank
from fluxtui.demo.pretrain.flow import FlowPlan, Pico

HIGHEST = 4.0
KEEP_EVERY = 500  # steps


def draw_guidance(count: int, generator: torch.Generator) -> torch.Tensor:
    """(count,) scales: 1 for a fifth, the rest evenly between 1 and HIGHEST."""
    scale = 1 + (HIGHEST - 1) * torch.rand(count, generator=generator)
    return torch.where(torch.rand(count, generator=generator) < 0.2, torch.ones(()), scale)


@torch.no_grad()
def guided_velocity(
    teacher: Pico,
    mixed: torch.Tensor,
    sigma: torch.Tensor,
    scale: torch.Tensor,
    text: tuple[torch.Tensor, torch.Tensor],
    empty: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """Classifier-free guidance: unconditional + scale * (conditional - unconditional), (batch, 16, 64)."""
    count = len(mixed)
    both = [torch.cat([with_words, without.expand_as(with_words)]) for with_words, without in zip(text, empty, strict=True)]
    out = teacher.velocity(mixed.repeat(2, 1, 1), sigma.repeat(2), torch.full((2 * count,), 3.0), (both[0], both[1]))
    with_words, without = out.chunk(2)
    return torch.lerp(without, with_words, scale[:, None, None])


def distil(
    teacher: Pico,
    bank: Bank,
    empty_ids: tuple[torch.Tensor, torch.Tensor],
    plan: FlowPlan,
    path: Path,
    report: Callable[[Pico, int], None],
) -> Pico:
    """Trains a copy of the teacher's transformer; text encoders stay. Returns the moving average."""
    teacher = copy.deepcopy(teacher).requires_grad_(False)
    student = copy.deepcopy(teacher)
    student.transformer.requires_grad_(True)
    average = flow.moving_average(student)
    optimizers = flow.new_optimizers(student.transformer, plan.peak_rate)
    generator = torch.Generator().manual_seed(plan.seed)
    empty = teacher.embed(*empty_ids)
    mean_loss = 0.1
    for step in range(1, plan.steps + 1):
        flow.set_rate(optimizers, flow.rate_at(step - 1, plan))
        clean, t5_ids, clip_ids = flow.pick(bank, plan.batch, empty_ids, generator)
        loss = distil_step(teacher, student, clean, teacher.embed(t5_ids, clip_ids), empty, optimizers, generator)
        average.update_parameters(student)
        mean_loss += (loss - mean_loss) * 0.02
        if step % 100 == 0:
            print(f"distil step {step}/{plan.steps} loss {mean_loss:.4f}", flush=True)
        if step % KEEP_EVERY == 0 or step == plan.steps:
            checkpoints.save(path, {"pico": flow.averaged(average).state_dict(), "step": step})
            report(flow.averaged(average), step)
    return flow.averaged(average)


def distil_step(
    teacher: Pico,
    student: Pico,
    clean: torch.Tensor,
    text: tuple[torch.Tensor, torch.Tensor],
    empty: tuple[torch.Tensor, torch.Tensor],
    optimizers: list[torch.optim.Optimizer],
    generator: torch.Generator,
) -> float:
    """One optimizer step of the student; returns its loss."""
    noise = torch.randn(clean.shape, generator=generator)
    sigma, scale = flow.shifted_sigma(len(clean), generator), draw_guidance(len(clean), generator)
    mixed = torch.lerp(clean, noise, sigma[:, None, None])
    target = guided_velocity(teacher, mixed, sigma, scale, text, empty)
    loss = F.mse_loss(student.velocity(mixed, sigma, scale, text), target)
    student.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(student.transformer.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
    return float(loss.detach())
