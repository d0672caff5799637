"""What was measured of a shape once, kept for other processes: `HOME/cache/plans.json`. Making it again takes seconds of a CPU.

All of it is a function of the shape, of this program and of the libraries, and all of these are in the key: nothing in the file
can be out of date, only unused. It may vanish or be damaged at any time; then it is made again.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.files.durable import make_folder, write_file
from fluxtui.persist.files.regular import read_regular

T = TypeVar("T")

_LIBRARIES = ("torch", "diffusers", "transformers", "peft")
_LIMIT = 16 << 20  # bytes of the file; a model's parameters by name take 60 KB, all else some hundred bytes
_ENTRIES = 200  # then it is begun anew
_here: dict[str, bytes | msgspec.Raw] = {}  # JSON, by key
_files: list[Path] = []


def keep_in(cache: Path) -> None:
    """From now on what is made is kept in this home's folder of caches, and what lies there already is taken."""
    _files[:] = [cache / "plans.json"]
    _here.update(_read(_files[0]))


def remembered(what: str, shape: object, kind: type[T], make: Callable[[], T]) -> T:
    """`make()`, or what it came to before for the same `shape`, by its repr. `kind`: what msgspec makes of the JSON again."""
    key = sha256(f"{_program()}\0{what}\0{shape!r}".encode()).hexdigest()
    with suppress(KeyError, msgspec.DecodeError):
        return msgspec.json.decode(_here[key], type=kind)
    made = make()
    _here[key] = msgspec.json.encode(made)
    with suppress(FluxTUIError):  # a home that cannot be written, or is full: it is made again next time
        for file in _files:
            _keep(file, key)
    return made


def forget() -> None:
    """For tests: nothing was ever made."""
    _here.clear()
    _files.clear()


def _keep(file: Path, key: str) -> None:
    if not file.parents[1].is_dir():
        return  # no home, none is made for this
    known = _read(file)
    if len(known) >= _ENTRIES:
        known = {}
    make_folder(file.parent)
    write_file(file, msgspec.json.encode(known | {key: msgspec.Raw(_here[key])}))


def _read(file: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(read_regular(file, _LIMIT), type=dict[str, msgspec.Raw])
    except (FluxTUIError, OSError, msgspec.DecodeError):
        return {}


@cache
def _program() -> str:
    """The libraries' versions and this engine's own source."""
    digest = sha256(" ".join(importlib.metadata.version(name) for name in _LIBRARIES).encode())
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
