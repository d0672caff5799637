"""A data worker: reads and verifies cache entries for the trainer that started it, over its standard input and output.

    python -m fluxtui.engine.trainer.data.data_worker PARENT_PID

No torch, no shared memory, and no fork: a forked worker would hold the trainer's locks after it, and /dev/shm has 64 MB on
many pods. A message is its length (4 bytes, big-endian) and MessagePack. It dies with its parent, and at end of input.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Struct

from fluxtui.engine import life
from fluxtui.engine.trainer.data.cache import EntryKey, Kind, read_entry
from fluxtui.persist.cache_folder import entry_path
from fluxtui.persist.errors import FluxTUIError

LENGTH = 4      # bytes before each message


class Wanted(Struct, frozen=True, array_like=True):
    """One entry to read."""

    kind: Kind
    key: str


class Read(Struct, frozen=True, array_like=True):
    """What one entry held; `damage` is a sentence where it cannot be used, and no tensors with no damage mean it is gone."""

    tensors: dict[str, tuple[str, tuple[int, ...], bytes]]
    damage: str = ""


def read_one(folder: Path, wanted: Wanted) -> Read:
    """An entry as a worker answers it."""
    entry = EntryKey(wanted.kind, wanted.key)
    try:
        found = read_entry(entry_path(folder, entry.kind, entry.key), entry) or {}
    except FluxTUIError as error:
        return Read({}, str(error))
    return Read({name: (dtype, shape, bytes(data)) for name, (dtype, shape, data) in found.items()})


def serve(folder: Path, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answers every list of wanted entries with a list of what was read, until the input ends."""
    decoder = msgspec.msgpack.Decoder(list[Wanted])
    while len(head := requests.read(LENGTH)) == LENGTH:
        wanted = decoder.decode(requests.read(int.from_bytes(head, "big")))
        message = msgspec.msgpack.encode([read_one(folder, one) for one in wanted])
        answers.write(len(message).to_bytes(LENGTH, "big"))
        answers.write(message)
        answers.flush()


def main(argv: list[str]) -> int:
    """`PARENT_PID CACHE_FOLDER`."""
    life.die_with_parent(int(argv[0]))
    faulthandler.enable(all_threads=True)
    faulthandler.register(life.STACKS, all_threads=True, chain=False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)    # a stop is the trainer's to act on; it closes our input
    try:
        serve(Path(argv[1]), sys.stdin.buffer, sys.stdout.buffer)
    except BrokenPipeError:     # the trainer wants no more
        os._exit(0)             # not through Python's own end, which would complain about the unwritten rest
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
