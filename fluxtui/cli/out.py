"""What verbs print: data on stdout, all else on stderr; colour only on a terminal that wants it."""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from fluxtui.persist import output
from fluxtui.persist.sessions.state import Shown

_COLOURS = {"green": "32", "red": "31", "yellow": "33", "blue": "34", "cyan": "36"}


def say(text: str) -> None:
    """One line for the person, on stderr."""
    print(text, file=sys.stderr, flush=True)


def data(text: str) -> None:
    """One line of data, on stdout; what its encoding cannot show is shown as ?."""
    encoding = sys.stdout.encoding or "utf-8"
    output.write(text.encode(encoding, "replace").decode(encoding) + "\n")


def data_json(value: object) -> None:
    """A value as indented JSON on stdout."""
    output.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def has_colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def has_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def state_words(shown: Shown, width: int = 0) -> str:
    """Glyph, word and colour of a state; without the glyph where the terminal is not UTF-8."""
    text = f"{shown.glyph} {shown.word}" if has_unicode() else shown.word
    padded = text + " " * max(0, width - cells(text))
    code = _COLOURS.get(shown.colour)
    return f"\x1b[{code}m{padded}\x1b[0m" if code and has_colour() else padded


def cells(text: str) -> int:
    """Columns that a terminal gives a text."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def cut(text: str, width: int) -> str:
    """A text of at most so many columns."""
    if cells(text) <= width:
        return text
    while text and cells(text) > width - 1:
        text = text[:-1]
    return text + ("…" if has_unicode() else "~")


def columns() -> int:
    """Columns of the terminal; plenty where the output is no terminal, so that nothing is cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Rows under titles; the last column takes what is left. `right` numbers the columns that are aligned right."""
    widths = [max(cells(row[at]) for row in [titles, *rows]) for at in range(len(titles))]
    room = columns() - sum(widths[:-1]) - 2 * (len(widths) - 1)
    for row in [titles, *rows]:
        fields = []
        for at, text in enumerate(row[:-1]):
            pad = " " * (widths[at] - cells(text))
            fields.append(pad + text if at in right else text + pad)
        data("  ".join([*fields, cut(row[-1], max(8, room))]).rstrip())


def facts(pairs: Sequence[tuple[str, Any]]) -> None:
    """Names and values, one a line; what has no value is left out."""
    shown = [(name, str(value)) for name, value in pairs if value not in (None, "", [])]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        data(f"{name:<{width}}  {value}")


def duration(seconds: float | None) -> str:
    """ "41 s", "12 min", "1 h 04 min", "3 d 02 h"; empty where not known."""
    if seconds is None or seconds != seconds:
        return ""
    whole = int(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s" if whole < 600 else f"{whole // 60} min"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


def size(count: int) -> str:
    """Bytes in powers of 1024: "812 B", "4.0 KiB", "1.2 GiB"."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def moment(when: datetime | None) -> str:
    """Local time, to the second."""
    return when.astimezone().strftime("%Y-%m-%d %H:%M:%S") if when else ""
