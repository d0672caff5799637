"""Standard output as data, standard error as words: what of the data cannot be written is an error of one sentence.

A reader that left is none, and words that nobody can read change no outcome. PYTHONUNBUFFERED, usual in containers, makes
standard output raw: then it gets a buffer.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TextIO, cast

from fluxtui.persist.errors import StorageError

PIPE_CLOSED = 141  # of a shell: whoever read our output went away


def ready() -> None:
    """First act of a program that speaks to people: streams that it was started without (`>&-`) go nowhere.

    Else the next file opened would get their number, and everything that is printed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if cast("TextIO | None", sys.stdout) is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  (open as long as the process)
    if cast("TextIO | None", sys.stderr) is None or sys.stderr is sys.__stderr__:
        encoding, raw = getattr(sys.stderr, "encoding", "utf-8"), io.FileIO(2, "w", closefd=False)
        sys.stderr = _Words(raw, encoding, "backslashreplace", line_buffering=True, write_through=True)
    make_whole()


def make_whole() -> None:
    """Put a buffer before a raw standard output: a raw write on a full disk, or on FUSE, takes a part and reports no error."""
    raw = getattr(sys.stdout, "buffer", None)
    if isinstance(raw, io.RawIOBase):
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(raw), encoding=sys.stdout.encoding, errors=sys.stdout.errors, line_buffering=True
        )


def take_any_letter() -> None:
    """In a locale without UTF-8 a letter of a name that it has not is a "?", and not the end of the answer."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


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


class _Words(io.TextIOWrapper):
    """Standard error for people: on a full disk, or after whoever read it left, words are lost, and nothing else."""

    def write(self, text: str, /) -> int:
        with contextlib.suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()
