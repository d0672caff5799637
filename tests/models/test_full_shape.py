"""FLUX.1 at its full size on the meta device, against diffusers' own converters and the published parameter counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fluxtui.engine.family.flux1.original import _cut, transformer_pieces, vae_pieces
from fluxtui.persist.models.config import CONFIG_OF
from tests.models.singles import original_transformer, original_vae

PARAMETERS = {
    "transformer": 11_901_408_320, "text_encoder_2": 4_762_310_656, "text_encoder": 123_060_480, "vae": 83_819_683,
}  # fmt: skip


def flux(double: int = 19, single: int = 38, guided: bool = True) -> Any:
    from diffusers import FluxTransformer2DModel

    with torch.device("meta"):
        return FluxTransformer2DModel(num_layers=double, num_single_layers=single, guidance_embeds=guided)


def autoencoder() -> Any:
    """As the authors' configuration has it (flux/util.py, AutoEncoderParams)."""
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        return AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=16, sample_size=1024,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            use_quant_conv=False, use_post_quant_conv=False,
        )  # fmt: skip


def renamed(content: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    width = content["img_in.weight"].shape[0]
    return {
        piece.name: _cut(value, piece)
        for name, value in content.items() for piece in transformer_pieces(name, tuple(value.shape), width)
    }  # fmt: skip


@pytest.mark.parametrize("guided", [True, False])
def test_every_key_of_the_whole_transformer_is_diffusers_own(guided: bool) -> None:
    from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers

    model = flux(guided=guided)
    stored = original_transformer(model.state_dict(), 19, 38)
    found = {name: tuple(value.shape) for name, value in renamed(stored).items()}
    assert found == {name: tuple(value.shape) for name, value in model.state_dict().items()}
    wanted = convert_flux_transformer_checkpoint_to_diffusers(dict(stored))
    assert found == {name: tuple(value.shape) for name, value in wanted.items()}


def test_every_row_goes_where_diffusers_puts_it() -> None:
    """A block of each kind at full width, each row numbered: shapes alone would not see q and k exchanged."""
    from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers

    def numbered(name: str, shape: torch.Size) -> torch.Tensor:
        start = sum(name.encode()) % 97
        rows = torch.arange(start, start + shape[0], dtype=torch.int16)
        return rows.view(-1, *[1] * (len(shape) - 1)).expand(shape)

    model = flux(1, 1)
    stored = {name: numbered(name, value.shape) for name, value in original_transformer(model.state_dict(), 1, 1).items()}
    found = renamed(stored)
    for name, value in convert_flux_transformer_checkpoint_to_diffusers(dict(stored)).items():
        assert torch.equal(found.pop(name), value), name
    assert not found


def test_the_whole_vae_is_diffusers_own() -> None:
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    model = autoencoder()
    stored = original_vae(model.state_dict())
    found = {
        piece.name: tuple(_cut(value, piece).shape)
        for name, value in stored.items()
        for piece in vae_pieces(name, value.shape, 4)
    }
    assert found == {name: tuple(value.shape) for name, value in model.state_dict().items()}
    wanted = convert_ldm_vae_checkpoint(dict(stored), dict(model.config))
    assert found == {name: tuple(value.shape) for name, value in wanted.items()}


def test_configurations_read_off_the_shapes_build_models_of_the_published_size() -> None:
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    with torch.device("meta"):
        clip = CLIPTextModel(
            CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12)
        )
        t5 = T5EncoderModel(
            T5Config(d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu",
                     vocab_size=32128)
        )  # fmt: skip
    flux_weights = original_transformer(flux().state_dict(), 19, 38)
    made = {
        "transformer": (FluxTransformer2DModel, read("transformer", "original", flux_weights)),
        "vae": (AutoencoderKL, read("vae", "original", original_vae(autoencoder().state_dict()))),
        "text_encoder": (CLIPTextModel, read("text_encoder", "diffusers", clip.state_dict())),
        "text_encoder_2": (T5EncoderModel, read("text_encoder_2", "diffusers", t5.state_dict())),
    }
    for part, (kind, config) in made.items():
        with torch.device("meta"):
            model = kind.from_config(config) if part in ("transformer", "vae") else kind(kind.config_class(**config))
        assert sum(weight.numel() for weight in model.parameters()) == PARAMETERS[part]
    assert made["transformer"][1]["axes_dims_rope"] == list(flux().config.axes_dims_rope)
    assert made["vae"][1]["scaling_factor"] == 0.3611
    assert made["vae"][1]["shift_factor"] == 0.1159
    assert read("transformer", "diffusers", flux().state_dict()) == made["transformer"][1]
    assert read("vae", "diffusers", autoencoder().state_dict()) == made["vae"][1]


def read(part: str, naming: str, weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    return CONFIG_OF[part, naming]({name: tuple(value.shape) for name, value in weights.items()}, {})
