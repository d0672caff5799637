"""Reads the progress lines of a group of processes: feeds the guards, updates the record, writes markers to the log."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from fluxtui.engine import wire
from fluxtui.engine.keeper.duties import Duties
from fluxtui.engine.keeper.guard import RankGuard
from fluxtui.engine.keeper.lines import Lines
from fluxtui.engine.keeper.spawn import Group
from fluxtui.engine.keeper.speed import Speed, bytes_words
from fluxtui.engine.wire import ProgressLine
from fluxtui.persist.files.text import clean
from fluxtui.persist.sessions.record import Phase

_PLAIN = (  # carried over
    "phase", "step", "steps", "epoch", "epochs", "epoch_end", "loss", "step_seconds", "interlude_seconds", "inexact_since",
)  # fmt: skip
_TEXTS = ("checkpoint", "resumed_from", "model_commit")


@dataclass(slots=True)
class ProgressReader:
    """Takes in the progress lines of one group."""

    duties: Duties
    group: Group
    guards: dict[int, RankGuard] = field(init=False)
    error: str = ""  # the first sentence of a rank that is about to end
    remedy: str = ""
    _lines: Lines = field(init=False)
    _told: int = 0  # garbage lines that the log knows of
    _speed: Speed = field(default_factory=Speed)

    def __post_init__(self) -> None:
        now = self.duties.loop.watch.now()
        self.guards = {rank.rank: RankGuard(self.duties.spec.guard, now) for rank in self.group.ranks}
        self._lines = Lines(self.group.progress_fd)
        if self.group.what == "prover":
            self.first.phase = Phase.PROVE  # it has no other; until its first line it is starting all the same

    @property
    def first(self) -> RankGuard:
        """Of the group's first rank, which speaks for it."""
        return self.guards[self.group.ranks[0].rank]

    @property
    def is_open(self) -> bool:
        return self._lines.is_open

    def read(self) -> None:
        """Take in all that has come."""
        now = self.duties.loop.watch.now()
        for line in self._lines.read():
            known = self.guards.get(line.rank)
            if known is None:
                self._lines.garbage += 1
                continue
            known.heard(now, line)
            self._explain(line)
            if known is self.first and not line.alive:
                self._record(line)
        if self._lines.garbage > self._told:
            if not self._told:
                self.duties.log.line("garbage on the progress pipe was ignored")
            self._told = self._lines.garbage

    def _explain(self, line: ProgressLine) -> None:
        if line.error and (not self.error or (wire.ECHO in self.error and wire.ECHO not in line.error)):
            who = f"rank {line.rank}: " if len(self.guards) > 1 else ""
            self.error, self.remedy = who + clean(line.error, 1000), clean(line.remedy, 500)
        if line.note:
            note = clean(line.note, 500)
            self.duties.log.line(note)
            self.duties.journal.update(reason=note)

    def _record(self, line: ProgressLine) -> None:
        journal = self.duties.journal
        if journal.record.status == "starting":
            journal.transition("running")
        changes: dict[str, Any] = {}
        for name in _PLAIN:
            if (value := getattr(line, name)) is not None:
                changes[name] = value
        for name in _TEXTS:
            if value := getattr(line, name):
                changes[name] = clean(value, 200)
        if line.memory is not None:
            changes["memory"] = msgspec.structs.replace(line.memory, card=clean(line.memory.card, 100))
        if self.group.what == "prover":
            changes = {"phase": Phase.PROVE}
        if line.versions:
            changes["versions"] = journal.record.versions | {
                clean(k, 50): clean(v, 50) for k, v in list(line.versions.items())[:50]
            }
        changes["inner"] = inner(line) + self._speed.words(self.duties.loop.watch.now(), line)
        if line.resumed_from:
            self._say_resumed(line)
        journal.update(**changes)
        if line.acknowledged:
            journal.acknowledge(clean(line.acknowledged, 64), "request", "carried out")

    def _say_resumed(self, line: ProgressLine) -> None:
        path = self.duties.folder.checkpoints / clean(line.resumed_from, 100)
        self.duties.log.marker(f"TRAINING RESUMED - from {path} at step {line.step or 0}")


def inner(line: ProgressLine) -> str:
    """`12 of 40 images`, `1.2 GiB of 22.2 GiB`; empty where the line has no inner progress."""
    if line.item is None:
        return "waiting for data" if line.waiting else ""
    if line.unit == "bytes":
        done, total = bytes_words(line.item), "" if line.items is None else f" of {bytes_words(line.items)}"
        return done + total
    total = "" if line.items is None else f" of {line.items}"
    return f"{line.item}{total} {clean(line.unit, 40)}".rstrip()
