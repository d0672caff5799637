"""How a process of the engine lives and dies with its keeper. No torch, so that it stands before every heavy import.

A trainer calls `enter()` as its very first act: from then on it dies with its keeper, dumps its stacks on SIGUSR1 and on a
crash, and turns SIGTERM, SIGINT, SIGHUP and SIGUSR2 into a flag that its loop reads at step boundaries. A data worker calls
`die_with_parent(PARENT)` with the pid that forked it.
"""

from __future__ import annotations

import ctypes
import faulthandler
import io
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import NoReturn

from fluxtui.engine import wire

STACKS = signal.SIGUSR1  # dumps the stack of every thread to stderr, which is the session's log
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def die_with_parent(parent: int | None = None) -> None:
    """Ask the kernel for SIGKILL when the parent's spawning thread ends, then look whether it already has.

    `parent` is the pid that must be our parent; by default the keeper's, from the environment. Leaves with
    `TrainerExit.WRONG_PARENT` where it is not: nothing may train unwatched. Kept over exec, not inherited by a fork.
    """
    expected = int(os.environ.get(wire.KEEPER_PID, "0")) if parent is None else parent
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != expected:
        leave_as_orphan()


def stop_with_parent() -> None:
    """Between fork and exec of a keeper in the foreground: SIGTERM, a stop with a checkpoint, when its parent is gone."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def has_its_parent(parent: int | None = None) -> bool:
    """A look before a file is touched: is the keeper still the one that started us?"""
    return os.getppid() == (int(os.environ.get(wire.KEEPER_PID, "0")) if parent is None else parent)


def leave_as_orphan() -> NoReturn:
    """End this process without touching anything more."""
    os.write(2, b"the keeper that started this process is gone; nothing trains unwatched\n")
    os._exit(wire.TrainerExit.WRONG_PARENT)


def adopt_orphans() -> None:
    """The keeper's: descendants whose parent dies become its children, so that none can hide."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


@dataclass(slots=True)
class StopFlag:
    """True once SIGTERM, SIGINT, SIGHUP or SIGUSR2 came: finish the step, commit a checkpoint, leave with STOPPED."""

    signals: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.signals)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self.signals.append(signal.Signals(number).name)

    def install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
            signal.signal(number, self._take)


def _be_chosen_first() -> None:
    """Where memory runs out the kernel should end the trainer, whose keeper then says so, and not the keeper."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("300")


def enter() -> StopFlag:
    """First act of a trainer or prover: die with the keeper, dump stacks when asked or crashed, flag the signals."""
    faulthandler.enable(file=sys.stderr, all_threads=True)
    faulthandler.register(STACKS, file=sys.stderr, all_threads=True, chain=False)
    flag = StopFlag()
    flag.install()
    die_with_parent()
    _be_chosen_first()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # whole lines in the log, and in time
    return flag
