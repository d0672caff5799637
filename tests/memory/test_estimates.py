"""The planner against what it plans: published counts exactly, torch's own accounting within 5 %."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch

from fluxtui.engine.memory.activations import Shape, _inputs, _seen, _with_adapter, measure
from fluxtui.engine.memory.model import FLUX1_VAE
from fluxtui.engine.memory.peak_bytes import LiveBytes, fused_attention, id_of
from fluxtui.engine.memory.precision import CODECS, QuantizedLinear, quantize_layers
from fluxtui.engine.memory.roofline import CARDS, card_named, step_flops, step_seconds
from fluxtui.engine.memory.weights import count_weights
from fluxtui.persist.settings.spec import LoraSpec
from tests.trainer.tiny_flux import new_transformer

FLUX = {"guidance_embeds": True}


def shape(**changes: Any) -> Shape:
    settings = {
        "dtype": torch.float32, "is_coded": False, "lora": LoraSpec(rank=4), "tokens": 64, "text_tokens": 16, "batch": 1,
        "is_checkpointed": False,
    }  # fmt: skip
    return Shape(**{**settings, **changes})


def test_parameter_counts_are_the_published_ones() -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    def count(double: int, single: int) -> int:
        return count_weights(FLUX | {"num_layers": double, "num_single_layers": single}, "bf16", 2, 0).parameters

    assert count(19, 38) == 11_901_408_320
    assert count(2, 1) - count(1, 1) == 339_831_296
    assert count(1, 2) - count(1, 1) == 141_591_808
    with torch.device("meta"):
        vae = AutoencoderKL.from_config(FLUX1_VAE)
        clip = CLIPTextModel(
            CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
        )
        t5 = T5EncoderModel(
            T5Config(
                d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu", vocab_size=32128
            )
        )
    sizes = [sum(parameter.numel() for parameter in module.parameters()) for module in (vae, clip, t5)]
    assert sizes == [83_819_683, 123_060_480, 4_762_310_656]


@pytest.mark.parametrize("precision", ["bf16", "int8", "fp8", "nf4"])
@pytest.mark.parametrize("streamed", [0, 3])
def test_counted_weights_are_those_of_a_model_that_is_built(precision: str, streamed: int) -> None:
    from fluxtui.engine.memory.copy_stream import PlainCopyStream
    from fluxtui.engine.memory.streaming import stream_blocks, streamed_names

    model = new_transformer(num_layers=2, num_single_layers=3, num_attention_heads=4).to(torch.bfloat16)
    config = dict(model.config)
    if precision in CODECS:
        for blocks in (model.transformer_blocks, model.single_transformer_blocks):
            given = {f"{name}.weight": module.weight for name, module in blocks.named_modules() if hasattr(module, "weight")}
            quantize_layers(blocks, CODECS[precision])
            for name, layer in blocks.named_modules():
                if isinstance(layer, QuantizedLinear):
                    layer.take(given[f"{name}.weight"].detach())
    model.requires_grad_(False)
    whole = sum(tensor.nbytes for tensor in model.state_dict().values())
    counted = count_weights(config, precision, 2, streamed)
    assert counted.resident + counted.hosted == whole
    if streamed:
        streamer = stream_blocks(model, streamed_names(2, 3, streamed), PlainCopyStream(), 1.0)
        assert sum(piece.size for block in streamer.blocks for piece in block.pieces) == counted.hosted
        assert sum(map(len, streamer.slots)) == pytest.approx(counted.slots, rel=0.02)  # tensors begin at multiples of 256


@pytest.mark.parametrize("is_checkpointed", [True, False])
@pytest.mark.parametrize("is_coded", [True, False])
def test_blocks_measured_apart_are_the_whole_model(is_checkpointed: bool, is_coded: bool) -> None:
    config = dict(new_transformer(num_layers=4, num_single_layers=5, num_attention_heads=16).config)
    settings = shape(is_checkpointed=is_checkpointed, is_coded=is_coded, tokens=256)
    apart, whole = measure(config, settings), _seen(config, settings, 4, 5)
    assert apart.lora_parameters == whole.lora
    assert apart.kept == pytest.approx(whole.kept, rel=0.02)
    # the whole model's own figure has the adapter's gradients in it as well, as far as they are there by then
    assert 0.95 * apart.peak < whole.kept + whole.work < 1.05 * apart.peak + 4 * whole.lora


def kept_by_autograd(config: dict[str, Any], settings: Shape) -> int:
    """Bytes of all tensors that torch keeps of a real forward pass, weights left out: autograd's own accounting, and what
    checkpoints hold as plain arguments to compute from again."""
    model, _ = _with_adapter(config, settings, config["num_layers"], config["num_single_layers"])
    model = model.to_empty(device="cpu")
    kept: dict[int, tuple[int, Any]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in before:
            kept[storage._cdata] = (storage.nbytes(), storage)  # held, so that no other takes its address
        return tensor

    inputs = {
        name: torch.zeros(value.shape, dtype=value.dtype) if isinstance(value, torch.Tensor) else value
        for name, value in _inputs(model.config, settings).items()
    }
    before = {id_of(tensor) for tensor in (*all_tensors(), *model.parameters(), *model.buffers())}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(**inputs)
    if settings.is_checkpointed:
        for tensor in all_tensors():
            keep(tensor)
    del output
    return sum(size for size, _ in kept.values())


def all_tensors() -> list[torch.Tensor]:
    """Every tensor that Python knows of."""
    return [found for found in gc.get_objects() if type(found) is torch.Tensor and found.device.type == "cpu"]


def slice_of(heads: int, double: int, single: int) -> dict[str, Any]:
    shape = {"num_attention_heads": heads, "attention_head_dim": 128, "axes_dims_rope": (16, 56, 56)}
    with torch.device("meta"):
        return dict(new_transformer(num_layers=double, num_single_layers=single, **shape).config)


@pytest.mark.parametrize(("heads", "double", "single"), [(4, 2, 2), (8, 1, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_activations_are_torchs_own_accounting_on_slices(
    heads: int, double: int, single: int, dtype: torch.dtype, is_checkpointed: bool
) -> None:
    config = slice_of(heads, double, single)
    settings = shape(dtype=dtype, tokens=256, text_tokens=64, is_checkpointed=is_checkpointed)
    assert measure(config, settings).kept == pytest.approx(kept_by_autograd(config, settings), rel=0.05)


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_activations_are_torchs_own_accounting_at_full_width(is_checkpointed: bool) -> None:
    """A double and a single block of FLUX.1's 24 heads of 128."""
    config = slice_of(24, 1, 1) | {"joint_attention_dim": 4096, "pooled_projection_dim": 768}
    settings = shape(tokens=64, text_tokens=16, is_checkpointed=is_checkpointed)
    assert measure(config, settings).kept == pytest.approx(kept_by_autograd(config, settings), rel=0.05)


def test_activations_grow_with_the_batch_and_shrink_with_checkpointing() -> None:
    config = dict(new_transformer(num_layers=3, num_single_layers=6).config)
    one, four = (measure(config, shape(batch=batch)) for batch in (1, 4))
    assert 3 * one.kept < four.kept < 4.1 * one.kept
    checkpointed = measure(config, shape(is_checkpointed=True))
    assert checkpointed.kept < one.kept / 5
    assert checkpointed.peak < one.peak / 2


def test_the_roofline_gives_the_fields_own_work_and_times() -> None:
    work = [step_flops(FLUX, (side // 16) ** 2, 512, 1, is_checkpointed=True) / 1e12 for side in (512, 768, 1024)]
    assert work == pytest.approx([67, 134, 245], rel=0.02)
    for name, seconds in (("NVIDIA GeForce RTX 4090", (0.56, 1.1, 2.0)), ("NVIDIA H100 80GB HBM3", (0.15, 0.30, 0.55))):
        card = card_named(name)
        assert card is not None
        assert [step_seconds(card, flops * 1e12, 0, 0, 0.0, True) for flops in work] == pytest.approx(seconds, rel=0.05)
    assert card_named("Radeon") is None


def test_what_is_streamed_costs_time_only_beyond_what_computing_hides() -> None:
    card = CARDS[5]
    plain = step_seconds(card, 1e14, 0, 0, 0.0, True)
    hidden = step_seconds(card, 1e14, 0, 10**9, 0.5, True)
    bare = step_seconds(card, 1e14, 0, 50 * 10**9, 0.5, True)
    assert plain == hidden < bare == pytest.approx(plain / 2 + 100e9 / card.link)
    assert step_seconds(card, 1e14, 10**10, 0, 0.0, True) > plain


def test_a_gpu_holds_the_sums_of_deterministic_attention_in_its_backward_pass() -> None:
    query, key, value = (torch.empty(2, 3, 40, 16, device="meta", requires_grad=True) for _ in range(3))
    peaks = []
    for splits in (0, 5):
        with fused_attention(), LiveBytes(splits) as live:
            torch.autograd.backward(torch.nn.functional.scaled_dot_product_attention(query, key, value).sum())
        peaks.append(live.peak)
    gradients = 3 * 4 * query.numel()
    assert peaks[1] >= gradients + 5 * 4 * query.numel()
    assert peaks[1] - peaks[0] == 5 * 4 * query.numel()
