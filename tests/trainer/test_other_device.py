"""A step as on a GPU: tensors that know only their shape, dtype and device, and a product across devices is an error.

On the CPU a tensor that was left there is never noticed. Fake tensors of a second device (torch's "meta" stands for the GPU)
notice it; nothing is computed. The fused AdamW knows no such device, so other optimizers step here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from fluxtui.engine.memory.copy_stream import Arrival, Here
from fluxtui.engine.memory.streaming import stream_blocks, streamed_names
from fluxtui.engine.trainer import optim
from fluxtui.engine.trainer.adapter.ema import Ema
from fluxtui.engine.trainer.loop import clip, micro_step
from fluxtui.engine.trainer.run import Run
from tests.trainer.job import Bench

NewBench = Callable[..., Bench]
THERE = torch.device("meta")


@dataclass
class CopyStream:
    """Between the CPU and the other device."""

    unlocked: int = 0

    def host_buffer(self, size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.uint8)

    def slot(self, size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.uint8, device=THERE)

    def start(self, host: torch.Tensor, slot: torch.Tensor) -> Arrival:
        assert host.device.type == "cpu"
        slot.copy_(host)
        return Here()


def move(module: torch.nn.Module, mode: FakeTensorMode, stays: tuple[str, ...] = ()) -> None:
    """Parameters and buffers to the other device; in the modules named `stays` frozen ones of two dimensions are left."""
    for name, owner in module.named_modules():
        for held in (owner._parameters, owner._buffers):
            for key, value in held.items():
                if value is None:
                    continue
                fake: Any = mode.from_tensor(value.detach())
                is_hosted = name.startswith(stays) and value.ndim >= 2 and not value.requires_grad if stays else False
                fake = fake if is_hosted else fake.to(THERE)
                held[key] = torch.nn.Parameter(fake, requires_grad=value.requires_grad) if held is owner._parameters else fake


@contextmanager
def elsewhere(run: Run, streamed: int) -> Any:
    """The run with all that lies on the device that trains on the other one."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    model: Any = run.adapter.model
    config = run.components.transformer_config
    names = streamed_names(config["num_layers"], config["num_single_layers"], streamed) if streamed else []
    with mode:
        move(model, mode, tuple(f"{name}." for name in names))
        if run.clip:
            move(run.clip.adapter.model, mode)
        if names:
            stream_blocks(model, names, CopyStream(), 0.0)
        run.runtime = replace(run.runtime, device=THERE)
        train, of_clip = run.job.spec.train, dict(run.clip.adapter.named_parameters()) if run.clip else None
        groups = optim.groups_of(train, dict(run.adapter.named_parameters()), of_clip)
        run.optimizer = optim.new_optimizer(groups, train)
        run.parameters = [parameter for group in groups for parameter in group.named.values()]
        run.ema = Ema(0.9, {name: parameter for group in groups for name, parameter in group.named.items()})
        yield


@pytest.mark.parametrize("sets", [
    {"model__precision": "int8", "dataset__class_word": "thing", "train__clip_learning_rate": 1e-4, "train__loss": "huber",
     "train__optimizer": "adafactor"},
    {"model__precision": "bf16", "train__gradient_checkpointing": True, "lora__rank_dropout": 0.1, "dataset__masks": "alpha",
     "train__loss_weighting": "bell", "train__optimizer": "lion"},
    {"model__precision": "int8", "train__gradient_checkpointing": True, "validate__images": 1, "train__optimizer": "lion"},
], ids=["CLIP and a class word", "masks", "streamed"])  # fmt: skip
def test_a_step_mixes_no_devices(sets: dict[str, Any], new_bench: NewBench, monkeypatch: pytest.MonkeyPatch) -> None:
    is_streamed = "validate__images" in sets
    run = new_bench(**sets).prepare_here()
    with elsewhere(run, streamed=3 if is_streamed else 0):
        batch = run.plan(0)[0]
        losses = torch.zeros(2, device=THERE)
        for slots in batch.micro_batches(run.job.spec.train.batch_size, 1, 0):
            losses += micro_step(run, batch, slots, 0, run.load)
        assert losses.device == THERE
        clip(run.parameters, 1.0)
        for parameter in run.parameters:
            assert isinstance(parameter.grad, FakeTensor)
            assert (parameter.grad.device, parameter.grad.dtype) == (THERE, torch.float32)
        run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)
        run.ema.update(1)
        if is_streamed:
            monkeypatch.setattr(torch.Tensor, "item", lambda _self: 0.5)  # there is no number to read
            run.validation_loss()


def test_a_tensor_that_was_left_on_the_cpu_is_noticed(new_bench: NewBench) -> None:
    run = new_bench().prepare_here()
    run.predict = lambda noisy, sigma, embeds, pooled: torch.zeros(noisy.shape) * sigma.view(-1, 1, 1, 1)
    batch = run.plan(0)[0]
    slots = next(iter(batch.micro_batches(2, 1, 0)))
    with elsewhere(run, streamed=0), pytest.raises(RuntimeError, match="same device"):
        micro_step(run, batch, slots, 0, run.load)
