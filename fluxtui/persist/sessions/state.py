"""What a session is shown as: one pure function of its newest record and of what the machine says right now.

The record alone never suffices: a keeper that died wrote no farewell. So an active record is believed only while its
lock is held, and a completed one only while the file it proved is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from fluxtui.persist.sessions.record import ACTIVE, Record

State = Literal[
    "new", "queued", "starting", "running", "stopping", "completed", "failed", "stopped",
    "lost", "stalled", "suspended", "storage", "silent", "changed", "elsewhere", "unreadable",
]  # fmt: skip

Output = Literal["", "ok", "missing", "different", "unreadable", "denied"]

SILENT_SECONDS = 20.0       # a beat older than this is not one of the last three
STORAGE_SECONDS = 10.0      # in process state D for longer than this: the disk does not answer
ELSEWHERE_SECONDS = 60.0    # a beat of another host is fresh for so long; two hosts' clocks may differ
RESUMABLE: frozenset[str] = frozenset({"stopped", "failed", "lost"})

# Glyph, word, colour of each state. Green is for what is proven, and for the one emoji that users know as "goes on".
_LOOKS: dict[str, tuple[str, str, str]] = {
    "new": ("⚪", "new", "default"),
    "queued": ("🟡", "queued", "yellow"),
    "starting": ("🟡", "starting", "yellow"),
    "running": ("🟢", "running", "cyan"),
    "stopping": ("🟡", "stopping", "yellow"),
    "completed": ("✅", "completed", "green"),
    "failed": ("❌", "failed", "red"),
    "stopped": ("🔵", "stopped", "blue"),
    "lost": ("🔵", "lost", "blue"),
    "stalled": ("🟡", "stalled", "yellow"),
    "suspended": ("🟡", "suspended", "yellow"),
    "storage": ("🟡", "storage", "yellow"),
    "silent": ("🟡", "silent", "yellow"),
    "changed": ("🟡", "changed", "yellow"),
    "elsewhere": ("🟡", "elsewhere", "yellow"),
    "unreadable": ("🟡", "unreadable", "yellow"),
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known beside the record, looked up at the moment of asking."""

    name: str                                   # of the session, for the commands in remedies
    now: datetime                               # wall clock, with its zone
    host: str
    boot_id: str
    lock_held: bool
    lock_unseen: str = ""                       # why it cannot be seen whether the lock is held: one sentence
    is_new_keeper: bool = False                 # the lock's holder is not the keeper of the newest record: its own is to come
    keeper_state: str | None = None             # R S D T t; None: not to be seen (gone, or of another pid namespace)
    trainer_states: tuple[str, ...] = ()        # of the ranks that are alive
    beat_seconds: float | None = None           # since the beat was last seen to change, by the asker's own watch; None: not yet
    storage_seconds: float = 0.0                # how long keeper or a rank has been in state D
    output: Output = ""                         # of a completed session: the product against its proof
    unreadable: str = ""                        # why the newest record or the spec cannot be read: one sentence
    unlisted: str = ""                          # why its attempts cannot be listed, so that nothing can follow: one sentence
    is_spec_readable: bool = True               # a record that cannot be read stops no resume; a spec does ...
    is_spec_kept: bool = False                  # ... unless its keeper kept a copy of it


@dataclass(frozen=True, slots=True)
class Shown:
    """A session in one line."""

    state: State
    reason: str = ""     # one sentence or phrase: why it is so, what it waits for
    remedy: str = ""     # the one command, or change, that follows; empty where nothing is to be done

    @property
    def glyph(self) -> str:
        return _LOOKS[self.state][0]

    @property
    def word(self) -> str:
        return _LOOKS[self.state][1]

    @property
    def colour(self) -> str:
        """An ANSI colour's name; "default" for none."""
        return _LOOKS[self.state][2]


def derive(record: Record | None, facts: Facts) -> Shown:
    """The state shown, its reason and its remedy. Pure: the same record and facts give the same answer."""
    if facts.unlisted:
        return Shown("unreadable", facts.unlisted, f"fix that; then fluxtui show {facts.name}")
    if facts.unreadable:
        return _unreadable(facts)
    if facts.lock_unseen:
        why = f"whether a keeper is at work on it cannot be seen: {facts.lock_unseen}"
        return Shown("unreadable", why, f"fix that; then fluxtui show {facts.name}")
    if record is None:
        if facts.lock_held:
            return Shown("starting", "its keeper has just begun")
        return Shown("new", "not started yet", f"fluxtui start {facts.name}")
    if record.status not in ACTIVE:
        return _terminal(record, facts)
    if is_elsewhere(record, facts.now, facts.host, facts.boot_id) or _beats_elsewhere(record, facts):
        return Shown("elsewhere", f"running on {record.host}", f"on {record.host}: fluxtui show {facts.name}")
    if not facts.lock_held:
        return _lost(record, facts)
    if facts.is_new_keeper:
        return Shown("starting", "its keeper has just begun")
    return _alive(record, facts)


def _unreadable(facts: Facts) -> Shown:
    if facts.lock_held:
        # a keeper has read its spec, and a stop keeps what was trained; one whose record lies torn may not answer it
        verb = "kill" if facts.is_spec_readable else "stop"
        why = f"{facts.unreadable.rstrip('.')}. A keeper is at work on it all the same."
        return Shown("unreadable", why, f"fluxtui {verb} {facts.name}")
    if facts.is_spec_readable:
        return Shown("unreadable", facts.unreadable, f"fluxtui resume {facts.name}")
    if facts.is_spec_kept:
        why = f"{facts.unreadable.rstrip('.')}. Its keeper has a copy of the settings, which a resume takes."
        return Shown("unreadable", why, f"fluxtui resume {facts.name}")
    return Shown("unreadable", facts.unreadable, f"fix session.toml, or fluxtui rm {facts.name}")


def _terminal(record: Record, facts: Facts) -> Shown:
    if record.status == "completed":
        if facts.output == "missing":
            return Shown("changed", "completed, but the file is gone", f"fluxtui resume {facts.name}")
        if facts.output == "different":
            why = "completed, but the file is not the one that was proven"
            return Shown("changed", why, f"fluxtui resume {facts.name}")
        if facts.output == "unreadable":
            why = "completed, but the file cannot be read: the disk failed"
            return Shown("unreadable", why, f"look at `dmesg`; once the disk answers again, fluxtui verify {facts.name}")
        if facts.output == "denied":
            why = "completed, but the file cannot be read: permission denied"
            return Shown("unreadable", why, f"make {facts.name}.safetensors yours; then fluxtui verify {facts.name}")
        return Shown("completed", record.reason)
    state: State = "failed" if record.status == "failed" else "stopped"
    return Shown(state, record.reason or f"{state} for no reason given", record.remedy or f"fluxtui resume {facts.name}")


def is_elsewhere(record: Record, now: datetime, host: str, boot_id: str) -> bool:
    """An active record of another machine, with a fresh beat. Asked by every front and by the keeper that is to start.

    Another name with the same boot is this machine, in another container.
    """
    if not is_of_another_machine(record, host, boot_id) or record.beat_at is None:
        return False
    return abs((now - record.beat_at).total_seconds()) <= ELSEWHERE_SECONDS


def is_of_another_machine(record: Record, host: str, boot_id: str) -> bool:
    """Whether its keeper, if it lives, lives on another machine, whose clock may be any time off."""
    return record.status in ACTIVE and record.boot_id != boot_id and record.host != host


def _beats_elsewhere(record: Record, facts: Facts) -> bool:
    """The clocks of two machines may differ by more than a beat stays fresh: who has seen it change knows better."""
    if facts.beat_seconds is None or facts.beat_seconds > ELSEWHERE_SECONDS:
        return False
    return is_of_another_machine(record, facts.host, facts.boot_id)


def _lost(record: Record, facts: Facts) -> Shown:
    if record.boot_id == facts.boot_id or (record.host == facts.host and not facts.boot_id):
        why = "keeper died"
    elif record.host == facts.host:
        why = "machine rebooted"
    else:
        why = f"no sign of life from {record.host}"
    after = _where(record)
    if record.phase == "prove":
        after += "; a resume proves it and trains nothing"
    elif record.status != "queued" and record.checkpoint:
        after += f"; the last checkpoint is {record.checkpoint}"
    return Shown("lost", f"{why} {after}", f"fluxtui resume {facts.name}")


def _where(record: Record) -> str:
    """When its keeper wrote nothing any more."""
    if record.phase == "prove":
        return "while the product was being proven"
    return "while it waited" if record.status == "queued" else f"at step {record.step}"


def of_attempt(record: Record, newest: tuple[str, str] | None = None) -> tuple[str, str]:
    """Status and reason of one attempt. `newest`: the state and reason that its session is shown with, where it is the newest.

    The record of a keeper that died says for ever what it was doing. An attempt that another one followed does nothing any more.
    """
    if record.status not in ACTIVE or (newest is not None and newest[0] != "lost"):
        return record.status, record.reason
    return "lost", newest[1] if newest is not None else f"keeper died or machine rebooted {_where(record)}"


def _alive(record: Record, facts: Facts) -> Shown:
    doubt = _doubt(record, facts)
    if doubt is not None:
        return doubt
    if record.status == "queued":
        return Shown("queued", record.reason or (f"waiting for {record.waiting_for}" if record.waiting_for else "about to start"))
    if record.status == "starting":
        return Shown("starting", record.reason)
    if record.status == "stopping":
        return Shown("stopping", record.reason or "a stop was asked for; it writes a checkpoint first")
    return Shown("running", record.reason or record.gpu_hint)


def _doubt(record: Record, facts: Facts) -> Shown | None:
    """What makes an active session less than well, worst first; None where nothing does."""
    if facts.keeper_state in ("T", "t"):
        pid = record.keeper.pid if record.keeper else 0
        return Shown("suspended", "its keeper is stopped, so nothing watches it", f"kill -CONT {pid}")
    if facts.storage_seconds > STORAGE_SECONDS:
        why = f"waiting for a disk that does not answer, {facts.storage_seconds:.0f} s now"
        return Shown("storage", why, "look at `dmesg`; it goes on by itself once the disk answers")
    if any(letter in ("T", "t") for letter in facts.trainer_states):
        pid = record.ranks[0].pid if record.ranks else 0
        return Shown("suspended", "its trainer is stopped; the guard ends it when its time is over", f"kill -CONT {pid}")
    age = _beat_age(record, facts)
    if age is not None and age > SILENT_SECONDS:
        return Shown("silent", f"its keeper has written nothing for {age:.0f} s", f"fluxtui logs {facts.name}")
    if record.amber:
        return Shown("stalled", record.amber, f"fluxtui logs {facts.name}")
    return None


def _beat_age(record: Record, facts: Facts) -> float | None:
    """Seconds since the last beat: by the asker's own watch where it saw one, so that no clock that is set makes a keeper silent
    or well; else by the wall clock, negative after it was set back. None before the first."""
    if facts.beat_seconds is not None:
        return facts.beat_seconds
    return None if record.beat_at is None else (facts.now - record.beat_at).total_seconds()
