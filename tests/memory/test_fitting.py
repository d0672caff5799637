"""A session that does not fit is told before anything is loaded, and by what change it would."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as replace_of

from fluxtui.engine.memory import fitting as fitting_module
from fluxtui.engine.memory import preflight
from fluxtui.engine.memory.fitting import NoMemoryError, fitting, refuse_too_large
from fluxtui.engine.memory.model import model_of
from fluxtui.engine.memory.phases import fits, memory_of
from fluxtui.engine.trainer import prepare
from fluxtui.engine.trainer.refusal import Refusal
from fluxtui.engine.wire import TrainerExit
from fluxtui.persist.files import toml
from fluxtui.persist.sessions.record import Footprint
from fluxtui.persist.settings import recipe
from fluxtui.persist.settings.spec import DatasetSpec, ModelSpec, Spec
from tests.trainer.job import Bench

NewBench = Callable[..., Bench]
FLUX = model_of(None, is_schnell=False)
BASE = Spec(name="a", id="id-of-a", model=ModelSpec(source="owner/flux"), dataset=DatasetSpec(path="pictures"))
GB = 10**9


def spec_with(sets: dict[str, Any]) -> Spec:
    return recipe.apply(BASE, {"dataset.resolution": [1024], "sample.prompts": ["a"]} | sets)


@pytest.mark.parametrize(
    ("gigabytes", "sets", "changed"),
    [
        (24, {"train.batch_size": 4}, ["hardware.stream_blocks"]),
        (24, {"model.precision": "bf16", "hardware.stream_blocks": 0}, ["hardware.stream_blocks"]),
        (12, {"model.precision": "fp8", "hardware.stream_blocks": 0}, ["hardware.stream_blocks"]),
        (12, {"model.precision": "nf4", "hardware.stream_blocks": 0}, ["hardware.stream_blocks"]),
        (12, {"hardware.compile": True}, ["hardware.compile"]),
        (12, {"train.gradient_checkpointing": False}, ["train.gradient_checkpointing"]),
        (24, {"lora.kind": "dora"}, ["lora.kind"]),
        (8, {"train.batch_size": 4}, ["train.batch_size", "train.gradient_accumulation"]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_does_not_fit_is_refused_with_the_smallest_change_that_does(
    gigabytes: int, sets: dict[str, Any], changed: list[str]
) -> None:
    spec, card = spec_with(sets), gigabytes * GB
    assert not fits(memory_of(spec, FLUX, card), card)
    with pytest.raises(NoMemoryError, match="of GPU memory") as refused:
        refuse_too_large(spec, FLUX, card, host_free=0, ranks=1)
    assert refused.value.exit == TrainerExit.GPU_MEMORY
    change = fitting(spec, FLUX, card)
    assert change is not None
    assert sorted(change.sets) == sorted(changed)
    assert refused.value.remedy.startswith(f"set {change}; hardware.check_memory=false")
    after = recipe.apply(spec, change.sets)
    assert fits(memory_of(after, FLUX, card), card)
    refuse_too_large(after, FLUX, card, host_free=0, ranks=1)
    streamed = change.sets.get("hardware.stream_blocks", 0)
    if isinstance(streamed, int) and streamed > 1:
        fewer = recipe.apply(after, {"hardware.stream_blocks": streamed - 1})
        assert not fits(memory_of(fewer, FLUX, card), card)
    refuse_too_large(recipe.apply(spec, {"hardware.check_memory": False}), FLUX, card, host_free=0, ranks=1)


def test_a_smaller_batch_keeps_the_global_one() -> None:
    change = fitting(spec_with({"train.batch_size": 4, "train.gradient_accumulation": 3}), FLUX, 8 * GB)
    assert change is not None
    size, accumulated = change.sets["train.batch_size"], change.sets["train.gradient_accumulation"]
    assert isinstance(size, int)
    assert isinstance(accumulated, int)
    assert size * accumulated == 12


def test_nothing_is_changed_where_it_fits_and_nothing_helps_on_a_card_of_2_gb() -> None:
    found = fitting(spec_with({}), FLUX, 24 * GB)
    assert found is not None
    assert found.sets == {}
    assert fitting(spec_with({}), FLUX, 2 * GB) is None
    with pytest.raises(NoMemoryError) as refused:
        refuse_too_large(spec_with({}), FLUX, 2 * GB, host_free=0, ranks=1)
    assert "use a larger GPU" in refused.value.remedy


def test_host_memory_is_asked_too_and_each_rank_has_its_own_blocks_there() -> None:
    spec, card = spec_with({}), 12 * GB
    hosted = memory_of(spec, FLUX, card).host
    assert hosted > 5 * GB
    refuse_too_large(spec, FLUX, card, host_free=hosted, ranks=1)
    with pytest.raises(Refusal, match=r"of host memory, and .* is free") as refused:
        refuse_too_large(spec, FLUX, card, host_free=hosted, ranks=2)
    assert refused.value.exit == TrainerExit.CONFIGURATION


def test_memory_that_other_programs_hold_is_told_before_anything_is_opened(
    monkeypatch: pytest.MonkeyPatch, new_bench: NewBench
) -> None:
    bench, said = new_bench(), list[str]()
    monkeypatch.setattr(preflight, "_RETURN_SECONDS", 0.2)
    preflight.look_ahead(spec_with({}), bench.home, bench.folder, 24 * GB, 1, said.append, lambda: 22 * GB)
    assert said == [], "a desktop's share is in the margin"
    with pytest.raises(Refusal, match=r"other programs hold 11\.. GiB of this GPU") as refused:
        preflight.look_ahead(spec_with({}), bench.home, bench.folder, 24 * GB, 1, said.append, lambda: 12 * GB)
    assert refused.value.exit == TrainerExit.GPU_MEMORY
    assert "nvidia-smi" in refused.value.remedy
    preflight.look_ahead(
        spec_with({"hardware.check_memory": False}), bench.home, bench.folder, 24 * GB, 1, said.append, lambda: 12 * GB
    )


def test_memory_of_a_process_that_has_just_ended_is_waited_for(monkeypatch: pytest.MonkeyPatch, new_bench: NewBench) -> None:
    bench, said = new_bench(), list[str]()
    readings = iter([2 * GB, 2 * GB, 23 * GB])
    preflight.look_ahead(spec_with({}), bench.home, bench.folder, 24 * GB, 1, said.append, lambda: next(readings))
    assert len(said) == 1
    assert next(readings, None) is None


def test_text_encoders_that_host_memory_has_no_room_for_are_said(monkeypatch: pytest.MonkeyPatch, new_bench: NewBench) -> None:
    class Little:
        memory_total, memory_used = 8 * GB, 0

    monkeypatch.setattr(preflight, "host_gauges", Little)
    said: list[str] = []
    bench = new_bench()
    preflight.look_ahead(spec_with({}), bench.home, bench.folder, 24 * GB, 1, said.append)
    assert said == [], "where the GPU has room for T5 it is streamed there"
    preflight.look_ahead(spec_with({}), bench.home, bench.folder, 12 * GB, 1, said.append)
    assert len(said) == 1
    assert "text encoders take 9.1 GiB of host memory" in said[0]


def test_a_trainer_is_refused_before_anything_is_opened(new_bench: NewBench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = new_bench()
    begin = prepare.runtime.begin
    monkeypatch.setattr(prepare.runtime, "begin", lambda job: replace(begin(job), card=2**30))

    def opens(*_: object) -> None:
        raise AssertionError("the model was opened")

    monkeypatch.setattr(prepare, "open_model", opens)
    monkeypatch.setattr(fitting_module, "fitting", lambda *_: None)
    with pytest.raises(NoMemoryError, match=r"the GPU has 1\.0 GiB"):
        bench.prepare_here()


def test_a_model_of_another_shape_than_was_taken_for_it_is_looked_at_again(
    tiny_dev: Path, new_bench: NewBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = new_bench()
    here = (bench.home, bench.folder, 2**30, 1, print)
    monkeypatch.setattr(fitting_module, "fitting", lambda *_: None)
    with pytest.raises(NoMemoryError):
        preflight.look_again(spec_with({}), FLUX, tiny_dev, *here)
    preflight.look_again(spec_with({}), model_of(tiny_dev, is_schnell=False), tiny_dev, *here)


def test_clip_that_is_trained_along_and_a_schedule_free_optimizer_are_in_the_plan() -> None:
    plain = memory_of(spec_with({"train.ema_decay": 0.9}), FLUX, 24 * GB)
    clip = memory_of(spec_with({"train.ema_decay": 0.9, "train.clip_learning_rate": 1e-5}), FLUX, 24 * GB)
    of_clip = clip.lora_parameters - plain.lora_parameters
    assert of_clip == 12 * 16 * (4 * (768 + 768) + 2 * (768 + 3072))
    assert clip.clip == 2 * FLUX.clip
    kept = clip.activations.kept - plain.activations.kept
    assert kept > 10 * 2**20
    assert clip.training_peak - plain.training_peak == clip.clip + 20 * of_clip + kept
    free = memory_of(spec_with({"train.optimizer": "schedule_free"}), FLUX, 24 * GB)
    usual = memory_of(spec_with({}), FLUX, 24 * GB)
    assert free.sampling_peak - usual.sampling_peak == free.lora
    assert free.training_peak == usual.training_peak


def test_the_buffer_in_which_ranks_sum_a_large_adapters_gradients_is_counted() -> None:
    large = {"lora.rank": 512, "dataset.resolution": [512]}
    alone, two = (memory_of(spec_with({**large, "hardware.gpus": gpus}), FLUX, 80 * GB) for gpus in ("auto", [0, 1]))
    assert alone.lora > alone.activations.peak, "else it is not what decides"
    assert two.training_peak - alone.training_peak == alone.lora - alone.activations.peak


def test_what_a_schedule_free_step_makes_of_a_large_adapter_is_counted() -> None:
    large = {"lora.rank": 512, "dataset.resolution": [512]}
    usual, free = (memory_of(spec_with(large | {"train.optimizer": name}), FLUX, 80 * GB) for name in ("adamw", "schedule_free"))
    assert free.lora > free.activations.peak, "else it is not what decides"
    assert free.training_peak - usual.training_peak == free.lora - free.activations.peak


def test_targets_that_name_single_blocks_are_planned_from_the_whole_model() -> None:
    from tests.trainer.tiny_flux import new_transformer

    model = model_of(None, is_schnell=False)
    small = dict(new_transformer(num_layers=2, num_single_layers=3).config)
    model = type(model)(small, model.vae_config, model.clip_config, 0, 0, 0, 16)
    spec = spec_with({"lora.targets": r"single_transformer_blocks\.1\.proj_mlp", "lora.rank": 4})
    assert memory_of(spec, model, None).lora_parameters == 4 * (32 + 128)


def test_what_a_probe_took_counts_in_the_place_of_its_plan(new_bench: NewBench) -> None:
    bench, card = new_bench(), 24 * GB
    large = spec_with({"train.batch_size": 4})
    planned = memory_of(large, FLUX, card).training_peak

    def look(probed: int, spec: Spec, of: Spec) -> None:
        seen = Footprint(planned=planned, probed=probed, step_seconds=1.0)
        bench.attempt = 1
        record = replace_of(bench.write_record(), memory=seen, recipe_sha256=recipe.recipe_sha256(of))
        toml.write(bench.folder.attempt_file(1), record)
        preflight.look_ahead(spec, bench.home, bench.folder, card, 1, print)

    look(18 * GB, large, large)
    with pytest.raises(NoMemoryError):
        look(23 * GB, large, large)
    with pytest.raises(NoMemoryError):
        look(18 * GB, large, recipe.apply(large, {"dataset.path": "other"}))
