"""Types are met one at a time: what msgspec works out of a struct at its first use, it works out unguarded.

A second thread that uses the struct meanwhile meets one half worked out, and the process dies of a segmentation fault (seen
with msgspec 0.22). Fronts read in threads; whoever converts to a struct in one calls `init_struct` before.
"""

from __future__ import annotations

import threading

import msgspec

_one_at_a_time = threading.Lock()
_initialized: set[object] = set()


def init_struct(type: object) -> None:
    """Have the type, and all that it is made of, worked out once, whichever threads ask for it."""
    if type in _initialized:
        return
    with _one_at_a_time:
        msgspec.json.Decoder(type)
        _initialized.add(type)
