"""The progress pipe, read without ever blocking and without ever growing: lines out, garbage counted and dropped."""

from __future__ import annotations

import os

import msgspec

from fluxtui.engine.wire import LINE_LIMIT, ProgressLine

_READ = 64 * 1024
_READS = 32  # of 64 KiB, in one turn of the loop
_LARGEST = 2**53
_DECODER = msgspec.json.Decoder(ProgressLine)


class Lines:
    """Lines of one pipe, from whoever holds its other end."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.is_open = True
        self.garbage = 0  # lines that were torn, too long, or no progress line at all
        self._rest = b""
        self._skips = False  # in the middle of a line that is too long

    def read(self) -> list[ProgressLine]:
        """What has come, at most 2 MiB of it."""
        found: list[ProgressLine] = []
        for _ in range(_READS):
            try:
                data = os.read(self.fd, _READ)
            except BlockingIOError:
                break
            if not data:
                self.is_open = False
                break
            self._split(data, found)
        return found

    def _split(self, data: bytes, found: list[ProgressLine]) -> None:
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            if self._skips:
                self._skips = False
                continue
            self._decode(line, found)
        if len(self._rest) > LINE_LIMIT:
            self.garbage += not self._skips
            self._rest, self._skips = b"", True

    def _decode(self, line: bytes, found: list[ProgressLine]) -> None:
        if len(line) < LINE_LIMIT:
            try:
                decoded = _DECODER.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass
            else:
                if _is_sound(decoded):
                    found.append(decoded)
                    return
        self.garbage += 1


def _is_sound(line: ProgressLine) -> bool:
    numbers = (line.rank, line.step, line.steps, line.epoch, line.epochs, line.item, line.items, line.inexact_since)
    return all(number is None or 0 <= number < _LARGEST for number in numbers)
