"""Specs: `--set`, checks with the range in the sentence, hash, differences."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxtui.persist.errors import DamagedError, UsageError
from fluxtui.persist.files import toml
from fluxtui.persist.settings import defaults, keys, recipe
from fluxtui.persist.settings.spec import DatasetSpec, GuardSpec, ModelSpec, Spec
from tests.persist.inert import is_inert

SPEC = Spec(name="a", id="i", model=ModelSpec(source="pico"), dataset=DatasetSpec(path="demo"))


def refused(pair: str) -> str:
    with pytest.raises(UsageError) as caught:
        recipe.parse_sets([pair])
    return str(caught.value)


@pytest.mark.parametrize(
    ("pair", "sentence"),
    [
        ("train.batch_size=0", "[train] batch_size is 0; give a whole number from 1 to 1024."),
        ("train.batch_size=x", '[train] batch_size is "x"; give a whole number from 1 to 1024.'),
        ("train.batch_size=true", "[train] batch_size is true; give a whole number from 1 to 1024."),
        ("lora.dropout=1", "[lora] dropout is 1; give a number from 0 and below 1."),
        ("lora.alpha=0", "[lora] alpha is 0; give a number above 0 and up to 4096."),
        ("guard.step=-1", "[guard] step is -1; give a number from 0 up."),
        ("train.learning_rate=nan", "[train] learning_rate is nan; give a number above 0 and up to 1000000000."),
        ("guard.step=inf", "[guard] step is inf; give a number from 0 up."),
        ("sample.width=100", "[sample] width is 100; give a whole number from 16 to 4096, a multiple of 16."),
        ("guard.auto_resume=yes", '[guard] auto_resume is "yes"; give true or false.'),
        ("dataset.caption_extension=txt", '[dataset] caption_extension is "txt"; give text like .txt.'),
        ("hardware.gpus=[0,0]", "[hardware] gpus is [0, 0]; give each only once."),
        ("train.batchsize=3", "There is no key train.batchsize; did you mean train.batch_size?"),
        ("batch_size=3", "There is no key batch_size; did you mean train.batch_size?"),
        ("guard.zzz=3", f"There is no key guard.zzz; [guard] has {', '.join(GuardSpec.__struct_fields__)}."),
        ("train.steps", "--set train.steps has no value; write it as KEY=VALUE, like train.steps=2000."),
    ],
)
def test_a_value_that_does_not_fit_names_key_value_and_range(pair: str, sentence: str) -> None:
    assert refused(pair) == sentence


def test_a_word_near_a_choice_is_suggested() -> None:
    assert refused("train.scheduler=cosin").endswith("did you mean cosine?")


@pytest.mark.parametrize("key", [key.dotted for key in keys.all_keys()])
def test_every_key_has_words_for_what_it_takes_and_refuses_a_table(key: str) -> None:
    found = keys.find(key)
    assert found.expected
    with pytest.raises(UsageError) as caught:
        keys.check(key, {"a": 1})
    assert found.label in str(caught.value)
    assert found.expected in str(caught.value)


@pytest.mark.parametrize("key", [key for key in keys.all_keys() if key.default is not keys.REQUIRED])
def test_every_default_fits_its_own_key(key: keys.Key) -> None:
    assert keys.check(key.dotted, key.default) == key.default


def test_values_are_toml_or_text_as_typed() -> None:
    pairs = ["train.steps=20", "dataset.trigger=123", "train.learning_rate=1e-3", "dataset.resolution=64", "hardware.gpus=auto",
             "sample.prompts=[\"a, b\", 'c']", "title=a = b", 'dataset.path="/x y"']  # fmt: skip
    assert recipe.parse_sets(pairs) == {
        "train.steps": 20,
        "dataset.trigger": "123",
        "train.learning_rate": 1e-3,
        "dataset.resolution": [64],
        "hardware.gpus": "auto",
        "sample.prompts": ["a, b", "c"],
        "title": "a = b",
        "dataset.path": "/x y",
    }


def test_sets_survive_the_way_to_the_keeper() -> None:
    overrides = recipe.parse_sets(
        ["sample.prompts=['a \"b\"', 'c=d']", "checkpoint.every_minutes=0.5", "hardware.gpus=[1]", "guard.auto_resume=false"]
    )
    assert recipe.parse_sets(recipe.format_sets(overrides)) == overrides


def test_a_set_that_holds_more_toml_sets_nothing_else() -> None:
    assert recipe.parse_sets(["title=1\nname = 'evil'"[:7]]) == {"title": "1"}
    with pytest.raises(UsageError):
        recipe.parse_sets(["train.steps=1\ntrain.batch_size = 4"])


def test_on_a_resume_only_the_changeable_tables_change() -> None:
    assert recipe.apply(SPEC, {"checkpoint.keep": 8}, recipe.CHANGEABLE_TABLES).checkpoint.keep == 8
    for dotted in ("train.steps", "lora.rank", "dataset.path", "model.source", "validate.images", "title"):
        key = keys.find(dotted)
        with pytest.raises(UsageError, match="recipe"):
            recipe.apply(SPEC, {dotted: key.default if key.default is not keys.REQUIRED else "x"}, recipe.CHANGEABLE_TABLES)


def test_the_hash_is_of_the_recipe_only() -> None:
    first = recipe.recipe_sha256(SPEC)
    assert recipe.recipe_sha256(msgspec.structs.replace(SPEC, name="b", id="j", title="t")) == first
    for key in keys.all_keys():
        if key.is_recipe and key.kind in ("int", "float"):
            changed = recipe.apply(SPEC, {key.dotted: _other(key)})
            assert recipe.recipe_sha256(changed) != first, key.dotted
        elif key.table and key.kind in ("int", "float"):
            changed = recipe.apply(SPEC, {key.dotted: _other(key)})
            assert recipe.recipe_sha256(changed) == first, key.dotted


def _other(key: keys.Key) -> object:
    """A value that the key takes and that is not its default."""
    for value in (16, 32, 1, 0.5):
        try:
            fitting = keys.check(key.dotted, value)
        except UsageError:
            continue
        if fitting != key.default:
            return fitting
    raise AssertionError(key.dotted)


def test_the_hash_of_a_spec_written_before_a_key_existed_stays(tmp_path: Path) -> None:
    path = tmp_path / "session.toml"
    recipe.save_spec(path, SPEC)
    lines = [line for line in path.read_text().splitlines() if not line.startswith("weight_decay")]
    assert len(lines) < len(path.read_text().splitlines())
    path.write_text("\n".join(lines))
    assert recipe.recipe_sha256(recipe.load_spec(path)) == recipe.recipe_sha256(SPEC)


def test_differences_are_named_with_both_values() -> None:
    other = recipe.apply(SPEC, {"train.steps": 40, "dataset.trigger": "x", "checkpoint.keep": 9})
    assert recipe.differences(SPEC, other) == ['[dataset] trigger is "x", was ""', "[train] steps is 40, was 0"]
    assert recipe.differences(SPEC, SPEC) == []


def test_a_spec_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    spec = defaults.new_spec("a", "pico", "demo", "pico", 12, "", {"sample.prompts": ["a", "b"], "title": "x"})
    recipe.save_spec(tmp_path / "session.toml", spec)
    assert recipe.load_spec(tmp_path / "session.toml") == spec


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("batch_size = 1", "batch_sise = 1", "did you mean train.batch_size?"),
        ("batch_size = 1", "batch_size = 0", "from 1 to 1024"),
        ("[train]", "[trian]", "trian"),
        ('id = "i"', "", "id is missing"),
        ('source = "pico"', "", "source is missing"),
        ("[lora]\n", "[lora]\nrank = 'x'\n[unused]\n", "rank"),
    ],
)
def test_a_spec_mended_by_hand_is_refused_with_the_file_and_the_key(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "session.toml"
    text = toml.to_text(SPEC)
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises((UsageError, DamagedError)) as caught:
        recipe.load_spec(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


@given(st.text(max_size=60), st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_no_set_whatever_it_holds_does_more_than_be_refused(key: str, value: str) -> None:
    for pair in (f"{key}={value}", f"train.steps={value}", f"lora.targets={value}", f"sample.prompts={value}"):
        try:
            said = recipe.apply(SPEC, recipe.parse_sets([pair])).name
        except UsageError as error:
            said = str(error)
        assert is_inert(said)


def test_defaults_are_complete_and_fit_the_kind() -> None:
    pico = defaults.new_spec("a", "pico", "demo", "pico", 12, "", {})
    assert pico.dataset.resolution == [64]
    assert pico.dataset.trigger
    assert len(pico.sample.prompts) >= 2
    for images, steps in ((1, 1200), (15, 1500), (40, 2500)):
        flux = defaults.new_spec("a", "owner/flux", "/x", "flux1", images, "ohwx", {})
        assert flux.train.steps == steps
        assert sum("[trigger]" in prompt for prompt in flux.sample.prompts) == len(flux.sample.prompts) - 1, "one is a leak check"
    assert defaults.new_spec("a", "owner/flux", "/x", "flux1", 1, "", {}).sample.prompts == []


def test_epochs_that_are_asked_for_are_not_overruled_by_default_steps() -> None:
    spec = defaults.new_spec("a", "pico", "demo", "pico", 12, "", {"train.epochs": 3})
    assert (spec.train.epochs, spec.train.steps) == (3, 0)


def test_restarts_that_are_asked_for_restart() -> None:
    def cycles(**sets: object) -> int:
        named = {f"train.{key}": value for key, value in sets.items()}
        return defaults.new_spec("a", "pico", "demo", "pico", 12, "", named).train.scheduler_cycles

    restarts = "cosine_with_restarts"
    assert (cycles(scheduler=restarts), cycles(scheduler=restarts, scheduler_cycles=1), cycles(scheduler="cosine")) == (3, 1, 1)


@pytest.mark.parametrize("name", list(defaults.RECIPES))
def test_every_recipe_holds_keys_and_values_that_fit(name: str) -> None:
    assert recipe.apply(SPEC, defaults.with_recipe(name, 20, {})) != SPEC


@pytest.mark.parametrize(
    ("name", "images", "steps"),
    [
        ("subject", 5, 1200),
        ("subject", 20, 2000),
        ("style", 30, 2400),
        ("style", 200, 3000),
        ("face", 40, 2500),
        ("fast", 9, 500),
    ],
)
def test_the_steps_of_a_recipe_come_from_the_number_of_images(name: str, images: int, steps: int) -> None:
    assert defaults.with_recipe(name, images, {})["train.steps"] == steps
    assert "train.steps" not in defaults.with_recipe(name, 0, {})
    assert defaults.with_recipe(name, images, {"train.steps": 7})["train.steps"] == 7
    asked = defaults.with_recipe(name, images, {"train.epochs": 3})
    spec = defaults.new_spec("a", "owner/flux", "/x", "flux1", images, "", asked)
    assert (spec.train.epochs, spec.train.steps) == (3, 0)


def test_a_recipe_that_is_none_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="subject, style, face, fast"):
        defaults.with_recipe("portrait", 20, {})
