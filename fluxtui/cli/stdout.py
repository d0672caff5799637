"""Standard output as data: what cannot be written to it is an error of one sentence, and a reader that left is none."""

from __future__ import annotations

import os
import sys

from fluxtui.persist import output
from fluxtui.persist.errors import StorageError


def ready() -> None:
    """A verb that was started without a standard output (`>&-`) has one that goes nowhere; errors likewise."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  (open as long as the process)
    output.make_whole()


def write(text: str) -> None:
    """Raises `StorageError` where the text cannot be written, BrokenPipeError where nobody reads any more."""
    try:
        sys.stdout.write(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _error(error) from error


def finish() -> None:
    """Hand on what is buffered: a listing cut short by a full disk is no listing. Raises as `write` does."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _error(error) from error


def drop() -> None:
    """What is still buffered goes nowhere: the interpreter would flush it once more at its end, and fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _error(error: OSError) -> StorageError:
    drop()
    return StorageError(f"standard output cannot be written: {os.strerror(error.errno or 0)}", error.errno)
