"""Requests to a keeper: stop, kill, checkpoint, sample, queue. Asked by a control file, answered in the record.

A keeper on another machine that sees the same home hears the same files, as late as the file system shows them to it.
Two fronts that press at once make one transition: the keeper takes the requests in turn and answers each.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass

from fluxtui.control import keepers, slurm
from fluxtui.control.watch import is_kept, settled
from fluxtui.persist import process
from fluxtui.persist.errors import RefusedError, StorageError
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.home import Home
from fluxtui.persist.sessions import overview, requests
from fluxtui.persist.sessions.overview import Overview
from fluxtui.persist.sessions.requests import Verb
from fluxtui.persist.settings import recipe

ACKNOWLEDGED_SECONDS = 5.0     # a keeper looks every 2 s at the latest
KILL_SECONDS = 10.0            # then the kill goes to the keeper itself
ELSEWHERE_SECONDS = 75.0       # of a keeper on another machine: NFS shows a new file within a minute
_POLL = 0.05


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request."""

    sentence: str
    is_pending: bool = False     # not acknowledged yet: it lies there and will be read


def stop(home: Home, name: str, after_epoch: bool = False) -> Answer:
    """Ask for a checkpoint and the end, at once or after the epoch. Raises `RefusedError` where nothing runs.

    Where the disk takes no request the keeper is sent SIGTERM instead, which it takes for a stop.
    """
    if job := slurm.cancel_waiting(home, name):
        return Answer(f"{name} still waited in Slurm: its job {job} is cancelled.")
    seen = _must_be_active(home, name)
    try:
        return _ask(home, name, "stop-after-epoch" if after_epoch else "stop", seen)
    except StorageError as error:
        if after_epoch or not _signal_keeper(home, name, signal.SIGTERM):
            raise
        return Answer(
            f"{name}: its keeper was told by a signal, for {error}; "
            "it finishes the step, writes a checkpoint where the disk takes one, and stops."
        )


def checkpoint(home: Home, name: str) -> Answer:
    """Ask for a checkpoint after this step."""
    return _ask(home, name, "checkpoint", _must_be_active(home, name))


def sample(home: Home, name: str) -> Answer:
    """Ask for the sample pictures after this step. Raises `RefusedError` also where its settings have no prompt to draw."""
    seen = _must_be_active(home, name)
    kept = home.session(name).kept_spec_file  # what it was started with, whatever became of session.toml
    if kept.exists() and not recipe.load_spec(kept).sample.prompts:
        raise RefusedError(
            f"{name} has no prompts to draw; fluxtui new OTHER --from {name} --prompts FILE makes a session that has some."
        )
    return _ask(home, name, "sample", seen)


def queue(home: Home, name: str, priority: int) -> Answer:
    """Move a waiting session; a smaller number goes first."""
    seen = _must_be_active(home, name)
    if seen.status != "queued":
        raise RefusedError(f"{name} is {seen.state}, not waiting; only a queued session has a place to change.")
    return _ask(home, name, "priority", seen, priority)


def kill(home: Home, name: str) -> Answer:
    """End it at once. A keeper that does not answer is ended itself, and takes every process of the session with it.

    Nothing is signalled but the very process that the record names, or that is found by its arguments and its lock: boot id,
    start time and run id all match.
    """
    if job := slurm.cancel_waiting(home, name):
        return Answer(f"{name} still waited in Slurm: its job {job} is cancelled.")
    seen = settled(home, name)
    why = "holds it without a word"
    if _is_at_work(seen) or seen.state == "elsewhere" or not is_kept(home, name):
        try:
            answer = _ask(home, name, "kill", _must_be_active(home, name), seconds=KILL_SECONDS)
        except StorageError as error:
            why = f"could not be asked, for {error}:"
        else:
            if not answer.is_pending:
                return answer
            if seen.state == "elsewhere":
                return answer
            why = f"did not answer for {KILL_SECONDS:.0f} s"
    if not _signal_keeper(home, name, signal.SIGKILL):
        if not is_kept(home, name):
            return Answer(f"The keeper of {name} is gone; fluxtui resume {name} goes on from the last checkpoint.")
        Lock.held(home.session(name).lock_file)  # what lies in the lock's place is nobody's: that is said, of no keeper
        raise StorageError(f"The keeper of {name} {why}, and no process of yours here is it; end it where it was started.")
    if not _is_free(home, name, KILL_SECONDS):
        return Answer(
            f"The keeper of {name} {why} and was sent SIGKILL, and is still there: it waits for a disk or a device that does not "
            f"answer, and ends with its trainer once that does; fluxtui show {name} says when.",
            is_pending=True,
        )
    return Answer(
        f"The keeper of {name} {why} and was ended, its trainer with it; "
        f"fluxtui resume {name} goes on from the last checkpoint."
    )


def _signal_keeper(home: Home, name: str, number: signal.Signals) -> bool:
    """Signal the keeper that the record names, else the one that holds the lock; whether one was there."""
    record = overview.look(home, name).record
    named = record.keeper if record is not None else None
    # a folder that was copied with its lock has another session's record
    if named is not None and keepers.keeps(named.pid, home, name) and process.send(named, number):
        return True
    found = keepers.find(home, name)
    return found is not None and process.send(found, number)


def _is_at_work(seen: Overview) -> bool:
    """Whether a keeper would hear a request: of this machine, or of another that sees this home too."""
    return seen.is_active or seen.is_kept_unseen or seen.is_beginning or seen.state == "elsewhere"


def _must_be_active(home: Home, name: str) -> Overview:
    """The session, where a keeper is at work on it. Raises `RefusedError` with what it is instead.

    Between an attempt that failed and the next one its keeper is waited for: it may be about to try again.
    """
    seen = overview.look(home, name)
    if not _is_at_work(seen):
        seen = settled(home, name)
    if _is_at_work(seen):
        return seen
    if seen.state == "new":
        raise RefusedError(f"{name} was not started yet, so nothing of it runs; fluxtui start {name} starts it.")
    if seen.state == "unreadable":
        raise RefusedError(f"{name} is unreadable: {seen.reason}")
    after = f"; {seen.remedy}" if seen.remedy else ""
    raise RefusedError(f"Nothing of {name} runs: it is {seen.state}{after}.")


def _ask(
    home: Home, name: str, verb: Verb, seen: Overview, value: int | None = None, seconds: float = ACKNOWLEDGED_SECONDS
) -> Answer:
    """Drop the request and wait for its acknowledgement. Raises `RefusedError` where the keeper drops it, `StorageError`."""
    seconds = ELSEWHERE_SECONDS if seen.state == "elsewhere" else seconds
    request = requests.drop_request(home.session(name), verb, seen.attempt, value)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        now = overview.look(home, name)
        if now.attempt == seen.attempt:
            if answer := _answer_in(now, request, verb):
                return answer
            if not _is_at_work(now):
                now = settled(home, name)  # it may be about to try again
        if now.attempt != seen.attempt and (now.is_active or now.state == "elsewhere"):
            # a retry has begun, and hears nothing meant for the one before
            seen, request = now, requests.drop_request(home.session(name), verb, now.attempt, value)
            end = time.monotonic() + seconds
        elif not _is_at_work(now):
            return Answer(f"{name} is {now.state}{f': {now.reason}' if now.reason else ''}.")
        time.sleep(_POLL)
    return Answer(f"{name}: asked for, and not answered within {seconds:.0f} s; fluxtui show {name} says what comes of it.", True)


def _answer_in(now: Overview, request: str, verb: Verb) -> Answer | None:
    """What the record answers to the request; None where it does not yet. Raises `RefusedError` where that is a refusal."""
    for ack in now.record.acks if now.record else ():
        if ack.id == request:
            if not ack.outcome.startswith("accepted"):
                raise RefusedError(f"{now.name}: {verb} was {ack.outcome}.")
            more = ack.outcome.partition(": ")[2]
            waited = now.started_at is None and verb in _ENDING
            what = "taken out of the queue" if waited else _ACCEPTED[verb]
            return Answer(f"{now.name}: {what}{f' ({more})' if more else ''}.")
    return None


_ACCEPTED: dict[str, str] = {
    "stop": "it finishes the step, writes a checkpoint and stops",
    "stop-after-epoch": "it finishes the epoch, writes a checkpoint and stops",
    "kill": "it is being ended",
    "checkpoint": "it writes a checkpoint after this step",
    "sample": "it draws its samples after this step",
    "priority": "its place in the queue is changed",
}
_ENDING = frozenset(("stop", "stop-after-epoch", "kill"))


def _is_free(home: Home, name: str, seconds: float) -> bool:
    """Whether nobody holds the session any more, within that time."""
    end = time.monotonic() + seconds
    while is_kept(home, name):
        if time.monotonic() > end:
            return False
        time.sleep(_POLL)
    return True
