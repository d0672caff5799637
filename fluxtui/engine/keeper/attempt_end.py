"""What the keeper does at the end of an attempt: verify the newest checkpoint, write the verdict, queue a retry, run `on_end`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import msgspec

from fluxtui.engine import remedies, wire
from fluxtui.engine.keeper.card import card
from fluxtui.engine.keeper.classify import KILLED, Verdict, remedy_of
from fluxtui.engine.keeper.duties import Duties
from fluxtui.engine.keeper.loop import TICK
from fluxtui.engine.keeper.process_tree import OWN_CHILD
from fluxtui.engine.keeper.waiting import Pause
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.errors import FluxTUIError, StorageError
from fluxtui.persist.files import toml
from fluxtui.persist.files.durable import write_file
from fluxtui.persist.sessions.record import TERMINAL, TRANSITIONS, Record, Status

OWED_SECONDS = 3600.0  # how long a keeper stays to write a verdict that the disk refuses
_STATUS: dict[str, Status] = {"done": "completed", "stopped": "stopped", "failed": "failed"}
_LONGEST_PAUSE = 3600.0


@dataclass(frozen=True, slots=True)
class Again:
    """Another attempt is due."""

    number: int  # of the tries without a new checkpoint
    pause: float  # seconds


def see_checkpoint(duties: Duties) -> None:
    """The newest checkpoint that verifies goes into the record; the trainer is gone, and may have died before it told us."""
    try:
        names = commit.committed(duties.folder.checkpoints)
    except StorageError as error:
        duties.log.line(f"the checkpoints cannot be listed: {error}")
        return  # what the record knows of them is the best that is known
    found = ""
    for name in reversed(names):
        try:
            commit.verify_checkpoint(duties.folder.checkpoints / name, duties.breathe)
        except FluxTUIError as error:
            duties.log.line(f"checkpoint {name} does not verify: {error}")
            continue
        found = name
        break
    duties.journal.update(checkpoint=found)


def retry_after(duties: Duties, verdict: Verdict, checkpoint_before: str) -> Again | None:
    """Whether another attempt follows: only after what may pass, only so often without a new checkpoint."""
    floors, record = duties.spec.guard, duties.journal.record
    answer_late(duties)
    if not _may_retry(duties, verdict):
        return None
    number = 1 if _step(record.checkpoint) > _step(checkpoint_before) else record.retry + 1
    if number > floors.max_auto_resumes:
        return None
    return Again(number, min(floors.retry_delay * 2 ** (number - 1), _LONGEST_PAUSE))


def _step(checkpoint: str) -> int:
    return commit.step_of(checkpoint) if commit.is_step_name(checkpoint) else -1


def _may_retry(duties: Duties, verdict: Verdict) -> bool:
    return verdict.end == "failed" and verdict.is_retried and duties.spec.guard.auto_resume and not duties.is_called_off


def answer_late(duties: Duties) -> None:
    """Answer what was asked since the attempt ended. A stop holds: no other attempt follows."""
    for request in duties.take_pending():
        if request.verb in ("stop", "kill", "stop-after-epoch"):
            duties.has_late_stop = True
            outcome = "accepted: it has ended already, and is not tried again"
        else:
            outcome = "dropped: the training is over"
        duties.journal.acknowledge(request.id, request.verb, outcome)


def final_words(duties: Duties, verdict: Verdict, again: Again | None) -> Verdict:
    """The verdict, saying so where the tries are used up."""
    tries = duties.spec.guard.max_auto_resumes
    if again is not None or tries == 0 or not _may_retry(duties, verdict):
        return verdict
    return replace(verdict, reason=f"{verdict.reason}; given up after {tries} retries without a new checkpoint")


def write_verdict(duties: Duties, verdict: Verdict, give_back: Callable[[], None]) -> None:
    """The terminal transition, synced; then the card's and the log's part. Stays until the disk takes it, for an hour.

    Nobody else waits for the disk with us: where it takes its time the devices are given back at once.
    """
    journal = duties.journal
    status = _STATUS[verdict.end]
    if journal.record.status in TERMINAL:
        return
    answer_late(duties)  # what was asked at the very end gets its answer with the verdict
    *between, _ = way_to(journal.record.status, status)
    for step in between:
        journal.transition(step)
    left = verdict.culprit
    ended: dict[str, Any] = {
        "reason": verdict.reason,
        "remedy": _remedy(duties, verdict),
        "exit_code": left.code if left else None,
        "signal": left.signal_name if left else "",
        "finished_at": journal.today(),
        "amber": "",
        "waiting_for": "",
        "stops_after_epoch": False,
    }
    if status == "completed":
        _write_card(duties, msgspec.structs.replace(journal.record, **ended))
    journal.transition(status, **ended)
    began = duties.loop.watch.now()
    while journal.is_owed and duties.loop.watch.now() - began < OWED_SECONDS:
        give_back()
        duties.breathe(TICK)
        answer_late(duties)
    _mark(duties, verdict)


def _remedy(duties: Duties, verdict: Verdict) -> str:
    """What follows, every command in it as it can be pasted."""
    checkpoint = duties.journal.record.checkpoint
    said = remedy_of(verdict, duties.folder.name, checkpoint)
    return remedies.filled(said, duties.spec, bool(checkpoint), lambda: _names(duties))


def _names(duties: Duties) -> list[str]:
    """The names that sessions have; none where the disk does not say."""
    try:
        return duties.home.session_names()
    except StorageError:
        return []


def begin_retry(duties: Duties, again: Again, gpus: list[str]) -> Pause:
    """The next attempt's record, queued by the same keeper; it keeps its place. Raises `StorageError`.

    `gpus` are those that it still holds: one that gave them back waits for others like anybody.
    """
    journal, floors = duties.journal, duties.spec.guard
    before = journal.record
    at = (journal.today() + timedelta(seconds=again.pause)).astimezone()
    step = min(before.step, max(0, _step(before.checkpoint)))
    back = f"back to step {step}" if before.checkpoint else "from the beginning"
    record = Record(
        session_id=before.session_id,
        attempt=before.attempt + 1,
        nonce=uuid4().hex,
        status="queued",
        reason=f"retry {again.number} of {floors.max_auto_resumes} at {at:%H:%M:%S}, {back}, after: {before.reason}",
        phase=None,
        step=step,
        steps=before.steps,
        epoch=epoch_at(before, step),
        epochs=before.epochs,
        epoch_end=before.epoch_end,
        stops_after_epoch=bool(duties.stop_after_epoch),
        queued_at=before.queued_at,
        priority=before.priority,
        host=before.host,
        boot_id=before.boot_id,
        run_id=uuid4().hex,
        keeper=before.keeper,
        gpus=gpus,
        threads=before.threads,
        versions=before.versions,
        recipe_sha256=before.recipe_sha256,
        overrides=before.overrides,
        accept_changes=before.accept_changes,
        inexact_since=before.inexact_since,
        model_commit=before.model_commit,
        checkpoint=before.checkpoint,
        retry=again.number,
    )
    journal.begin(record)
    duties.log.line(f"attempt {record.attempt}: {record.reason}")
    return Pause(duties.loop.watch.now() + again.pause)


def epoch_at(before: Record, step: int) -> int:
    """The epoch that a step lies in, as far as an attempt before knew the plan."""
    if not before.steps or step >= before.step:
        return before.epoch
    return min(before.epoch, step * before.epochs // before.steps + 1)


def run_on_end(duties: Duties) -> None:
    """The user's `on_end` of config.toml: a command for the shell, detached, never waited for.

    It gets FLUXTUI_NAME, FLUXTUI_STATE and FLUXTUI_REASON in its environment. A list of words is run without a shell.
    """
    try:
        command = toml.read(duties.home.config, dict[str, Any]).get("on_end", "")
    except FluxTUIError:
        return
    if not command:
        return
    if not isinstance(command, str | list):
        duties.log.line("on_end of config.toml is neither a command for the shell nor a list of words, and was not run")
        return
    arguments = ["/bin/sh", "-c", command] if isinstance(command, str) else [str(word) for word in command]
    record = duties.journal.record
    hidden = (wire.RUN_ID, OWN_CHILD, wire.KEEPER_PID)
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    environment |= {"FLUXTUI_NAME": duties.folder.name, "FLUXTUI_STATE": record.status, "FLUXTUI_REASON": record.reason}
    nothing = subprocess.DEVNULL
    try:
        subprocess.Popen(
            arguments, stdin=nothing, stdout=nothing, stderr=nothing, env=environment, cwd="/", start_new_session=True
        )
    except OSError as error:
        duties.log.line(f"the on_end command could not be started: {error}")


def way_to(now: Status, end: Status) -> list[Status]:
    """The shortest way to a status over allowed transitions, `now` left out."""
    ways: list[tuple[Status, ...]] = [(now,)]
    for way in ways:
        for step in ("running", "stopping", end):
            if step in TRANSITIONS.get(way[-1], ()):
                if step == end:
                    return [*way[1:], end]
                ways.append((*way, step))
    raise AssertionError(f"no way from {now} to {end}")


def _write_card(duties: Duties, record: Record) -> None:
    assert record.proof is not None
    try:
        write_file(duties.folder.card_file, card(duties.folder, duties.spec, record, record.proof).encode())
    except StorageError as error:
        duties.log.line(f"the model card could not be written: {error}")


def _mark(duties: Duties, verdict: Verdict) -> None:
    record, log = duties.journal.record, duties.log
    if record.status == "completed":
        log.marker("TRAINING COMPLETED SUCCESSFULLY", f"Model saved: {record.output}")
    elif record.status == "stopped":
        where = str(duties.folder.checkpoints / record.checkpoint) if record.checkpoint else "none"
        how = f"{record.reason}, " if record.started_at is None or record.reason == KILLED else ""
        log.marker(f"TRAINING STOPPED BY USER - {how}checkpoint {where}")
    else:
        log.marker(f"ERROR: TRAINING {verdict.marker or 'FAILED'} - {record.reason}")
