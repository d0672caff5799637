"""Requests to a keeper: stop, kill, checkpoint, sample, queue. Asked by a control file, answered in the record.

Two fronts that press at once make one transition: the keeper takes the requests in turn and answers each.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass

from fluxtui.persist import overview, process, requests
from fluxtui.persist.errors import RefusedError, StorageError
from fluxtui.persist.home import Home
from fluxtui.persist.overview import Overview
from fluxtui.persist.requests import Verb

ACKNOWLEDGED_SECONDS = 5.0     # a keeper looks every 2 s at the latest
KILL_SECONDS = 10.0            # then the kill goes to the keeper itself
_POLL = 0.05


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request."""

    sentence: str
    is_pending: bool = False     # not acknowledged yet: it lies there and will be read


def stop(home: Home, name: str, after_epoch: bool = False) -> Answer:
    """Ask for a checkpoint and the end, at once or after the epoch. Raises `RefusedError` where nothing runs."""
    return _ask(home, name, "stop-after-epoch" if after_epoch else "stop", _must_be_active(home, name))


def checkpoint(home: Home, name: str) -> Answer:
    """Ask for a checkpoint after this step."""
    return _ask(home, name, "checkpoint", _must_be_active(home, name))


def sample(home: Home, name: str) -> Answer:
    """Ask for the sample pictures after this step."""
    return _ask(home, name, "sample", _must_be_active(home, name))


def queue(home: Home, name: str, priority: int) -> Answer:
    """Move a waiting session; a smaller number goes first."""
    seen = _must_be_active(home, name)
    if seen.status != "queued":
        raise RefusedError(f"{name} is {seen.state}, not waiting; only a queued session has a place to change.")
    return _ask(home, name, "priority", seen, priority)


def kill(home: Home, name: str) -> Answer:
    """End it at once. A keeper that does not answer is ended itself, and takes every process of the session with it.

    Nothing is signalled but the very process that the record names: boot id, start time and run id all match.
    """
    seen = _must_be_active(home, name)
    answer = _ask(home, name, "kill", seen, seconds=KILL_SECONDS)
    if not answer.is_pending:
        return answer
    record = overview.look(home, name).record
    if record is None or record.keeper is None:
        raise StorageError(f"The keeper of {name} does not answer, and its record does not say which process it is.")
    if not process.send(record.keeper, signal.SIGKILL):
        return Answer(f"The keeper of {name} is gone; fluxtui resume {name} goes on from the last checkpoint.")
    _until_not_active(home, name, KILL_SECONDS)
    return Answer(
        f"The keeper of {name} did not answer for {KILL_SECONDS:.0f} s and was ended, its trainer with it; "
        f"fluxtui resume {name} goes on from the last checkpoint."
    )


def _must_be_active(home: Home, name: str) -> Overview:
    """The session, where a keeper of this machine is at work on it. Raises `RefusedError` with what it is instead."""
    seen = overview.look(home, name)
    if seen.is_active or seen.is_kept_unseen:
        return seen
    if seen.state == "elsewhere":
        raise RefusedError(f"{name} is {seen.reason}; ask there.")
    if seen.state == "new":
        raise RefusedError(f"{name} was not started yet, so nothing of it runs; fluxtui start {name} starts it.")
    after = f"; {seen.remedy}" if seen.remedy else ""
    raise RefusedError(f"Nothing of {name} runs: it is {seen.state}{after}.")


def _ask(
    home: Home, name: str, verb: Verb, seen: Overview, value: int | None = None, seconds: float = ACKNOWLEDGED_SECONDS
) -> Answer:
    """Drop the request and wait for its acknowledgement. Raises `RefusedError` where the keeper drops it."""
    request = requests.drop_request(home.session(name), verb, seen.attempt, value)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        now = overview.look(home, name)
        for ack in now.record.acks if now.record else ():
            if ack.id == request:
                if not ack.outcome.startswith("accepted"):
                    raise RefusedError(f"{name}: {verb} was {ack.outcome}.")
                more = ack.outcome.partition(": ")[2]
                return Answer(f"{name}: {_ACCEPTED[verb]}{f' ({more})' if more else ''}.")
        if now.attempt != seen.attempt and now.is_active:  # a retry has begun, and hears nothing meant for the one before
            seen, request = now, requests.drop_request(home.session(name), verb, now.attempt, value)
        elif not now.is_active and not now.is_kept_unseen:
            return Answer(f"{name} is {now.state}{f': {now.reason}' if now.reason else ''}.")
        time.sleep(_POLL)
    return Answer(f"{name}: asked for, and not answered within {seconds:.0f} s; fluxtui show {name} says what comes of it.", True)


_ACCEPTED: dict[str, str] = {
    "stop": "it finishes the step, writes a checkpoint and stops",
    "stop-after-epoch": "it finishes the epoch, writes a checkpoint and stops",
    "kill": "it is being ended",
    "checkpoint": "it writes a checkpoint after this step",
    "sample": "it draws its samples after this step",
    "priority": "its place in the queue is changed",
}


def _until_not_active(home: Home, name: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and overview.look(home, name).is_active:
        time.sleep(_POLL)
