"""Every key of every action, in every place where the table says it works; an action or a place added later is walked too."""

from __future__ import annotations

import pytest

from fluxtui.actions import BY_NAME, TABLE, of_contexts
from fluxtui.app import FluxApp
from fluxtui.screens.keys.dispatch import Dispatcher
from tests.ui.conftest import opened, seen, text_of
from tests.ui.fabricate import Fabricated

WAYS = {  # context -> the keys that lead there from the dashboard
    "board": (),
    "list": (),
    "anywhere": ("n",),  # where no nearer action has the key
    "session": ("enter",),
    "metrics": ("enter", "2"),
    "samples": ("enter", "3"),
    "checkpoints": ("enter", "4"),
    "spec": ("enter", "5"),
    "captions": ("enter", "7"),
    "form": ("n",),
    "log": ("l",),
    "reader": ("l",),
    "help": ("question_mark",),
}
_NAMED = {"/": "slash", "?": "question_mark", "+": "plus", "_": "underscore", "-": "minus", "=": "equals_sign", ":": "colon",
          "<": "less_than_sign", ">": "greater_than_sign", "&": "ampersand"}  # fmt: skip


def _pressed_as(key: str) -> str:
    return _NAMED.get(key.strip(), key.strip())


def test_every_place_of_the_table_is_walked() -> None:
    assert {context for action in TABLE for context in action.contexts} == set(WAYS)


@pytest.mark.parametrize("context", list(WAYS))
async def test_every_key_does_what_the_table_says(states: Fabricated, context: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    async with opened(states.home, (120, 36), "paused-fox") as (app, pilot):
        for key in WAYS[context]:
            before = app.screen
            await pilot.press(key)
            if key in {"enter", "l", "n", "question_mark"}:
                await seen(pilot, lambda before=before: app.screen is not before, f"{key} opens nothing")
        await pilot.pause()

        def note(self: Dispatcher, name: str) -> None:
            method = "do_" + name.replace("-", "_")
            places = (self, getattr(self, "screen", None), app)
            assert any(hasattr(place, method) for place in places), f"{name} has no deed in {context}"
            done.append(name)

        monkeypatch.setattr(Dispatcher, "action_do", note)
        for action in of_contexts([context]):
            for key in action.keys.split(","):
                done.clear()
                await pilot.press(_pressed_as(key))
                assert done == [action.name], f"{key} in {context} did {done} instead of {action.name}"


async def test_a_refused_key_says_why_in_its_own_words(states: Fabricated) -> None:
    """Each action that can be refused, in a situation that refuses it: the sentence stands on the screen, nothing happens."""
    refused: set[str] = set()
    async with opened(states.home, (140, 40)) as (app, pilot):
        for name in ("blue-vase", "a-new-one", "ring-lora", "other-pod", "torn-record"):
            app.board.sessions.select(name)
            await pilot.pause()
            for action in of_contexts(["board"]):
                why = action.refusal(app.situation())
                if not why or action.name in refused:
                    continue
                await pilot.press(_pressed_as(action.keys.split(",")[0]))
                await seen(pilot, lambda why=why: why[:40] in _unwrapped(app), f"{action.name} does not say {why!r}")
                refused.add(action.name)
    wanted = {action.name for action in of_contexts(["board"]) if action.refuses} - {"demo"}
    assert refused == wanted, wanted - refused


def _unwrapped(app: FluxApp) -> str:
    """The notices as one text: a sentence may be broken over lines."""
    return " ".join(notice.text for notice in app.board_of_notices.notices) + text_of(app)


def test_every_action_has_a_name_a_label_and_a_sentence() -> None:
    for name, action in BY_NAME.items():
        assert action.label, name
        assert len(action.label) <= 18, name
        assert action.help.endswith("."), name
