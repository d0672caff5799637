"""What each key does in the form; letters and all else that is printed answer the question in focus."""

from __future__ import annotations

from collections.abc import Callable

from fluxtui.screens.form.answering import Answering


def _always(action: Callable[[Answering], None]) -> Callable[[Answering], bool]:
    """The key is taken, whatever comes of it."""

    def taken(answering: Answering) -> bool:
        action(answering)
        return True

    return taken


_ACTIONS: tuple[tuple[str, Callable[[Answering], None]], ...] = (
    ("down", lambda answering: answering.walk(1)),
    ("up", lambda answering: answering.walk(-1)),
    ("tab", lambda answering: answering.complete()),
    ("shift+tab", lambda answering: answering.move(-1)),
    ("pagedown", lambda answering: answering.move(10)),
    ("pageup", lambda answering: answering.move(-10)),
    ("left", lambda answering: answering.side(-1)),
    ("right", lambda answering: answering.side(1)),
    ("home ctrl+a", lambda answering: answering.jump(0)),
    ("end ctrl+e", lambda answering: answering.jump(1)),
    ("backspace ctrl+h", lambda answering: answering.rub()),
    ("ctrl+w", lambda answering: answering.rub_word()),
    ("ctrl+u", lambda answering: answering.clear()),
    ("enter", lambda answering: answering.press()),
)
KEYS: dict[str, Callable[[Answering], bool]] = {key: _always(action) for names, action in _ACTIONS for key in names.split()}
KEYS["escape"] = lambda answering: answering.shut_list()
