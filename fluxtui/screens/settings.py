"""What a user may set for the UI in `config.toml`: `[ui]` theme, glyphs; `[keys]` an action's own keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fluxtui.actions import clashes
from fluxtui.persist import toml
from fluxtui.persist.errors import FluxTUIError, NotFoundError


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
    troubles = tuple(clashes(wanted))
    theme, glyphs = (str(ui.get(name, "")) if isinstance(ui, dict) else "" for name in ("theme", "glyphs"))
    return Settings(theme, glyphs, {} if troubles else wanted, troubles[:3])
