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
from tests.memory.test_streaming import gradients, new_model

HERE = Runtime(torch.device("cpu"), torch.float32, 0, 1)


ALL = [(precision, is_checkpointed) for precision in (None, "int8", "nf4") for is_checkpointed in (True, False)]


@pytest.mark.parametrize(("precision", "is_checkpointed"), ALL if os.environ.get("FLUXTUI_SOAK") else [("int8", True)])
def test_compiled_blocks_have_the_gradients_of_eager_ones(
    precision: str | None, is_checkpointed: bool, tiny_dev: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler's own front and automatic differentiation; without its code generator, which has no part in what is asked."""
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
    assert len(found) == len(expected) == len(adapter.parameters())
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    torch._dynamo.reset()
