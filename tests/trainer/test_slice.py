"""A slice of FLUX.1 at its full width goes through the real loop: what a run of the whole model does, block for block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fluxtui.engine.trainer import prepare
from fluxtui.engine.trainer.loop import advance
from fluxtui.persist import metrics
from tests.trainer.job import Bench
from tests.trainer.tiny_flux import new_transformer


def full_width_slice() -> torch.nn.Module:
    """One double and one single block of FLUX.1's own width in bf16, filled from one block of numbers (drawing takes longer)."""
    with torch.device("meta"):
        transformer = new_transformer(
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=128,
            num_attention_heads=24,
            axes_dims_rope=(16, 56, 56),
        )
    transformer = transformer.to(torch.bfloat16).to_empty(device="cpu").requires_grad_(False)
    numbers = torch.randn(1 << 20, generator=torch.Generator().manual_seed(2)).to(torch.bfloat16) * 0.02
    for name, parameter in transformer.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        else:
            repeats = -(-parameter.numel() // len(numbers))
            parameter.copy_(numbers.repeat(repeats)[: parameter.numel()].view_as(parameter))
    return transformer


def test_a_slice_of_the_full_width_trains_in_bf16_with_checkpointing_through_the_real_loop(
    new_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    monkeypatch.setattr(prepare, "load_base", lambda *_: made.append(full_width_slice()) or made[0])
    bench = new_bench(
        model__precision="bf16", train__gradient_checkpointing=True, train__steps=3, train__batch_size=1,
        train__scheduler="constant", dataset__resolution=[32],
    )  # fmt: skip
    run = bench.prepare_here()
    assert made[0].is_gradient_checkpointing
    assert isinstance(run.optimizer, torch.optim.AdamW)
    before = {name: parameter.detach().clone() for name, parameter in run.adapter.named_parameters()}
    assert {3072} <= {parameter.shape[-1] for parameter in before.values()}
    assert advance(run, 3)
    run.close()
    moved = {name: (parameter.detach() - before[name]).abs().max().item() for name, parameter in run.adapter.named_parameters()}
    assert min(moved.values()) > 1e-4  # each of three steps is as long as the rate, 1e-3, for a factor that has a gradient
    assert {parameter.dtype for parameter in run.parameters} == {torch.float32}
    assert {p.dtype for name, p in made[0].named_parameters() if "lora_" not in name} == {torch.bfloat16}
    seen = metrics.read_all(bench.folder.metrics_file)
    assert [metric.step for metric in seen] == [1, 2, 3]
    assert all(metric.loss is not None and 0.0 < metric.loss < 100.0 and metric.gradient_norm for metric in seen)
