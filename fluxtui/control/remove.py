"""Removing a session or a checkpoint, and only when nobody uses it."""

from __future__ import annotations

import os
import secrets

from fluxtui.control.watch import settled
from fluxtui.persist import commit, overview
from fluxtui.persist.durable import fsync_folder, remove_tree
from fluxtui.persist.errors import NotFoundError, RefusedError, StorageError
from fluxtui.persist.home import Home
from fluxtui.persist.lock import Lock


def remove(home: Home, name: str) -> None:
    """Remove a session's folder. Raises `RefusedError` while it runs, here or on another machine.

    The folder leaves the list in one step, by a rename; its lock is held meanwhile, so that no keeper begins in it.
    """
    folder = home.session(name)
    seen = settled(home, name)
    if seen.is_active or seen.state == "elsewhere":
        raise RefusedError(f"{name} is {seen.state}; stop it first with fluxtui stop {name}.")
    lock = Lock.take(folder.lock_file)
    if lock is None:
        raise RefusedError(f"A keeper is at work on {name}; stop it first with fluxtui stop {name}.")
    gone = home.sessions / f".removed-{name}-{secrets.token_hex(4)}"
    try:
        os.rename(folder.path, gone)
        fsync_folder(home.sessions)
        remove_tree(gone)
    except OSError as error:
        raise StorageError.of(error, "remove", folder.path) from error
    finally:
        lock.release()


def remove_checkpoint(home: Home, name: str, checkpoint: str) -> None:
    """Remove one checkpoint. Raises `NotFoundError`, or `RefusedError` while the session runs."""
    folder = home.session(name)
    seen = overview.look(home, name)
    if checkpoint not in commit.committed(folder.checkpoints):
        raise NotFoundError(f"{name} has no checkpoint {checkpoint[:40]!a}; fluxtui checkpoints {name} lists them.")
    if seen.is_active or seen.state == "elsewhere":
        raise RefusedError(f"{name} is {seen.state}, and keeps its own checkpoints; stop it first with fluxtui stop {name}.")
    lock = Lock.take(folder.checkpoints_lock)
    if lock is None:
        raise RefusedError(f"A trainer of {name} is still at work; try again in a moment.")
    try:
        commit.remove_checkpoint(folder.checkpoints, checkpoint)
    finally:
        lock.release()
