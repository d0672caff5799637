"""The world, drawn and encoded once: packed latents and token ids that the training steps pick from."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL, FluxPipeline
from transformers import CLIPTokenizer, T5Tokenizer

from fluxtui.demo import pictures
from fluxtui.demo.pretrain.tokenizers import TEXT_TOKENS

CAPTIONS_EACH = 3


@dataclass(frozen=True, slots=True)
class Bank:
    """Everything a step needs. `shift` and `scale` make the latents' mean 0 and deviation 1, as in FLUX's VAE."""

    latents: torch.Tensor  # (pictures, 16, 64), packed and normalised
    t5_ids: torch.Tensor  # (pictures, captions, tokens)
    clip_ids: torch.Tensor  # (pictures, captions, tokens)
    shift: float
    scale: float


@torch.no_grad()
def encode_pictures(vae: AutoencoderKL, pixels: torch.Tensor, batch: int = 64) -> torch.Tensor:
    """(n, 3, 64, 64) uint8 to the means of the VAE's latents, (n, 16, 8, 8)."""
    return torch.cat([vae.encode(part.float() / 127.5 - 1).latent_dist.mean for part in pixels.split(batch)])


def pack(latents: torch.Tensor) -> torch.Tensor:
    """(n, 16, 8, 8) to FLUX's image tokens, (n, 16, 64): each a patch of 2 x 2."""
    packed: torch.Tensor = FluxPipeline._pack_latents(latents, latents.shape[0], 16, 8, 8)
    return packed


def token_ids(tokenizer: T5Tokenizer | CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """(captions, tokens) int64, padded as FluxPipeline pads."""
    ids: torch.Tensor = tokenizer(
        captions, padding="max_length", max_length=TEXT_TOKENS, truncation=True, return_tensors="pt"
    ).input_ids
    return ids


def new_bank(vae: AutoencoderKL, t5_tokenizer: T5Tokenizer, clip_tokenizer: CLIPTokenizer, count: int, seed: int) -> Bank:
    """Draws `count` scenes and encodes them with their captions."""
    rng = random.Random(seed)
    pixels = torch.empty(count, 3, pictures.SIZE, pictures.SIZE, dtype=torch.uint8)
    captions: list[str] = []
    for index in range(count):
        scene = pictures.random_scene(rng)
        pixels[index] = torch.from_numpy(np.array(pictures.draw(scene))).permute(2, 0, 1)
        captions += [pictures.caption(scene, rng) for _ in range(CAPTIONS_EACH)]
    latents = encode_pictures(vae, pixels)
    shift, scale = float(latents.mean()), float(1 / latents.std())
    shape = (count, CAPTIONS_EACH, TEXT_TOKENS)
    return Bank(
        pack((latents - shift) * scale),
        token_ids(t5_tokenizer, captions).view(shape),
        token_ids(clip_tokenizer, captions).view(shape),
        shift,
        scale,
    )
