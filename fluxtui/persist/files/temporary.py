"""What is written for a moment, also where the system's own folders for it are read-only, as in a hardened container."""

from __future__ import annotations

import os
import tempfile
from typing import IO

from fluxtui.persist.errors import StorageError
from fluxtui.persist.home import runtime_folder


def memory_file() -> IO[bytes]:
    """An empty file that lies in no folder, to write and to read; gone once it is closed everywhere."""
    return os.fdopen(os.memfd_create("fluxtui", os.MFD_CLOEXEC), "w+b")


def find_folder() -> None:
    """Where no folder takes temporary files the runtime folder does, for this process and those it starts.

    torch asks for one as it is imported, Python's process pools as they start. Raises `StorageError` where there is none at all.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        try:
            os.environ["TMPDIR"] = str(runtime_folder())
        except StorageError as error:
            why = f"no folder takes temporary files, and {error}; set TMPDIR to a folder of yours"
            raise StorageError(why, error.errno) from error
