"""One turn of the keeper's only loop: wait for the pipe, a process or a signal, at most a tick long."""

from __future__ import annotations

import os
import selectors
import signal
from contextlib import suppress
from types import FrameType, TracebackType

from fluxtui.engine.keeper.clock import Watch

TICK = 0.25  # seconds

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)  # the last two: Slurm's --signal


class Loop:
    """A selector with a watch, and the signals that ask the keeper itself to stop."""

    def __init__(self) -> None:
        self.watch = Watch()
        self.asked_by = ""  # name of the first stop signal that the keeper got
        self.missed = 0.0  # seconds that the last turn came late
        self._selector = selectors.DefaultSelector()
        self._ready: set[int] = set()
        self._bell, self._ringer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._former_ringer = signal.set_wakeup_fd(self._ringer, warn_on_full_buffer=False)
        for number in STOPS:
            signal.signal(number, self._take)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self.asked_by = self.asked_by or signal.Signals(number).name

    def add(self, fd: int) -> None:
        """Wake up when this descriptor is readable (a pipe has lines, a process has ended)."""
        self._selector.register(fd, selectors.EVENT_READ)

    def drop(self, fd: int) -> None:
        with suppress(KeyError):
            self._selector.unregister(fd)

    def turn(self, longest: float = TICK) -> set[int]:
        """The descriptors that are readable, after at most `longest` seconds; late turns stop the watch."""
        self.missed = self.watch.ticked(0.0)  # what was done since the last turn: a disk may have held us
        events = self._selector.select(longest)
        self.missed += self.watch.ticked(longest)
        ready = {key.fd for key, _ in events}
        if self._bell in ready:
            with suppress(BlockingIOError):
                os.read(self._bell, 4096)
            ready.discard(self._bell)
        return ready

    def catch_up(self) -> None:
        """Take what the chores of this turn cost out of all deadlines, where it was long."""
        self.missed += self.watch.ticked(0.0)

    def close(self) -> None:
        signal.set_wakeup_fd(self._former_ringer)
        self._selector.close()
        os.close(self._bell)
        os.close(self._ringer)

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
