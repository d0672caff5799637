"""The trainer's data workers: started, given work in turn, waited for within a limit, and ended. No torch."""

from __future__ import annotations

import itertools
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from fluxtui.engine.trainer.data.data_worker import LENGTH, Read, Wanted
from fluxtui.engine.trainer.refusal import DataWorkerError

_WINDOW = 2             # requests in a worker's hands
_START = 30.0           # seconds more for the first answer: an interpreter has to start
_GROWTH = 10.0          # times the 95th percentile of the waits seen
_MODULE = "fluxtui.engine.trainer.data.data_worker"


@dataclass(slots=True)
class _Worker:
    """A worker's process, and which requests it has yet to answer: it answers them in their order."""

    process: subprocess.Popen[bytes]
    has_answered: bool = False
    asked: deque[int] = field(default_factory=deque)


class Workers:
    """`count` data workers. `floor`: shortest time, in seconds, after which a batch counts as hung; 0: never.

    To be made by a thread that lives as long as the process: the kernel ends a worker when the thread that made it ends.
    """

    def __init__(self, folder: Path, count: int, floor: float) -> None:
        self._floor = floor
        self._waits: deque[float] = deque(maxlen=200)
        self._decoder = msgspec.msgpack.Decoder(list[Read])
        self._tickets = itertools.count()
        self._answers: dict[int, list[Read] | None] = {}    # by ticket; None: nobody waits for it any more
        command = [sys.executable, "-P", "-m", _MODULE, str(os.getpid()), str(folder)]
        self._workers = [
            _Worker(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)) for _ in range(count)
        ]
        self._turns = itertools.cycle(self._workers)

    @property
    def pids(self) -> tuple[int, ...]:
        """The workers' process ids."""
        return tuple(worker.process.pid for worker in self._workers)

    def read(self, requests: Iterable[Sequence[Wanted]]) -> Iterator[list[Read]]:
        """The answers in the order of the requests, several read ahead. Raises DataWorkerError.

        Another reading may go on in the midst of one, as when an epoch is interrupted by a validation.
        """
        source = iter(requests)
        waiting: deque[tuple[_Worker, int]] = deque()
        try:
            for request in itertools.islice(source, _WINDOW * len(self._workers)):
                waiting.append(self._ask(request))
            while waiting:
                answer = self._answer(*waiting[0])
                waiting.popleft()
                for request in itertools.islice(source, 1):
                    waiting.append(self._ask(request))
                yield answer
        finally:
            self._answers.update((ticket, None) for _, ticket in waiting)

    def end(self) -> None:
        """Kills and reaps every worker, whatever state it is in. May be called twice."""
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.process.send_signal(signal.SIGKILL)
        for worker in self._workers:
            worker.process.wait()
            for pipe in (worker.process.stdin, worker.process.stdout):
                if pipe is not None:
                    pipe.close()
        self._workers = []

    def _ask(self, request: Sequence[Wanted]) -> tuple[_Worker, int]:
        worker = next(self._turns)
        assert worker.process.stdin is not None
        descriptor = worker.process.stdin.fileno()
        message = msgspec.msgpack.encode(list(request))
        message = len(message).to_bytes(LENGTH, "big") + message
        end = time.monotonic() + self._limit() + (0.0 if worker.has_answered else _START)
        while message:
            self._wait_for(worker.process, descriptor, select.POLLOUT, end)
            try:
                message = message[os.write(descriptor, message[: select.PIPE_BUF]) :]
            except BrokenPipeError:
                raise _dead(worker.process) from None
        ticket = next(self._tickets)
        worker.asked.append(ticket)
        return worker, ticket

    def _answer(self, worker: _Worker, ticket: int) -> list[Read]:
        """The answer to a ticket; answers to others that come before it are put by, or dropped where nobody waits."""
        began = time.monotonic()
        while (answer := self._answers.pop(ticket, None)) is None:
            read = self._receive(worker, began)
            answered = worker.asked.popleft()
            if answered in self._answers:
                del self._answers[answered]
            else:
                self._answers[answered] = read
        self._waits.append(time.monotonic() - began)
        return answer

    def _receive(self, worker: _Worker, began: float) -> list[Read]:
        end = began + self._limit() + (0.0 if worker.has_answered else _START)
        size = int.from_bytes(self._bytes(worker.process, LENGTH, end), "big")
        worker.has_answered = True
        return self._decoder.decode(self._bytes(worker.process, size, end))

    def _bytes(self, process: subprocess.Popen[bytes], size: int, end: float) -> bytearray:
        assert process.stdout is not None
        data = bytearray(size)
        view = memoryview(data)
        while view:
            self._wait_for(process, process.stdout.fileno(), select.POLLIN, end)
            got = os.readv(process.stdout.fileno(), [view])
            if not got:
                raise _dead(process)
            view = view[got:]
        return data

    def _wait_for(self, process: subprocess.Popen[bytes], descriptor: int, event: int, end: float) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        left = None if not self._floor else max(0.0, end - time.monotonic()) * 1000
        if not poll.poll(left):
            raise DataWorkerError(f"data worker {process.pid} gave no batch in time ({self._limit():.0f} s)")

    def _limit(self) -> float:
        """Seconds that a batch may take."""
        if not self._waits:
            return self._floor
        return max(self._floor, _GROWTH * sorted(self._waits)[int(0.95 * (len(self._waits) - 1))])


def _dead(process: subprocess.Popen[bytes]) -> DataWorkerError:
    code = process.wait()
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return DataWorkerError(f"data worker {process.pid} {how}")
