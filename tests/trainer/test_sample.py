"""Samples: the pipeline's own pictures, prompt and settings inside, and never the end of a run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from PIL import Image

from fluxtui.engine.memory.streaming import BlockSwapError
from fluxtui.engine.trainer.loop import train
from fluxtui.engine.trainer.reporter import Reporter
from fluxtui.engine.trainer.sample import Painter
from fluxtui.engine.wire import TrainerExit
from fluxtui.persist.checkpoints.commit import step_name
from fluxtui.persist.sessions.record import Phase
from tests.trainer.job import Bench

NewBench = Callable[..., Bench]
DRAWN = {
    "sample__prompts": ["a [trigger] square on gray", "a red circle"],
    "sample__steps": 3,
    "sample__width": 80,
    "sample__height": 64,
    "sample__seed": 11,
}


def test_the_last_sample_is_the_picture_of_the_loaded_product(new_bench: NewBench) -> None:
    bench = new_bench(train__learning_rate=3e-2, train__scheduler="constant", **DRAWN)
    bench.run_here()
    pipeline = FluxPipeline.from_pretrained(bench.spec.model.source)
    pipeline.set_progress_bar_config(disable=True)

    def picture(number: int) -> np.ndarray:
        prompt = ["a zorp square on gray", "a red circle"][number]
        drawn = pipeline(
            prompt,
            width=80,
            height=64,
            num_inference_steps=3,
            guidance_scale=3.5,
            max_sequence_length=16,
            generator=torch.Generator("cpu").manual_seed(11 + number),
        ).images[0]
        return np.asarray(drawn).astype(int)

    base = picture(0)
    pipeline.load_lora_weights(bench.folder.product)
    for number in (0, 1):
        ours = np.asarray(Image.open(bench.folder.samples / f"step-000000008/{number:02d}.png")).astype(int)
        assert ours.shape == (64, 80, 3)
        theirs = picture(number)
        assert np.abs(ours - theirs).max() <= 2  # the product is bf16, the adapter in training is float32
    assert np.abs(base - picture(0)).max() > 2  # and the LoRA is what makes them alike


def test_prompt_and_settings_are_inside_the_picture(new_bench: NewBench) -> None:
    bench = new_bench(train__steps=1, sample__at_start=True, **DRAWN)
    bench.run_here()
    first = Image.open(bench.folder.samples / "step-000000000/00.png")
    assert first.text["prompt"] == "a zorp square on gray"
    assert json.loads(first.text["fluxtui"]) == {
        "seed": 11,
        "steps": 3,
        "width": 80,
        "height": 64,
        "guidance": 3.5,
        "training_step": 0,
    }
    second = Image.open(bench.folder.samples / "step-000000001/01.png")
    assert second.text["prompt"] == "a red circle"
    assert json.loads(second.text["fluxtui"])["seed"] == 12


def test_a_prompt_is_drawn_as_it_asks_for_itself(new_bench: NewBench) -> None:
    prompts = ["a [trigger] square --w 64 --h 96 --d 7 --s 1 --g 2", "a red circle"]
    bench = new_bench(train__steps=1, **DRAWN | {"sample__prompts": prompts})
    bench.run_here()
    first, second = (Image.open(bench.folder.samples / f"step-000000001/{number:02d}.png") for number in (0, 1))
    assert (first.size, second.size) == ((64, 96), (80, 64))
    assert first.text["prompt"] == "a zorp square"
    asked = {"seed": 7, "steps": 1, "width": 64, "height": 96, "guidance": 2.0, "training_step": 1}
    assert json.loads(first.text["fluxtui"]) == asked
    assert json.loads(second.text["fluxtui"])["seed"] == 12
    # the text alone is what the encoders got
    like = new_bench("like", train__steps=1, **DRAWN | {"sample__prompts": ["a [trigger] square"], "sample__seed": 7,
                     "sample__steps": 1, "sample__width": 64, "sample__height": 96, "sample__guidance": 2.0})  # fmt: skip
    like.run_here()
    assert first.tobytes() == Image.open(like.folder.samples / "step-000000001/00.png").tobytes()


def test_a_sample_that_fails_never_fails_the_run(new_bench: NewBench) -> None:
    bench = new_bench(train__steps=2, sample__at_start=True, **DRAWN)
    bench.folder.samples.chmod(0o700)
    (bench.folder.samples / "step-000000000").write_text("in the way of the folder")
    run = bench.run_here()
    assert run.state.step == 2
    assert bench.result().step == 2
    assert (bench.folder.samples / "step-000000002/00.png").exists()


def test_each_denoising_step_is_told(new_bench: NewBench) -> None:
    ended = new_bench(train__steps=1, sample__at_start=True, **DRAWN).train()
    assert ended.code == TrainerExit.DONE, ended.log
    told = [line for line in ended.lines if line.phase == "sample" and line.unit == "denoising steps"]
    assert [line.item for line in told][:7] == [0, 1, 2, 3, 4, 5, 6]
    assert {line.items for line in told} == {6}


def test_a_block_that_never_comes_ends_a_drawing_and_the_run(new_bench: NewBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other failures of a picture are noted; after this one the next step would stand in the same place."""

    def lost(*_: object) -> None:
        raise BlockSwapError("single_transformer_blocks.1 did not arrive from host memory within 30 s")

    monkeypatch.setattr(Painter, "_draw_all", lost)
    with pytest.raises(BlockSwapError):
        new_bench(train__steps=1, sample__at_start=True, **DRAWN).run_here()


def test_samples_are_drawn_every_so_many_steps_and_once_where_an_epoch_ends_there_too(
    new_bench: NewBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = new_bench(train__steps=5, sample__every_steps=2, sample__every_epochs=1, **DRAWN)
    drawn: list[int] = []
    monkeypatch.setattr(Painter, "draw", lambda self, step, *_: drawn.append(step))
    bench.run_here()
    of_epoch = len(bench.prepare_here().plan(0))
    assert drawn == sorted({2, 4, 5, *range(of_epoch, 5, of_epoch)})


def test_what_samples_to_come_will_take_is_told_and_falls_to_nothing(new_bench: NewBench) -> None:
    ended = new_bench(train__steps=5, sample__at_start=True, sample__every_steps=2, sample__every_epochs=0, **DRAWN).train()
    assert ended.code == TrainerExit.DONE, ended.log
    told = [line.interlude_seconds for line in ended.lines if line.interlude_seconds is not None]
    assert len(told) == 4, "after those of steps 0, 2, 4 and 5"
    assert all(told[:3])
    assert told[3] == 0.0


def test_a_stop_is_not_kept_waiting_by_a_drawing_and_saves_its_step(new_bench: NewBench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = new_bench(train__steps=8, sample__every_epochs=1, checkpoint__every_steps=0, **DRAWN)
    run = bench.prepare_here()
    told = run.reporter.progress

    def and_stop(phase: Phase | None = None, **said: Any) -> None:
        told(phase, **said)
        if phase is Phase.SAMPLE and run.state.step and said["item"] == 2:
            run.requests.signals.signals.append("SIGTERM")

    monkeypatch.setattr(Reporter, "progress", lambda _self, phase=None, **said: and_stop(phase, **said))
    assert train(run) == TrainerExit.STOPPED
    monkeypatch.undo()
    step = run.state.step
    assert 0 < step < 8
    assert bench.checkpoints() == [step_name(step)]
    assert os.listdir(bench.folder.samples / step_name(step)) == [], "no picture of it was finished"
    assert not any(module.training is False for module in run.painter.transformer.modules()), "it would train as it draws"
    bench.run_here()
    assert bench.result().step == 8
    assert len(os.listdir(bench.folder.samples / step_name(8))) == 2
