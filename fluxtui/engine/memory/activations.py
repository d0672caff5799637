"""What a micro-step takes beside the weights: measured on the meta device, forward and backward, from one block of each kind."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fluxtui.engine.memory.peak_bytes import LiveBytes, fused_attention
from fluxtui.engine.memory.plan_cache import remembered
from fluxtui.engine.memory.precision import CODECS, QuantizedLinear, quantize_layers
from fluxtui.persist.errors import UsageError
from fluxtui.persist.settings.spec import LoraSpec


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides the activations."""

    dtype: torch.dtype  # of products
    is_coded: bool  # the weights of linear layers in blocks are codes
    lora: LoraSpec
    tokens: int  # of the picture
    text_tokens: int
    batch: int
    is_checkpointed: bool
    splits: int = 0  # of attention's backward pass on a GPU: see `LiveBytes`


@dataclass(frozen=True, slots=True)
class Activations:
    """Bytes, and the count of the adapter's parameters."""

    lora_parameters: int
    kept: int  # live between the forward and the backward pass
    peak: int  # the most that lives at once: kept, the block at work, decoded weights, gradients on their way


@dataclass(frozen=True, slots=True)
class _Seen:
    lora: int
    kept: int
    work: int  # peak - kept


def measure(config: Mapping[str, Any], shape: Shape) -> Activations:
    """Of the whole model, once for each shape. Raises `Refusal` where the adapter's kind does not fit the base."""
    return remembered("activations", (sorted(config.items()), shape), Activations, lambda: _measure(config, shape))


def _measure(config: Mapping[str, Any], shape: Shape) -> Activations:
    """From models of few blocks: what is kept adds up block by block, and one block works at a time."""
    double, single = config.get("num_layers", 19), config.get("num_single_layers", 38)
    if _tells_blocks_apart(shape.lora):  # then none stands for the others, and the whole model is gone through: it takes longer
        seen = _seen(config, shape, double, single)
        return Activations(seen.lora, seen.kept, seen.kept + seen.work)
    both, two_doubles, two_singles, one_double, one_single = (
        _seen(config, shape, *blocks) for blocks in ((1, 1), (2, 1), (1, 2), (1, 0), (0, 1))
    )
    of_double, of_single = two_doubles.kept - both.kept, two_singles.kept - both.kept
    kept = both.kept + (double - 1) * of_double + (single - 1) * of_single
    lora = double * one_double.lora + single * one_single.lora
    # the backward pass is at the last single block with all that is kept, at the last double one without the singles' share
    return Activations(lora, kept, max(kept + one_single.work, kept - single * of_single + one_double.work))


def _tells_blocks_apart(lora: LoraSpec) -> bool:
    """Whether targets or ranks are for blocks of certain numbers."""
    return any(re.search(r"blocks\\?\.\D{0,3}\d", pattern) for pattern in (lora.targets, *lora.layers))


def _seen(config: Mapping[str, Any], shape: Shape, double: int, single: int) -> _Seen:
    model, lora = _with_adapter(config, shape, double, single)
    with fused_attention(), LiveBytes(shape.splits) as live:
        loss = model(**_inputs(model.config, shape), return_dict=False)[0].float().square().mean()
        kept = live.live
        torch.autograd.backward(loss)
    return _Seen(lora, kept, live.peak - kept)


def _with_adapter(config: Mapping[str, Any], shape: Shape, double: int, single: int) -> tuple[Any, int]:
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

    from fluxtui.engine.family.flux1.targets import target_names
    from fluxtui.engine.trainer.adapter.lora import add_lora

    with torch.device("meta"):
        model = FluxTransformer2DModel.from_config(dict(config) | {"num_layers": double, "num_single_layers": single})
    if shape.is_coded:
        for blocks in (model.transformer_blocks, model.single_transformer_blocks):
            _code(blocks)
    for parameter in model.parameters():
        if parameter.dtype.is_floating_point:
            parameter.data = parameter.data.to(shape.dtype)
    model.requires_grad_(False)
    try:
        adapter = add_lora(model, target_names(model, shape.lora.targets), shape.lora, seed=0)
    except UsageError:  # no target in blocks of this kind
        if double and single:
            raise
        return _ready(model, shape), 0
    adapter.place.begin(0, range(shape.batch), torch.device("meta"), shape.dtype)
    return _ready(model, shape), sum(parameter.numel() for parameter in adapter.parameters())


def _ready(model: Any, shape: Shape) -> Any:  # noqa: ANN401  (a FluxTransformer2DModel)
    model.train()
    if not any(parameter.requires_grad for parameter in model.parameters()):
        model.proj_out.requires_grad_(True)  # blocks without targets: the backward pass still ends somewhere
    if shape.is_checkpointed:
        model.enable_gradient_checkpointing()
    return model


def _code(blocks: nn.Module) -> None:
    """Every codec decodes a layer at a time to the same size: one stands for all."""
    quantize_layers(blocks, CODECS["int8"])
    for layer in blocks.modules():
        if isinstance(layer, QuantizedLinear):
            layer.weight = nn.Parameter(torch.empty(layer.shape, dtype=torch.uint8, device="meta"), requires_grad=False)
            layer.register_buffer("scales", torch.empty(layer.out_features, device="meta"))


def _inputs(config: Any, shape: Shape) -> dict[str, Any]:  # noqa: ANN401  (a FrozenDict)
    from fluxtui.engine.family.flux1.transformer import image_ids, text_ids

    meta, side = torch.device("meta"), int(shape.tokens**0.5)
    with meta:
        return {
            "hidden_states": torch.empty(shape.batch, shape.tokens, config.in_channels, dtype=shape.dtype),
            "encoder_hidden_states": torch.empty(shape.batch, shape.text_tokens, config.joint_attention_dim, dtype=shape.dtype),
            "pooled_projections": torch.empty(shape.batch, config.pooled_projection_dim, dtype=shape.dtype),
            "timestep": torch.empty(shape.batch, dtype=shape.dtype),
            "guidance": torch.empty(shape.batch) if config.guidance_embeds else None,
            "img_ids": image_ids(2 * side, 2 * side, meta, shape.dtype),
            "txt_ids": text_ids(shape.text_tokens, meta, shape.dtype),
        }


def measure_clip(config: Mapping[str, Any], shape: Shape) -> Activations:
    """Of CLIP with its adapter: its own forward and backward pass. `shape`: the transformer's, tokens not looked at."""
    return remembered("CLIP", (sorted(config.items()), shape), Activations, lambda: _measure_clip(config, shape))


def _measure_clip(config: Mapping[str, Any], shape: Shape) -> Activations:
    from transformers import CLIPTextConfig, CLIPTextModel

    from fluxtui.engine.family.flux1.targets import clip_names
    from fluxtui.engine.trainer.adapter.lora import add_lora

    with torch.device("meta"):
        clip = CLIPTextModel(CLIPTextConfig(**config)).to(shape.dtype)
        ids = torch.zeros(shape.batch, clip.config.max_position_embeddings, dtype=torch.long)
    clip.requires_grad_(False)
    adapter = add_lora(clip, list(clip_names(clip)), shape.lora, seed=0)
    adapter.place.begin(0, range(shape.batch), torch.device("meta"), shape.dtype)
    clip.train()
    with fused_attention(), LiveBytes() as live:
        loss = clip(ids).pooler_output.float().square().mean()
        kept = live.live
        torch.autograd.backward(loss)
    return Activations(sum(parameter.numel() for parameter in adapter.parameters()), kept, live.peak)


def vae_work(config: Mapping[str, Any], dtype: torch.dtype, side: int, is_decoding: bool) -> int:
    """The most bytes that live at once, weights left out, while one square picture of `side` pixels is encoded or decoded."""
    shape = (sorted(config.items()), dtype, side, is_decoding)
    return remembered("VAE", shape, int, lambda: _vae_work(config, dtype, side, is_decoding))


def _vae_work(config: Mapping[str, Any], dtype: torch.dtype, side: int, is_decoding: bool) -> int:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    with torch.device("meta"):
        vae = AutoencoderKL.from_config(dict(config)).to(dtype).eval()
        latent = side // 2 ** (len(vae.config.block_out_channels) - 1)
        channels, size = (vae.config.latent_channels, latent) if is_decoding else (3, side)
        inputs = torch.empty(1, channels, size, size, dtype=dtype)
    with torch.no_grad(), fused_attention(), LiveBytes() as live:
        _ = vae.decode(inputs) if is_decoding else vae.encode(inputs)
    peak: int = live.peak
    return peak
