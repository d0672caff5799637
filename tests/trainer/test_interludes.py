"""Samples and held-out losses between the steps: how long those to come will take is counted as they fall due, one by one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxtui.engine.trainer import interludes
from fluxtui.engine.trainer.interludes import Interludes
from fluxtui.persist.settings import recipe
from fluxtui.persist.settings.spec import DatasetSpec, ModelSpec, Spec

SPEC = Spec(name="a", id="0" * 32, kind="pico", model=ModelSpec(source="pico"), dataset=DatasetSpec(path="demo"))


def made(steps: int, per_epoch: int, **sets: object) -> Interludes:
    return Interludes(recipe.apply(SPEC, {name.replace("__", "."): value for name, value in sets.items()}), steps, per_epoch)


def take(monkeypatch: pytest.MonkeyPatch, made: Interludes, kind: Any, seconds: float) -> None:
    """One of them takes so long."""
    clock = iter((100.0, 100.0 + seconds))
    monkeypatch.setattr(interludes.time, "monotonic", lambda: next(clock))
    with made.timed(kind):
        pass


@given(
    st.integers(1, 60), st.integers(1, 9), st.integers(0, 4), st.integers(0, 7), st.integers(0, 2), st.integers(0, 3),
    st.integers(0, 59),
)  # fmt: skip
def test_what_is_left_is_what_will_fall_due(
    steps: int, per_epoch: int, by_epochs: int, by_steps: int, images: int, validates: int, done: int
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        one = made(
            steps, per_epoch, sample__every_epochs=by_epochs, sample__every_steps=by_steps,
            validate__images=images, validate__every_epochs=validates,
        )  # fmt: skip
        take(monkeypatch, one, "samples", 1000.0)
        take(monkeypatch, one, "validation", 1.0)
    done = min(done, steps)
    left = 1000.0  # the last samples
    for step in range(done + 1, steps + 1):  # as the loop goes
        ended, epoch = step % per_epoch == 0, step // per_epoch
        left += 1000.0 * one.draws(step, epoch, ended) + 1.0 * one.validates(epoch, ended)
    assert one.seconds_left(done, done // per_epoch, done % per_epoch) == left


def test_one_that_was_broken_off_tells_nothing_of_those_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    one = made(10, 2, sample__every_epochs=1)
    with pytest.raises(KeyboardInterrupt), one.timed("samples"):
        raise KeyboardInterrupt
    assert one.seconds_left(0, 0, 0) == 0.0
    take(monkeypatch, one, "samples", 3.0)
    assert one.seconds_left(0, 0, 0) == 3.0 * 5
