"""Control files: what a front asks of a keeper. Temporary file + rename by the front; read once and unlinked by the keeper."""

from __future__ import annotations

import contextlib
import errno
import heapq
import os
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, cast, get_args

import msgspec
from msgspec import Struct

from fluxtui.persist.errors import DamagedError, StorageError, UsageError
from fluxtui.persist.files.durable import make_own_folder, write_file
from fluxtui.persist.files.regular import read_regular
from fluxtui.persist.home import SessionFolder

Verb = Literal["stop", "stop-after-epoch", "kill", "checkpoint", "sample", "priority"]
VERBS: tuple[str, ...] = get_args(Verb)
LIMIT = 4 << 10   # bytes of one request; tomllib takes time that grows with the square of a dotted key
_AT_ONCE = 256    # requests read in one go; the rest waits for the next tick
_NOT_NOW = frozenset({errno.ENOENT, errno.EMFILE, errno.ENFILE, errno.ENOMEM})  # it is not the file's fault: the next tick


class Request(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One request, for one attempt of a session."""

    id: str
    verb: Verb
    attempt: int
    at: datetime
    value: str | int | None = None  # priority: the new priority


def drop_request(folder: SessionFolder, verb: str, attempt: int, value: str | int | None = None) -> str:
    """Ask the keeper of `attempt` for something; the id under which it will acknowledge. Raises UsageError, StorageError."""
    if verb not in VERBS:
        raise UsageError(f"{verb!a} is no request; the requests are {', '.join(VERBS)}")
    request = Request(id=secrets.token_hex(8), verb=cast(Verb, verb), attempt=attempt, at=datetime.now(UTC), value=value)
    make_own_folder(folder.control)
    # the name carries the order; the clock may jump, and then only the order of two requests does
    write_file(folder.control / f"{time.time_ns():020d}-{request.id}.toml", msgspec.toml.encode(request))
    return request.id


def take_requests(folder: SessionFolder) -> tuple[list[Request], list[str]]:
    """The waiting requests, oldest first, and one sentence for each file that was none. All of them are unlinked.

    Reads at most 256 files of at most 4 KiB, never blocks, never raises for what lies in the folder. On a disk that turned
    read-only the files stay: the same id may then be given again, so act on an id once. Where somebody put a link, or a
    folder of another user, in the place of ours, nothing is read and nothing deleted: a front is told so when it asks.
    """
    try:
        control = os.open(folder.control, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NOT_NOW or error.errno == errno.ENOTDIR:
            return [], []
        return [], [str(StorageError.of(error, "open", folder.control))]
    try:
        if os.fstat(control).st_uid != os.geteuid():
            return [], []
        with os.scandir(control) as entries:
            names = heapq.nsmallest(_AT_ONCE, (entry.name for entry in entries if not entry.name.startswith(".")))
        return _take(names, control)
    except OSError as error:
        return [], [str(StorageError.of(error, "list", folder.control))]
    finally:
        with contextlib.suppress(OSError):  # what was taken is gone from the disk, and must not be lost for that
            os.close(control)


def _take(names: list[str], control: int) -> tuple[list[Request], list[str]]:
    requests: list[Request] = []
    rejected: list[str] = []
    for name in names:
        try:
            requests.append(_read(name, control))
        except (DamagedError, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in _NOT_NOW:
                continue
            rejected.append(f"the control file {name[:80]!a} was ignored: {ascii(str(error)[:200])[1:-1]}")
        _consume(name, control)
    return requests, rejected


def _read(name: str, control: int) -> Request:
    """Raises DamagedError, OSError, ValueError (which the errors of msgspec, TOML and Unicode are)."""
    data = read_regular(Path(name), LIMIT, in_folder=control)
    try:
        request = msgspec.toml.decode(data, type=Request)
    except RecursionError as error:
        raise DamagedError("its tables are nested too deeply") from error
    if not request.id or len(request.id) > 64 or not request.id.isascii() or not request.id.isalnum():
        raise DamagedError("its id is not one of ours")
    return request


def _consume(name: str, control: int) -> None:
    try:
        os.unlink(name, dir_fd=control)
    except OSError:
        # a folder: hide it, so that it is not complained about at every tick
        with contextlib.suppress(OSError):
            os.rename(name, f".rejected-{secrets.token_hex(8)}", src_dir_fd=control, dst_dir_fd=control)
