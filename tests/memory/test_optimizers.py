"""What an optimizer's state and step hold, counted over real steps on the CPU, beside what plans say of it."""

from __future__ import annotations

import gc

import pytest
import torch

from fluxtui.engine.memory.peak_bytes import LiveBytes
from fluxtui.engine.memory.phases import _STATE, _stepping, state_bytes
from fluxtui.engine.trainer.optim import Group, new_optimizer
from fluxtui.persist.settings import recipe
from tests.memory.test_presets import BASE

LAYERS, WIDTH, RANK = 24, 512, 16


@pytest.mark.parametrize("name", sorted(_STATE))
def test_a_step_holds_what_is_planned_of_it(name: str) -> None:
    spec = recipe.apply(BASE, {"train.optimizer": name})
    factors = [torch.randn(RANK, WIDTH) * 0.01 for _ in range(LAYERS)] + [torch.zeros(WIDTH, RANK) for _ in range(LAYERS)]
    parameters = {f"{number}": torch.nn.Parameter(factor) for number, factor in enumerate(factors)}
    count = sum(factor.numel() for factor in factors)
    optimizer = new_optimizer([Group(1.0, parameters)], spec.train)
    for parameter in parameters.values():
        parameter.grad = torch.randn_like(parameter)
    gc.collect()
    with LiveBytes() as live:
        optimizer.step()
        gc.collect()
        state, live.peak = live.live, live.live
        optimizer.step()
    one = 4 * WIDTH * RANK
    planned = state_bytes(spec, count)
    scalars = 16 * 2 * LAYERS  # a count of steps for each, where it is a tensor; prodigy notes where B began, zero, as one number
    assert 0.85 * planned - scalars <= state <= 1.1 * planned + scalars, f"{name}: {state / planned:.2f}"
    work = live.peak - state
    assert abs(work - _stepping(spec, 4 * count)) <= 4 * one, f"{name}: {work / one:.1f} tensors"
