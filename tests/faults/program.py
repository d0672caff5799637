"""What the sweeps run under strace: a scenario of `persist`, between two system calls that mark its beginning and end.

It ends as a trainer would: 0, 80 for a storage error, 75 for SIGTERM. What it was told is done stands in its report, written
by a system call (pwrite64) that no sweep injects into.
"""

from __future__ import annotations

import json
import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from fluxtui.control.create import make
from fluxtui.engine.trainer.claim import claim, write_pieces
from fluxtui.engine.wire import TrainJob
from fluxtui.persist.checkpoints.commit import commit_checkpoint, newest_verified, retain, step_name
from fluxtui.persist.errors import FluxTUIError, StorageError
from fluxtui.persist.files import tensorfile
from fluxtui.persist.files.durable import Buffer, write_file
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.sessions.requests import drop_request, take_requests
from fluxtui.persist.settings import recipe
from fluxtui.persist.settings.spec import DatasetSpec, ModelSpec, Spec

SPEC = Spec(name="dog", id="0" * 32, model=ModelSpec(source="pico"), dataset=DatasetSpec(path="demo"))
RECIPE, LAST_STEP = recipe.recipe_sha256(SPEC), 10
STORAGE, STOPPED, DEFECT = 80, 75, 70
BEGIN, END = "/fluxtui-begins", "/fluxtui-ends"


def content(step: int) -> dict[str, bytes]:
    """The files of a checkpoint of that step."""
    return {"adapter.safetensors": step.to_bytes(4, "big") * 3000, "state.json": b'{"step": %d}' % step}


def commit(folder: Path, done: Callable[[str], None]) -> None:
    """Step 3 after 1 and 2 and a dead writer's left-overs; then retention, which lets 1 go."""
    checkpoints = folder / "checkpoints"
    lock = Lock.take(checkpoints / ".lock")
    assert lock is not None, "the dead writer's lock is still held"
    try:
        commit_checkpoint(checkpoints, step_name(3), content(3), {"step": 3})
        done("committed 3")
        retain(checkpoints, 2)
        done("retained")
    finally:
        lock.release()


def resume(folder: Path, done: Callable[[str], None]) -> None:
    """Load the newest: step 3 is damaged, 2 is sound. Then step 3 is committed again."""
    checkpoints = folder / "checkpoints"
    lock = Lock.take(checkpoints / ".lock")
    assert lock is not None, "the dead writer's lock is still held"
    try:
        found = newest_verified(checkpoints, lambda name, sentence: done(f"set aside {name}"))
        done(f"found {found}")
        commit_checkpoint(checkpoints, step_name(3), content(3), {"step": 3})
        done("committed 3")
    finally:
        lock.release()


def record(folder: Path, done: Callable[[str], None]) -> None:
    """A whole file in place of an old one, as records, specs and products are written."""
    write_file(folder / "record.toml", b"new" * 2000)
    done("written")


def create(folder: Path, done: Callable[[str], None]) -> None:
    """A session made as every front makes it, a request dropped and taken."""
    home = Home.open(folder / "home")
    session = make(home, home.session("dog"), SPEC)
    done("created")
    drop_request(session, "stop", 1)
    done("dropped")
    taken, rejected = take_requests(SessionFolder(session.path))
    done(f"taken {len(taken)}, rejected {len(rejected)}")


def product(attempt: int) -> list[Buffer]:
    """The pieces of the file that this attempt makes."""
    facts = json.dumps({"session_id": SPEC.id, "recipe_sha256": RECIPE, "step": LAST_STEP})
    tensors = {f"block.{n}": ("U8", (9000,), bytes([attempt, n]) * 4500) for n in range(2)}
    return list(tensorfile.serialize(tensors, {"fluxtui": facts}))


def job(attempt: int) -> TrainJob:
    """What the trainer of this attempt was told."""
    return TrainJob(
        home="", session="", attempt=attempt, nonce=f"nonce {attempt}", run_id="", spec=SPEC, recipe_sha256=RECIPE, threads=1
    )


def export(folder: Path, done: Callable[[str], None]) -> None:
    """The end of attempt 2: product and claim, in the place of those of attempt 1."""
    session = SessionFolder(folder / "dog")
    made = write_pieces(session.product, product(2))
    done("product written")
    claim(job(2), session, LAST_STEP, made)
    done("claimed")


def careless(folder: Path, done: Callable[[str], None]) -> None:
    """A commit that syncs nothing: what shows that a power cut of the tests is one."""
    target = folder / "checkpoints" / step_name(3)
    temporary = target.with_name(".tmp-careless")
    temporary.mkdir()
    for name, data in content(3).items():
        (temporary / name).write_bytes(data)
    temporary.rename(target)
    done("committed 3")
    os.fsync(os.open(folder / "elsewhere", os.O_CREAT | os.O_WRONLY, 0o600))  # the names may reach the disk with another's


SCENARIOS = {"commit": commit, "resume": resume, "record": record, "create": create, "export": export}
CONTROLS = {"careless": careless}


class Report:
    """Lines of what is done; the sweeps hold the program to its word."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._position = 0

    def __call__(self, what: str) -> None:
        self._position += os.pwrite(self._descriptor, f"{what}\n".encode(), self._position)


def play(scenario: str, folder: Path, done: Callable[[str], None]) -> int:
    """The scenario between its marks; the exit code."""
    os.access(BEGIN, os.F_OK)
    try:
        (SCENARIOS | CONTROLS)[scenario](folder, done)
    except StorageError as error:
        done(f"storage error: {error}")
        return STORAGE
    except FluxTUIError as error:
        done(f"error: {error}")
        return error.exit_code
    finally:
        os.access(END, os.F_OK)
    return 0


def be_it(scenario: str, folder: Path, report: Path, errors: Path) -> NoReturn:
    """Be the program, in a process just forked: stop oneself, play once continued, end. Nothing of the parent's runs in it."""
    code = DEFECT
    try:
        os.dup2(os.open(errors, os.O_WRONLY), 2)
        done = Report(report)
        signal.signal(signal.SIGTERM, _stop)
        os.kill(os.getpid(), signal.SIGSTOP)
        code = play(scenario, folder, done)
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else DEFECT
    except BaseException:  # noqa: BLE001  (the edge of a process: the judges read this)
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def _stop(signal_number: int, frame: object) -> None:
    raise SystemExit(STOPPED)
