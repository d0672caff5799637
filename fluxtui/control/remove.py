"""Removing a session or a checkpoint, and only when nobody uses it."""

from __future__ import annotations

import contextlib
import os
import secrets
import time

from fluxtui.control.watch import settled
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.errors import NotFoundError, RefusedError, StorageError
from fluxtui.persist.files.durable import fsync_folder, must_be_own_folder, remove_tree
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.home import MAKING, Home
from fluxtui.persist.sessions import overview

_REMOVED = ".removed-"
_MAKING_SECONDS = 60.0  # the making of a session takes milliseconds


def remove(home: Home, name: str) -> None:
    """Remove a session's folder. Raises `RefusedError` while it runs, here or on another machine.

    The folder leaves the list in one step, by a rename; its lock is held meanwhile, so that no keeper begins in it.
    """
    folder = home.session(name)
    seen = settled(home, name)
    if seen.is_active or seen.state == "elsewhere":
        raise RefusedError(f"{name} is {seen.state}; stop it first with fluxtui stop {name}.")
    sweep_sessions(home)
    lock = Lock.take(folder.lock_file)
    if lock is None:
        raise RefusedError(f"A keeper holds {name}; end it first with fluxtui kill {name}.")
    gone = home.sessions / _out_of_the_list(name)
    try:
        os.rename(folder.path, gone)
        fsync_folder(home.sessions)
        remove_tree(gone)
    except OSError as error:
        raise StorageError.of(error, "remove", folder.path) from error
    finally:
        lock.release()


def sweep_sessions(home: Home) -> None:
    """Remove what was killed on its way into the list or out of it. A removal that is under way holds its lock.

    What is half made is taken away from its maker by a rename, like a session: where that one still lives, after a minute,
    it finds nothing to give a name to, and says so.
    """
    with contextlib.suppress(OSError):
        for entry in os.listdir(home.sessions):
            with contextlib.suppress(OSError, StorageError):
                if entry.startswith(MAKING) and time.time() - os.lstat(home.sessions / entry).st_mtime > _MAKING_SECONDS:
                    os.rename(home.sessions / entry, home.sessions / (entry := _out_of_the_list(entry.removeprefix(MAKING))))
                if entry.startswith(_REMOVED) and not Lock.held(home.sessions / entry / "lock"):
                    remove_tree(home.sessions / entry)


def _out_of_the_list(name: str) -> str:
    return f"{_REMOVED}{name}-{secrets.token_hex(4)}"


def remove_checkpoint(home: Home, name: str, checkpoint: str) -> None:
    """Remove one checkpoint. Raises `NotFoundError`, or `RefusedError` while the session runs."""
    folder = home.session(name)
    seen = overview.look(home, name)
    if checkpoint not in commit.committed(folder.checkpoints):
        raise NotFoundError(f"{name} has no checkpoint {checkpoint[:40]!a}; fluxtui checkpoints {name} lists them.")
    if seen.is_active or seen.state == "elsewhere":
        raise RefusedError(f"{name} is {seen.state}, and keeps its own checkpoints; stop it first with fluxtui stop {name}.")
    must_be_own_folder(folder.checkpoints)
    lock = Lock.take(folder.checkpoints_lock)
    if lock is None:
        raise RefusedError(f"A trainer of {name} is still at work; try again in a moment.")
    try:
        commit.remove_checkpoint(folder.checkpoints, checkpoint)
    finally:
        lock.release()
