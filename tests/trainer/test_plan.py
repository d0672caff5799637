"""The plan of a session: what the verb says, before and after it ran."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from fluxtui.engine import plan
from fluxtui.engine.memory import activations, plan_cache
from fluxtui.engine.memory.model import model_of
from fluxtui.engine.plan_table import table
from fluxtui.gpu import Gpus
from fluxtui.gpu.readings import Gpu
from fluxtui.persist import metrics
from fluxtui.persist.files import toml
from fluxtui.persist.home import Home
from fluxtui.persist.sessions.record import Footprint
from fluxtui.persist.settings import recipe
from fluxtui.persist.settings.spec import ModelSpec
from tests.trainer.job import Bench

NewBench = Callable[..., Bench]


def test_a_session_that_ran_knows_its_steps_and_speed(new_bench: NewBench, capsys: pytest.CaptureFixture[str]) -> None:
    bench = new_bench(train__steps=0, train__epochs=2)
    before = plan.plan(bench.root, "little")
    assert (before.steps, before.seconds) == (None, None)
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


def test_a_shape_is_measured_once_for_all_processes_of_a_home(
    new_bench: NewBench, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    bench = new_bench()
    spec = msgspec.structs.replace(
        recipe.apply(bench.spec, {"sample.prompts": ["a"]}), kind="flux1", model=ModelSpec(source="owner/flux")
    )
    file = bench.folder.path / "flux.toml"
    recipe.save_spec(file, spec)
    request.addfinalizer(plan_cache.forget)
    first = plan.plan_of(Home(bench.root), spec, None)
    script = "import sys; from fluxtui.engine import plan; code = plan.main(sys.argv[1:]); assert 'diffusers' not in sys.modules"
    again = [sys.executable, "-c", script, "--home", str(bench.root), "--spec", str(file), "--json"]
    said = subprocess.run(again, capture_output=True, text=True, timeout=120, check=False)
    assert said.returncode == 0, said.stderr
    assert {key: value for key, value in json.loads(said.stdout).items() if key != "host_free"} == {
        key: value for key, value in asdict(first).items() if key != "host_free"
    }

    def measured_anew(*_: object) -> object:
        raise AssertionError("measured again")

    monkeypatch.setattr(activations, "_measure", measured_anew)
    plan_cache.forget()
    plan.plan_of(Home(bench.root), spec, None)
    Home(bench.root).cache.joinpath("plans.json").write_bytes(b'{"torn')
    plan_cache.forget()
    with pytest.raises(AssertionError, match="measured again"):
        plan.plan_of(Home(bench.root), spec, None)


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
    spec = msgspec.structs.replace(spec, kind="flux1", model=msgspec.structs.replace(spec.model, source="owner/flux"))
    recipe.save_spec(bench.folder.spec_file, spec)
    found = plan.plan(bench.root, "little")
    assert (found.precision, found.streamed_blocks > 0, found.fits) == ("int8", preset, True)
    assert found.lora_parameters == (36 * 19 + 17 * 38) * 3072 * 16
    assert found.estimated_step_seconds is not None
    assert 0.5 < found.estimated_step_seconds < 3.0
    assert "fits with 1 GB to spare" in table(found)


def test_a_spec_that_is_no_session_yet_is_planned_from_standard_input(
    new_bench: NewBench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = new_bench()
    words = ["--home", str(bench.root), "--spec", "-", "--json"]

    def given(data: bytes) -> int:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        return plan.main(words)

    assert given(msgspec.json.encode(bench.spec)) == 0
    found = json.loads(capsys.readouterr().out)
    of_session = plan.plan(bench.root, "little")
    for name in ("training_peak", "lora_parameters", "disk", "steps", "fits"):
        assert found[name] == getattr(of_session, name)
    for wrong in (b"", b"[1]", b'{"name": "a", "lora": {"rank": -1}}', b"{" * 10**5):
        assert given(wrong) == 2
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1
        assert "standard input" in said.lower()


@pytest.mark.parametrize(("gpus", "steps"), [([0, 1], 4), ([0], 6), ("all", 4), ("auto", 6)])
def test_steps_are_those_of_as_many_ranks_as_gpus(
    new_bench: NewBench, monkeypatch: pytest.MonkeyPatch, gpus: list[int] | str, steps: int
) -> None:
    """Five pictures in batches of 2 a rank: 3 steps an epoch, and 2 with two ranks."""
    bench = new_bench(train__steps=0, train__epochs=2)
    bench.prepare_here().close()
    cards = tuple(Gpu(index=n, uuid=f"GPU-{n}", name="RTX 4090", memory_total=24 * 10**9, memory_used=0) for n in (0, 1))
    monkeypatch.setattr("fluxtui.gpu.list_gpus", lambda: Gpus(devices=cards, why=""))
    recipe.save_spec(bench.folder.spec_file, recipe.apply(bench.spec, {"hardware.gpus": gpus, "hardware.ranks": 4}))
    assert plan.plan(bench.root, "little").steps == steps


def test_the_time_is_that_of_a_session_with_the_same_work_on_the_same_card(
    new_bench: NewBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Gpu(index=0, uuid="GPU-1", name="RTX 4090", memory_total=24 * 10**9, memory_used=0)
    monkeypatch.setattr("fluxtui.gpu.list_gpus", lambda: Gpus(devices=(card,), why=""))
    bench = new_bench()
    spec = msgspec.structs.replace(bench.spec, kind="flux1")
    recipe.save_spec(bench.folder.spec_file, spec)

    def ran(name: str, seconds: float, card: str, probed: int = 1, **sets: object) -> None:
        folder = bench.home.session(name)
        folder.create()
        recipe.save_spec(folder.spec_file, recipe.apply(msgspec.structs.replace(spec, name=name), sets))
        seen = Footprint(planned=plan.plan(bench.root, name).planned_training_peak, probed=probed, step_seconds=1.0, card=card)
        bench.attempt = 1
        record = msgspec.structs.replace(bench.write_record(), memory=seen, gpus=["GPU-9"], started_at=datetime.now(UTC))
        bench.folder.attempt_file(1).unlink()
        toml.write(folder.attempt_file(1), record)
        descriptor = metrics.open_append(folder.metrics_file)
        for step in range(1, 4):
            metrics.append(
                descriptor,
                metrics.StepMetric(
                    attempt=1, step=step, epoch=1, loss=1.0, learning_rate=1.0, seconds=seconds, at=datetime.now(UTC)
                ),
            )

    assert plan.plan(bench.root, "little").like_step_seconds is None
    ran("other-card", 9.0, "RTX 3090", probed=77 * 10**6)
    ran("other-size", 9.0, "RTX 4090", **{"train.batch_size": 1})
    found = plan.plan(bench.root, "little")
    assert found.like_step_seconds is None
    assert found.training_peak == found.probed_training_peak == 77 * 10**6  # a card changes a step's time, not its memory
    ran("same", 2.5, "RTX 4090")
    found = plan.plan(bench.root, "little")
    assert (found.step_seconds, found.like_step_seconds, found.seconds) == (None, 2.5, 8 * 2.5)
    assert "2.5 s a step measured in sessions like this one" in table(found)


def test_a_spec_of_the_users_own_is_planned_as_start_would_complete_it(home_path: Path, tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    own.write_text('[model]\nsource = "pico"\n[dataset]\npath = "demo"\n[train]\nsteps = 9\n')
    words = [sys.executable, "-m", "fluxtui", "plan", str(own), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["steps"], found["lora_parameters"] > 0) == (9, True)
    assert not list(home_path.glob("sessions/*/session.toml"))
