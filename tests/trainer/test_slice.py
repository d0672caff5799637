"""A slice of FLUX.1 at its full width goes through the real loop: what a run of the whole model does, block for block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fluxtui.engine.family.flux1.targets import target_names
from fluxtui.engine.family.flux1.transformer import velocity
from fluxtui.engine.trainer import prepare
from fluxtui.engine.trainer.adapter.lora import add_lora
from fluxtui.engine.trainer.loop import advance
from fluxtui.engine.trainer.objective import sample_losses
from fluxtui.persist import metrics
from fluxtui.persist.settings.spec import LoraSpec
from tests.trainer.job import Bench
from tests.trainer.test_objective import random_samples
from tests.trainer.tiny_flux import new_transformer


def full_width_slice(text: int = 4096, pooled: int = 768) -> torch.nn.Module:
    """One double and one single block of FLUX.1's own width in bf16, filled from one block of numbers (drawing takes longer)."""
    with torch.device("meta"):
        transformer = new_transformer(
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=128,
            num_attention_heads=24,
            joint_attention_dim=text,
            pooled_projection_dim=pooled,
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


def test_a_slice_of_the_full_width_trains_in_bf16_with_checkpointing() -> None:
    transformer = full_width_slice()
    transformer.enable_gradient_checkpointing()
    adapter = add_lora(transformer, target_names(transformer, "attention+mlp"), LoraSpec(rank=4, alpha=4.0), seed=1)
    transformer.train()
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=5e-4, fused=True)
    generator = torch.Generator().manual_seed(1)
    samples, noise, sigma = random_samples(1, height=2, width=4)
    samples = type(samples)(
        samples.latents, torch.randn(1, 4, 4096, generator=generator), torch.randn(1, 768, generator=generator)
    )
    before = {name: parameter.detach().clone() for name, parameter in adapter.named_parameters()}
    losses = []
    for step in range(3):
        adapter.place.begin(step, [0], torch.device("cpu"), torch.bfloat16)
        loss = sample_losses(lambda *inputs: velocity(transformer, *inputs, 1.0, torch.bfloat16), samples, noise, sigma).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[2] < losses[0]
    assert all(not torch.equal(parameter, before[name]) for name, parameter in adapter.named_parameters())
    assert {parameter.dtype for parameter in adapter.parameters()} == {torch.float32}


@pytest.mark.soak
def test_a_slice_of_the_full_width_trains_in_bf16_with_checkpointing_through_the_real_loop(
    new_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    monkeypatch.setattr(prepare, "load_base", lambda *_: (made.append(full_width_slice(32, 24)) or made[0], "0" * 64))
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
    assert min(moved.values()) > 0.0
    assert {parameter.dtype for parameter in run.parameters} == {torch.float32}
    assert {p.dtype for name, p in made[0].named_parameters() if "lora_" not in name} == {torch.bfloat16}
    seen = metrics.read_all(bench.folder.metrics_file)
    assert [metric.step for metric in seen] == [1, 2, 3]
    assert all(metric.loss is not None and 0.0 < metric.loss < 100.0 and metric.gradient_norm for metric in seen)
