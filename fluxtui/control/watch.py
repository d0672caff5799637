"""Waiting for the end of a session, by looking at its record and lock like any front."""

from __future__ import annotations

import time
from collections.abc import Callable

from fluxtui.persist.errors import RefusedError, StorageError, TimedOutError
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.files.text import clean
from fluxtui.persist.home import Home
from fluxtui.persist.sessions import overview
from fluxtui.persist.sessions.overview import Overview
from fluxtui.persist.sessions.record import TERMINAL

POLL = 0.25             # seconds between looks
_LEAVING_POLL = 0.02
SETTLES = 2.0           # seconds in which a keeper says what it waits for
DRIVER = "the GPU driver"  # how what it waits for begins while the driver has not answered
RETRY_SECONDS = 3.0     # a keeper that tries again has the next attempt's record on disk by then


def wait(home: Home, name: str, timeout: float | None = None, on_look: Callable[[Overview], None] | None = None) -> Overview:
    """The session at its end: completed, failed, stopped, lost, or what else nothing more will come of.

    An attempt that failed and is tried again is not an end. Each look is given to `on_look`. Raises `NotFoundError`,
    `RefusedError` where it was never started, `TimedOutError` after `timeout` seconds (it goes on then).
    """
    end = None if timeout is None else time.monotonic() + timeout
    ended_at: float | None = None
    while True:
        seen = overview.look(home, name)
        if seen.state == "new":
            raise RefusedError(f"{name} was not started yet; fluxtui start {name} starts it.")
        if on_look is not None:
            on_look(seen)
        now = time.monotonic()
        if seen.is_active or seen.is_kept_unseen or seen.state in ("starting", "elsewhere"):
            ended_at = None
        elif not is_kept(home, name):
            return overview.look(home, name)
        else:
            ended_at = ended_at if ended_at is not None else now
            if now - ended_at > RETRY_SECONDS:
                return seen
        if end is not None and now >= end:
            raise TimedOutError(f"{name} is {seen.state} after {timeout:g} s, and goes on; fluxtui wait {name} waits on.")
        time.sleep(POLL if end is None else max(0.0, min(POLL, end - now)))


def waits_for(home: Home, name: str, seconds: float = SETTLES) -> str:
    """What a session whose keeper has just begun waits for, "q1 (the CPU)"; "" where it starts at once, as soon as that is seen.

    Looks for `seconds` at most: a driver that has not answered yet is no answer before. "its turn" where none is known then.
    """
    end = time.monotonic() + seconds
    while (seen := overview.look(home, name)).state == "queued":
        waiting = seen.record.waiting_for if seen.record else ""
        is_over = time.monotonic() >= end
        if waiting and (is_over or not waiting.startswith(DRIVER)):
            return clean(waiting, 120)
        if is_over:
            return "its turn"
        time.sleep(_LEAVING_POLL)
    return ""


def settled(home: Home, name: str) -> Overview:
    """The session once its keeper has left, if that wrote its last word, which it outlives by a mark in the log and `on_end`.

    So whoever waited for an end, or saw it, may remove or resume at once, and whoever asks for something asks the attempt that
    follows. `RETRY_SECONDS` at most: a keeper that tries again stays.
    Raises `NotFoundError`.
    """
    end = time.monotonic() + RETRY_SECONDS
    while (seen := overview.look(home, name)).status in TERMINAL and is_kept(home, name) and time.monotonic() < end:
        time.sleep(_LEAVING_POLL)
    return seen


def is_kept(home: Home, name: str) -> bool:
    """Whether a keeper holds the session: then an ended attempt may be followed by a retry. Where that cannot be seen it may."""
    try:
        return Lock.held(home.session(name).lock_file)
    except StorageError:
        return True
