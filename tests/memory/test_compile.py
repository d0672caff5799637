"""Compiled blocks train: the gradients of eager ones, with checkpointing and with a base in 8 bits."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from fluxtui.engine.family.flux1.components import Components
from fluxtui.engine.memory.base import ready_blocks
from fluxtui.engine.trainer.runtime import Runtime
from fluxtui.persist.settings import recipe
from tests.memory.test_presets import BASE
from tests.memory.test_streaming import gradients, inputs, new_model

HERE = Runtime(torch.device("cpu"), torch.float32, 0, 1)


ALL = [(precision, is_checkpointed) for precision in (None, "int8", "nf4") for is_checkpointed in (True, False)]


@pytest.mark.parametrize(("precision", "is_checkpointed"), ALL if os.environ.get("FLUXTUI_SOAK") else [("int8", True)])
def test_compiled_blocks_have_the_gradients_of_eager_ones(
    precision: str | None, is_checkpointed: bool, tiny_dev: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler's own front and automatic differentiation; without its code generator, which has no part in what is asked."""
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 8)
    expected = gradients(*new_model(precision))
    model, adapter = new_model(precision)
    model.disable_gradient_checkpointing()
    frames: list[Any] = []

    def seen(graph: Any, inputs: Any) -> Any:
        from torch._dynamo.backends.debugging import aot_eager

        frames.append(graph)
        return aot_eager(graph, inputs)

    monkeypatch.setattr(type(model), "compile_repeated_blocks", partial(type(model).compile_repeated_blocks, model, backend=seen))
    spec = recipe.apply(BASE, {"hardware.compile": True, "train.gradient_checkpointing": is_checkpointed})
    ready_blocks(model, Components(tiny_dev), spec, HERE, lambda _line: None)
    found = gradients(model, adapter)
    assert frames, "nothing was compiled"
    assert torch._dynamo.config.recompile_limit == 64  # what a run computes takes up to 16 graphs; dynamo's own limit is 8
    assert len(found) == len(expected) == len(adapter.parameters())
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    torch._dynamo.reset()


def batch_of(pictures: int, side: int) -> dict[str, Any]:
    """Inputs of so many square pictures of `side` by `side` tokens."""
    found = inputs(pictures)
    places = [[0.0, row, column] for row in range(side) for column in range(side)]
    return found | {"hidden_states": torch.randn(pictures, side * side, 64), "img_ids": torch.tensor(places)}


@pytest.mark.soak
def test_whatever_a_run_computes_fits_in_the_graphs_that_a_block_may_have(
    tiny_dev: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Buckets, partial batches, the base's own prediction, held-out losses and samples: nothing of it runs uncompiled."""
    model, adapter = new_model()
    torch._dynamo.reset()  # what the test before has compiled
    monkeypatch.setattr(torch._dynamo.config, "fail_on_recompile_limit_hit", True)
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", torch._dynamo.config.recompile_limit)  # put back afterwards
    without_a_compiler = partial(type(model).compile_repeated_blocks, model, backend="eager")
    monkeypatch.setattr(type(model), "compile_repeated_blocks", without_a_compiler)
    spec = recipe.apply(BASE, {"hardware.compile": True})
    ready_blocks(model, Components(tiny_dev), spec, HERE, lambda _line: None)
    for pictures in (2, 1, 3):
        for side in (4, 3):
            model.train()(**batch_of(pictures, side))[0].sum().backward()
            with torch.no_grad():
                model(**batch_of(pictures, side))
                with adapter.off():
                    model(**batch_of(pictures, side))
                model.eval()(**batch_of(pictures, side))
    torch._dynamo.reset()
