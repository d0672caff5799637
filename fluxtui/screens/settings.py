"""What a user may set for the UI in `config.toml`: `[ui]` theme, glyphs; `[keys]` an action's own keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from textual.theme import BUILTIN_THEMES

from fluxtui.actions import clashes
from fluxtui.persist import toml
from fluxtui.persist.errors import FluxTUIError, NotFoundError
from fluxtui.persist.text import clean
from fluxtui.screens.terminal_kind import Tier
from fluxtui.screens.theme import DARK, LIGHT


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
    clashing = tuple(clashes(wanted))
    shown = {str(name): str(value) for name, value in ui.items()} if isinstance(ui, dict) else {}
    wrong = tuple(_wrong(name, value) for name, value in shown.items() if value not in _possible(name))
    theme, glyphs = (value if (value := shown.get(name, "")) in _possible(name) else "" for name in ("theme", "glyphs"))
    return Settings(theme, glyphs, {} if clashing else wanted, (*wrong, *clashing)[:3])


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
