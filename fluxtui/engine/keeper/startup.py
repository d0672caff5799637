"""A keeper's start: its arguments, the session's lock, the reasons to refuse, the first record.

Whoever started it waits for one JSON line: `{"ok": true, "attempt": 3}`, or why not, in one sentence, with the exit code.
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from fluxtui.engine import wire
from fluxtui.engine.keeper.attempt_end import epoch_at
from fluxtui.engine.keeper.clock import wall
from fluxtui.engine.keeper.duties import Duties
from fluxtui.engine.keeper.history import is_chosen, must_be_still, read_history, set_newer_aside, unproven
from fluxtui.engine.keeper.journal import Journal
from fluxtui.engine.keeper.loop import Loop
from fluxtui.engine.keeper.session_log import Log
from fluxtui.persist import process, room
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.errors import ExitCode, FluxTUIError, NotFoundError, RefusedError, StorageError, UsageError
from fluxtui.persist.files.durable import sweep_temporaries, write_file
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.sessions import facts as session_facts
from fluxtui.persist.sessions import kept_spec
from fluxtui.persist.sessions.begun import has_begun
from fluxtui.persist.sessions.record import Record
from fluxtui.persist.sessions.state import is_elsewhere
from fluxtui.persist.settings import recipe
from fluxtui.persist.settings.spec import Spec

SPARE_DESCRIPTORS = 32  # the keeper's own few, the pipes and pidfds of some ranks
LEAST_FREE = 8 * 2**20  # bytes, beside two more checkpoints of the size of the last one


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a front asks for."""

    home: Path
    session: str
    resume: str = "auto"
    start_from: str = ""
    accept_changes: bool = False
    priority: int | None = None  # None: the last attempt's
    sets: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Opened:
    """A keeper that holds its lock and has begun its first attempt."""

    duties: Duties
    maker: Record | None  # the lost attempt whose result only waits for its proof; None: train


def parse(argv: list[str]) -> Arguments:
    """Arguments of `python -m fluxtui.engine keep`."""
    parser = argparse.ArgumentParser(
        prog="python -m fluxtui.engine keep", description="Keep one session: see docs/architecture.md."
    )
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--session", required=True)
    parser.add_argument("--resume", default="auto", help="auto, the name of a checkpoint, or nothing: from step 0")
    parser.add_argument("--start-from", default="", help="folder of another session's checkpoint to begin with")
    parser.add_argument("--accept-changes", action="store_true")
    parser.add_argument("--priority", type=int, default=None)
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="KEY=VALUE")
    found = parser.parse_args(argv)
    return Arguments(found.home, found.session, found.resume, found.start_from, found.accept_changes, found.priority, found.sets)


def own_run_id(argv: list[str], verb: str = "keep") -> str:
    """The id in this process's environment, by which a front can tell it from a later process of the same pid.

    It must be in /proc/PID/environ, which shows what a process was started with: where it is missing the keeper starts anew.
    """
    if not os.environ.get(wire.RUN_ID):
        os.environ[wire.RUN_ID] = uuid.uuid4().hex
        os.execv(sys.executable, [sys.executable, "-m", "fluxtui.engine", verb, *argv])
    return os.environ[wire.RUN_ID]


def must_have_descriptors() -> None:
    """A keeper that runs out of file descriptors could not even record it. Raises `StorageError`."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        spare.extend(os.dup(2) for _ in range(SPARE_DESCRIPTORS))
    except OSError as error:
        sentence = f"a process may have {hard} open files here, too few for a keeper and its trainer: raise `ulimit -n`"
        raise StorageError(sentence, error.errno) from error
    finally:
        for fd in spare:
            os.close(fd)


def open_session(arguments: Arguments) -> Opened:
    """Take the lock, look at what was, write the first record. Raises `FluxTUIError`: one sentence for the front."""
    must_have_descriptors()
    home = Home.open(arguments.home)
    folder = home.session(arguments.session)
    if not folder.exists():
        raise NotFoundError(f"there is no session {arguments.session}; `fluxtui ls` lists them")
    lock = Lock.take(folder.lock_file, os.environ.get(wire.RUN_ID, ""))
    if lock is None:
        raise RefusedError(f"{folder.name} is already running; `fluxtui show {folder.name}` says where it is")
    new = recipe.parse_sets(arguments.sets)
    folder.complete()
    written = kept_spec.load(folder)
    history = read_history(folder, written.id)
    overrides = {**recipe.still_fitting(written, history[-1].overrides if history else {}), **new}
    spec = recipe.apply(written, overrides, recipe.CHANGEABLE_TABLES)
    digest = recipe.recipe_sha256(spec)
    _refuse(folder, arguments, history, digest)
    must_be_still(folder, history)
    sweep(folder)  # not before it is known that no other machine, whose locks are not seen here, is at work on it
    must_have_room(folder)
    try:
        log = Log(folder.log_file)
    except OSError as error:
        raise StorageError.of(error, "open", folder.log_file) from error
    _keep_spec(folder, log)
    loop = Loop()
    journal = Journal(folder, lock, log, loop.watch)
    maker = None if is_chosen(arguments.resume) else unproven(folder, spec, history)
    _keep_changed_product(folder, history, log)
    if is_chosen(arguments.resume):
        set_newer_aside(folder, arguments.resume, log)
    journal.begin(_first_record(folder, arguments, history, spec, digest, overrides))
    return Opened(Duties(home, folder, spec, loop, log, journal), maker)


def _keep_spec(folder: SessionFolder, log: Log) -> None:
    """A lost `session.toml` is made again from the copy; of one that is there a copy is kept. Raises `StorageError`."""
    if kept_spec.is_lost(folder):
        aside = kept_spec.put_back(folder)
        kept = f"; what lay in its place is kept as {aside.name}" if aside else ""
        log.line(f"session.toml was lost, and is made again from the copy in {folder.attempts.name}/{kept}")
        return
    try:
        kept_spec.keep(folder)
    except FluxTUIError as error:
        log.line(f"no copy of the settings is kept: {error}")


def sweep(folder: SessionFolder) -> None:
    """What keepers and trainers that were killed in a write left half made. Only under the lock of the session.

    In control/ fronts write as well, perhaps from another container, where their pids say nothing: there the young ones stay.
    """
    for place in (folder.path, folder.attempts, folder.samples):
        sweep_temporaries(place, older_than=0.0)
    sweep_temporaries(folder.control)


def must_have_room(folder: SessionFolder) -> None:
    """A real write, fsync and rename in the session's folder and in that of its checkpoints, which may be on a disk of its own;
    and room for two more checkpoints. Raises `StorageError`."""
    for place in (folder.path, folder.checkpoints):
        probe = place / ".writable"
        write_file(probe, b"x" * 4096)
        try:
            probe.unlink()
        except OSError as error:
            raise StorageError.of(error, "remove", probe) from error
    names = commit.committed(folder.checkpoints)
    one = max((commit.bytes_of(folder.checkpoints / name) for name in names), default=0)
    is_apart = room.is_apart(folder.checkpoints, folder.path)
    for place, needed in ((folder.path, LEAST_FREE + 2 * one * (not is_apart)), (folder.checkpoints, 2 * one)):
        space = os.statvfs(place)
        if (free := space.f_bavail * space.f_frsize) >= needed:
            continue
        raise StorageError(
            f"{free / 2**20:.0f} MiB are free where {place} lies, and {needed / 2**20:.0f} MiB are needed at least; "
            "free some room, or delete checkpoints"
        )


def accept(attempt: int, log: Log) -> None:
    """Tell the front, and leave its pipes: from here on nobody holds this process by a descriptor."""
    _say({"ok": True, "attempt": attempt})
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    os.dup2(log.fd, 2)


def refuse(sentence: str, code: ExitCode) -> int:
    """Tell the front why not."""
    _say({"ok": False, "error": sentence, "code": int(code)})
    return int(code)


def _say(answer: dict[str, object]) -> None:
    try:
        os.write(1, msgspec.json.encode(answer) + b"\n")
    except OSError:
        return  # the front is gone; the session goes on without it


def _refuse(folder: SessionFolder, arguments: Arguments, history: list[Record], digest: str) -> None:
    name = folder.name
    if is_chosen(arguments.resume):
        commit.step_of(arguments.resume)
        if arguments.resume not in commit.committed(folder.checkpoints):
            raise NotFoundError(f"{name} has no checkpoint {arguments.resume}; `fluxtui checkpoints {name}` lists them")
    if not arguments.resume and (names := commit.committed(folder.checkpoints)):
        raise RefusedError(f"{name} has the checkpoint {names[-1]}; `fluxtui resume {name}` goes on from it")
    if not history:
        return
    last = history[-1]
    if is_elsewhere(last, wall(), socket.gethostname(), process.boot_id()):
        raise RefusedError(f"{name} is running on {last.host}; stop it there first")
    if last.status == "completed" and arguments.resume == "auto":
        _refuse_completed(folder, last)
    if last.recipe_sha256 != digest and not arguments.accept_changes and has_begun(folder):
        raise RefusedError(
            f"the recipe in {folder.spec_file} is not the one of attempt {last.attempt}: put it back, "
            f"or `fluxtui resume {name} --accept-changes` goes on with it, no longer exact"
        )


def _refuse_completed(folder: SessionFolder, last: Record) -> None:
    """Only one whose product is gone, or is another file now, has anything left to be done."""
    found = session_facts.output_of(folder, last)
    if found == "ok" and kept_spec.is_lost(folder):
        kept_spec.put_back(folder)
        raise RefusedError(f"{folder.name} is completed; its lost session.toml was made again from its keeper's copy")
    if found == "ok":
        raise RefusedError(f"{folder.name} is completed; `fluxtui new OTHER --from {folder.name}` makes one with its settings")
    if found in ("unreadable", "denied"):
        raise RefusedError(
            f"{folder.name} is completed, but {folder.product} cannot be read, so nobody knows whether it is the proven one; "
            "make it readable, or move it away to have it made again"
        )


def _keep_changed_product(folder: SessionFolder, history: list[Record], log: Log) -> None:
    """A file that is not the one that was proven is somebody's work or evidence: set aside, not written over."""
    if not history or history[-1].status != "completed" or session_facts.output_of(folder, history[-1]) != "different":
        return
    aside = commit.set_aside(folder.path, folder.product.name, "changed")
    log.line(f"{folder.product.name} was not the file that was proven; it is kept as {aside.name}, and made again")


def _first_record(
    folder: SessionFolder, arguments: Arguments, history: list[Record], spec: Spec, digest: str, overrides: dict[str, object]
) -> Record:
    numbers = folder.attempt_numbers()
    keeper = process.identify(os.getpid())
    checkpoints = commit.committed(folder.checkpoints)
    last = history[-1] if history else None
    priority = arguments.priority if arguments.priority is not None else last.priority if last is not None else 0
    if abs(priority) > 10**6:
        raise UsageError("a priority is a number from -1000000 to 1000000")
    kept = commit.step_of(checkpoints[-1]) if checkpoints else 0
    is_trained = last is not None and last.phase == "prove"  # then nothing is trained again, and the proof is all that is left
    step = 0 if last is None else last.step if is_trained else min(last.step, kept)
    return Record(
        session_id=spec.id,
        attempt=(numbers[-1] if numbers else 0) + 1,
        nonce=uuid.uuid4().hex,
        status="queued",
        queued_at=wall(),
        priority=priority,
        host=socket.gethostname(),
        boot_id=process.boot_id(),
        run_id=uuid.uuid4().hex,
        keeper=keeper,
        threads=_threads(spec, history if has_begun(folder) else [], overrides),
        recipe_sha256=digest,
        overrides=overrides,
        accept_changes=arguments.accept_changes,
        checkpoint=checkpoints[-1] if checkpoints else "",
        step=step,
        steps=0 if last is None else last.steps,
        epoch=0 if last is None else epoch_at(last, step),
        epochs=0 if last is None else last.epochs,
        loss=None if last is None else last.loss,
        model_commit="" if last is None else last.model_commit,
        inexact_since=None if last is None else last.inexact_since,
    )


def _threads(spec: Spec, history: list[Record], overrides: dict[str, object]) -> int:
    """CPU threads of a rank: the first attempt's hold for all, for the same bytes need the same number of threads."""
    if overrides.get("hardware.threads"):
        return spec.hardware.threads
    earlier = next((record.threads for record in history if record.threads), 0)
    return earlier or spec.hardware.threads or max(1, len(os.sched_getaffinity(0)) // spec.hardware.ranks)
