"""The child that talks to the driver: `python -m fluxtui.gpu` prints one JSON line; with a descriptor it keeps reading.

    python -m fluxtui.gpu                   one reading on standard output
    python -m fluxtui.gpu FD SECONDS        a reading every SECONDS into the memory file FD, until standard input ends

Exit code 3: there is no driver's library here, so there is nothing to go on watching.
"""

from __future__ import annotations

import os
import sys
import threading
import time

import msgspec

from fluxtui.gpu.readings import Gpus
from fluxtui.gpu.slot import NO_DRIVER, pack


def _read() -> tuple[Gpus, bool]:
    try:
        from fluxtui.gpu import nvml
    except ImportError as error:
        why = f"the Python package nvidia-ml-py cannot be loaded ({error}); install FluxTUI again"
        return Gpus(why=why, at=time.monotonic()), False
    try:
        return nvml.read()
    except Exception as error:  # noqa: BLE001  (the outer edge: whatever the driver's library does is said, not died of)
        why = f"reading the GPUs failed: {type(error).__name__}: {str(error)[:200]!a}"
        return Gpus(why=why, at=time.monotonic()), True


def _end_with_the_parent() -> None:
    """Standard input ends when the parent does, however it ends; the main thread may be stuck in the driver."""
    while os.read(0, 4096):
        pass
    os._exit(0)


def main(arguments: list[str]) -> int:
    """See the module."""
    if not arguments:
        readings, is_there = _read()
        sys.stdout.buffer.write(msgspec.json.encode(readings) + b"\n")
        sys.stdout.flush()
        return 0 if is_there else NO_DRIVER
    descriptor, period = int(arguments[0]), float(arguments[1])
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    while True:
        readings, is_there = _read()
        os.pwrite(descriptor, pack(readings), 0)
        if not is_there:
            return NO_DRIVER
        time.sleep(period)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
