"""Ending a group of processes, one step a tick, so that the keeper's loop never waits for it.

A stalled one: SIGCONT, the stack of every thread into the log, SIGTERM, grace, SIGKILL to the process groups of its ranks
and to every descendant, and to nobody else. A killed one: SIGKILL at once. It is over when all of them are gone, not
when the signal is sent: a process in an uninterruptible sleep is reported as being in one.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from fluxtui.engine import life
from fluxtui.engine.keeper import process_tree
from fluxtui.engine.keeper.spawn import Group
from fluxtui.persist import process

How = Literal["stall", "peer", "kill"]

STACK_SECONDS = 1.0  # given to the dump of the stacks
UNREAPED_AFTER = 10.0  # seconds after SIGKILL until the record says that a process does not go


@dataclass(slots=True)
class Termination:
    """The end of a group under way. `stall`: with stacks and a grace; `peer`: grace only; `kill`: at once."""

    group: Group
    how: How
    grace: float
    began: float
    killed_at: float | None = None
    _step: Literal["begin", "stacks", "grace", "kill"] = "begin"
    _until: float = field(default=0.0)

    def escalate(self, now: float) -> None:
        """The user presses kill, or the session's folder is gone: no grace any more."""
        self.how, self._step = "kill", "kill"
        self._kill(now)

    def sent(self, number: int | None) -> bool:
        """Whether such a signal was sent from here: a process that left by it says nothing of itself."""
        if number == signal.SIGTERM:
            return self.how == "stall" and self._step in ("grace", "kill")
        return number == signal.SIGKILL and self.killed_at is not None

    def tick(self, now: float, gone: set[int]) -> None:
        """Do what is due. `gone` are the ranks that have left, reaped or not."""
        if self._step == "begin":
            self._begin(now)
        elif self._step == "stacks" and now >= self._until:
            self.group.signal_ranks(signal.SIGTERM)
            self._step, self._until = "grace", now + self.grace
        elif self._step == "grace" and (now >= self._until or len(gone) == len(self.group.ranks)):
            self._step = "kill"
        if self._step == "kill":
            self._kill(now)

    def is_over(self, gone: set[int]) -> bool:
        """Every rank has left and no descendant lives; what is left of orphans is reaped."""
        if self._step != "kill" or len(gone) < len(self.group.ranks) or self.group.tree.look():
            return False
        process_tree.reap(self.group.tree.ranks)
        return True

    def still_there(self, now: float, gone: set[int]) -> str:
        """Words for the record where SIGKILL has not ended all in a while; else empty."""
        if self.killed_at is None or now - self.killed_at < UNREAPED_AFTER:
            return ""
        left = [rank.pid for rank in self.group.ranks if rank.pid not in gone]
        left += [one.pid for one in self.group.tree.known.values()]
        states = ", ".join(f"{pid} (state {process.state_letter(pid) or '?'})" for pid in left)
        return f"SIGKILL sent {now - self.killed_at:.0f} s ago, not yet gone: {states}" if left else ""

    def _begin(self, now: float) -> None:
        if self.how == "kill":
            self._step = "kill"
        elif self.how == "peer":
            self._step, self._until = "grace", now + self.grace
        else:
            self.group.signal_ranks(signal.SIGCONT)
            self.group.tree.send(signal.SIGCONT)
            self._dump_stacks()
            self._step, self._until = "stacks", now + STACK_SECONDS

    def _dump_stacks(self) -> None:
        """Of the ranks, and of their data workers; only where the process catches the signal, which would else end it."""
        for rank in self.group.ranks:
            if process_tree.catches(rank.pid, life.STACKS):
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(rank.pidfd, life.STACKS)
        for one in self.group.tree.look():
            if process_tree.catches(one.pid, life.STACKS):
                process_tree.send(one, life.STACKS)

    def _kill(self, now: float) -> None:
        if self.killed_at is None:
            self.killed_at = now
        self.group.kill_groups()
        self.group.signal_ranks(signal.SIGKILL)
        self.group.tree.send(signal.SIGKILL)
        process_tree.reap(self.group.tree.ranks)


def exit_of(pid: int) -> tuple[int | None, int | None] | None:
    """(code, None) or (None, signal) of a child that has ended, left unreaped; None while it lives."""
    seen = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if seen is None:
        return None
    return (seen.si_status, None) if seen.si_code == os.CLD_EXITED else (None, seen.si_status)
