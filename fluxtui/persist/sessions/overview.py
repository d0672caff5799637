"""A session as every front shows it: the rows of the sessions panel, and what `ls` and `show` say.

Reads the head of the spec and the newest record only, whatever state they are in: torn, empty, a gigabyte, of wrong
types, of another version. Nothing here raises for what lies in a session's folder. A front that lives long parses a
file again only when its inode, time or size changed.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from fluxtui.persist import room
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.errors import FluxTUIError, NotFoundError
from fluxtui.persist.files.durable import must_be_own_folder
from fluxtui.persist.files.text import clean
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.sessions import facts as session_facts
from fluxtui.persist.sessions import kept_spec, state
from fluxtui.persist.sessions.begun import has_begun
from fluxtui.persist.sessions.facts import Here
from fluxtui.persist.sessions.record import ACTIVE, Phase, Record
from fluxtui.persist.sessions.record_cache import Head, read_head, read_record, remembered
from fluxtui.persist.sessions.state import Shown


@dataclass(frozen=True, slots=True)
class Overview:
    """One session, as far as its newest record, its lock and its processes tell. Foreign text in it is inert."""

    name: str
    path: Path  # the session's folder
    title: str
    id: str
    kind: str  # whose defaults filled the spec: pico, flux1; "" where it cannot be read
    shown: Shown
    record: Record | None  # the newest attempt's; None where there is none, or none that can be read
    attempt: int  # its number, readable or not; 0 before the first
    never_trained: bool = False  # it ended before a trainer was started, as one that was taken out of the queue

    @property
    def state(self) -> str:
        return self.shown.state

    @property
    def reason(self) -> str:
        return self.shown.reason

    @property
    def remedy(self) -> str:
        return self.shown.remedy

    @property
    def next(self) -> str:
        """The one command or change that follows: the remedy, or where nothing is wrong what one does with it now."""
        if not self.remedy and self.state == "completed":
            return f"fluxtui export {self.name} --format comfyui -o {self.name}-comfyui.safetensors"
        return self.remedy or f"fluxtui wait {self.name}"

    @property
    def status(self) -> str:
        """As stored; "" where there is no record."""
        return self.record.status if self.record else ""

    @property
    def is_active(self) -> bool:
        """Whether a keeper of this machine is at work on it, so that a request would be heard."""
        if self.state == "unreadable" and not self.is_kept_unseen:
            return False
        return self.status in ACTIVE and self.state not in ("lost", "elsewhere")

    @property
    def is_kept_unseen(self) -> bool:
        """Whether a keeper is at work on it though its record cannot be read: it hears requests all the same."""
        return self.state == "unreadable" and self.remedy.startswith(("fluxtui kill", "fluxtui stop"))

    @property
    def is_beginning(self) -> bool:
        """Whether a keeper holds it that has written no record yet: it will hear a request for the attempt that it begins."""
        return self.state == "starting" and self.record is None

    @property
    def phase(self) -> str | None:
        return str(self.record.phase) if self.record and self.record.phase else None

    @property
    def inner(self) -> str:
        return self.record.inner if self.record else ""

    @property
    def step(self) -> int:
        """Optimizer steps done, over all attempts."""
        return self.record.step if self.record else 0

    @property
    def steps(self) -> int:
        """Optimizer steps planned; 0: not yet known."""
        return self.record.steps if self.record else 0

    @property
    def epoch(self) -> int:
        return self.record.epoch if self.record else 0

    @property
    def epochs(self) -> int:
        return self.record.epochs if self.record else 0

    @property
    def loss(self) -> float | None:
        return self.record.loss if self.record else None

    @property
    def step_seconds(self) -> float | None:
        return self.record.step_seconds if self.record else None

    @property
    def eta_seconds(self) -> float | None:
        """Seconds at the present speed to the last step and its samples, or to the end of the epoch after which a stop was asked;
        None where it does not train, or the speed is not yet known or is none (a record may say anything)."""
        record = self.record
        if record is None or not self.is_active or not self.steps or self.step_seconds is None:
            return None
        if self.stops_after_epoch and record.epoch_end:
            left = max(0, record.epoch_end - self.step) * self.step_seconds
        else:
            left = max(0, self.steps - self.step) * self.step_seconds + record.interlude_seconds
        return left if math.isfinite(left) else None

    @property
    def stops_after_epoch(self) -> int:
        """The epoch after which it stops, because that was asked; 0 where it was not, or is over."""
        record = self.record
        if record is None or not record.stops_after_epoch or not self.is_active or record.status == "stopping":
            return 0
        return record.epoch if record.phase not in (Phase.EXPORT, Phase.PROVE) else 0

    @property
    def stop_words(self) -> str:
        """ "stops after epoch 3, in about 20 s"; "" where no such stop was asked."""
        if not self.stops_after_epoch:
            return ""
        is_known = self.record is not None and self.record.epoch_end > 0 and self.eta_seconds is not None
        words = f"stops after epoch {self.stops_after_epoch}"
        return f"{words}, in about {roughly(self.eta_seconds or 0.0)}" if is_known else words

    @property
    def standing(self) -> int:
        """The step that it stands at: the last one done, or where it does not run the one that a resume goes on from."""
        if self.state not in state.RESUMABLE or self.record is None or self.record.phase in (Phase.EXPORT, Phase.PROVE):
            return self.step
        return min(self.step, commit.step_of(self.checkpoint) if commit.is_step_name(self.checkpoint) else 0)

    @property
    def queued_at(self) -> datetime | None:
        return self.record.queued_at if self.record else None

    @property
    def started_at(self) -> datetime | None:
        return self.record.started_at if self.record else None

    @property
    def finished_at(self) -> datetime | None:
        return self.record.finished_at if self.record else None

    @property
    def exit_code(self) -> int | None:
        return self.record.exit_code if self.record else None

    @property
    def signal(self) -> str:
        return self.record.signal if self.record else ""

    @property
    def gpus(self) -> list[str]:
        """UUIDs."""
        return self.record.gpus if self.record else []

    @property
    def memory_words(self) -> str:
        """What a step of the largest pictures takes of a GPU, as planned and as it was; "" where none was probed."""
        seen = self.record.memory if self.record else None
        return f"{room.words(seen.probed)} at the peak of a step, {room.words(seen.planned)} planned" if seen else ""

    @property
    def checkpoint(self) -> str:
        """The newest committed one."""
        return self.record.checkpoint if self.record else ""

    @property
    def output(self) -> str:
        """Path of the product, once proven and while it is there."""
        return str(self.path / f"{self.name}.safetensors") if self.state == "completed" else ""

    @property
    def tensors_sha256(self) -> str:
        return self.record.proof.tensors_sha256 if self.record and self.record.proof else ""

    @property
    def is_resumable(self) -> bool:
        """Whether `fluxtui resume` would go on with it; of a completed one whose file is gone, to make the file again."""
        return self.state in state.RESUMABLE or self.remedy.startswith("fluxtui resume")


def roughly(seconds: float) -> str:
    """A time to come in one unit: "20 s", "12 min", "3 h"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 90 * 60 else f"{round(seconds / 3600)} h"


def look(home: Home, name: str) -> Overview:
    """One session. Raises `UsageError` for a name that is none, `NotFoundError` where there is no such session."""
    folder = home.session(name)
    if not folder.path.is_dir():
        raise NotFoundError(f"There is no session {name}; fluxtui ls shows those there are.")
    return look_in(folder, Here.look())


def look_all(home: Home) -> list[Overview]:
    """Every session, by name; a broken one is among them, with the reason."""
    here = Here.look()
    sessions = home.sessions
    return [look_in(SessionFolder(sessions / name), here) for name in home.session_names()]


def look_in(folder: SessionFolder, here: Here) -> Overview:
    """What a folder that exists tells, as a session; never raises."""
    path = str(folder.path)
    head, spec_problem = _head(f"{path}/session.toml")
    try:
        attempt, record, record_problem = _newest(folder, f"{path}/attempts", head.id)
        is_kept = bool(spec_problem) and kept_spec.is_there(folder)
        trouble = session_facts.Trouble(spec_problem, record_problem, is_spec_kept=is_kept)
    except FluxTUIError as error:
        attempt, record, trouble = 0, None, session_facts.Trouble(spec_problem, attempts=str(error))
    facts = session_facts.gather(folder, record, trouble, here)
    shown = state.derive(record, facts)
    if head.name and head.name != folder.name:
        shown = replace(shown, remedy=_renamed(shown.remedy, head.name, folder.name))
    return Overview(
        name=folder.name,
        path=folder.path,
        title=head.title,
        id=head.id,
        kind=head.kind,
        shown=shown,
        record=record,
        attempt=attempt,
        never_trained=record is not None and record.status in ("stopped", "failed") and not has_begun(folder, record),
    )


def _renamed(remedy: str, old: str, new: str) -> str:
    """What an attempt left as the command that follows, of a session that was renamed or copied since: its own name, not the
    other's, which may be there as well."""
    return re.sub(rf"(\bfluxtui [a-z]+ |--from ){re.escape(old)}(?![a-z0-9_])", rf"\g<1>{new}", remedy)


def _newest(folder: SessionFolder, attempts: str, session_id: str) -> tuple[int, Record | None, str]:
    """Number and record of the newest attempt, and why it cannot be read where it cannot.

    Raises FluxTUIError where the attempts cannot be listed.
    """
    numbers = folder.attempt_numbers()
    if not numbers:
        if os.path.lexists(attempts):
            must_be_own_folder(folder.attempts)  # what lies in its place would stop a resume
        return 0, None, _orphaned(folder)
    name = f"{numbers[-1]:04d}.toml"
    try:
        return numbers[-1], *_own(remembered(f"{attempts}/{name}", read_record), session_id)
    except FluxTUIError as error:
        why = _without_path(error, f"{attempts}/{name}")
        return numbers[-1], None, f"The record attempts/{name} is unreadable: {why}"


def _own(record: Record, session_id: str) -> tuple[Record | None, str]:
    """The record, and nothing against it; else None and why: what is said of another session is not said of this one."""
    if session_id and record.session_id != session_id:
        return None, f"The record attempts/{record.attempt:04d}.toml is that of another session, {record.session_id[:40]!a}."
    return record, ""


def _orphaned(folder: SessionFolder) -> str:
    """What a session without any record has all the same; empty for one that never ran."""
    try:
        names = commit.committed(folder.checkpoints)
    except FluxTUIError as error:
        return str(error)
    return f"The records of its attempts are gone, but the checkpoint {names[-1]} is there." if names else ""


def records(home: Home, name: str) -> list[tuple[int, Record | None, str]]:
    """Every attempt of a session: number, record, and why it cannot be read where it cannot."""
    folder = home.session(name)
    head, _ = _head(str(folder.spec_file))
    found: list[tuple[int, Record | None, str]] = []
    for number in folder.attempt_numbers():
        try:
            found.append((number, *_own(remembered(str(folder.attempt_file(number)), read_record), head.id)))
        except FluxTUIError as error:
            found.append((number, None, str(error)))
    return found


def _head(path: str) -> tuple[Head, str]:
    """The head of the spec, and why it cannot be read where it cannot."""
    try:
        return remembered(path, read_head), ""
    except FluxTUIError as error:
        return Head(), f"The spec session.toml is unreadable: {_without_path(error, path)}"


def _without_path(error: FluxTUIError, path: str) -> str:
    if isinstance(error, NotFoundError):
        return "it is gone."
    return clean(str(error).replace(path, "it"), 300)
