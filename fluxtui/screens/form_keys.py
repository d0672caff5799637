"""What each key does in the form; letters and all else that is printed answer the question in focus."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fluxtui.screens.form import Form


def _always(deed: Callable[[Form], None]) -> Callable[[Form], bool]:
    """The key is taken, whatever comes of it."""

    def taken(form: Form) -> bool:
        deed(form)
        return True

    return taken


_DEEDS: tuple[tuple[str, Callable[[Form], None]], ...] = (
    ("down", lambda form: form.walk(1)),
    ("up", lambda form: form.walk(-1)),
    ("tab", lambda form: form.complete()),
    ("shift+tab", lambda form: form.move(-1)),
    ("pagedown", lambda form: form.move(10)),
    ("pageup", lambda form: form.move(-10)),
    ("left", lambda form: form.side(-1)),
    ("right", lambda form: form.side(1)),
    ("home ctrl+a", lambda form: form.jump(0)),
    ("end ctrl+e", lambda form: form.jump(1)),
    ("backspace ctrl+h", lambda form: form.rub()),
    ("ctrl+w", lambda form: form.rub_word()),
    ("ctrl+u", lambda form: form.clear()),
    ("enter", lambda form: form.press()),
)
KEYS: dict[str, Callable[[Form], bool]] = {key: _always(deed) for names, deed in _DEEDS for key in names.split()}
KEYS["escape"] = lambda form: form.shut_list()
