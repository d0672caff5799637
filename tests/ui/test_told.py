"""What the dashboard says of its keys is what they do: too little room, a filter without matches, a theme."""

from __future__ import annotations

import pytest

from fluxtui.screens.keys.dispatch import Dispatcher
from tests.ui.conftest import opened, seen, text_of
from tests.ui.fabricate import Fabricated


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
