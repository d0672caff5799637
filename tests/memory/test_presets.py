"""Presets: each one's plan leaves 1 GB of its card free, at each resolution, by the planner's own arithmetic; and what wins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fluxtui.engine.memory import phases
from fluxtui.engine.memory.phases import CUDA_CONTEXT, MARGIN, Memory, fits, memory_of
from fluxtui.engine.memory.presets import PRESETS, held_on, preset_for
from fluxtui.engine.memory.settings import check_settings
from fluxtui.engine.plan import model_of
from fluxtui.engine.trainer.refusal import Refusal
from fluxtui.persist import recipe
from fluxtui.persist.spec import DatasetSpec, ModelSpec, Spec

SIDES = (512, 768, 1024)
BASE = Spec(name="a", id="id-of-a", model=ModelSpec(source="flux"), dataset=DatasetSpec(path="pictures"))


@pytest.fixture(autouse=True, scope="module")
def _measured() -> Iterator[None]:
    """The same shapes are measured once: presets differ in where the weights lie."""
    seen: dict[Any, Any] = {}

    def once(real: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*arguments: Any, **named: Any) -> Any:
            key = real.__name__, repr(arguments), repr(named)
            if key not in seen:
                seen[key] = real(*arguments, **named)
            return seen[key]

        return measured

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phases, "measure", once(phases.measure))
        patch.setattr(phases, "vae_work", once(phases.vae_work))
        yield


def spec_with(**sets: Any) -> Spec:
    return recipe.apply(BASE, {key.replace("__", "."): value for key, value in sets.items()})


def planned(name: str, side: int, **sets: Any) -> Memory:
    sets = {"dataset.resolution": [side], "sample.prompts": ["a"], "hardware.preset": name} | sets
    return memory_of(recipe.apply(BASE, sets), model_of(None, is_schnell=False), PRESETS[name].size)


@pytest.mark.parametrize("name", PRESETS)
def test_each_presets_plan_fits_its_card_with_a_gigabyte_to_spare(name: str) -> None:
    card = PRESETS[name].size
    for side in SIDES:
        memory = planned(name, side)
        assert memory.weights.streamed == PRESETS[name].streamed[side]
        assert memory.peak + CUDA_CONTEXT + MARGIN <= card, (side, memory)


@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if any(preset.streamed.values())])
def test_no_preset_streams_much_more_than_it_must(name: str) -> None:
    """A plan with six blocks fewer would not fit where blocks are streamed."""
    for side, streamed in PRESETS[name].streamed.items():
        if streamed > 6:
            fewer = planned(name, side, **{"hardware.stream_blocks": streamed - 6})
            assert not fits(fewer, PRESETS[name].size)


@pytest.mark.parametrize(
    ("card", "name"),
    [(6, "8GB"), (8.59, "8GB"), (10.7, "10GB"), (12.88, "12GB"), (17.2, "16GB"), (21.5, "16GB"), (25.8, "24GB"), (34, "24GB"),
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
    assert held_on(spec_with(train__gradient_checkpointing=False), card).stream_blocks == 0
    both = held_on(spec_with(model__precision="nf4", hardware__stream_blocks=2), card)
    assert (both.precision, both.stream_blocks, both.preset) == ("nf4", 2, "")
    assert (
        held_on(spec_with(hardware__preset="16GB", dataset__resolution=[768]), card).stream_blocks
        == PRESETS["16GB"].streamed[768]
    )


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
