"""What a user may set for the UI in `config.toml`: `[ui]` theme, glyphs; `[keys]` an action's own keys.

Also what is wrong in it, for the UI and for `fluxtui doctor`: a name that nobody reads is as silent as a setting that works.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from textual.keys import Keys, key_to_character
from textual.theme import BUILTIN_THEMES

from fluxtui.actions import clashes
from fluxtui.persist.errors import FluxTUIError, NotFoundError
from fluxtui.persist.files import toml
from fluxtui.persist.files.text import clean
from fluxtui.screens.drawing.terminal_kind import Tier
from fluxtui.screens.drawing.theme import DARK, LIGHT

TABLES = ("ui", "keys", "models", "slurm")
_KEY_NAMES = {key.value for key in Keys}
_WITH = {"ctrl", "shift", "alt", "super", "hyper", "meta"}


@dataclass(frozen=True, slots=True)
class Settings:
    """As read; what cannot be used is left out and said in `troubles`."""

    theme: str = ""
    glyphs: str = ""
    keys: dict[str, str] = field(default_factory=dict)
    troubles: tuple[str, ...] = ()


def read_settings(path: Path) -> Settings:
    """The user's settings; never raises: the UI opens whatever the file holds."""
    try:
        document = toml.read(path, dict[str, Any])
    except NotFoundError:
        return Settings()
    except FluxTUIError as error:
        return Settings(troubles=(f"config.toml is not used: {error}",))
    ui, keys = document.get("ui", {}), document.get("keys", {})
    wanted = {str(name): str(value) for name, value in keys.items()} if isinstance(keys, dict) else {}
    clashing = (*clashes(wanted), *_no_keys(wanted))
    shown = {str(name): str(value) for name, value in ui.items()} if isinstance(ui, dict) else {}
    wrong = tuple(_wrong(name, value) for name, value in shown.items() if value not in _possible(name))
    theme, glyphs = (value if (value := shown.get(name, "")) in _possible(name) else "" for name in ("theme", "glyphs"))
    return Settings(theme, glyphs, {} if clashing else wanted, (*_unread(document), *wrong, *clashing))


def _unread(document: dict[str, Any]) -> Iterator[str]:
    """What stands at the top of the file and is not taken by anybody."""
    for name, value in document.items():
        if name in TABLES and not isinstance(value, dict):
            yield f"config.toml: {name} is a table: [{name}], and its settings below"
        elif name == "on_end" and not isinstance(value, str | list):
            yield "config.toml: on_end is a command for the shell, or a list of words"
        elif name not in {*TABLES, "on_end"}:
            known = f"on_end, {', '.join(f'[{table}]' for table in TABLES)}"
            yield f"config.toml has no {clean(name, 40)!r}, only {known}"


def _no_keys(wanted: dict[str, str]) -> Iterator[str]:
    """A key that is written as none is never pressed."""
    for name, keys in wanted.items():
        for key in keys.split(","):
            *held, last = key.strip().split("+") if len(key.strip()) > 1 else [key.strip()]
            if not set(held) <= _WITH or not (len(last) == 1 or last in _KEY_NAMES or key_to_character(last)):
                yield f"config.toml: {clean(key, 40)!r} of {clean(name, 40)!r} is no key; write x, X, f5, ctrl+k, escape or space"


def _possible(name: str) -> Sequence[str]:
    """The values that a key of `[ui]` may have; empty where there is no such key."""
    if name == "theme":
        return sorted({DARK.name, LIGHT.name, *BUILTIN_THEMES} - {theme for theme in BUILTIN_THEMES if "ansi" in theme})
    return sorted(Tier) if name == "glyphs" else ()


def _wrong(name: str, value: str) -> str:
    possible = _possible(name)
    if not possible:
        return f"config.toml: [ui] has no {clean(name, 40)!r}, only theme and glyphs"
    return f"config.toml: [ui] {name} = {clean(value, 40)!r} is not one of {', '.join(possible)}"
