"""What the attempts before mean for the one that begins: what was set, what was chosen, what only waits for its proof."""

from __future__ import annotations

import socket
import time

from fluxtui.engine.keeper import proof
from fluxtui.engine.keeper.session_log import Log
from fluxtui.persist import process
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.errors import FluxTUIError, RefusedError
from fluxtui.persist.files import toml
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.home import SessionFolder
from fluxtui.persist.sessions.record import ACTIVE, Phase, Record, Result
from fluxtui.persist.sessions.state import is_of_another_machine
from fluxtui.persist.settings import recipe
from fluxtui.persist.settings.spec import Spec

STILL_SECONDS = 7.0  # a beat comes every 5 s
_LAST_BREATH = 5.0  # seconds that a trainer whose keeper was just killed may take to be gone


def read_history(folder: SessionFolder, session_id: str) -> list[Record]:
    """Records of all attempts, oldest first; one that cannot be read, or is another session's, is left out, and left as it is."""
    found: list[Record] = []
    for number in folder.attempt_numbers():
        try:
            record = toml.read(folder.attempt_file(number), Record)
        except FluxTUIError:
            continue
        if record.session_id == session_id:
            found.append(record)
    return found


def must_be_still(folder: SessionFolder, history: list[Record]) -> None:
    """Of another machine, whose locks may not be seen here and whose clock may be off, only a record that no longer changes is
    dead. Looks for longer than a beat. Raises `RefusedError`."""
    if not history or not is_of_another_machine(last := history[-1], socket.gethostname(), process.boot_id()):
        return
    end = time.monotonic() + STILL_SECONDS
    while time.monotonic() < end:
        time.sleep(0.2)
        if (now := read_history(folder, last.session_id)[-1:]) and now[0].beat_at != last.beat_at:
            raise RefusedError(
                f"{folder.name} is running on {last.host}, whose clock is not this machine's; stop it first with "
                f"`fluxtui stop {folder.name}`, and set both clocks"
            )


def is_chosen(resume: str) -> bool:
    """Whether a checkpoint was named to go on from."""
    return resume not in ("auto", "")


def set_newer_aside(folder: SessionFolder, chosen: str, log: Log) -> None:
    """Now, and not by the trainer: whatever ends this attempt before it trains, the next goes on from the chosen one too.

    Raises `DamagedError` where the chosen one does not verify, and `RefusedError` while another trainer still writes there.
    """
    end = time.monotonic() + _LAST_BREATH
    while (lock := Lock.take(folder.checkpoints_lock)) is None and time.monotonic() < end:
        time.sleep(0.05)
    if lock is None:
        raise RefusedError(f"another trainer of {folder.name} still writes to {folder.checkpoints}; wait until it has ended")
    try:
        commit.verify_checkpoint(folder.checkpoints / chosen)
        for name in commit.committed(folder.checkpoints):
            if commit.step_of(name) > commit.step_of(chosen):
                aside = commit.set_aside(folder.checkpoints, name, "newer")
                log.line(f"{name} is kept as {aside.name}: {chosen} was chosen to go on from")
    finally:
        lock.release()


def unproven(folder: SessionFolder, spec: Spec, history: list[Record]) -> Record | None:
    """The attempt that made a whole product and has no verdict on it: nothing is to be trained then, only proven."""
    try:
        result = toml.read(folder.result_file, Result)
    except FluxTUIError:
        return None
    since = [number for number, record in enumerate(history) if record.nonce == result.nonce]
    if not since or any(_has_verdict(record) for record in history[since[0] :]):
        return None
    maker = history[since[0]]
    claim = proof.check_claim(folder, maker, spec.train.steps or maker.steps, lambda: None)
    return None if claim.problem or maker.recipe_sha256 != recipe.recipe_sha256(spec) else maker


def _has_verdict(record: Record) -> bool:
    """A kill in the middle of a proof is none, and a prover that gave no answer has not judged."""
    is_unanswered = record.status in ("stopped", "failed") and record.phase is Phase.PROVE and record.proof is None
    return record.status not in ACTIVE and not is_unanswered
