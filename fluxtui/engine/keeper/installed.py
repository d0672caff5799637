"""Which FluxTUI lies on the disk: a package may be replaced while a keeper lives, and what it starts then is of the new one."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

PACKAGE = Path(__file__).parents[2]
PARTS = ("engine", "persist", "demo")  # what a trainer or a prover is made of
SETTLED_SECONDS = 2.0  # an installer that wrote nothing for so long has done
PATIENCE_SECONDS = 60.0
_VERSION = re.compile(rb'^__version__ = "([^"\n]{1,40})"', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Installed:
    """The code at one moment. `sha256` is of all its bytes, so that the same version installed once more is the same."""

    version: str  # "" where it cannot be read
    sha256: str

    def words(self) -> str:
        """For people: "FluxTUI 0.1.0 (code 1a2b3c4d)"."""
        return f"FluxTUI {ascii(self.version)[1:-1] or 'of no version'} (code {self.sha256[:8]})"


def installed() -> Installed:
    """The code as it lies there now. Takes some ten milliseconds, and never raises: half a package is another one too."""
    digest = sha256()
    first = _bytes_of(PACKAGE / "__init__.py")
    digest.update(first)
    for path in sorted(_modules()):
        data = _bytes_of(path)
        digest.update(b"%s\0%d\0" % (os.fsencode(path.relative_to(PACKAGE)), len(data)))
        digest.update(data)
    match = _VERSION.search(first)
    return Installed(match[1].decode("utf-8", "replace") if match else "", digest.hexdigest())


def settled(breathe: Callable[[float], None], now: Callable[[], float]) -> Installed:
    """The code once nobody has replaced any of it for some seconds, or after a minute. `breathe(seconds)` waits."""
    began = since = now()
    seen = installed()
    while now() - since < SETTLED_SECONDS and now() - began < PATIENCE_SECONDS:
        breathe(0.5)
        if (found := installed()) != seen:
            seen, since = found, now()
    return seen


def _modules() -> Iterator[Path]:
    for part in PARTS:
        for folder, _, files in os.walk(PACKAGE / part):
            yield from (Path(folder, file) for file in files if file.endswith(".py"))


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
