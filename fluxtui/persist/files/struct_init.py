"""Thread-safe first use of a msgspec struct.

msgspec inspects a struct type when it is first used, without a lock. A second thread that uses the type meanwhile finds it half
inspected, and the process dies of a segmentation fault (seen with msgspec 0.22). The UI and `ls` read records in
threads, so whoever converts to a struct calls `init_struct` first.
"""

from __future__ import annotations

import threading

import msgspec

_one_at_a_time = threading.Lock()
_initialized: set[object] = set()


def init_struct(type: object) -> None:
    """Have msgspec inspect the type, and all types in it, once, whichever threads ask for it."""
    if type in _initialized:
        return
    with _one_at_a_time:
        msgspec.json.Decoder(type)
        _initialized.add(type)
