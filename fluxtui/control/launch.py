"""Start and resume: a keeper is spawned, and says in one line whether it holds the session.

The keeper is the judge: it takes the lock, looks at the history, and refuses. What is looked at here first only makes
for a sooner and better sentence.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING

from fluxtui.control.changed import refuse_changed
from fluxtui.control.create import check_inputs, next_name, start_folder
from fluxtui.control.watch import settled
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.errors import ExitCode, FluxTUIError, NotFoundError, RefusedError, StorageError, TimedOutError, UsageError
from fluxtui.persist.files.temporary import memory_file
from fluxtui.persist.files.text import clean
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.process import RUN_ID_VARIABLE
from fluxtui.persist.sessions import kept_spec, overview
from fluxtui.persist.sessions.overview import Overview
from fluxtui.persist.settings import recipe

if TYPE_CHECKING:
    import subprocess

HANDSHAKE_SECONDS = 30.0  # of which it may look for 7 s whether another machine is at work on it
_LINE_LIMIT = 64 * 1024
ERRORS: dict[int, type[FluxTUIError]] = {
    ExitCode.USAGE: UsageError,
    ExitCode.NOT_FOUND: NotFoundError,
    ExitCode.REFUSED: RefusedError,
    ExitCode.TIMED_OUT: TimedOutError,
}


def start(
    home: Home,
    name: str,
    resume: str = "",
    overrides: Mapping[str, object] | None = None,
    accept_changes: bool = False,
    priority: int = 0,
) -> int:
    """Start a session, or with `resume` ("auto", or a checkpoint's name) go on with one; the number of the attempt.

    Returns once the keeper holds its lock and its record is on disk. Raises `NotFoundError`, `RefusedError` (wrong state),
    `UsageError`, `StorageError`, or what else the keeper answers.
    """
    seen = settled(home, name)
    _refuse(home, seen, resume)
    folder = home.session(name)
    written = kept_spec.load(folder)
    carried = recipe.still_fitting(written, seen.record.overrides) if seen.record else {}  # as the keeper will
    spec = recipe.apply(written, {**carried, **(overrides or {})}, recipe.CHANGEABLE_TABLES)
    if seen.record is None or seen.record.phase != "prove":
        if not accept_changes:
            _refuse_without_checkpoints(seen, folder, resume)
        check_inputs(home, spec)  # where only the proof is left, nothing of it is asked for
        if resume and not accept_changes:
            refuse_changed(folder, spec.dataset)
    command = [sys.executable, "-P", "-m", "fluxtui.engine", "keep", "--home", str(home.root), "--session", name]
    command += ["--resume", resume] if resume else ["--resume", ""]
    beginning = start_folder(home, spec)
    command += ["--start-from", str(beginning)] if beginning is not None else []
    command += ["--accept-changes"] if accept_changes else []
    command += ["--priority", str(priority)] if priority else []
    command += [word for pair in recipe.format_sets(overrides or {}) for word in ("--set", pair)]
    return _launch(name, command)


def join(home: Home, name: str, node: int) -> None:
    """Let this machine train along as node `node` of a session that is started on node 0, now or later.

    Returns once the keeper of this machine holds its lock. Raises `NotFoundError`, `UsageError`, `RefusedError`.
    """
    record = overview.look(home, name).record
    spec = recipe.apply(recipe.load_spec(home.session(name).spec_file), record.overrides if record else {})
    if not 1 <= node < spec.hardware.nodes:
        last = spec.hardware.nodes - 1
        if not last:
            raise UsageError(f"{name} trains on one machine only: set hardware.nodes to 2 or more to let others join.")
        numbers = f"a number from 1 to {last}; node 0 is where it is started"
        raise UsageError(f"{name} trains on {last + 1} machines: give --node {numbers}.")
    command = [sys.executable, "-m", "fluxtui.engine", "join", "--home", str(home.root), "--session", name, "--node", str(node)]
    _launch(name, command)


def resume_lost(home: Home) -> list[tuple[str, int | FluxTUIError]]:
    """Resume every session that a reboot or a dead keeper ended: its attempt, or why not."""
    found: list[tuple[str, int | FluxTUIError]] = []
    for seen in overview.look_all(home):
        if seen.state == "lost":
            try:
                found.append((seen.name, start(home, seen.name, resume="auto")))
            except FluxTUIError as error:
                found.append((seen.name, error))
    return found


def completed(home: Home, seen: Overview) -> RefusedError:
    """The refusal to train a completed session again, with the command that trains on."""
    anew = f"fluxtui new {next_name(home, seen.name)} --from {seen.name}"
    if not commit.committed(home.session(seen.name).checkpoints):
        return RefusedError(f"{seen.name} is completed, and no checkpoint is left; {anew} makes one with its settings.")
    more = f"--checkpoint newest --set train.steps={2 * seen.steps}"
    return RefusedError(f"{seen.name} is completed; {anew} {more} trains on from it.")


def _refuse(home: Home, seen: Overview, resume: str) -> None:
    """Raises `RefusedError` where the session's state does not allow it."""
    name = seen.name
    if not resume and seen.state == "unreadable":
        raise RefusedError(f"{seen.reason.rstrip('.')}. What follows: {seen.remedy}.")
    if seen.status == "completed" and seen.state == "unreadable" and not seen.is_resumable:
        raise RefusedError(f"{name}: {seen.reason.rstrip('.')}; {seen.remedy}.")
    if seen.status == "completed" and not (resume and seen.is_resumable):
        raise completed(home, seen)
    if seen.state == "elsewhere":
        raise RefusedError(f"{name} is {seen.reason}; stop it there first.")
    if seen.is_active:
        raise RefusedError(f"{name} is already {seen.status}; fluxtui show {name} says where it is.")
    if resume and seen.state == "new":
        raise RefusedError(f"{name} was not started yet; fluxtui start {name} does.")
    if not resume and seen.attempt:
        raise RefusedError(f"{name} was started before and is {seen.state}; fluxtui resume {name} goes on with it.")


def _refuse_without_checkpoints(seen: Overview, folder: SessionFolder, resume: str) -> None:
    """Raises `RefusedError` where the checkpoints that a resume would go on from were taken away: from step 0 is no resume."""
    if resume == "auto" and seen.checkpoint and not commit.committed(folder.checkpoints) and not commit.aside(folder.checkpoints):
        raise RefusedError(
            f"{seen.name} had {seen.checkpoint}, and no checkpoint is in {folder.checkpoints}: put it back, "
            f"or begin at step 0 with fluxtui resume {seen.name} --accept-changes."
        )


def _launch(name: str, command: list[str]) -> int:
    """Spawn the keeper and wait for its one line."""
    import subprocess

    with memory_file() as errors:
        try:
            keeper = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                cwd="/",
                env={**os.environ, RUN_ID_VARIABLE: uuid.uuid4().hex},  # its own, wherever this front was started from
            )
        except OSError as error:
            raise StorageError.of(error, "start", command[0]) from error
        # A front that lives long must not leave the keeper a zombie; one that ends leaves it to init.
        # Where no thread can be had `subprocess` reaps it at its next start, and the keeper goes on all the same.
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=keeper.wait, daemon=True, name=f"reap {name}").start()
        assert keeper.stdout is not None
        with keeper.stdout as answers:
            line = _first_line(answers, HANDSHAKE_SECONDS)
        return _attempt_of(name, line, keeper, errors)


def _first_line(stream: IO[bytes], seconds: float) -> bytes | None:
    """The first line; b"" where the stream ended without one, None where none came in time."""
    end = time.monotonic() + seconds
    found = b""
    poll = select.poll()
    poll.register(stream.fileno(), select.POLLIN | select.POLLHUP)
    while (left := end - time.monotonic()) > 0:
        if not poll.poll(left * 1000):
            continue
        piece = os.read(stream.fileno(), 4096)
        found += piece
        if b"\n" in found:
            return found.partition(b"\n")[0]
        if not piece or len(found) > _LINE_LIMIT:
            return b""
    return None


def _attempt_of(name: str, line: bytes | None, keeper: subprocess.Popen[bytes], errors: IO[bytes]) -> int:
    """The attempt that the keeper's answer names. Raises the error that it stands for."""
    if line is None:
        # It may yet come to hold the session, and then nothing is lost: it is watched and shown like any other.
        raise TimedOutError(
            f"The keeper of {name} said nothing for {HANDSHAKE_SECONDS:.0f} s; fluxtui show {name} says whether it came to life."
        )
    try:
        answer = json.loads(line) if line else {}
    except ValueError:
        answer = {}
    if not isinstance(answer, dict) or "ok" not in answer:
        raise FluxTUIError(f"The keeper of {name} did not come to life: {_last_words(keeper, errors)}")
    if answer["ok"]:
        return int(answer.get("attempt", 0))
    code = answer.get("code", int(ExitCode.FAILED))
    raise ERRORS.get(code, FluxTUIError)(clean(str(answer.get("error", "it did not say why")), 1000))


def _last_words(keeper: subprocess.Popen[bytes], errors: IO[bytes]) -> str:
    """How a keeper that answered nothing ended, and the last line that it wrote."""
    import subprocess

    try:
        code = keeper.wait(2.0)
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    except subprocess.TimeoutExpired:
        how = "it closed its answer and goes on"
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - 8192))
    lines = [line for line in errors.read().decode("utf-8", "replace").splitlines() if line.strip()]
    said = f": {clean(lines[-1], 300)}" if lines else ""
    return f"{how}{said}."
