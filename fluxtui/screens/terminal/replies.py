"""What a terminal says when it is asked: taken out of what is typed, for it would press keys."""

from __future__ import annotations

import re
import threading

from fluxtui.screens.terminal.gallery import Answer

_ATTRIBUTES = re.compile(r"\x1b\[\?([\d;]*)c")  # the reply to DA1
_CELL = re.compile(r"\x1b\[6;(\d+);(\d+)t")  # the reply to CSI 16 t: height, width
_BEGUN = re.compile(r"\x1b\[(?:\?[\d;]*|6(?:;[\d;]*)?)\Z")  # either of them, not whole yet


class Replies:
    """Fed by the thread that reads the terminal; another one waits."""

    def __init__(self) -> None:
        self._is_asked = False
        self._is_whole = threading.Event()
        self._rest = ""
        self._attributes: tuple[int, ...] = ()
        self._cell = (0, 0)

    def begin(self) -> None:
        """A question is about to be sent; from now on a reply may come, however late."""
        self._is_whole.clear()
        self._is_asked = True

    def wait(self, seconds: float) -> Answer:
        """What was said within so many seconds."""
        self._is_whole.wait(seconds)
        return Answer(self._attributes, self._cell)

    def taken(self, text: str) -> str:
        """What was typed, without replies."""
        if not self._is_asked:
            return text
        text, self._rest = self._rest + text, ""
        for found in _CELL.finditer(text):
            self._cell = (int(found[2]), int(found[1]))
        for found in _ATTRIBUTES.finditer(text):
            self._attributes = tuple(int(part) for part in found[1].split(";") if part)
            self._is_whole.set()
        text = _ATTRIBUTES.sub("", _CELL.sub("", text))
        if begun := _BEGUN.search(text):
            text, self._rest = text[: begun.start()], begun[0]
        return text
