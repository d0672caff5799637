"""The form: defaults that train as they stand, the schema's own sentences while one types, nothing lost."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from fluxtui.persist.home import Home
from fluxtui.persist.settings.recipe import load_spec
from fluxtui.screens.form.candidates import candidates
from fluxtui.screens.form.fields import evaluate, fields
from fluxtui.screens.form.plan import Planner
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
        assert "400 steps of 8, about 58 epochs" in beside(app), "an epoch of 50 pictures has 7 steps, the last one of 2"
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
        screen.form.go(len(screen.form.answering.fields) + 1)
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
        await seen(pilot, lambda: "from 1 to 1024" in text_of(app) and "1 to fix" in text_of(app), "not shown")
        await pilot.press("ctrl+s")
        assert app.screen is screen
        await pilot.press("backspace", *"2")
        await seen(pilot, lambda: "ready" in text_of(app), "not fixed")


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
        await seen(
            pilot, lambda: any(one.text.endswith("holiday-pictures/") for one in screen.form.seen.candidates), "no candidate"
        )
        await pilot.press("right")
        assert screen.form.answering.answers["dataset.path"] == "~/holiday-pictures/"
        await seen(pilot, lambda: "holds no images" in beside(app), "an empty folder is not said")


async def test_every_setting_can_be_asked_for(empty_home: Home) -> None:
    assert len(fields(False, True)) > 50
    async with opened(empty_home, (120, 36)) as (app, pilot):
        screen = await form_of(pilot, app)
        await pilot.press("f3")
        screen.form.go_to(next(asked.name for asked in screen.form.answering.fields if asked.name.startswith("guard.")))
        await seen(pilot, lambda: "[guard]" in text_of(app), "not shown")
        screen.form.go_to("guard.auto_resume")
        await pilot.press("right")
        await seen(pilot, lambda: screen.form.answering.answers.get("guard.auto_resume") == "false", "not chosen")


async def test_the_list_of_folders_is_walked_and_goes_deeper(
    empty_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sets/apples", "sets/apricots/good", "sets/pears"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(next(DEMO.glob("*.png")), tmp_path / "sets" / "pears" / "one.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    async with opened(empty_home, (80, 24)) as (app, pilot):
        screen = await form_of(pilot, app)
        screen.form.go_to("dataset.path")

        async def answer(text: str) -> None:
            await seen(pilot, lambda: screen.form.answering.value("dataset.path") == text, f"not {text}")
            await seen(pilot, lambda: screen.form.seen.answers.get("dataset.path") == text, f"{text} is not looked at")
            await pilot.pause()

        await pilot.press(*"~/se")
        await answer("~/se")
        await pilot.press("tab")
        await answer("~/sets/")
        await seen(pilot, lambda: "~/sets/pears/" in text_of(app), "not listed")
        assert "1 picture, 0 captions" in text_of(app)
        await pilot.press("down", "down", "down", "up")
        assert screen.form.answering.picker.chosen.text == "~/sets/apricots/"
        await pilot.press("escape")
        assert app.screen is screen, "esc shuts the list, not the form"
        assert not screen.form.answering.picker.is_open
        await pilot.press("tab", "down", "tab")
        await answer("~/sets/apricots/")
        await pilot.press("tab")
        await answer("~/sets/apricots/good/")
        await pilot.press("down")
        assert screen.form.answering.question.name == "dataset.trigger"
        await pilot.press("up", "ctrl+u", *"~/sets/ap")
        await answer("~/sets/ap")
        await pilot.press("right")
        await answer("~/sets/apples/")


async def test_keys_that_come_in_one_burst_act_in_their_order(empty_home: Home) -> None:
    """Over a slow line several keys come at once; text must not land in the question that was left."""
    from textual.events import Key

    async with opened(empty_home, (80, 24)) as (app, pilot):
        screen = await form_of(pilot, app)
        for key in ("down", "down", "down", "a", "b", "up", "up", "c", "left", "d"):
            screen.form.post_message(Key(key, key if len(key) == 1 else None))
        await seen(pilot, lambda: screen.form.answering.answers.get("title") == "dc", "not in order")
        assert screen.form.answering.answers == {"dataset.path": "ab", "title": "dc"}


async def test_models_are_found_on_this_machine_on_the_hub_and_in_other_sessions(
    empty_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty_home.models / "my-flux").mkdir()
    cached = tmp_path / "hub" / "models--somebody--flux-tuned" / "snapshots" / "abc"
    (cached / "transformer").mkdir(parents=True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    make_session(empty_home, "before", model__source="someone/their-flux")
    found = {one.text: one.note for one in candidates(empty_home, "model.source", "")}
    assert "pocket FLUX" in found["pico"]
    assert found["my-flux"] == "in models/"
    assert found["somebody/flux-tuned"] == "of the hub, on this machine"
    assert found["someone/their-flux"] == "used before"
    assert found["black-forest-labs/FLUX.1-dev"] == "on the hub"
    assert [one.text for one in candidates(empty_home, "model.source", "schnell")] == ["black-forest-labs/FLUX.1-schnell"]
    # `~name` of nobody, as `~pic` for `~/pic`: RuntimeError in the thread of the list
    assert candidates(empty_home, "dataset.path", "~nobody-here/pic") == []
    async with opened(empty_home, (80, 24)) as (app, pilot):
        screen = await form_of(pilot, app)
        screen.form.go_to("model.source")
        await seen(pilot, lambda: screen.form.seen.focus == "model.source" and "tab lists" in text_of(app), "no hint")
        await pilot.press("tab")
        assert "used before" in text_of(app)
        await pilot.press("escape", *"krea")
        await seen(pilot, lambda: screen.form.answering.picker.is_open, "no list")
        await pilot.press("right")
        await seen(pilot, lambda: screen.form.answering.value("model.source") == "black-forest-labs/FLUX.1-Krea-dev", "not taken")


def fake_engine(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr("fluxtui.control.engine.sys.executable", str(program))
    monkeypatch.setattr("fluxtui.screens.form.plan.PATIENCE", 0.0)


async def test_the_plan_stands_beside_the_form_and_is_made_once_for_the_same_answers(
    empty_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = '{"training_peak": 21474836480, "card": "NVIDIA L4", "fits": false, "change": "hardware.stream_blocks=12", '
    plan += '"estimated_step_seconds": 2}'
    fake_engine(tmp_path, monkeypatch, f"echo x >> {tmp_path}/made; echo '{plan}'")
    async with opened(empty_home, (120, 36)) as (app, pilot):
        screen = await form_of(pilot, app)
        await seen(pilot, lambda: "20.0G at the peak" in beside(app), "no memory")
        assert "DOES NOT FIT NVIDIA L4" in beside(app)
        assert "set hardware.stream_blocks=12" in beside(app)
        assert "13m, 2.00 s a step estimated" in beside(app), "400 steps of 2 s"
        screen.form.go_to("train.steps")
        await pilot.press(*"10")
        await seen(pilot, lambda: "20s, 2.00 s a step" in beside(app), "not planned anew")
        await pilot.press("backspace", "backspace")
        await seen(pilot, lambda: "13m, 2.00 s a step" in beside(app), "not as before")
        count = len((tmp_path / "made").read_text().split())
        assert count <= 3, f"made {count} times for three different answers"


async def test_a_plan_that_is_typed_over_is_ended(empty_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_engine(tmp_path, monkeypatch, f"echo $$ >> {tmp_path}/pids; exec sleep 60")
    async with opened(empty_home, (120, 36)) as (app, pilot):
        screen = await form_of(pilot, app)
        pids = tmp_path / "pids"
        await seen(pilot, lambda: pids.exists() and pids.read_text().strip(), "not begun")
        first = pids.read_text().split()[0]
        assert "reckoning" in beside(app)
        screen.form.go_to("train.steps")
        await pilot.press(*"77")
        await seen(pilot, lambda: not Path(f"/proc/{first}").exists(), "the first goes on")
        await seen(pilot, lambda: len(pids.read_text().split()) > 1, "no second")
        await pilot.press("escape")
        await seen(
            pilot, lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids.read_text().split()), "goes on after the form"
        )


async def test_a_plan_that_fails_says_why(empty_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_engine(tmp_path, monkeypatch, "echo 'no torch here' >&2; exit 1")
    async with opened(empty_home, (120, 36)) as (app, pilot):
        await form_of(pilot, app)
        await seen(pilot, lambda: "no torch here" in beside(app), "not said")


@pytest.mark.soak
def test_the_engine_plans_a_spec_that_is_no_session_yet(empty_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real engine, as the form asks it."""
    spec = evaluate(empty_home, {"train.steps": "30"}).spec
    told = threading.Event()
    planner = Planner(empty_home, told.set)
    monkeypatch.setattr("fluxtui.screens.form.plan.PATIENCE", 0.0)
    planner.want(spec)
    assert told.wait(240)
    facts = {label: value for label, value, _ in planner.facts(0)}
    assert facts["memory"].endswith("M at the peak"), facts
    assert "time" in facts
    assert empty_home.session_names() == []


async def test_the_settings_of_a_new_session_are_edited_in_the_form(empty_home: Home) -> None:
    folder = make_session(empty_home, "mine", train__steps=77, dataset__path="demo", model__source="pico")
    before = load_spec(folder.spec_file)
    async with opened(empty_home, (120, 36), "mine") as (app, pilot):
        screen = await form_of(pilot, app, "e")
        await seen(pilot, lambda: "settings of mine" in text_of(app) and "save and start" in text_of(app), "not said")
        assert "^s save and start" in text_of(app)
        assert all(asked.name != "name" for asked in screen.form.answering.fields)
        assert screen.form.seen.values["train.steps"] == "77"
        screen.form.go_to("train.steps")
        await pilot.press(*"90")
        await seen(pilot, lambda: screen.form.seen.answers.get("train.steps") == "90" and screen.form.seen.spec, "not looked at")
        screen.form.go(len(screen.form.answering.fields) + 1)
        await pilot.press("enter")
        await seen(pilot, lambda: load_spec(folder.spec_file).train.steps == 90, "not saved")
        await seen(pilot, lambda: app.board_of_notices.notices, "not said")
        assert "[train] steps is 90, was 77" in app.board_of_notices.notices[-1].text
    after = load_spec(folder.spec_file)
    assert (after.id, after.name, after.dataset, after.lora) == (before.id, before.name, before.dataset, before.lora)
    assert empty_home.session_names() == ["mine"]
