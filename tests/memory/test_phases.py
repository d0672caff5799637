"""Phases never overlap: when a part is loaded, those of the phase before are gone, with every byte."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from fluxtui.engine.family.flux1.components import Components, TextEncoders
from tests.trainer.job import Bench

NewBench = Callable[..., Bench]
LOADS = {"load_text_encoders": "text encoders", "load_vae": "VAE", "load_transformer": "transformer"}


def modules_of(loaded: Any) -> list[nn.Module]:
    return [loaded.t5, loaded.clip] if isinstance(loaded, TextEncoders) else [loaded]


@pytest.mark.parametrize("is_kept", [False, True])
def test_encoders_vae_and_transformer_are_never_in_memory_together(
    new_bench: NewBench, monkeypatch: pytest.MonkeyPatch, is_kept: bool
) -> None:
    """`is_kept`: the measure itself, with somebody who holds on to T5."""
    weights: list[tuple[str, weakref.ref[Any]]] = []
    found: list[tuple[str, set[str]]] = []
    hoard: list[Any] = []

    def watched(real: Callable[..., Any], part: str) -> Callable[..., Any]:
        def load(*arguments: Any, **named: Any) -> Any:
            found.append((part, {name for name, weight in weights if weight() is not None}))
            loaded = real(*arguments, **named)
            for module in modules_of(loaded):
                weights.extend((part, weakref.ref(parameter.untyped_storage())) for parameter in module.parameters())
            if is_kept and isinstance(loaded, TextEncoders):
                hoard.append(loaded.t5)
            return loaded

        return load

    for name, part in LOADS.items():
        monkeypatch.setattr(Components, name, watched(getattr(Components, name), part))
    new_bench(train__steps=1).prepare_here()
    kept = {"text encoders"} if is_kept else set()
    assert found == [("text encoders", set()), ("VAE", kept), ("transformer", kept)]
