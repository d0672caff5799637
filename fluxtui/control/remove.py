"""Removing a session or a checkpoint, and only when nobody uses it."""

from __future__ import annotations

import contextlib
import os
import secrets

from fluxtui.control.watch import settled
from fluxtui.persist import commit, overview
from fluxtui.persist.durable import fsync_folder, must_be_own_folder, remove_tree
from fluxtui.persist.errors import NotFoundError, RefusedError, StorageError
from fluxtui.persist.home import Home
from fluxtui.persist.lock import Lock

_REMOVED = ".removed-"


def remove(home: Home, name: str) -> None:
    """Remove a session's folder. Raises `RefusedError` while it runs, here or on another machine.

    The folder leaves the list in one step, by a rename; its lock is held meanwhile, so that no keeper begins in it.
    """
    folder = home.session(name)
    seen = settled(home, name)
    if seen.is_active or seen.state == "elsewhere":
        raise RefusedError(f"{name} is {seen.state}; stop it first with fluxtui stop {name}.")
    sweep_removed(home)
    lock = Lock.take(folder.lock_file)
    if lock is None:
        raise RefusedError(f"A keeper holds {name}; end it first with fluxtui kill {name}.")
    gone = home.sessions / f"{_REMOVED}{name}-{secrets.token_hex(4)}"
    try:
        os.rename(folder.path, gone)
        fsync_folder(home.sessions)
        remove_tree(gone)
    except OSError as error:
        raise StorageError.of(error, "remove", folder.path) from error
    finally:
        lock.release()


def sweep_removed(home: Home) -> None:
    """Remove the rest of what removals that were killed on their way have left. One that is under way holds its lock."""
    with contextlib.suppress(OSError):
        for entry in os.listdir(home.sessions):
            if not entry.startswith(_REMOVED):
                continue
            with contextlib.suppress(StorageError):
                if not Lock.held(home.sessions / entry / "lock"):
                    remove_tree(home.sessions / entry)


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
