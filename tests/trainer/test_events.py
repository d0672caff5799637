"""TensorBoard events say what metrics.jsonl says, and what a resume took back is taken back there too."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fluxtui.engine.trainer.refusal import Refusal
from fluxtui.persist import metrics
from fluxtui.persist.checkpoints.commit import remove_checkpoint
from tests.trainer.job import Bench

NewBench = Callable[..., Bench]
PICTURES = {"sample__prompts": ["a square"], "sample__steps": 1, "sample__width": 64, "sample__height": 64}


def test_events_tell_what_the_metrics_tell(new_bench: NewBench) -> None:
    bench = new_bench(
        sample__tensorboard=True,
        train__steps=6,
        checkpoint__every_steps=3,
        validate__images=1,
        validate__every_epochs=1,
        **PICTURES,
    )
    bench.run_here()
    remove_checkpoint(bench.folder.checkpoints, "step-000000006")
    bench.run_here()
    found = EventAccumulator(str(bench.folder.path / "tensorboard"), {"images": 0, "scalars": 0})
    found.Reload()
    told = {event.step: event.value for event in found.Scalars("train/loss")}
    seen = metrics.read_all(bench.folder.metrics_file)
    assert told == pytest.approx({metric.step: metric.loss for metric in seen if metric.step})
    assert [event.step for event in found.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]  # each once, though two were trained twice
    assert {event.step for event in found.Scalars("train/validation_loss")} == {0, 2, 4, 6}
    assert found.Images("samples/00")[-1].step == 6


def test_without_the_option_there_is_nothing_and_without_the_library_one_sentence(
    new_bench: NewBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = new_bench("plain", train__steps=1)
    plain.run_here()
    assert not (plain.folder.path / "tensorboard").exists()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(Refusal) as caught:
        new_bench("lacking", sample__tensorboard=True).prepare_here()
    assert "fluxtui[tensorboard]" in caught.value.remedy
