"""What the dashboard says of its keys is what they do: too little room, a filter without matches, a theme."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from textual.geometry import Region
from textual.strip import Strip

from fluxtui.persist.errors import RefusedError
from fluxtui.persist.home import Home
from fluxtui.screens import jobs
from fluxtui.screens.dialogs.export_box import ExportBox
from fluxtui.screens.keys.dispatch import Dispatcher
from fluxtui.screens.notices import Notices
from tests.ui.conftest import opened, seen, text_of
from tests.ui.fabricate import Fabricated, make_record, make_session


@pytest.mark.parametrize("way", [(), ("enter",), ("n",), ("l",)])
async def test_where_there_is_too_little_room_no_key_acts_but_the_one_that_is_named(
    states: Fabricated, way: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(states.home, (80, 24), "paused-fox") as (app, pilot):
        await pilot.press(*way)
        await pilot.resize_terminal(60, 20)
        await seen(pilot, lambda: "q leaves" in text_of(app), "not said")
        screen, done = app.screen, []
        monkeypatch.setattr(Dispatcher, "action_do", lambda self, name: done.append(name))
        await pilot.press("enter", "5", "s", "x", "X", "D", "K", "y", "j", "escape", "ctrl+s", "question_mark", "T")
        assert not done, "a key acted that nobody saw"
        assert app.screen is screen
        monkeypatch.setattr(app, "exit", lambda code: done.append(f"left with {code}"))
        await pilot.press("q")
        assert done == ["left with 0"], "the key that is named does not leave"


async def test_a_filter_that_matches_nothing_says_how_all_are_shown(states: Fabricated) -> None:
    async with opened(states.home, (100, 30), "paused-fox") as (app, pilot):
        await pilot.press("slash", *"nosuch", "enter")
        await pilot.press("enter")
        await seen(pilot, lambda: app.board_of_notices.notices, "nothing is said")
        assert app.board_of_notices.notices[-1].text.endswith("no session is shown; esc shows all")
        await pilot.press("escape", "enter")
        assert app.screen is not app.board, "esc did not show all"


async def test_a_theme_that_is_not_written_anywhere_is_not_called_kept(states: Fabricated) -> None:
    async with opened(states.home, (100, 30), "paused-fox") as (app, pilot):
        await pilot.press("T")
        text = app.board_of_notices.notices[-1].text
        assert text == f'theme {app.theme}; to keep it, write theme = "{app.theme}" under [ui] in config.toml'


@pytest.mark.parametrize("is_refused", [False, True])
async def test_a_start_is_said_at_once_and_until_it_is_answered(
    states: Fabricated, is_refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()

    def start(home: Home, name: str) -> str:
        assert answers.wait(30)
        if is_refused:
            raise RefusedError("there is no room for it")
        return f"{name} started"

    monkeypatch.setattr(jobs, "started", start)
    async with opened(states.home, (100, 30), "a-new-one") as (app, pilot):
        await pilot.press("s")
        assert "starting a-new-one" in text_of(app), "the key shows nothing until the keeper answers"
        app.board_of_notices.expire(1e12)
        assert app.board_of_notices.notices, "it vanishes though the start goes on"
        answers.set()
        await seen(pilot, lambda: ("no room" if is_refused else "a-new-one started") in text_of(app), "no answer")
        assert "starting a-new-one" not in text_of(app), "it stands beside its answer"


async def test_each_prompt_of_the_log_offers_its_own_pattern_and_typing_replaces_it(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    folder = make_session(home, "logged")
    make_record(folder, status="stopped", step=5, reason="stopped by the user")
    folder.log_file.write_text("a checkpoint\na commit\nanother line\n")
    async with opened(home, (100, 30), "logged") as (app, pilot):
        await pilot.press("l")
        await seen(pilot, lambda: "another line" in text_of(app), "no log")
        await pilot.press("slash", *"checkpoint", "enter", "ampersand", *"commit")
        assert app.screen.line.value == "commit", "the filter's prompt holds what was searched for"
        await seen(pilot, lambda: "only commit · 1 match" in text_of(app).splitlines()[0], "not filtered")
        await pilot.press("enter", "slash")
        assert app.screen.line.value == "checkpoint", "the search has forgotten its own"
        await pilot.press(*"line")
        assert app.screen.line.value == "line", "what is typed does not replace it"
        await pilot.press("enter", "slash", "end", "s")
        assert app.screen.line.value == "lines", "a move of the cursor does not keep it"


async def test_a_line_without_more_to_say_ends_without_a_dot(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    make_record(make_session(home, "logged"), status="stopped", step=5, reason="stopped by the user")
    home.session("logged").log_file.write_text("a line\n")
    async with opened(home, (100, 30), "logged") as (app, pilot):
        await pilot.press("l")
        await seen(pilot, lambda: "a line" in text_of(app), "no log")
        await pilot.press("ampersand", *"nosuch")
        await seen(pilot, lambda: "0 matches" in text_of(app), "not filtered")
        assert not text_of(app).splitlines()[0].rstrip("─ ").endswith("·"), text_of(app).splitlines()[0]


async def test_a_new_notice_shows_nothing_of_the_one_before(states: Fabricated, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    render_lines = Notices.render_lines

    def note(self: Notices, crop: Region) -> list[Strip]:
        strips = render_lines(self, crop)
        drawn.extend(strip.text for strip in strips)
        return strips

    monkeypatch.setattr(Notices, "render_lines", note)
    async with opened(states.home, (100, 30), "a-new-one") as (app, pilot):
        app.say("the old one")
        await seen(pilot, lambda: "the old one" in text_of(app), "not shown")
        app.do_dismiss()
        await seen(pilot, lambda: "the old one" not in text_of(app), "not put away")
        drawn.clear()
        app.say("the new one")
        await seen(pilot, lambda: "the new one" in text_of(app), "not shown")
        assert not [text for text in drawn if "the old one" in text], "it is drawn once more before what is new"


async def test_an_export_box_offers_what_can_hold_the_lora_and_keeps_a_path_it_refuses(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    make_session(home, "mine", lora__kind="lokr")
    async with opened(home, (80, 24), "mine") as (app, pilot):
        app.export("mine", "step-000000001", False)
        await seen(pilot, lambda: isinstance(app.screen, ExportBox), "no box")
        assert "kohya" not in text_of(app)
        assert "comfyui" in text_of(app)
        await pilot.press("up", "ctrl+u", *str(tmp_path / "none" / "a.safetensors"), "enter")
        await seen(pilot, lambda: "there is no folder" in text_of(app), "a folder that is not there was taken")
        assert isinstance(app.screen, ExportBox)
        assert "none/a.safetensors" in text_of(app)
        await pilot.press("x")
        assert "there is no folder" not in text_of(app)
        await pilot.press("ctrl+w", "left", "s", "end", "b")
        assert "nones/b" in text_of(app), "the path cannot be mended in the middle"
        await pilot.press("ctrl+u", "/", *("長い" * 60), *"/end.safetensors", "up")
        assert "い/end.safetensors " in text_of(app), "the end of a path of wide letters is not seen"
        await pilot.press("escape")
        await seen(pilot, lambda: not isinstance(app.screen, ExportBox), "no way out")


async def test_the_footer_says_the_keys_of_what_is_open(states: Fabricated) -> None:
    async with opened(states.home, (80, 24), "ring-lora") as (app, pilot):
        def last() -> str:
            return text_of(app).splitlines()[-1]

        assert "new" in last()
        await pilot.press("K")
        await seen(pilot, lambda: "n or esc no" in last() and "new" not in last(), "the keys of the question are not said")
        await pilot.press("escape")
        await seen(pilot, lambda: "new" in last(), "the screen's own keys do not come back")
        await pilot.press("slash")
        await seen(pilot, lambda: "enter keeps it" in last(), "the keys of the line are not said")
        await pilot.press("escape")
        await seen(pilot, lambda: "new" in last(), "the screen's own keys do not come back")
