"""What is known of a pipeline without loading it: its own configuration, or FLUX.1's published one. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from fluxtui.engine.family.flux1.components import LONGEST_TEXT, pipeline_at
from fluxtui.persist.models.assembly import part_tensors

FLUX1_VAE: dict[str, Any] = {  # of a model that is still on the hub
    "in_channels": 3, "out_channels": 3, "latent_channels": 16, "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2, "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    "use_quant_conv": False, "use_post_quant_conv": False,
}  # fmt: skip
_T5_PARAMETERS, _CLIP_PARAMETERS, _VAE_PARAMETERS = 4_762_310_656, 123_060_480, 83_819_683
FLUX1_CLIP: dict[str, Any] = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "max_position_embeddings": 77, "vocab_size": 49408,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Model:
    """What is known of a pipeline without loading it."""

    config: Mapping[str, Any]  # the transformer's
    vae_config: Mapping[str, Any]
    clip_config: Mapping[str, Any]
    encoders: int  # parameters of both
    clip: int  # parameters
    vae: int  # parameters
    text_tokens: int

    @property
    def blocks(self) -> int:
        """Blocks of the transformer, of both kinds."""
        return int(self.config.get("num_layers", 19) + self.config.get("num_single_layers", 38))


def model_of(path: Path | None, is_schnell: bool) -> Model:
    """A pipeline's shapes, or FLUX.1's published ones for a model that is not on this disk."""
    if path is None:
        return Model(
            {"guidance_embeds": not is_schnell}, FLUX1_VAE, FLUX1_CLIP, _T5_PARAMETERS + _CLIP_PARAMETERS, _CLIP_PARAMETERS,
            _VAE_PARAMETERS, LONGEST_TEXT[not is_schnell],
        )  # fmt: skip
    found = pipeline_at(path)
    clip = _weights(path / "text_encoder")
    encoders = clip + _weights(path / "text_encoder_2")
    return Model(
        found.transformer_config, found.vae_config, found.clip_config, encoders, clip, _weights(path / "vae"), found.text_tokens
    )


def _weights(folder: Path) -> int:
    """Parameters of a part, by the headers of its files."""
    return sum(prod(info.shape) for info in part_tensors(folder).values())
