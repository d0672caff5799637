"""Stage 1: the VAE. L1 on pixels and on their differences (edges), and a small KL term."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from fluxtui.demo.pretrain import checkpoints
from fluxtui.demo.pretrain.optimizer import Muon, split_parameters
from fluxtui.demo.pretrain.wide_world import wide_pictures

KL_WEIGHT = 2e-4  # per latent element, against a mean L1 of about 0.03
PEAK_RATE = 3e-3
WARM_UP = 100  # steps
PICTURES = 10_000


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


def losses(vae: AutoencoderKL, true: torch.Tensor) -> Losses:
    """For (batch, 3, h, w) pictures in [-1, 1]: mean absolute error of pixels, and of their differences for the edges."""
    posterior = vae.encode(true).latent_dist
    drawn = vae.decode(posterior.sample()).sample
    pixels = F.l1_loss(drawn, true)
    edges = F.l1_loss(drawn.diff(dim=3), true.diff(dim=3)) + F.l1_loss(drawn.diff(dim=2), true.diff(dim=2))
    return Losses(pixels + edges, pixels, posterior.kl().mean() / posterior.mean[0].numel())


def rate_at(step: int, spent: float) -> float:
    """Warm-up by steps, then a cosine over the share of the time spent."""
    cosine = (1 + math.cos(math.pi * min(1.0, spent))) / 2
    return PEAK_RATE * min(1.0, (step + 1) / WARM_UP) * (0.02 + 0.98 * cosine)


def train(work: Path, minutes: float, batch: int = 16, seed: int = 1) -> None:
    """Trains for `minutes` of wall clock, from the weights in `work` where there are some."""
    torch.manual_seed(seed)
    vae = new_vae()
    before = checkpoints.load(work / "vae.pt")
    if before:
        vae.load_state_dict(before["vae"])
    world = wide_pictures(PICTURES, seed)
    matrices, rest = split_parameters(vae)
    optimizers = [Muon(matrices, PEAK_RATE), torch.optim.AdamW(rest, PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.0)]
    generator = torch.Generator().manual_seed(seed)
    began, step, spent = time.monotonic(), 0, 0.0
    while spent < 1.0:
        spent = (time.monotonic() - began) / (60 * minutes)
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = rate_at(step, spent)
        lost = losses(vae, world[torch.randint(len(world), (batch,), generator=generator)].float() / 127.5 - 1)
        vae.zero_grad(set_to_none=True)
        (lost.total + KL_WEIGHT * lost.kl).backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        step += 1
        if step % 50 == 0:
            print(f"vae step {step} {spent:.0%} loss {lost.total:.4f} l1 {lost.pixels:.4f} kl {lost.kl:.2f}", flush=True)
        if step % 500 == 0 or spent >= 1.0:
            checkpoints.save(work / "vae.pt", {"vae": vae.state_dict(), "step": step})
