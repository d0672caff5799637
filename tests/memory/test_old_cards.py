"""GPUs older than Ampere, on which torch has fused attention in float32 and none in bf16."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fluxtui.engine import cards
from fluxtui.engine.family.flux1.targets import target_names
from fluxtui.engine.family.flux1.transformer import attend_in_float32, velocity
from fluxtui.engine.memory import base
from fluxtui.engine.memory.precision import CODECS, quantize_layers
from fluxtui.engine.trainer.adapter.lora import add_lora
from fluxtui.persist.settings.spec import LoraSpec
from tests.memory.test_presets import BASE
from tests.trainer.tiny_flux import new_transformer


@pytest.fixture
def attended(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[set[torch.dtype]]]:
    """The dtypes of queries, keys and values, call by call."""
    seen: list[set[torch.dtype]] = []
    whole = torch.nn.functional.scaled_dot_product_attention

    def watched(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **more: Any) -> torch.Tensor:
        seen.append({query.dtype, key.dtype, value.dtype})
        return whole(query, key, value, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    return seen


def adapted(is_old: bool) -> tuple[Any, list[torch.nn.Parameter]]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = new_transformer().to(torch.bfloat16).requires_grad_(False)
    adapter = add_lora(model, target_names(model, "attention+mlp"), LoraSpec(rank=4), 0)
    with torch.no_grad():
        for name, parameter in adapter.named_parameters():
            if name.endswith("lora_B"):
                parameter.add_(0.01)
    model.enable_gradient_checkpointing()
    if is_old:
        attend_in_float32(model, torch.bfloat16)
    return model.train(), adapter.parameters()


def step(model: Any) -> torch.Tensor:
    source = torch.Generator().manual_seed(1)
    noisy, text, pooled = (torch.randn(shape, generator=source) for shape in ((2, 16, 8, 8), (2, 16, 32), (2, 24)))
    made = velocity(model, noisy, torch.tensor([0.3, 0.8]), text, pooled, 1.0, torch.bfloat16)
    made.square().mean().backward()
    return made.detach()


def test_attention_alone_computes_in_float32_and_gradients_are_the_same_but_for_rounding(
    attended: list[set[torch.dtype]],
) -> None:
    new, its = adapted(is_old=False)
    wanted = step(new)
    assert attended == [{torch.bfloat16}] * 8, "four blocks, each computed twice"
    attended.clear()
    old, parameters = adapted(is_old=True)
    outputs: set[torch.dtype] = set()
    for block in (*old.transformer_blocks, *old.single_transformer_blocks):
        block.register_forward_hook(lambda _block, _inputs, made: outputs.update(value.dtype for value in made))
    found = step(old)
    assert attended == [{torch.float32}] * 8
    assert outputs == {torch.bfloat16}
    assert (found - wanted).norm() < 0.02 * wanted.norm()
    for one, other in zip(parameters, its, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert (one.grad - other.grad).norm() < 0.05 * other.grad.norm()


def test_a_base_in_codes_does_the_same(attended: list[set[torch.dtype]]) -> None:
    with torch.device("meta"):
        model = new_transformer()
    weights = {name: torch.randn(value.shape).to(torch.bfloat16) * 0.05 for name, value in new_transformer().state_dict().items()}
    for blocks in (model.transformer_blocks, model.single_transformer_blocks):
        quantize_layers(blocks, CODECS["int8"])
    for name, value in weights.items():
        owner, _, last = name.rpartition(".")
        layer: Any = model.get_submodule(owner)
        if last == "weight" and hasattr(layer, "take"):
            layer.take(value)
        else:
            layer._parameters[last] = torch.nn.Parameter(value, requires_grad=False)
    attend_in_float32(model, torch.bfloat16)
    with torch.no_grad():
        made = velocity(model, torch.randn(1, 16, 8, 8), torch.tensor([0.5]), torch.randn(1, 16, 32), torch.randn(1, 24), 1.0,
                        torch.bfloat16)  # fmt: skip
    assert attended == [{torch.float32}] * 4
    assert torch.isfinite(made).all()


@pytest.mark.parametrize(("capability", "dtype", "is_done"), [
    ((7, 5), torch.bfloat16, True), ((8, 0), torch.bfloat16, False), ((7, 5), torch.float32, False),
])  # fmt: skip
def test_it_is_done_on_such_cards_alone_and_said(
    capability: tuple[int, int], dtype: torch.dtype, is_done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, said = list[torch.dtype](), list[str]()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _index: capability)
    monkeypatch.setattr(base, "attend_in_float32", lambda _model, taken: done.append(taken))
    here: Any = SimpleNamespace(device=torch.device("cuda"), dtype=dtype, card=24 * 10**9)
    config: Any = SimpleNamespace(transformer_config={"num_layers": 2, "num_single_layers": 2})
    base.ready_blocks(new_transformer(), config, BASE, here, said.append)
    assert done == ([dtype] if is_done else [])
    assert any("older than Ampere" in text for text in said) == is_done
    assert cards.is_without_bf16(None) == (capability < (8, 0))
