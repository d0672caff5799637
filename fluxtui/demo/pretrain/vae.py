"""Stage 1: the VAE. L1 on pixels and on their differences (edges), and a small KL term."""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from fluxtui.demo.pretrain import checkpoints
from fluxtui.demo.pretrain.optimizer import Muon, split_parameters
from fluxtui.demo.pretrain.wide_world import wide_pictures

KL_WEIGHT = 2e-4        # per latent element, against a mean L1 of about 0.01
EDGE_WEIGHT = 1.0


def new_vae() -> AutoencoderKL:
    """A FLUX VAE in small: 16 latent channels, an eighth of the side, no quantisation convolutions."""
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=16, block_out_channels=(16, 24, 48, 64),
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1, norm_num_groups=8, sample_size=64, use_quant_conv=False, use_post_quant_conv=False,
        mid_block_add_attention=True, force_upcast=False)


def picture_loss(drawn: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Mean absolute error of (batch, 3, h, w) pixels plus that of their horizontal and vertical differences."""
    pixels = F.l1_loss(drawn, true)
    across = F.l1_loss(drawn.diff(dim=3), true.diff(dim=3))
    down = F.l1_loss(drawn.diff(dim=2), true.diff(dim=2))
    return pixels + EDGE_WEIGHT * (across + down)


def train(work: Path, minutes: float, batch: int = 16, seed: int = 1, decoder_only: bool = False) -> None:
    """Trains for `minutes` of wall clock (cosine decay over them), from the checkpoint in `work` where there is one."""
    torch.manual_seed(seed)
    vae = new_vae()
    before = checkpoints.load(work / "vae.pt")
    if before:
        vae.load_state_dict(before["vae"])
    if decoder_only:
        vae.encoder.requires_grad_(False)
    world = wide_pictures(10_000, seed + (2 if decoder_only else 0))
    weights = [p for p in vae.parameters() if p.requires_grad]
    peak = 1e-3 if decoder_only else 3e-3
    matrices, rest = split_parameters(vae)
    optimizers = [Muon([p for p in matrices if p.requires_grad], peak),
                  torch.optim.AdamW([p for p in rest if p.requires_grad], peak, betas=(0.9, 0.99), weight_decay=0.0)]
    generator = torch.Generator().manual_seed(seed)
    began, step, spent = time.monotonic(), 0, 0.0
    while spent < 1.0:
        spent = (time.monotonic() - began) / (60 * minutes)
        rate = peak * min(1.0, (step + 1) / 100) * (0.02 + 0.98 * (1 + math.cos(math.pi * min(1.0, spent))) / 2)
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = rate
        chosen = torch.randint(len(world), (batch,), generator=generator)
        true = world[chosen].float() / 127.5 - 1
        posterior = vae.encode(true).latent_dist
        drawn = vae.decode(posterior.sample()).sample
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        loss = picture_loss(drawn, true)
        vae.zero_grad(set_to_none=True)
        (loss + KL_WEIGHT * kl).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        step += 1
        if step % 50 == 0:
            print(f"vae step {step} {spent:.0%} loss {loss:.4f} l1 {F.l1_loss(drawn, true):.4f} kl {kl:.2f} "
                  f"{(time.monotonic() - began) / step:.3f} s/step", flush=True)
        if step % 500 == 0:
            checkpoints.save(work / "vae.pt", {"vae": vae.state_dict(), "step": step})
    checkpoints.save(work / "vae.pt", {"vae": vae.state_dict(), "step": step})
