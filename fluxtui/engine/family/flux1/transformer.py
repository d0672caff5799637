"""FLUX.1's transformer as the trainer and the sampler call it: packing, position ids, guidance, latent scale.

Packing, ids and the shift of the sampling schedule are diffusers' own functions, so that training and inference agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel


def pack(latents: torch.Tensor) -> torch.Tensor:
    """`(batch, channels, height, width)` to `(batch, height/2 * width/2, 4 * channels)`: a token for each 2 x 2 latents."""
    from diffusers.pipelines.flux.pipeline_flux import FluxPipeline

    tokens: torch.Tensor = FluxPipeline._pack_latents(latents, *latents.shape)
    return tokens


def unpack(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The inverse of `pack`; `height` and `width` in latents."""
    from diffusers.pipelines.flux.pipeline_flux import FluxPipeline

    latents: torch.Tensor = FluxPipeline._unpack_latents(tokens, height, width, vae_scale_factor=1)
    return latents


@lru_cache(maxsize=64)
def image_ids(height: int, width: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Positions `(tokens, 3)` of packed latents: 0, row, column. `height` and `width` in latents."""
    from diffusers.pipelines.flux.pipeline_flux import FluxPipeline

    positions: torch.Tensor = FluxPipeline._prepare_latent_image_ids(1, height // 2, width // 2, device, dtype)
    return positions


@lru_cache(maxsize=8)
def text_ids(tokens: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Positions `(tokens, 3)` of text: all zero."""
    return torch.zeros(tokens, 3, device=device, dtype=dtype)


def velocity(
    transformer: FluxTransformer2DModel,
    noisy: torch.Tensor,
    sigma: torch.Tensor,
    prompt_embeds: torch.Tensor,
    pooled: torch.Tensor,
    guidance: float | None,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """The model's velocity, float32 `(batch, channels, height, width)`, at `noisy` of the same shape.

    sigma `(batch,)` in [0, 1]; prompt_embeds `(batch, tokens, width)`; pooled `(batch, width)`. `guidance` is None for
    models without a guidance embedding; `dtype` is the transformer's (asking the model for it takes longer than a block).
    """
    device = noisy.device
    height, width = noisy.shape[-2:]
    predicted: torch.Tensor = transformer(
        hidden_states=pack(noisy).to(dtype),
        timestep=sigma.to(dtype),
        guidance=None if guidance is None else torch.full((len(noisy),), guidance, device=device, dtype=torch.float32),
        pooled_projections=pooled.to(dtype),
        encoder_hidden_states=prompt_embeds.to(dtype),
        txt_ids=text_ids(prompt_embeds.shape[1], device, dtype),
        img_ids=image_ids(height, width, device, dtype),
        return_dict=False,
    )[0]
    return unpack(predicted.float(), height, width)


_MADE_BY = ("norm_q", "norm_k", "norm_added_q", "norm_added_k", "to_v", "add_v_proj")  # what of attention q, k and v come from
_GO_ON_IN = ("to_out", "to_add_out")


def attend_in_float32(transformer: FluxTransformer2DModel, dtype: torch.dtype) -> None:
    """Attention alone computes in float32, for GPUs older than Ampere; all else stays in `dtype`.

    Of bf16 torch has no fused attention there and makes matrices of tokens by tokens, gigabytes at 1024 px; in float32 it has.
    """
    for block in (*transformer.transformer_blocks, *transformer.single_transformer_blocks):
        attention: Any = block.attn
        for name in _MADE_BY:
            if getattr(attention, name, None) is not None:
                getattr(attention, name).register_forward_hook(lambda _layer, _inputs, made: made.float())
        for name in _GO_ON_IN:
            if (layer := getattr(attention, name, None)) is not None:
                first = layer[0] if isinstance(layer, torch.nn.ModuleList) else layer
                first.register_forward_pre_hook(lambda _layer, inputs: tuple(value.to(dtype) for value in inputs))
        if getattr(attention, "to_out", None) is None:  # a single block joins it to the MLP's
            attention.register_forward_hook(lambda _layer, _inputs, made: made.to(dtype))


def scale_latents(mean: torch.Tensor, vae_config: Mapping[str, Any]) -> torch.Tensor:
    """x0 of the objective from the VAE's mean: `(mean - shift_factor) * scaling_factor`."""
    shift, factor = float(vae_config.get("shift_factor") or 0.0), float(vae_config["scaling_factor"])
    return (mean - shift) * factor
