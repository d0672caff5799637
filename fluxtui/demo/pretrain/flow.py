"""Stage 2: the transformer with both text encoders, by flow matching.

`x_t = (1 - s) x0 + s eps`, target `eps - x0`; the transformer takes s in [0, 1]. The caption is decided at high noise,
so s is drawn uniformly and shifted by 2 towards it. Constant rate, then a linear tail over the last part of the steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import FluxTransformer2DModel
from transformers import CLIPTextModel, T5EncoderModel

from fluxtui.demo.pretrain import checkpoints
from fluxtui.demo.pretrain.bank import Bank
from fluxtui.demo.pretrain.optimizer import Muon, split_parameters

EMA_DECAY = 0.999
CAPTION_DROPOUT = 0.1
SHIFT = 2.0
KEEP_EVERY, REPORT_EVERY = 500, 2000  # steps


@dataclass(frozen=True, slots=True)
class FlowPlan:
    """What the stage does."""

    steps: int = 6000
    batch: int = 48
    peak_rate: float = 3e-3
    warm_up: int = 100
    tail: float = 0.4  # part of the steps over which the rate falls to zero
    seed: int = 3


class Pico(torch.nn.Module):
    """The three modules that train together."""

    def __init__(self, transformer: FluxTransformer2DModel, t5: T5EncoderModel, clip: CLIPTextModel) -> None:
        super().__init__()
        self.transformer, self.t5, self.clip = transformer, t5, clip

    def embed(self, t5_ids: torch.Tensor, clip_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids to (batch, tokens, t5 width) and the pooled (batch, clip width), as FluxPipeline has them."""
        return self.t5(t5_ids)[0], self.clip(clip_ids).pooler_output

    def velocity(
        self,
        latents: torch.Tensor,
        sigma: torch.Tensor,
        guidance: torch.Tensor,
        text: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """The predicted `eps - x0` for (batch, 16, 64) latents and (batch,) sigma and guidance."""
        out: torch.Tensor = self.transformer(
            hidden_states=latents,
            timestep=sigma,
            guidance=guidance,
            encoder_hidden_states=text[0],
            pooled_projections=text[1],
            img_ids=image_ids(),
            txt_ids=torch.zeros(text[0].shape[1], 3),
            return_dict=False,
        )[0]
        return out


def image_ids(side: int = 4) -> torch.Tensor:
    """Row and column of each image token, (side * side, 3), as FluxPipeline numbers them."""
    ids = torch.zeros(side, side, 3)
    ids[..., 1] += torch.arange(side)[:, None]
    ids[..., 2] += torch.arange(side)[None, :]
    return ids.reshape(side * side, 3)


def shifted_sigma(count: int, generator: torch.Generator, shift: float = SHIFT) -> torch.Tensor:
    """(count,) uniform draws, shifted as FLUX's schedule shifts its sigmas."""
    uniform = torch.rand(count, generator=generator)
    return shift * uniform / (1 + (shift - 1) * uniform)


def rate_at(step: int, plan: FlowPlan) -> float:
    """The learning rate of optimizer step `step`, counted from 0."""
    warm = min(1.0, (step + 1) / plan.warm_up)
    left = (plan.steps - step) / (plan.tail * plan.steps)
    return plan.peak_rate * warm * max(0.0, min(1.0, left))


def moving_average(pico: Pico) -> torch.optim.swa_utils.AveragedModel:
    """Follows the weights with EMA_DECAY a step."""
    return torch.optim.swa_utils.AveragedModel(pico, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(EMA_DECAY))


def averaged(average: torch.optim.swa_utils.AveragedModel) -> Pico:
    """The model that carries the averaged weights."""
    pico = average.module
    assert isinstance(pico, Pico)
    return pico


def new_optimizers(module: torch.nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon and AdamW over all of the module's weights."""
    matrices, rest = split_parameters(module)
    return [Muon(matrices, rate), torch.optim.AdamW(rest, rate, betas=(0.9, 0.98), weight_decay=0.0)]


def set_rate(optimizers: list[torch.optim.Optimizer], rate: float) -> None:
    """One learning rate for all."""
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["lr"] = rate


def pick(
    bank: Bank, batch: int, empty: tuple[torch.Tensor, torch.Tensor], generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(latents, t5 ids, clip ids) of random pictures; some captions replaced by the empty one."""
    chosen = torch.randint(len(bank.latents), (batch,), generator=generator)
    words = torch.randint(bank.t5_ids.shape[1], (batch,), generator=generator)
    dropped = (torch.rand(batch, generator=generator) < CAPTION_DROPOUT)[:, None]
    return (
        bank.latents[chosen],
        torch.where(dropped, empty[0], bank.t5_ids[chosen, words]),
        torch.where(dropped, empty[1], bank.clip_ids[chosen, words]),
    )


def pretrain(
    pico: Pico,
    bank: Bank,
    empty: tuple[torch.Tensor, torch.Tensor],
    plan: FlowPlan,
    path: Path,
    report: Callable[[Pico, int], None],
) -> Pico:
    """Trains to `plan.steps`, resuming from `path` where it exists; returns the moving average of the weights.

    `report` is called with the average every REPORT_EVERY steps and at the end.
    """
    average = moving_average(pico)
    optimizers = new_optimizers(pico, plan.peak_rate)
    generator = torch.Generator().manual_seed(plan.seed)
    stage = checkpoints.Stage(asdict(plan), {"pico": pico, "average": average}, optimizers, generator)
    began, first, mean_loss = time.monotonic(), stage.restore(path), 1.0
    for step in range(first + 1, plan.steps + 1):
        loss = train_step(pico, bank, empty, plan, step - 1, optimizers, generator)
        average.update_parameters(pico)
        mean_loss += (loss - mean_loss) * 0.02
        if step % 100 == 0:
            pace = (time.monotonic() - began) / (step - first)
            print(f"flow step {step}/{plan.steps} loss {mean_loss:.4f} {pace:.3f} s/step", flush=True)
        if step % KEEP_EVERY == 0 or step == plan.steps:
            stage.keep(path, step)
        if step % REPORT_EVERY == 0 or step == plan.steps:
            report(averaged(average), step)
    return averaged(average)


def train_step(
    pico: Pico,
    bank: Bank,
    empty: tuple[torch.Tensor, torch.Tensor],
    plan: FlowPlan,
    step: int,
    optimizers: list[torch.optim.Optimizer],
    generator: torch.Generator,
) -> float:
    """One optimizer step; returns its loss."""
    clean, t5_ids, clip_ids = pick(bank, plan.batch, empty, generator)
    noise = torch.randn(clean.shape, generator=generator)
    sigma = shifted_sigma(plan.batch, generator)
    guidance = 1 + 4 * torch.rand(plan.batch, generator=generator)  # so that no guidance is foreign later
    mixed = torch.lerp(clean, noise, sigma[:, None, None])
    loss = F.mse_loss(pico.velocity(mixed, sigma, guidance, pico.embed(t5_ids, clip_ids)), noise - clean)
    pico.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(pico.parameters(), 1.0)
    set_rate(optimizers, rate_at(step, plan))
    for optimizer in optimizers:
        optimizer.step()
    return float(loss.detach())
