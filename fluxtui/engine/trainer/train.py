"""The trainer's process: a job on standard input, a LoRA file and a claim in the session folder, an exit code.

Nothing here needs torch: what can be refused is refused before it is imported. The loop is in `loop.py`.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import MutableMapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec

from fluxtui.engine import life, quiet, remedies
from fluxtui.engine.trainer.exit_reason import ending_of
from fluxtui.engine.trainer.refusal import Refusal
from fluxtui.engine.trainer.reporter import Reporter
from fluxtui.engine.wire import TrainerExit, TrainJob
from fluxtui.persist.checkpoints.commit import committed
from fluxtui.persist.errors import RefusedError, StorageError
from fluxtui.persist.files.durable import make_own_folder
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.sessions.record import Phase


def main(_argv: list[str]) -> int:
    """Reads the job, trains, and gives the exit code: a `TrainerExit`, or 1 for an error without a name."""
    signals = life.enter()
    quiet.hush()
    let_segments_grow(os.environ)
    reporter = Reporter.from_environment()
    reporter.progress(Phase.PREFLIGHT)
    reporter.start_ticking()
    job = None
    try:
        job = read_job(sys.stdin.buffer.read())
        return int(run_job(job, reporter, signals))
    except Exception as error:  # noqa: BLE001  (the edge of the process: every error becomes a sentence and an exit code)
        ending = ending_of(error)
        if ending.code not in _EXPECTED:
            traceback.print_exc()
        remedy = _filled(ending.remedy, job)
        reporter.say(f"{ending.error}; {remedy}" if remedy else ending.error)
        reporter.progress(error=ending.error, remedy=remedy)
        if ending.code == TrainerExit.HUNG:  # what does not answer would hold up the interpreter's own end
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(ending.code)
        return ending.code


def _filled(remedy: str, job: TrainJob | None) -> str:
    """The remedy with what it names filled in; the bare one where not even the job could be read."""
    if job is None:
        return remedy
    has_checkpoint, taken = False, [""]
    with suppress(StorageError):
        has_checkpoint = bool(committed(SessionFolder(Path(job.session)).checkpoints))
        taken = Home(Path(job.home)).session_names()
    return remedies.filled(remedy, job.spec, has_checkpoint, lambda: taken)


def let_segments_grow(environment: MutableMapping[str, str]) -> None:
    """The allocator's segments grow where they are, so that buckets of many sizes do not leave holes; a user's own setting wins.

    Read by torch when it is imported: up to 2.8 under the second name, since then under the first.
    """
    names = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
    if not any(environment.get(name) for name in names):
        environment.update(dict.fromkeys(names, "expandable_segments:True"))


_EXPECTED = frozenset({TrainerExit.DATA, TrainerExit.CONFIGURATION, TrainerExit.NON_FINITE})


def read_job(data: bytes) -> TrainJob:
    """The job; raises `Refusal` where it is not one."""
    try:
        return msgspec.json.decode(data, type=TrainJob)
    except msgspec.MsgspecError as error:
        why = "the keeper and the trainer must be of one version"
        raise Refusal(f"the job on standard input cannot be read: {error}", why) from None


def run_job(job: TrainJob, reporter: Reporter, signals: life.StopFlag) -> TrainerExit:
    """Preflight, everything that training needs, the loop."""
    folder = SessionFolder(Path(job.session))
    lock = _write_alone(folder) if reporter.rank == 0 else None
    try:
        from fluxtui.engine.trainer import preflight

        dataset = preflight.run(job, folder, reporter)
        if not life.has_its_parent():
            return TrainerExit.WRONG_PARENT

        from fluxtui.engine.memory.probe import meter_of, probe_and_tell
        from fluxtui.engine.trainer import runtime
        from fluxtui.engine.trainer.loop import train
        from fluxtui.engine.trainer.prepare import prepare
        from fluxtui.engine.trainer.requests import StopAsked

        try:
            run = prepare(job, folder, dataset, reporter, signals)
        except StopAsked:
            why = "stopped before training began"
            reporter.leave_early = None
            reporter.say(why)
            reporter.progress(error=why)
            return TrainerExit.STOPPED
        try:
            if meter := meter_of(run.runtime.device):
                how = runtime.exactly if job.spec.hardware.deterministic else runtime.freely
                if not how(partial(probe_and_tell, run, meter), reporter.note):
                    run.is_inexact_from_now_on()
            ending = train(run)
        finally:
            run.close()
        runtime.end()
        return ending
    finally:
        if lock is not None:
            lock.release()


def _write_alone(folder: SessionFolder) -> Lock:
    """The trainer's own lock on checkpoints/: a second trainer of this session, however it came to be, writes nothing."""
    make_own_folder(folder.checkpoints)
    lock = Lock.take(folder.checkpoints_lock)
    if lock is None:
        raise RefusedError(f"Another trainer of {folder.name} is still writing to {folder.checkpoints}; wait until it has ended.")
    return lock
