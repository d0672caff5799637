"""Reads what is asked of the loop, at step boundaries: the keeper's requests and signals."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import msgspec

from fluxtui.engine import wire
from fluxtui.engine.life import StopFlag
from fluxtui.engine.trainer.runtime import Runtime

_READ_AT_MOST = 64 * 1024  # bytes at a boundary; a request has about 100


class StopAsked(Exception):
    """A stop was asked while the run was still being prepared, or is drawing."""


@dataclass(frozen=True, slots=True)
class Requested:
    """What to do before the next step. The same on every rank."""

    stop: bool = False  # commit and leave
    stop_after_epoch: bool = False  # the same, once the epoch under way has ended
    checkpoint: bool = False
    sample: bool = False
    ids: tuple[str, ...] = ()  # of the requests, to be acknowledged once carried out; rank 0 alone has them


@dataclass(slots=True)
class Requests:
    """Reads requests without ever waiting for one. Rank 0 has the pipe; every rank has its signals."""

    fd: int | None
    signals: StopFlag
    runtime: Runtime
    _rest: bytes = b""
    _after_epoch: bool = False
    _waiting: list[wire.RequestLine] = field(default_factory=list)
    _decoder: msgspec.json.Decoder[wire.RequestLine] = field(default_factory=lambda: msgspec.json.Decoder(wire.RequestLine))

    @staticmethod
    def from_environment(signals: StopFlag, runtime: Runtime) -> Requests:
        fd = os.environ.get(wire.REQUEST_FD)
        if fd:
            os.set_blocking(int(fd), False)
        return Requests(int(fd) if fd else None, signals, runtime)

    def take(self) -> Requested:
        """Everything asked since the last call. A stop after the epoch stays until the end."""
        requests, self._waiting = self._waiting + self._read(), []
        verbs = {request.verb for request in requests}
        self._after_epoch = self._after_epoch or "stop-after-epoch" in verbs
        mine = ["stop" in verbs or bool(self.signals), self._after_epoch, "checkpoint" in verbs, "sample" in verbs]
        stop, after_epoch, checkpoint, sample = self.runtime.any(mine)
        return Requested(stop, after_epoch, checkpoint, sample, tuple(request.id for request in requests))

    def leave_early(self) -> None:
        """Raises `StopAsked` where a stop was asked before training began: then there is nothing to commit.

        Not where there are other ranks: they would wait for this one until the keeper ends them.
        """
        if self.runtime.ranks > 1:
            return
        self.leave_drawing()

    def leave_drawing(self) -> None:
        """Raises `StopAsked` where a stop was asked of this rank. The request stays for `take`, which all ranks hear of."""
        self._waiting += self._read()
        if self.signals or any(request.verb == "stop" for request in self._waiting):
            raise StopAsked

    def _read(self) -> list[wire.RequestLine]:
        if self.fd is None:
            return []
        try:
            data = os.read(self.fd, _READ_AT_MOST)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:  # the keeper closed its end; if it died, so do we
            self.fd = None
            return []
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-_READ_AT_MOST:]
        return [request for line in lines if (request := self._decode(line)) is not None]

    def _decode(self, line: bytes) -> wire.RequestLine | None:
        try:
            return self._decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None  # a torn or foreign line is no request
