"""Verbs of the engine that a front runs and waits for: `python -m fluxtui.engine VERB …`, JSON lines on its stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fluxtui.persist.errors import FluxTUIError, StorageError
from fluxtui.persist.files.temporary import memory_file
from fluxtui.persist.files.text import clean

if TYPE_CHECKING:
    import subprocess

_LINE_LIMIT = 16 * 1024 * 1024  # bytes of one JSON line


def run(
    verb: str,
    arguments: Sequence[str],
    on_line: Callable[[dict[str, Any]], None],
    on_begin: Callable[[subprocess.Popen[bytes]], None] | None = None,
) -> tuple[int, str]:
    """Run a verb to its end; its exit code, and the last line it wrote on stderr. Each JSON object is given to `on_line`.

    `on_begin` takes the process, for whoever may want to end it from another thread.

    What the engine prints beside (libraries warn) is not shown: it would be drawn over a UI.
    """
    import subprocess

    command = [sys.executable, "-P", "-m", "fluxtui.engine", verb, *arguments]
    with memory_file() as errors:
        try:
            engine = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, cwd="/")
        except OSError as error:
            raise StorageError.of(error, "start", command[0]) from error
        assert engine.stdout is not None
        try:
            if on_begin is not None:
                on_begin(engine)
            while line := engine.stdout.readline(_LINE_LIMIT):
                value = _object(line)
                if value is not None:
                    on_line(value)
            code = engine.wait()
        except BaseException:
            engine.terminate()
            engine.wait()
            raise
        errors.seek(0)
        lines = [text for text in errors.read().decode("utf-8", "replace").splitlines() if text.strip()]
    return code, clean(lines[-1], 1000) if lines else ""


def last_object(
    verb: str, arguments: Sequence[str], on_begin: Callable[[subprocess.Popen[bytes]], None] | None = None
) -> tuple[int, dict[str, Any] | None, str]:
    """Run a verb; its exit code, the last JSON object that it printed, and its last line on stderr."""
    seen: list[dict[str, Any]] = []

    def keep(value: dict[str, Any]) -> None:
        seen[:] = [value]

    code, said = run(verb, arguments, keep, on_begin)
    return code, seen[0] if seen else None, said


def failed(verb: str, code: int, said: str) -> FluxTUIError:
    """The error of an engine that ended without an answer."""
    how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    return FluxTUIError(f"{verb} ended without an answer ({how}){f': {said}' if said else ''}.")


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
