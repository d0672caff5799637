"""File reads that cannot hold up a trainer for ever: done by daemon threads, waited for within a limit. No torch.

A thread stuck in the kernel cannot be ended from inside; so it is left behind, the trainer says which file does not answer,
with every stack in the log, and leaves. (Ends that even this does not reach are the keeper's.)
"""

from __future__ import annotations

import faulthandler
import itertools
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from fluxtui.engine.trainer.refusal import HungReadError

T = TypeVar("T")
_SEEN = 200             # durations remembered
_GROWTH = 10.0          # times their 95th percentile


@dataclass(slots=True)
class _Job(Generic[T]):
    what: str
    work: Callable[[], T]
    done: threading.Event = field(default_factory=threading.Event)
    started: float | None = None
    result: T | None = None
    error: BaseException | None = None


class Readers:
    """Daemon threads that read. `floor` is the shortest time, in seconds, after which a read counts as hung; 0: never."""

    def __init__(self, floor: float, threads: int = 1) -> None:
        self._floor = floor
        self._threads = threads
        self._jobs: queue.SimpleQueue[_Job[Any]] = queue.SimpleQueue()
        self._seconds: deque[float] = deque(maxlen=_SEEN)
        self._begun = False

    def limit(self) -> float:
        """Seconds that a read may take: the floor, or ten times the 95th percentile of those seen."""
        if not self._seconds:
            return self._floor
        ordered = sorted(self._seconds)
        return max(self._floor, _GROWTH * ordered[int(0.95 * (len(ordered) - 1))])

    def call(self, what: str, work: Callable[[], T]) -> T:
        """The result of `work`, done by a thread. `what` names the file. Raises HungReadError, and what `work` raises."""
        return self._await(self._submit(what, work))

    def ahead(self, jobs: Iterable[tuple[str, Callable[[], T]]], window: int) -> Iterator[T]:
        """The results of (what, work) jobs in their order, with up to `window` of them in progress or done beforehand."""
        waiting: deque[_Job[T]] = deque()
        source = iter(jobs)
        for what, work in itertools.islice(source, window):
            waiting.append(self._submit(what, work))
        while waiting:
            result = self._await(waiting.popleft())
            for what, work in itertools.islice(source, 1):
                waiting.append(self._submit(what, work))
            yield result

    def _submit(self, what: str, work: Callable[[], T]) -> _Job[T]:
        if not self._begun:     # not in __init__: a data worker forks before it reads, and threads do not survive a fork
            self._begun = True
            for number in range(self._threads):
                threading.Thread(target=self._work, name=f"reader-{number}", daemon=True).start()
        job = _Job(what, work)
        self._jobs.put(job)
        return job

    def _await(self, job: _Job[T]) -> T:
        while not job.done.wait(1.0 if self._floor else None):
            limit = self.limit()
            if job.started is not None and time.monotonic() - job.started > limit:
                faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
                raise HungReadError(f"{job.what} did not answer for {limit:.0f} s")
        if job.error is not None:
            raise job.error
        return job.result  # type: ignore[return-value]   # done without an error: it is there

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            job.started = time.monotonic()
            try:
                job.result = job.work()
            except BaseException as error:  # noqa: BLE001  (the edge of a thread: whoever waits raises it)
                job.error = error
            self._seconds.append(time.monotonic() - job.started)
            job.done.set()
            del job
