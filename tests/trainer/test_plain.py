"""A plain LoRA's own forward pass beside peft's: the same sum and gradients, over fewer numbers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from peft.tuners.lora.layer import Linear
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from fluxtui.engine.memory.precision import CODECS, QuantizedLinear
from fluxtui.engine.trainer.adapter.lora import Adapter, add_lora
from fluxtui.engine.trainer.adapter.plain import PlainLinear
from fluxtui.persist.settings.spec import LoraSpec

IN, OUT = 48, 96


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def adapted(dtype: torch.dtype, precision: str = "", **spec: float) -> Adapter:
    """One adapted layer `layer`, B drawn as well; alpha is three times the rank."""
    layer = nn.Linear(IN, OUT, device="meta").to_empty(device="cpu")
    layer.weight = nn.Parameter(0.1 * normal(OUT, IN, seed=1).to(dtype))
    layer.bias = nn.Parameter(normal(OUT, seed=2).to(dtype))
    held = layer
    if precision:
        held = QuantizedLinear(layer, CODECS[precision])
        held.take(layer.weight.detach().float())
    model = nn.ModuleDict({"layer": held}).requires_grad_(False)
    adapter = add_lora(model, ["layer"], LoraSpec(rank=4, alpha=12.0, **spec), seed=7)
    with torch.no_grad():
        adapter.layers["layer"].lora_B["default"].weight.copy_(0.1 * normal(OUT, 4, seed=3))
    adapter.place.begin(2, [0, 1, 2], torch.device("cpu"), dtype)
    return adapter


def inputs_of(kind: str, dtype: torch.dtype) -> torch.Tensor:
    match kind:
        case "flat":
            return normal(3, IN, seed=4).to(dtype)
        case "part of longer rows":  # as attention's output, of text and picture, is given on
            return normal(3, 9, IN, seed=4).to(dtype)[:, 4:]
        case _:
            return normal(3, 5, IN, seed=4).to(dtype)


def passed(adapter: Adapter, inputs: torch.Tensor, forward: Any) -> list[torch.Tensor]:
    """Output, the gradients of A and B, and of the inputs where they want one."""
    outputs = forward(adapter.layers["layer"], inputs)
    outputs.backward(normal(*outputs.shape, seed=5).to(outputs.dtype))
    found = [outputs.detach(), *(parameter.grad for parameter in adapter.parameters())]
    return [*found, inputs.grad] if inputs.requires_grad else found


def ours(layer: Any, inputs: torch.Tensor) -> torch.Tensor:
    outputs: torch.Tensor = layer(inputs)
    return outputs


@pytest.mark.parametrize("precision", ["", "int8", "fp8"])
@pytest.mark.parametrize("kind", ["flat", "in a row", "part of longer rows", "without a gradient"])
@pytest.mark.parametrize("drops", [{}, {"dropout": 0.3}, {"rank_dropout": 0.3, "module_dropout": 0.3}], ids=str)
@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_it_is_the_sum_of_base_and_update_and_so_are_its_gradients(
    precision: str, kind: str, drops: dict[str, float], is_checkpointed: bool
) -> None:
    """In float64, where only another formula could tell them apart."""
    found = []
    for forward in (ours, Linear.forward):
        adapter = adapted(torch.float64, precision, **drops)
        inputs = inputs_of(kind, torch.float64).requires_grad_(kind != "without a gradient")
        through = (lambda layer, x, f=forward: checkpoint(f, layer, x, use_reentrant=False)) if is_checkpointed else forward
        leaf = inputs.detach().requires_grad_(inputs.requires_grad)
        found.append(passed(adapter, leaf, through))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12 if one.dtype == torch.float64 else 1e-6)


@pytest.mark.parametrize("precision", ["", "int8", "nf4"])
def test_in_bf16_it_is_nearer_to_the_exact_sum_than_with_each_product_rounded_for_itself(precision: str) -> None:
    errors = []
    for forward in (ours, Linear.forward):
        adapter = adapted(torch.bfloat16, precision)
        layer = adapter.layers["layer"]
        inputs = normal(3, 257, IN, seed=4).to(torch.bfloat16)
        made = forward(layer, inputs)
        assert made.dtype == torch.bfloat16
        a, b = (factor.detach().bfloat16().double() for factor in adapter.parameters())
        base = layer.get_base_layer()
        weight = CODECS[precision].decode(base.parts(), base.shape, torch.float32) if precision else base.weight
        exact = inputs.double() @ (weight.double() + 3.0 * b @ a).T + base.bias.double()
        errors.append(float((made.detach().double() - exact).norm() / exact.norm()))
    assert errors[0] < errors[1] < 0.006


def test_without_its_adapter_it_is_the_base_alone_and_merged_it_is_the_sum() -> None:
    adapter = adapted(torch.float32)
    layer, inputs = adapter.layers["layer"], inputs_of("in a row", torch.float32)
    base, whole = layer.get_base_layer()(inputs), layer(inputs)
    with adapter.off():
        assert torch.equal(layer(inputs), base)
    assert not torch.allclose(whole, base)
    layer.merge()
    torch.testing.assert_close(layer(inputs), whole, rtol=1e-5, atol=1e-5)
    layer.unmerge()
    torch.testing.assert_close(layer(inputs), whole, rtol=1e-5, atol=1e-5)


def test_only_a_plain_lora_has_it() -> None:
    assert isinstance(adapted(torch.float32).layers["layer"], PlainLinear)
    model = nn.ModuleDict({"layer": nn.Linear(IN, OUT)}).requires_grad_(False)
    assert type(add_lora(model, ["layer"], LoraSpec(rank=4, alpha=12.0, kind="dora"), seed=7).layers["layer"]) is Linear


class Large(TorchDispatchMode):
    """Counts the operations whose result is as large as a layer's output."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.numel() == 3 * 5 * OUT and not func.is_view:
            self.seen[func.overloadpacket.__name__] += 1
        return made


def test_two_operations_are_as_large_as_the_output_and_none_of_the_backward_pass() -> None:
    layer, inputs = adapted(torch.float32).layers["layer"], inputs_of("in a row", torch.float32).requires_grad_()
    with Large() as forward:
        outputs = layer(inputs)
    assert forward.seen == {"addmm": 1, "addmm_": 1}
    with Large() as backward:
        outputs.backward(torch.ones(outputs.shape))
    assert not {name for name in backward.seen if name not in ("_unsafe_view", "ones")}
