"""What the first attempt of a session read of its data set: `dataset.toml`. Written by its trainer; a front looks at it too."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct, field

from fluxtui.persist.files import toml
from fluxtui.persist.files.text import clean

SCHEMA = 1
LIMIT = 256 << 20       # bytes of dataset.toml; a million files have about 200 MB
_NAMED = 5              # changed files named in the sentence


class FileFact(Struct, frozen=True, omit_defaults=True):
    """One file as it was read. Width and height, in pixels and upright, are those of an image that was decoded whole."""

    path: str               # relative to the folder
    size: int               # bytes
    mtime_ns: int
    sha256: str
    width: int = 0
    height: int = 0


class Fingerprint(Struct, frozen=True, kw_only=True):
    """`dataset.toml`."""

    schema: int = SCHEMA
    folder: str
    files: list[FileFact] = field(default_factory=list)


def relative_name(folder: Path, path: Path) -> str:
    """The path of a file inside the folder, as text: bytes of a name that are not UTF-8 are written as \\xNN."""
    named = path.relative_to(folder) if path.is_relative_to(folder) else path      # masks, further folders
    return os.fsencode(named.as_posix()).decode("utf-8", "backslashreplace")


def load(path: Path) -> Fingerprint | None:
    """The fingerprint of the first attempt; None where there is none yet. DamagedError where it cannot be read."""
    return toml.read(path, Fingerprint, limit=LIMIT) if path.exists() else None


def clause(path: str, was_there: bool, is_there: bool) -> str:
    """What became of a file whose content is not what it was: "a.txt is new", "is gone", "changed"."""
    return f"{clean(path)} {'is new' if not was_there else 'changed' if is_there else 'is gone'}"


def said_of(changed: Sequence[str]) -> str:
    """Such clauses as a sentence without its end; what is too much to name is counted."""
    rest = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
    return f"the data set changed since this session began: {', '.join(changed[:_NAMED])}{rest}"
