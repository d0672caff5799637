"""The frozen base in 8 and 4 bits: how far off it is, what autograd keeps, whose gradients flow, and that it trains."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench.memory import errors_of
from fluxtui.engine.memory.base import check_float32
from fluxtui.engine.memory.precision import CODECS, QuantizedLinear
from fluxtui.engine.prove import prove
from fluxtui.engine.trainer.loop import take_step
from fluxtui.engine.trainer.refusal import Refusal
from tests.trainer.job import Bench

NewBench = Callable[..., Bench]

# relative weight error of normal weights, at most; facts of the field, and what was measured here (docs/memory.md)
WEIGHT_ERROR = {"int8": 0.0095, "fp8": 0.0275, "nf4": 0.093}


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def quantized(weight: torch.Tensor, name: str, bias: torch.Tensor | None = None) -> QuantizedLinear:
    like = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    if bias is not None:
        like.bias = nn.Parameter(bias, requires_grad=False)
    layer = QuantizedLinear(like, CODECS[name])
    layer.take(weight)
    return layer


@pytest.mark.parametrize("name", WEIGHT_ERROR)
def test_a_weight_comes_back_within_the_error_of_its_precision(name: str) -> None:
    weight = 0.02 * normal(256, 3072)
    layer = quantized(weight, name)
    error = (CODECS[name].decode(layer.parts(), layer.shape, torch.float32) - weight).norm() / weight.norm()
    assert 0.3 * WEIGHT_ERROR[name] < error < WEIGHT_ERROR[name]
    assert sum(part.nbytes for part in layer.parts()) == CODECS[name].nbytes(layer.shape)
    assert sum(part.nbytes for part in layer.parts()) < {"int8": 1.01, "fp8": 1.01, "nf4": 0.57}[name] * weight.numel()


@pytest.mark.parametrize("name", WEIGHT_ERROR)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_product_and_gradient_are_those_of_the_decoded_weight(name: str, dtype: torch.dtype) -> None:
    layer = quantized(0.02 * normal(96, 192), name, bias=normal(96, seed=1).to(dtype))
    decoded = CODECS[name].decode(layer.parts(), layer.shape, torch.float32)
    inputs = normal(2, 5, 192, seed=2).to(dtype).requires_grad_()
    outputs = layer(inputs)
    outputs.backward(weights := normal(2, 5, 96, seed=3).to(dtype))
    assert outputs.dtype == inputs.grad.dtype == dtype
    assert layer.bias is not None
    expected = inputs.detach().float() @ decoded.T + layer.bias.float()
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    assert (outputs.float() - expected).norm() < tolerance * expected.norm()
    gradient = weights.float() @ decoded
    assert (inputs.grad.float() - gradient).norm() < tolerance * gradient.norm()
    assert not any(parameter.requires_grad for parameter in layer.parameters())


@pytest.mark.parametrize("name", ["int8", "fp8"])
def test_in_bf16_scaling_the_weight_is_no_further_off_than_scaling_the_product_of_the_codes(name: str) -> None:
    """What it is spared: three roundings of the output (product, scale, bias). It pays with one of the weight."""
    bias = (0.5 * normal(384, seed=1)).to(torch.bfloat16)
    layer = quantized(0.02 * normal(384, 768), name, bias=bias)
    inputs = normal(96, 768, seed=2).to(torch.bfloat16)
    codes, scales = layer.parts()
    codes = codes.view(torch.int8 if name == "int8" else torch.float8_e4m3fn).to(torch.bfloat16)
    exact = inputs.float() @ CODECS[name].decode(layer.parts(), layer.shape, torch.float32).T + bias.float()
    apart = nn.functional.linear(inputs, codes) * scales.to(torch.bfloat16) + bias
    errors = [float((made.float() - exact).norm() / exact.norm()) for made in (layer(inputs), apart)]
    assert errors[0] < 0.9 * errors[1] < 0.004


@pytest.mark.parametrize("name", WEIGHT_ERROR)
def test_autograd_keeps_the_codes_and_never_a_decoded_weight(name: str) -> None:
    layer = quantized(normal(128, 256), name)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: (kept.append(tensor), tensor)[1], lambda tensor: tensor):
        layer(normal(1, 4, 256).requires_grad_())
    own = {part.data_ptr() for part in layer.parts()}
    assert kept
    assert all(tensor.data_ptr() in own for tensor in kept)


@pytest.mark.parametrize("name", WEIGHT_ERROR)
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("width", [128, 96])  # of rows that nf4's blocks divide, and that they do not
def test_every_dtype_that_a_checkpoint_is_stored_in_goes_into_every_precision(
    name: str, stored: torch.dtype, width: int
) -> None:
    weight = (0.02 * normal(63, width)).to(stored)  # 96 wide: the last block is half full
    layer = quantized(weight, name)
    meant = weight.float()
    error = (CODECS[name].decode(layer.parts(), layer.shape, torch.float32) - meant).norm() / meant.norm()
    assert error < (1.2 if stored.itemsize == 1 else 1.0) * WEIGHT_ERROR[name]  # coarse numbers are not spread evenly


@pytest.mark.parametrize("name", WEIGHT_ERROR)
def test_rows_of_zeros_and_outliers_stay_finite(name: str) -> None:
    weight = normal(4, 128)
    weight[0] = 0.0
    weight[1, 3] = 1e4
    decoded = CODECS[name].decode(quantized(weight, name).parts(), (4, 128), torch.float32)
    assert torch.isfinite(decoded).all()
    assert not decoded[0].any()
    assert decoded[1, 3] == pytest.approx(1e4, rel=0.01)


SOAK = os.environ.get("FLUXTUI_SOAK")
TABLE = (Path(__file__).parents[2] / "docs" / "memory.md").read_text()


def documented(precision: str) -> list[float]:
    """Shares: of the weights, a double block's update, a single block's update."""
    row = next(line for line in TABLE.splitlines() if line.startswith(f"| {precision} |") and line.count("%") == 3)
    return [float(cell.strip(" %")) / 100 for cell in row.split("|")[2:5]]


@pytest.mark.parametrize(("kind", "column"), [("double", 1), ("single", 2)])
def test_weights_and_blocks_are_no_further_off_than_the_docs_say(kind: str, column: int) -> None:
    """Narrow blocks are a little nearer than those of full width, which `make soak` goes through."""
    width, near = (3072, 0.95) if SOAK else (384, 0.7)
    seen = {name: found for name, *found in errors_of(kind, width)}
    assert list(seen) == ["bf16", "int8", "fp8", "nf4"]
    for precision, (of_weights, of_update) in seen.items():
        said = documented(precision)
        assert near * said[0] - 1e-4 < of_weights < 1.02 * said[0] + 1e-4, precision
        assert near * said[column] < of_update < 1.05 * said[column], precision


@pytest.mark.parametrize("precision", ["bf16", "int8", "fp8", "nf4"] if SOAK else ["int8", "nf4"])
def test_the_tiny_model_trains_through_each_precision_to_a_proven_file(new_bench: NewBench, precision: Any) -> None:
    bench = new_bench(model__precision=precision, train__steps=3, train__gradient_checkpointing=True)
    ended = bench.train()
    assert ended.code == 0, ended.log
    assert (f"held in {precision}" in ended.log) == (precision != "bf16")
    bench.write_record()
    proof = prove(bench.root, bench.spec.name, 0, lambda **_: None)
    assert proof.ok, proof


def test_gradients_reach_every_factor_over_quantized_layers(new_bench: NewBench) -> None:
    run = new_bench(model__precision="int8").prepare_here()
    for index, parameter in enumerate(run.parameters):
        with torch.no_grad():
            parameter.copy_(0.02 * normal(*parameter.shape, seed=index))
    batch = run.plan(0)[0]
    seen: dict[str, torch.Tensor] = {}
    run.optimizer.register_step_pre_hook(
        lambda *_: seen.update({name: parameter.grad.clone() for name, parameter in run.adapter.named_parameters()})
    )
    take_step(run, batch)
    assert set(seen) == set(dict(run.adapter.named_parameters()))
    assert all(gradient.any() for gradient in seen.values())
    quantized_layers = [module for module in run.adapter.model.modules() if isinstance(module, QuantizedLinear)]
    assert len(quantized_layers) == 2 * 14 + 2 * 6


def test_what_is_trained_in_fewer_bits_than_32_is_refused_at_the_start() -> None:
    fine, coarse = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(4, dtype=torch.bfloat16))
    check_float32([fine], torch.optim.AdamW([fine]))
    with pytest.raises(Refusal, match="bfloat16"):
        check_float32([fine, coarse], torch.optim.AdamW([fine]))
    optimizer = torch.optim.AdamW([coarse])
    coarse.grad = torch.ones_like(coarse)
    optimizer.step()
    with pytest.raises(Refusal, match="bfloat16"):
        check_float32([fine], optimizer)


def test_an_optimizer_that_a_checkpoint_brings_back_in_fewer_bits_is_refused(
    new_bench: NewBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is restored an optimizer has no state to look at."""
    bench = new_bench(train__steps=2)
    bench.run_here()
    load = torch.optim.AdamW.load_state_dict

    def coarse(optimizer: torch.optim.AdamW, saved: dict[str, Any]) -> None:
        load(optimizer, saved)
        for state in optimizer.state.values():
            state["exp_avg"] = state["exp_avg"].to(torch.bfloat16)

    monkeypatch.setattr(torch.optim.AdamW, "load_state_dict", coarse)
    with pytest.raises(Refusal, match="bfloat16"):
        bench.prepare_here()
