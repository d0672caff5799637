"""The form: defaults that train as they stand, the schema's own sentences while one types, nothing lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fluxtui.persist.home import Home
from fluxtui.persist.recipe import load_spec
from fluxtui.screens.form_fields import evaluate, fields
from fluxtui.screens.form_screen import FormScreen
from tests.ui.conftest import opened, seen, text_of
from tests.ui.fabricate import Fabricated, make_session

DEMO = Path(__file__).parent.parent.parent / "fluxtui" / "demo" / "images"


async def form_of(pilot, app, key: str = "n") -> FormScreen:
    await pilot.press(key)
    await seen(pilot, lambda: isinstance(app.screen, FormScreen) and app.screen.form.seen.values, "no form")
    return app.screen


def beside(app) -> str:
    """What stands beside the questions at a width of 120, as one line: a long path wraps wherever it happens to."""
    return " ".join(line[73:].strip() for line in text_of(app).splitlines())


async def test_as_it_opens_it_can_be_created(empty_home: Home) -> None:
    async with opened(empty_home, (120, 36)) as (app, pilot):
        await form_of(pilot, app)
        await seen(pilot, lambda: "ready" in text_of(app), "not ready")
        for text in ("new session", "name", "data set", "create and start", "pictures", "disk", "^s create and start"):
            assert text in text_of(app), text
        await pilot.press(*["down"] * 14, "enter")
        await seen(pilot, lambda: empty_home.session("demo").spec_file.exists(), "not made")
        assert app.screen is app.board
        await seen(pilot, lambda: app.board.sessions.selected is not None, "not selected")
        assert load_spec(empty_home.session("demo").spec_file).dataset.path == "demo"


async def test_answers_become_the_spec(empty_home: Home, tmp_path: Path) -> None:
    pictures = tmp_path / "cats"
    shutil.copytree(DEMO, pictures)
    async with opened(empty_home, (120, 36)) as (app, pilot):
        screen = await form_of(pilot, app)
        await pilot.press(*"my-cat", "down", *"My cat, by night", "down", "down", *str(pictures), "down", *"ohwx", "down")
        await pilot.press("down", *"50", "down", *"1e-3", "down", *"4")
        await seen(pilot, lambda: "50 steps of 4" in text_of(app), "what it comes to is not said")
        await seen(pilot, lambda: screen.form.seen.spec is not None, "not ready")
        screen.form.go(len(screen.form._fields) + 1)
        await pilot.press("enter")
        await seen(pilot, lambda: empty_home.session("my-cat").spec_file.exists(), "not made")
        spec = load_spec(empty_home.session("my-cat").spec_file)
        assert (spec.title, spec.train.steps, spec.train.learning_rate, spec.train.batch_size) == (
            "My cat, by night",
            50,
            1e-3,
            4,
        )
        assert (spec.dataset.path, spec.dataset.trigger) == (str(pictures), "ohwx")


@pytest.mark.parametrize(
    ("name", "typed", "sentence"),
    [
        ("name", "../up", "cannot be a name"),
        ("name", "taken", "There is a session taken already"),
        ("train.steps", "minus five", "give a whole number"),
        ("train.steps", "-5", "give a whole number from 0"),
        ("train.batch_size", "0", "from 1 to 1024"),
        ("lora.rank", "5000", "from 1 to 1024"),
        ("dataset.resolution", "[100]", "multiple of 16"),
        ("dataset.path", "/nowhere/at/all", "There is no data set folder"),
        ("model.source", "nobody-knows-this", "There is no model"),
    ],
)
def test_a_misfit_is_said_in_the_words_of_the_schema(empty_home: Home, name: str, typed: str, sentence: str) -> None:
    make_session(empty_home, "taken")
    seen_ = evaluate(empty_home, {name: typed})
    assert sentence in seen_.errors[name], seen_.errors
    assert seen_.spec is None


async def test_a_misfit_is_shown_at_its_field_and_keeps_the_form_open(empty_home: Home) -> None:
    async with opened(empty_home, (120, 36)) as (app, pilot):
        screen = await form_of(pilot, app)
        screen.form.go_to("train.batch_size")
        await pilot.press(*"0")
        await seen(pilot, lambda: "from 1 to 1024" in text_of(app) and "1 to mend" in text_of(app), "not shown")
        await pilot.press("ctrl+s")
        assert app.screen is screen
        await pilot.press("backspace", *"2")
        await seen(pilot, lambda: "ready" in text_of(app), "not mended")


async def test_a_form_that_is_left_keeps_its_answers(empty_home: Home) -> None:
    async with opened(empty_home, (100, 30)) as (app, pilot):
        await form_of(pilot, app)
        await pilot.press(*"half-done", "escape")
        assert app.screen is app.board
        await form_of(pilot, app)
        await seen(pilot, lambda: "half-done" in text_of(app), "the answer is lost")


async def test_a_clone_begins_with_the_others_settings(states: Fabricated) -> None:
    async with opened(states.home, (120, 36), "too-hot") as (app, pilot):
        screen = await form_of(pilot, app, "N")
        await seen(pilot, lambda: "new session like too-hot" in text_of(app), "not said")
        await seen(pilot, lambda: screen.form.seen.values.get("train.learning_rate") == "1.0", "not its settings")
        assert screen.form.seen.values["name"] == "too-hot-2"
        assert "go on from it" in text_of(app)


async def test_folders_are_completed(empty_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "holiday-pictures").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    async with opened(empty_home, (120, 36)) as (app, pilot):
        screen = await form_of(pilot, app)
        screen.form.go_to("dataset.path")
        await pilot.press(*"~/holi")
        await seen(pilot, lambda: any(one.endswith("holiday-pictures/") for one in screen.form.seen.candidates), "no candidate")
        await pilot.press("right")
        assert screen.form.answers["dataset.path"] == "~/holiday-pictures/"
        await seen(pilot, lambda: "holds no images" in beside(app), "an empty folder is not said")


async def test_every_setting_can_be_asked_for(empty_home: Home) -> None:
    assert len(fields(False, True)) > 50
    async with opened(empty_home, (120, 36)) as (app, pilot):
        screen = await form_of(pilot, app)
        await pilot.press("f3")
        screen.form.go_to("guard.step")
        await seen(pilot, lambda: "[guard]" in text_of(app), "not shown")
        screen.form.go_to("guard.auto_resume")
        await pilot.press("right")
        await seen(pilot, lambda: screen.form.answers.get("guard.auto_resume") == "false", "not chosen")


async def test_pictures_are_examined_before_the_start(empty_home: Home, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    shutil.copytree(DEMO, pictures)
    next(pictures.glob("*.png")).write_bytes(b"torn")
    async with opened(empty_home, (120, 36)) as (app, pilot):
        screen = await form_of(pilot, app)
        screen.form.go_to("dataset.path")
        await pilot.press(*str(pictures))
        await seen(pilot, lambda: screen.form.seen.answers.get("dataset.path") == str(pictures), "not looked at")
        await pilot.press("f4")
        await seen(pilot, lambda: "refused until" in text_of(app), "the damage is not found", 90)
