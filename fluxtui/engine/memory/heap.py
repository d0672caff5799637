"""The C library's heap while weights are read: what it has free goes back to the system before it becomes a second model.

Every weight read leaves holes: the copy it was read into, the float32 copy it was encoded from. glibc cuts allocations of up to
32 MiB from one heap and gives only its end back, so codes that stay hold the holes below them: 0.2 to 0.3 GB over 0.4 that
stay, by where the heap happened to begin (docs/memory.md, "Host memory while weights are read").
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

FREED_AT_ONCE = 16 * 2**20  # bytes read between two returns: what may lie free in the heap meanwhile


@cache
def _trim() -> ctypes._NamedFuncPointer | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it; musl gives free pages back by itself


def kept_small(weights: Iterator[tuple[str, torch.Tensor, int]]) -> Iterator[tuple[str, torch.Tensor, int]]:
    """The weights as they come (name, tensor, bytes read so far); between them free pages are returned now and then."""
    returned = 0
    for name, tensor, done in weights:
        yield name, tensor, done
        del tensor
        if done - returned >= FREED_AT_ONCE:
            _return_free_pages()
            returned = done
    _return_free_pages()


def _return_free_pages() -> None:
    if (trim := _trim()) is not None:
        trim(0)
