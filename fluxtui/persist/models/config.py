"""The configuration of a part of FLUX.1 from the shapes of its weights: what diffusers and transformers want to build it.

What no shape tells (the sides of the rotary embedding, the latents' scale) is FLUX.1's own, unless the file says otherwise.
Source of the fixed values: the configuration files of black-forest-labs/FLUX.1-dev and FLUX.1-schnell.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]  # names as the file has them, without its prefix

_ROPE = {128: [16, 56, 56]}  # head width -> sides of the rotary embedding: only FLUX.1's own is known
_CLIP_HEAD = 64  # channels of a head of every CLIP
_IN_CHANNELS = {384: "FLUX.1 Fill", 128: "FLUX.1 Canny or Depth"}


def blocks(shapes: Shapes, stem: str) -> int:
    """How many blocks `stem.0.`, `stem.1.`… there are. Raises ValueError where one between is missing."""
    pattern = re.compile(re.escape(stem) + r"\.(\d+)\.")
    numbers = {int(match[1]) for name in shapes if (match := pattern.match(name))}
    if numbers != set(range(len(numbers))):
        raise ValueError(f"not complete: of {stem} some are missing; download it again")
    return len(numbers)


def _transformer(shapes: Shapes, told: Mapping[str, Any]) -> dict[str, Any]:
    """`FluxTransformer2DModel` from the names of the authors' code."""
    return _flux(
        told, "guidance_in.in_layer.weight" in shapes, blocks(shapes, "double_blocks"), blocks(shapes, "single_blocks"),
        shapes["img_in.weight"], shapes["txt_in.weight"], shapes["vector_in.in_layer.weight"],
        shapes["double_blocks.0.img_attn.norm.query_norm.scale"],
    )  # fmt: skip


def _transformer_of_diffusers(shapes: Shapes, told: Mapping[str, Any]) -> dict[str, Any]:
    """`FluxTransformer2DModel` from diffusers' own names."""
    return _flux(
        told, "time_text_embed.guidance_embedder.linear_1.weight" in shapes, blocks(shapes, "transformer_blocks"),
        blocks(shapes, "single_transformer_blocks"), shapes["x_embedder.weight"], shapes["context_embedder.weight"],
        shapes["time_text_embed.text_embedder.linear_1.weight"], shapes["transformer_blocks.0.attn.norm_q.weight"],
    )  # fmt: skip


def _flux(
    told: Mapping[str, Any], is_guided: bool, double: int, single: int, image: tuple[int, ...], text: tuple[int, ...],
    pooled: tuple[int, ...], head: tuple[int, ...],
) -> dict[str, Any]:  # fmt: skip
    width, head_width = image[0], head[0]
    rope = told.get("axes_dims_rope") or _ROPE.get(head_width)
    if other := other_inputs(image[1]):
        raise ValueError(other)
    if rope is None or width % head_width:
        raise ValueError(f"no FLUX.1 transformer: its heads are {head_width} wide, not 128")
    return {
        "_class_name": "FluxTransformer2DModel", "patch_size": 1, "in_channels": image[1], "out_channels": None,
        "num_layers": double, "num_single_layers": single, "attention_head_dim": head_width,
        "num_attention_heads": width // head_width, "joint_attention_dim": text[1], "pooled_projection_dim": pooled[1],
        "guidance_embeds": is_guided, "axes_dims_rope": list(rope),
    }  # fmt: skip


def other_inputs(channels: int) -> str:
    """What takes so many channels a token instead of FLUX.1's 64: a picture beside the noise; "" for FLUX.1 itself."""
    return "" if channels == 64 else f"{_IN_CHANNELS.get(channels, 'another model')}, not a FLUX.1 that paints from text alone"


def _vae(shapes: Shapes, told: Mapping[str, Any]) -> dict[str, Any]:
    """`AutoencoderKL` from the names of the authors' code."""
    count = blocks(shapes, "encoder.down")
    channels = [shapes[f"encoder.down.{number}.block.0.conv1.weight"][0] for number in range(count)]
    return _autoencoder(told, channels, blocks(shapes, "encoder.down.0.block"), shapes)


def _vae_of_diffusers(shapes: Shapes, told: Mapping[str, Any]) -> dict[str, Any]:
    count = blocks(shapes, "encoder.down_blocks")
    channels = [shapes[f"encoder.down_blocks.{number}.resnets.0.conv1.weight"][0] for number in range(count)]
    return _autoencoder(told, channels, blocks(shapes, "encoder.down_blocks.0.resnets"), shapes)


def _autoencoder(told: Mapping[str, Any], channels: list[int], layers: int, shapes: Shapes) -> dict[str, Any]:
    latent = shapes["decoder.conv_in.weight"][1]
    if latent != 16:
        raise ValueError(f"a VAE of {latent} latent channels (Stable Diffusion's has 4), not FLUX.1's of 16")
    if "quant_conv.weight" in shapes:
        raise ValueError("another VAE than FLUX.1's: it has a quant_conv")
    fixed = {
        "_class_name": "AutoencoderKL", "act_fn": "silu", "in_channels": 3, "out_channels": 3, "norm_num_groups": 32,
        "sample_size": 1024, "scaling_factor": 0.3611, "shift_factor": 0.1159, "force_upcast": True,
        "use_quant_conv": False, "use_post_quant_conv": False, "mid_block_add_attention": True,
    }  # fmt: skip
    known = {name: told[name] for name in ("norm_num_groups", "scaling_factor", "shift_factor", "sample_size") if name in told}
    return fixed | known | {
        "latent_channels": latent, "block_out_channels": channels, "layers_per_block": layers,
        "down_block_types": ["DownEncoderBlock2D"] * len(channels), "up_block_types": ["UpDecoderBlock2D"] * len(channels),
    }  # fmt: skip


def _clip(shapes: Shapes, told: Mapping[str, Any]) -> dict[str, Any]:
    """`CLIPTextModel`. The end token 2 is what FLUX.1's own configuration says: pooled is the state at the largest token id."""
    vocabulary, width = shapes["embeddings.token_embedding.weight"]
    if width == 1280:
        raise ValueError("the CLIP-G encoder of SDXL; FLUX.1 has CLIP-L (clip_l.safetensors)")
    fixed = {
        "architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "hidden_act": "quick_gelu", "layer_norm_eps": 1e-05,
        "attention_dropout": 0.0, "projection_dim": width, "num_attention_heads": max(1, width // _CLIP_HEAD),
        "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
    }  # fmt: skip
    known = ("num_attention_heads", "bos_token_id", "eos_token_id", "pad_token_id", "projection_dim")
    return fixed | {name: told[name] for name in known if name in told} | {
        "vocab_size": vocabulary, "hidden_size": width, "num_hidden_layers": blocks(shapes, "encoder.layers"),
        "intermediate_size": shapes["encoder.layers.0.mlp.fc1.weight"][0],
        "max_position_embeddings": shapes["embeddings.position_embedding.weight"][0],
    }  # fmt: skip


def _t5(shapes: Shapes, told: Mapping[str, Any]) -> dict[str, Any]:
    """`T5EncoderModel` of version 1.1: a gated feed-forward."""
    first = "encoder.block.0.layer"
    vocabulary, width = shapes["shared.weight"] if "shared.weight" in shapes else shapes["encoder.embed_tokens.weight"]
    if f"{first}.1.DenseReluDense.wi_0.weight" not in shapes:
        raise ValueError("another T5 than FLUX.1's, which has version 1.1 (t5xxl)")
    if "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight" in shapes:
        raise ValueError("a UMT5 encoder; FLUX.1 has T5 version 1.1 (t5xxl)")
    buckets, heads = shapes[f"{first}.0.SelfAttention.relative_attention_bias.weight"]
    fixed = {
        "architectures": ["T5EncoderModel"], "model_type": "t5", "feed_forward_proj": "gated-gelu", "is_gated_act": True,
        "dense_act_fn": "gelu_new", "is_encoder_decoder": False, "use_cache": False, "dropout_rate": 0.1,
        "layer_norm_epsilon": 1e-06, "relative_attention_max_distance": 128, "pad_token_id": 0, "eos_token_id": 1,
        "tie_word_embeddings": True,
    }  # fmt: skip
    known = ("relative_attention_max_distance", "dropout_rate", "pad_token_id", "eos_token_id")
    return fixed | {name: told[name] for name in known if name in told} | {
        "vocab_size": vocabulary, "d_model": width, "num_heads": heads, "relative_attention_num_buckets": buckets,
        "d_kv": shapes[f"{first}.0.SelfAttention.q.weight"][0] // heads, "num_layers": blocks(shapes, "encoder.block"),
        "d_ff": shapes[f"{first}.1.DenseReluDense.wi_0.weight"][0],
    }  # fmt: skip


CONFIG_OF: dict[tuple[str, str], Callable[[Shapes, Mapping[str, Any]], dict[str, Any]]] = {
    ("transformer", "original"): _transformer,
    ("transformer", "diffusers"): _transformer_of_diffusers,
    ("vae", "original"): _vae,
    ("vae", "diffusers"): _vae_of_diffusers,
    ("text_encoder", "diffusers"): _clip,
    ("text_encoder_2", "diffusers"): _t5,
}


def scheduler_config(is_guided: bool) -> dict[str, Any]:
    """Each kind's own: dev shifts by the number of image tokens, schnell not at all."""
    same = {
        "_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "base_image_seq_len": 256,
        "max_image_seq_len": 4096, "base_shift": 0.5, "max_shift": 1.15,
    }  # fmt: skip
    return same | {"shift": 3.0 if is_guided else 1.0, "use_dynamic_shifting": is_guided}
