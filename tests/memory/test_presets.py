"""Presets: each one's plan leaves 1 GB of its card free, at each resolution, by the planner's own arithmetic; and what wins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fluxtui.engine.memory.model import model_of
from fluxtui.engine.memory.phases import CUDA_CONTEXT, MARGIN, Memory, fits, memory_of
from fluxtui.engine.memory.presets import PRESETS, SIDES, held_on, preset_for
from fluxtui.engine.memory.settings import check_settings
from fluxtui.engine.trainer.refusal import Refusal
from fluxtui.persist.settings import recipe
from fluxtui.persist.settings.spec import DatasetSpec, ModelSpec, Spec

BASE = Spec(name="a", id="id-of-a", model=ModelSpec(source="flux"), dataset=DatasetSpec(path="pictures"))
FLUX = model_of(None, is_schnell=False)


def spec_with(**sets: Any) -> Spec:
    return recipe.apply(BASE, {key.replace("__", "."): value for key, value in sets.items()})


def planned(name: str, side: int, card: int = 0, **sets: Any) -> Memory:
    sets = {"dataset.resolution": [side], "sample.prompts": ["a"], "hardware.preset": name} | sets
    return memory_of(recipe.apply(BASE, sets), FLUX, card or PRESETS[name].size)


@pytest.mark.parametrize("name", PRESETS)
def test_each_presets_plan_fits_its_card_with_a_gigabyte_to_spare(name: str) -> None:
    card = PRESETS[name].size
    for side in SIDES:
        memory = planned(name, side)
        assert memory.weights.streamed == PRESETS[name].blocks(PRESETS[name].precision, side)
        assert memory.peak + CUDA_CONTEXT + MARGIN <= card, (side, memory)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("precision", ["bf16", "int8", "fp8", "nf4"])
def test_a_precision_that_is_asked_for_fits_every_preset_too(name: str, precision: str) -> None:
    for side in SIDES:
        assert fits(planned(name, side, **{"model.precision": precision}), PRESETS[name].size), side


@pytest.mark.parametrize("name", PRESETS)
def test_no_preset_streams_more_than_it_must(name: str) -> None:
    """One block fewer would not fit."""
    for precision, each in PRESETS[name].streamed.items():
        for side, streamed in zip(SIDES, each, strict=True):
            if streamed:
                fewer = planned(name, side, **{"hardware.stream_blocks": streamed - 1, "model.precision": precision})
                assert not fits(fewer, PRESETS[name].size), (precision, side)


# what torch says such cards have in all, GiB, from its own words about them ("total capacity of … GiB"); NVML says more
TORCH = {
    "RTX 3070, 8 GB": (7.78, "8GB"), "RTX 4060, 8 GB": (7.62, "8GB"), "RTX 3080, 10 GB": (9.77, "10GB"),
    "RTX 2080 Ti, 11 GB": (10.75, "10GB"), "RTX 3060, 12 GB": (11.75, "12GB"), "RTX 4060 Ti, 16 GB": (15.59, "16GB"),
    "RTX 4080, 16 GB": (15.69, "16GB"), "RTX 4000 Ada, 20 GB": (19.67, "16GB"), "A10G, 24 GB": (21.99, "24GB"),
    "L4, 24 GB": (22.03, "24GB"), "RTX 4090, 24 GB": (23.64, "24GB"), "RTX 5090, 32 GB": (31.36, "32GB"),
    "V100, 32 GB": (31.74, "32GB"), "A100, 40 GB": (39.39, "32GB"),
    "A40, 48 GB": (44.34, "48GB"), "L40S, 48 GB": (44.40, "48GB"), "RTX A6000, 48 GB": (47.53, "48GB"),
    "A100, 80 GB": (79.15, "80GB"), "H100, 80 GB": (79.10, "80GB"),
}  # fmt: skip


@pytest.mark.parametrize("card", TORCH)
def test_cards_by_what_torch_says_they_have_get_the_preset_of_their_box_and_fit(card: str) -> None:
    total, name = int(TORCH[card][0] * 2**30), TORCH[card][1]
    assert preset_for(total) == name
    for side in SIDES:
        memory = planned("auto", side, total)
        assert memory.held.preset == name
        assert fits(memory, total), (side, memory)


@pytest.mark.parametrize(
    ("card", "name"),
    [(6, "8GB"), (8.59, "8GB"), (10.7, "10GB"), (12.88, "12GB"), (17.2, "16GB"), (21.5, "16GB"), (25.8, "24GB"),
     (34, "32GB"), (42.3, "32GB"),
     (48.3, "48GB"), (85.5, "80GB"), (141, "80GB")],
)  # fmt: skip
def test_auto_takes_the_largest_preset_that_the_card_has_room_for(card: float, name: str) -> None:
    assert preset_for(int(card * 1e9)) == name
    held = held_on(BASE, int(card * 1e9))
    assert (held.preset, held.precision) == (name, PRESETS[name].precision)


def test_what_the_spec_says_wins_over_the_preset() -> None:
    card = 8 * 10**9
    assert held_on(spec_with(hardware__stream_blocks=3), card).stream_blocks == 3
    assert held_on(spec_with(hardware__stream_blocks=0), card).stream_blocks == 0
    assert held_on(spec_with(model__precision="nf4"), card).precision == "nf4"
    both = held_on(spec_with(model__precision="nf4", hardware__stream_blocks=2), card)
    assert (both.precision, both.stream_blocks, both.preset) == ("nf4", 2, "")
    small = spec_with(hardware__preset="16GB", dataset__resolution=[768])
    assert held_on(small, card).stream_blocks == PRESETS["16GB"].blocks("int8", 768) > 0


@pytest.mark.parametrize(
    ("sets", "named"),
    [({"train.gradient_checkpointing": False}, "train.gradient_checkpointing=false"),
     ({"hardware.compile": True}, "hardware.compile=true"), ({"lora.kind": "dora"}, "lora.kind=dora")],
)  # fmt: skip
def test_blocks_do_not_stay_in_silence_for_the_sake_of_a_setting(sets: dict[str, object], named: str) -> None:
    held = held_on(recipe.apply(BASE, sets), 8 * 10**9)
    assert (held.stream_blocks, held.unstreamed) == (0, named)
    assert held_on(recipe.apply(BASE, sets), 85 * 10**9).unstreamed == ""
    assert held_on(recipe.apply(BASE, sets | {"hardware.stream_blocks": 0}), 8 * 10**9).unstreamed == ""


def test_adapters_that_work_with_the_weights_themselves_get_them_in_bf16() -> None:
    assert held_on(spec_with(lora__kind="dora"), 25 * 10**9).precision == "bf16"


def test_the_cpu_and_the_pico_stream_nothing_unless_told() -> None:
    assert (held_on(BASE, None).precision, held_on(BASE, None).stream_blocks) == ("fp32", 0)
    pico = Spec(name="a", id="b", kind="pico", model=ModelSpec(source="pico"), dataset=DatasetSpec(path="demo"))
    assert held_on(pico, 8 * 10**9).stream_blocks == 0


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ({"hardware.stream_blocks": 2, "train.gradient_checkpointing": False}, "gradient checkpointing"),
        ({"hardware.stream_blocks": 2, "hardware.compile": True}, "do not go together"),
        ({"hardware.stream_blocks": 2, "lora.kind": "dora"}, "reads the base's weights"),
    ],
)
def test_settings_that_exclude_each_other_are_refused_before_anything_is_loaded(sets: dict[str, object], words: str) -> None:
    check_settings(BASE)
    with pytest.raises(Refusal, match=words) as refused:
        check_settings(recipe.apply(BASE, sets))
    assert "set " in refused.value.remedy


def test_a_machine_without_a_compiler_is_told_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = recipe.apply(BASE, {"hardware.compile": True, "hardware.stream_blocks": 0})
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    check_settings(BASE)
    with pytest.raises(Refusal, match="C compiler") as refused:
        check_settings(compiled)
    assert "hardware.compile=false" in refused.value.remedy
    (tmp_path / "gcc").write_text("")
    (tmp_path / "gcc").chmod(0o755)
    check_settings(compiled)
