"""TOML into typed structs, bounded, and back, durably.

Whatever lies at a path (a FIFO, a file of 1 GB, random bytes, the wrong types) is answered with one `DamagedError`;
nothing is ever read past the limit. Parsed by rtoml, ten times as fast as the standard library: a front reads a
thousand records at once.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import rtoml
import tomli_w

from fluxtui.persist.errors import DamagedError, NotFoundError, StorageError
from fluxtui.persist.files.durable import temporary_name, write_file
from fluxtui.persist.files.regular import read_regular
from fluxtui.persist.files.struct_init import init_struct
from fluxtui.persist.files.text import clean

LIMIT = 1024 * 1024  # bytes; a record or spec of ours has a few thousand

T = TypeVar("T")


def read(path: Path, type: type[T], limit: int = LIMIT) -> T:
    """The file as a value of the type. Unknown keys are an error only where the type forbids them.

    Raises `NotFoundError` (no such file), `DamagedError` (not TOML, too long, other types) or `StorageError` (the disk).
    """
    return convert(parse(read_bytes(path, limit), path), type, path)


def read_bytes(path: Path, limit: int = LIMIT, *, follow_links: bool = False) -> bytes:
    """A regular file of at most `limit` bytes. Raises `NotFoundError`, `DamagedError` (longer, no file) or `StorageError`."""
    try:
        return read_regular(path, limit, follow_links=follow_links)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"There is no {clean(str(path), 300)}.") from None
    except OSError as error:
        raise StorageError.of(error, "read", path) from error


def parse(data: bytes, path: Path) -> dict[str, Any]:
    """Bytes as a TOML document; `DamagedError` names the path and the place."""
    try:
        document: dict[str, Any] = rtoml.loads(data.decode("utf-8"))
        return document
    except UnicodeDecodeError as error:
        raise DamagedError(f"{path} is not text: byte {error.start} is not UTF-8.") from error
    except ValueError as error:  # not TOML, or a date or number out of all bounds
        raise DamagedError(f"{path} is not valid TOML: {clean(str(error), 200)}.") from error


def convert(document: Mapping[str, Any], type: type[T], path: Path) -> T:
    """A parsed document as a value of the type; `DamagedError` names the path and the key."""
    init_struct(type)
    try:
        return msgspec.convert(document, type)
    except (msgspec.ValidationError, OverflowError) as error:
        raise DamagedError(f"{path} does not fit: {clean(str(error), 200)}.") from error


def to_text(value: msgspec.Struct | Mapping[str, Any]) -> str:
    """TOML of a struct or mapping. TOML has no null: a key whose value is None is left out."""
    plain = msgspec.to_builtins(value, builtin_types=(datetime,))
    return tomli_w.dumps(_without_none(plain))


def _without_none(value: Any) -> Any:  # noqa: ANN401  (a document holds anything TOML can hold)
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value if item is not None]
    return value


def write(path: Path, value: msgspec.Struct | Mapping[str, Any]) -> None:
    """Writes the whole file durably (temporary name, fsync, rename, fsync of the folder). Raises `StorageError`."""
    write_file(path, to_text(value).encode())


def write_beat(path: Path, value: msgspec.Struct | Mapping[str, Any]) -> None:
    """Replaces the file in one step, its bytes on the disk before its name: readers see the old or the new one, never half.

    For beats every few seconds, where losing the last one to a power cut costs nothing, so the folder is not synced. The bytes
    are: a rename of unsynced ones over a synced record leaves an empty file after a power cut (XFS; ext4 without
    auto_da_alloc), and the transition in it would be lost with the beat. Raises `StorageError`.
    """
    temporary = path.with_name(temporary_name())
    try:
        with open(temporary, "xb", opener=_private) as file:
            file.write(to_text(value).encode())
            file.flush()
            os.fdatasync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StorageError.of(error, "write", path) from error


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
