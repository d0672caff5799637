"""A fault of ours, written down where the user can find it, and told in one sentence."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from fluxtui import __version__
from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.files.regular import open_for_writing
from fluxtui.persist.files.text import clean
from fluxtui.persist.home import runtime_folder

PACKAGE = Path(__file__).parents[1]
_LIMIT = 64 * 1024  # bytes of one fault


def record_fault(words: Sequence[str], error: Exception) -> str:
    """Append the traceback to `faults.log` in the runtime folder; the sentence for the user, which names the file."""
    what = clean(f"{type(error).__name__}: {error}", 300)
    verb = clean(words[0], 40) if words else "the UI"
    report = "".join(traceback.format_exception(error))[-_LIMIT:]
    text = f"{datetime.now(UTC).isoformat()} fluxtui {__version__} {verb}\n{report}\n"
    if _was_replaced():
        return f"FluxTUI was replaced on the disk while {verb} was open, and half of it is of another version now: start it again"
    try:
        path = runtime_folder() / "faults.log"
        descriptor = open_for_writing(path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, text.encode("utf-8", "replace"))
        finally:
            os.close(descriptor)
    except (OSError, FluxTUIError):
        return f"a fault of FluxTUI in {verb}, please report it: {what}"
    return f"a fault of FluxTUI in {verb}, please report it with {path}: {what}"


def _was_replaced() -> bool:
    """Whether a file of this package was written after this process began: what it imports now may not fit what it has."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = float(Path("/proc/uptime").read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
        return any(path.stat().st_ctime > time.time() - age for path in PACKAGE.rglob("*.py"))
    except (OSError, ValueError, IndexError):
        return False
