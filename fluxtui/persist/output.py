"""Standard output that takes all that is written to it, or says so: PYTHONUNBUFFERED, usual in containers, takes that away."""

from __future__ import annotations

import io
import sys


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
