"""The way from host memory to where blocks are computed: a copy that goes on beside the computing, and word of its arrival."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import torch


class Arrival(Protocol):
    """A copy under way."""

    def has_begun(self) -> bool:
        """Whether its turn has come: what the device was given before it is done; never waits."""

    def is_here(self) -> bool:
        """Whether it has arrived; never waits."""

    def admit(self) -> None:
        """What is computed from now on sees it. Called once, after `is_here`."""


class CopyStream(Protocol):
    """Both ends, and the copy between them. All buffers are flat bytes `(n,)` uint8."""

    unlocked: int  # bytes of host buffers that could not be page-locked

    def host_buffer(self, size: int) -> torch.Tensor:
        """Host memory of `size` bytes that copies can be made from."""

    def slot(self, size: int) -> torch.Tensor:
        """`size` bytes on the device, for one block at a time."""

    def start(self, host: torch.Tensor, slot: torch.Tensor) -> Arrival:
        """Begins to copy, once all that the device was given to compute up to now is done: that may still read the slot."""


def copy_stream_to(device: torch.device) -> CopyStream:
    """The copy stream to a GPU; on the CPU, where host and device are one, a plain copy."""
    return CudaCopyStream(device) if device.type == "cuda" else PlainCopyStream()


@dataclass(frozen=True, slots=True)
class Here:
    """Arrived already."""

    def has_begun(self) -> bool:
        return True

    def is_here(self) -> bool:
        return True

    def admit(self) -> None:
        """Nothing is beside the CPU's own order."""


class PlainCopyStream:
    """Copies at once."""

    unlocked = 0

    def host_buffer(self, size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.uint8)

    def slot(self, size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.uint8)

    def start(self, host: torch.Tensor, slot: torch.Tensor) -> Arrival:
        slot.copy_(host)
        return Here()


class CudaCopyStream:
    """A stream of its own, from pinned memory. No GPU has run these lines in a test: see README."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.unlocked = 0  # bytes of host buffers that could not be page-locked
        self._side = torch.cuda.Stream(device)

    def host_buffer(self, size: int) -> torch.Tensor:
        """Page-locked by registering it: torch's own pinned allocator would round each block up to a power of two."""
        buffer = torch.empty(size, dtype=torch.uint8)
        if self.unlocked or not self._lock(buffer):  # a container that may lock no more: copies are right, and nothing overlaps
            self.unlocked += size
        return buffer

    def _lock(self, buffer: torch.Tensor) -> bool:
        runtime: Any = torch.cuda.cudart()
        if not int(runtime.cudaHostRegister(buffer.data_ptr(), len(buffer), 0)):
            return True
        with suppress(RuntimeError):
            torch.zeros(1, device=self.device)  # CUDA keeps its last error for the next kernel's launch, which would be blamed
        return False

    def slot(self, size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.uint8, device=self.device)

    def start(self, host: torch.Tensor, slot: torch.Tensor) -> Arrival:
        self._side.wait_stream(torch.cuda.current_stream(self.device))
        begun, done = torch.cuda.Event(), torch.cuda.Event()
        with torch.cuda.stream(self._side):
            begun.record(self._side)
            slot.copy_(host, non_blocking=True)
            done.record(self._side)
        return CudaArrival(begun, done, self.device)


@dataclass(frozen=True, slots=True)
class CudaArrival:
    """Events of the CUDA stream, before and after the copy."""

    begun: Any  # torch.cuda.Event
    done: Any  # torch.cuda.Event
    device: torch.device

    def has_begun(self) -> bool:
        return bool(self.begun.query())

    def is_here(self) -> bool:
        return bool(self.done.query())

    def admit(self) -> None:
        torch.cuda.current_stream(self.device).wait_event(self.done)
