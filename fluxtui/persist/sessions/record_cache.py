"""Records and the first lines of specs, cached until the file changes; control characters in their texts made harmless."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from msgspec import Struct

from fluxtui.persist.errors import DamagedError
from fluxtui.persist.files import toml
from fluxtui.persist.files.text import clean
from fluxtui.persist.sessions.record import Record

T = TypeVar("T")


class Head(Struct, frozen=True):
    """What stands above the first table of session.toml."""

    id: str = ""
    name: str = ""  # that it was made with; a folder that was renamed or copied has another
    title: str = ""
    kind: str = ""


def read_record(path: Path) -> Record:
    """A record with inert texts. Raises `NotFoundError`, `DamagedError` or `StorageError`."""
    return toml.convert(inert(toml.read_bytes(path), path), Record, path)


_FIRST_TABLE = re.compile(rb"^[ \t]*\[", re.MULTILINE)


def read_head(path: Path) -> Head:
    """Only what stands above the first table is parsed: of a thousand specs, the rest is not asked for."""
    data = toml.read_bytes(path)
    table = _FIRST_TABLE.search(data)
    head = toml.convert(inert(data[: table.start()] if table else data, path), Head, path)
    if not head.id:
        raise DamagedError(f"{path} has no id, so it is not what this session was made with.")
    return head


def inert(data: bytes, path: Path) -> dict[str, Any]:
    """A TOML document in which no text can move a terminal. Raises `DamagedError`."""
    document = toml.parse(data, path)
    # Raw control characters are not TOML; what an escape, or a character beyond ASCII, makes is looked at.
    if data.isascii() and b"\\" not in data:
        return document
    return {key: _inert(value) for key, value in document.items()}


def _inert(value: object) -> object:
    if isinstance(value, str):
        return value if value.isprintable() else clean(value)
    if isinstance(value, list):
        return [_inert(item) for item in value]
    if isinstance(value, dict):
        return {clean(key, 200): _inert(item) for key, item in value.items()}
    return value


_seen: dict[str, tuple[tuple[int, int, int], object]] = {}
_SEEN_AT_MOST = 20_000


def remembered(path: str, read: Callable[[Path], T]) -> T:
    """What `read(path)` gave when the file was last another one: the very file, by inode, time and size, is not read again."""
    try:
        facts = os.lstat(path)
    except OSError:
        return read(Path(path))  # raises the sentence for it
    signature = (facts.st_ino, facts.st_mtime_ns, facts.st_size)
    known, value = _seen.get(path, (None, None))
    if known != signature:
        try:
            value = read(Path(path))
        except DamagedError as error:
            value = str(error)
        if len(_seen) >= _SEEN_AT_MOST:
            _seen.clear()
        _seen[path] = (signature, value)
    if isinstance(value, str):
        raise DamagedError(value)
    return cast(T, value)
