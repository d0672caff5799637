"""The plan of a session: what the verb says, before and after it ran."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from fluxtui.engine import plan
from fluxtui.engine.memory.model import model_of
from fluxtui.engine.plan_table import table
from fluxtui.gpu import Gpus
from fluxtui.gpu.readings import Gpu
from fluxtui.persist import recipe
from tests.trainer.job import Bench

NewBench = Callable[..., Bench]


def test_a_session_that_ran_knows_its_steps_and_speed(new_bench: NewBench, capsys: pytest.CaptureFixture[str]) -> None:
    bench = new_bench(train__steps=0, train__epochs=2)
    before = plan.plan(bench.root, "little")
    assert (before.steps, before.seconds) == (None, None)
    assert plan.plan(bench.root, "", bench.folder.spec_file) == before, "a spec that is no session yet is planned like one"
    bench.run_here()
    capsys.readouterr()
    assert plan.main(["--home", str(bench.root), "--session", "little", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == 6
    assert found["step_seconds"] > 0
    assert found["checkpoint"] == 12 * found["lora_parameters"]
    assert (found["precision"], found["streamed_blocks"], found["fits"]) == ("fp32", 0, None)
    parts = ("base", "lora", "gradients", "optimizer", "averaged", "clip", "activations", "workspace")
    assert found["training_peak"] == found["planned_training_peak"] == sum(found[part] for part in parts)
    assert plan.main(["--home", str(bench.root), "--session", "little"]) == 0
    said = capsys.readouterr().out
    assert "activations at 32 tokens" in said
    assert "the peak of each phase" in said


def test_the_published_shape_is_taken_for_a_model_on_the_hub() -> None:
    model = model_of(None, is_schnell=False)
    assert (model.encoders, model.clip, model.vae, model.text_tokens) == (4_885_371_136, 123_060_480, 83_819_683, 512)
    assert model_of(None, is_schnell=True).text_tokens == 256


@pytest.mark.parametrize(("gigabytes", "preset"), [(8.59, True), (25.8, False)])
def test_a_card_that_is_found_decides_precision_streaming_and_time(
    new_bench: NewBench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], gigabytes: float, preset: bool
) -> None:
    card = Gpu(index=0, uuid="GPU-1", name="NVIDIA GeForce RTX 4090", memory_total=int(gigabytes * 1e9), memory_used=0)
    monkeypatch.setattr("fluxtui.gpu.list_gpus", lambda: Gpus(devices=(card,), why=""))
    bench = new_bench()
    spec = recipe.apply(bench.spec, {"lora.rank": 16, "train.gradient_checkpointing": True, "dataset.resolution": [512]})
    import msgspec

    spec = msgspec.structs.replace(spec, kind="flux1", model=msgspec.structs.replace(spec.model, source="owner/flux"))
    recipe.save_spec(bench.folder.spec_file, spec)
    found = plan.plan(bench.root, "little")
    assert (found.precision, found.streamed_blocks > 0, found.fits) == ("int8", preset, True)
    assert found.lora_parameters == (36 * 19 + 17 * 38) * 3072 * 16
    assert found.estimated_step_seconds is not None
    assert 0.5 < found.estimated_step_seconds < 3.0
    assert "fits with 1 GB to spare" in table(found)
