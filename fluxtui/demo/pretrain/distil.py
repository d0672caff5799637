"""Stage 3: guidance distillation, what makes a FLUX 'dev'.

The teacher is the frozen model of stage 2 under classifier-free guidance of scale g; the student learns to give the
same velocity from the guidance embedding alone (Meng et al., 2022, https://arxiv.org/abs/2210.03142). g = 1 is the plain
model, and stays a fifth of the draws, because LoRAs are trained there.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from fluxtui.demo.pretrain import checkpoints
from fluxtui.demo.pretrain.bank import Bank
from fluxtui.demo.pretrain.flow import EMA_DECAY, FlowPlan, Pico, pick, rate_at, shifted_sigma
from fluxtui.demo.pretrain.optimizer import Muon, split_parameters

HIGHEST = 4.0


def draw_guidance(count: int, generator: torch.Generator) -> torch.Tensor:
    """(count,) scales: 1 for a fifth, the rest evenly between 1 and HIGHEST."""
    scale = 1 + (HIGHEST - 1) * torch.rand(count, generator=generator)
    return torch.where(torch.rand(count, generator=generator) < 0.2, torch.ones(()), scale)


@torch.no_grad()
def guided_velocity(teacher: Pico, mixed: torch.Tensor, sigma: torch.Tensor, scale: torch.Tensor,
                    text: tuple[torch.Tensor, torch.Tensor], empty: tuple[torch.Tensor, torch.Tensor],
                    ) -> torch.Tensor:
    """Classifier-free guidance: unconditional + scale * (conditional - unconditional)."""
    count = len(mixed)
    both = tuple(torch.cat([with_words, without.expand_as(with_words)])
                 for with_words, without in zip(text, empty, strict=True))
    out = teacher.velocity(mixed.repeat(2, 1, 1), sigma.repeat(2), torch.full((2 * count,), 3.0), (both[0], both[1]))
    with_words, without = out.chunk(2)
    return torch.lerp(without, with_words, scale[:, None, None])


def distil(teacher: Pico, bank: Bank, empty_ids: tuple[torch.Tensor, torch.Tensor], plan: FlowPlan, path: Path,
           report: Callable[[Pico, int], None]) -> Pico:
    """Trains a copy of the teacher's transformer; text encoders stay. Returns the moving average."""
    teacher = copy.deepcopy(teacher).requires_grad_(False)
    student = copy.deepcopy(teacher)
    student.transformer.requires_grad_(True)
    average = torch.optim.swa_utils.AveragedModel(
        student, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(EMA_DECAY))
    matrices, rest = split_parameters(student.transformer)
    optimizers: list[torch.optim.Optimizer] = [
        Muon(matrices, plan.peak_rate), torch.optim.AdamW(rest, plan.peak_rate, betas=(0.9, 0.98), weight_decay=0.0)]
    generator = torch.Generator().manual_seed(plan.seed)
    empty = teacher.embed(*empty_ids)
    began, mean_loss = time.monotonic(), 0.1
    for step in range(plan.steps):
        clean, t5_ids, clip_ids = pick(bank, plan.batch, empty_ids, generator)
        noise = torch.randn(clean.shape, generator=generator)
        sigma, scale = shifted_sigma(plan.batch, generator), draw_guidance(plan.batch, generator)
        mixed = torch.lerp(clean, noise, sigma[:, None, None])
        text = teacher.embed(t5_ids, clip_ids)
        target = guided_velocity(teacher, mixed, sigma, scale, text, empty)
        loss = F.mse_loss(student.velocity(mixed, sigma, scale, text), target)
        student.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.transformer.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate_at(step, plan)
            optimizer.step()
        average.update_parameters(student)
        mean_loss += (float(loss.detach()) - mean_loss) * 0.02
        if (step + 1) % 100 == 0:
            print(f"distil step {step + 1}/{plan.steps} loss {mean_loss:.4f} "
                  f"{(time.monotonic() - began) / (step + 1):.3f} s/step", flush=True)
        if (step + 1) % 500 == 0 or step + 1 == plan.steps:
            checkpoints.save(path, {"pico": average.module.state_dict(), "step": step + 1})
            report(average.module, step + 1)
    kept: Pico = average.module
    return kept
