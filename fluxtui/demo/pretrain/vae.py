"""Stage 1: the VAE. L1 on pixels and on their differences (edges), and a small KL term."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from fluxtui.demo.pretrain import checkpoints
from fluxtui.demo.pretrain.optimizer import Muon, split_parameters
from fluxtui.demo.pretrain.wide_world import wide_pictures

KL_WEIGHT = 2e-4  # per latent element, against a mean L1 of about 0.03
WARM_UP = 100  # steps
KEEP_EVERY = 250  # steps


@dataclass(frozen=True, slots=True)
class VaePlan:
    """What the stage does."""

    steps: int = 4000
    batch: int = 16
    peak_rate: float = 3e-3
    pictures: int = 10_000
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Losses:
    """What one step's batch lost; the first is what is trained, less the KL term."""

    total: torch.Tensor  # pixels and edges
    pixels: torch.Tensor
    kl: torch.Tensor  # nats per latent element


def new_vae() -> AutoencoderKL:
    """A FLUX VAE in small: 16 latent channels, an eighth of the side, no quantisation convolutions."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=16,
        block_out_channels=(16, 24, 48, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=64,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=True,
        force_upcast=False,
    )


def losses(vae: AutoencoderKL, true: torch.Tensor, generator: torch.Generator) -> Losses:
    """For (batch, 3, h, w) pictures in [-1, 1]: mean absolute error of pixels, and of their differences for the edges."""
    posterior = vae.encode(true).latent_dist
    drawn = vae.decode(posterior.sample(generator)).sample
    pixels = F.l1_loss(drawn, true)
    edges = F.l1_loss(drawn.diff(dim=3), true.diff(dim=3)) + F.l1_loss(drawn.diff(dim=2), true.diff(dim=2))
    return Losses(pixels + edges, pixels, posterior.kl().mean() / posterior.mean[0].numel())


def rate_at(step: int, plan: VaePlan) -> float:
    """The learning rate of optimizer step `step`, counted from 0: a warm-up, then a cosine to a fiftieth."""
    cosine = (1 + math.cos(math.pi * step / plan.steps)) / 2
    return plan.peak_rate * min(1.0, (step + 1) / WARM_UP) * (0.02 + 0.98 * cosine)


def train(path: Path, plan: VaePlan) -> AutoencoderKL:
    """Trains to `plan.steps`, resuming from `path` where it exists."""
    torch.manual_seed(plan.seed)
    vae, world = new_vae(), wide_pictures(plan.pictures, plan.seed)
    matrices, rest = split_parameters(vae)
    optimizers = [Muon(matrices, plan.peak_rate), torch.optim.AdamW(rest, plan.peak_rate, betas=(0.9, 0.99), weight_decay=0.0)]
    generator = torch.Generator().manual_seed(plan.seed)
    stage = checkpoints.Stage(asdict(plan), {"vae": vae}, optimizers, generator)
    for step in range(stage.restore(path), plan.steps):
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = rate_at(step, plan)
        chosen = torch.randint(len(world), (plan.batch,), generator=generator)
        lost = losses(vae, world[chosen].float() / 127.5 - 1, generator)
        vae.zero_grad(set_to_none=True)
        (lost.total + KL_WEIGHT * lost.kl).backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        if (step + 1) % 100 == 0:
            print(f"vae step {step + 1}/{plan.steps} loss {lost.total:.4f} l1 {lost.pixels:.4f} kl {lost.kl:.2f}", flush=True)
        if (step + 1) % KEEP_EVERY == 0 or step + 1 == plan.steps:
            stage.keep(path, step + 1)
    return vae
