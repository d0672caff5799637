"""Captions and pictures as FLUX.1 takes them: exactly what diffusers' FluxPipeline does for prompts; the VAE's mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from fluxtui.engine.send import send

if TYPE_CHECKING:
    from diffusers import AutoencoderKL
    from PIL.Image import Image
    from transformers import CLIPTextModel, CLIPTokenizer

    from fluxtui.engine.family.flux1.components import TextEncoders


class _ComputesInFloat32(nn.Linear):
    """A layer whose weight stays as it is held; only its product is taken in float32."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        bias = None if self.bias is None else self.bias.float()
        return functional.linear(inputs.float(), self.weight.float(), bias)


def are_slow_in_bf16() -> bool:
    """CPUs of desktops have AVX2 alone, and torch takes bf16 products there in a plain loop: T5 takes minutes a caption."""
    return not torch.ops.mkldnn._is_mkldnn_bf16_supported()


def compute_in_float32(encoder: nn.Module) -> None:
    """An encoder keeps its bf16 weights and computes in float32: for CPUs that `are_slow_in_bf16`.

    A weight is cast for its product only, so memory stays as planned.
    """
    for module in encoder.modules():
        if type(module) is nn.Linear:
            module.__class__ = _ComputesInFloat32
        else:  # norms and embeddings
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.float()


@torch.inference_mode()
def encode_prompts(encoders: TextEncoders, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """T5's states `(prompts, tokens, channels)` and CLIP's pooled output `(prompts, channels)`, in the encoders' dtype.

    Both are padded to their full length, without a mask, as FLUX.1 was trained: `FluxPipeline.encode_prompt`.
    """
    pooled = pool_prompts(encoders.tokenizer, encoders.clip, prompts)
    t5_ids = encoders.tokenizer_2(
        prompts, padding="max_length", max_length=encoders.text_tokens, truncation=True, return_tensors="pt"
    ).input_ids
    states = encoders.t5(t5_ids.to(encoders.t5.device), output_hidden_states=False)[0]
    return states.to(encoders.t5.dtype), pooled.to(encoders.clip.dtype)


def pool_prompts(tokenizer: CLIPTokenizer, clip: CLIPTextModel, prompts: list[str]) -> torch.Tensor:
    """CLIP's pooled output `(prompts, channels)`, with its gradient where the caller wants one."""
    ids = tokenizer(
        prompts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    ).input_ids
    pooled: torch.Tensor = clip(send(ids, clip.device), output_hidden_states=False).pooler_output
    return pooled


def pixels_of(picture: Image) -> torch.Tensor:
    """An RGB picture as `(1, 3, height, width)` float32 in [-1, 1], as diffusers' VaeImageProcessor makes it."""
    flat = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    pixels = flat.view(picture.height, picture.width, 3).permute(2, 0, 1).unsqueeze(0)
    return 2.0 * (pixels.to(torch.float32) / 255.0) - 1.0


@torch.inference_mode()
def encode_image_mean(vae: AutoencoderKL, pixels: torch.Tensor) -> torch.Tensor:
    """The mean of the VAE's latents, raw (neither shifted nor scaled): `(batch, 16, height / 8, width / 8)`, float32.

    `pixels`: `(batch, 3, height, width)` in [-1, 1]. The mean and not a draw: one random number less, and cacheable.
    """
    mean: torch.Tensor = vae.encode(pixels.to(device=vae.device, dtype=vae.dtype)).latent_dist.mode()
    return mean.to(torch.float32)
