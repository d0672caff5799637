"""The keeper of a session found in /proc, for one that has no record that names it: it hangs before its first, or that is torn.

Found by its arguments and by the lock file that it has open, and signalled like any other: never without the run id in its
environment, and through a descriptor that was opened before the check.
"""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

from fluxtui.persist import process
from fluxtui.persist.home import Home
from fluxtui.persist.sessions.record import ProcessIdentity

_ARGUMENTS_LIMIT = 1 << 20  # bytes


def find(home: Home, name: str) -> ProcessIdentity | None:
    """The process of this user that keeps the session; None where none is to be seen here (another container's is not)."""
    try:
        lock = os.stat(home.session(name).lock_file, follow_symlinks=False)
    except OSError:
        return None
    for pid in (int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        if keeps(pid, home, name) and _has_open(pid, (lock.st_dev, lock.st_ino)):
            return process.identify(pid)
    return None


def keeps(pid: int, home: Home, name: str) -> bool:
    """Whether it was started as `python -m fluxtui.engine keep --home HOME --session NAME`, by this user."""
    try:
        if os.stat(f"/proc/{pid}").st_uid != os.geteuid():
            return False
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = [os.fsdecode(word) for word in file.read(_ARGUMENTS_LIMIT).split(b"\0")]
    except OSError:
        return False
    if "fluxtui.engine" not in words or words[words.index("fluxtui.engine") + 1 :][:1] != ["keep"]:
        return False
    given = dict(pairwise(words))
    return given.get("--session") == name and _is_same(Path(given.get("--home", "")), home.root)


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)  # the same folder may be mounted in two places
    except OSError:
        return False


def _has_open(pid: int, file: tuple[int, int]) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        numbers = os.listdir(folder)
    except OSError:
        return False
    for number in numbers:
        try:
            found = os.stat(f"{folder}/{number}")
        except OSError:
            continue  # closed meanwhile
        if (found.st_dev, found.st_ino) == file:
            return True
    return False
