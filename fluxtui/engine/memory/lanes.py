"""The way from host memory to where blocks are computed: a copy that goes on beside the computing, and word of its arrival."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch


class Arrival(Protocol):
    """A copy under way."""

    def is_here(self) -> bool:
        """Whether it has arrived; never waits."""

    def admit(self) -> None:
        """What is computed from now on sees it. Called once, after `is_here`."""


class Lane(Protocol):
    """Both ends, and the copy between them. All buffers are flat bytes `(n,)` uint8."""

    def host_buffer(self, size: int) -> torch.Tensor:
        """Host memory of `size` bytes that copies can be made from."""

    def slot(self, size: int) -> torch.Tensor:
        """`size` bytes on the device, for one block at a time."""

    def start(self, host: torch.Tensor, slot: torch.Tensor) -> Arrival:
        """Begins to copy, once all that the device was given to compute up to now is done: that may still read the slot."""


def lane_to(device: torch.device) -> Lane:
    """The lane to a GPU; on the CPU, where host and device are one, a plain copy."""
    return CudaLane(device) if device.type == "cuda" else PlainLane()


@dataclass(frozen=True, slots=True)
class Here:
    """Arrived already."""

    def is_here(self) -> bool:
        return True

    def admit(self) -> None:
        """Nothing is beside the CPU's own order."""


class PlainLane:
    """Copies at once."""

    def host_buffer(self, size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.uint8)

    def slot(self, size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.uint8)

    def start(self, host: torch.Tensor, slot: torch.Tensor) -> Arrival:
        slot.copy_(host)
        return Here()


class CudaLane:
    """A stream of its own, from pinned memory. No GPU has run these lines in a test: see README."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.unlocked = 0  # bytes of host buffers that could not be page-locked
        self._side = torch.cuda.Stream(device)

    def host_buffer(self, size: int) -> torch.Tensor:
        """Page-locked by registering it: torch's own pinned allocator would round each block up to a power of two."""
        buffer = torch.empty(size, dtype=torch.uint8)
        runtime: Any = torch.cuda.cudart()
        error = int(runtime.cudaHostRegister(buffer.data_ptr(), size, 0))
        self.unlocked += size if error else 0  # where a container may lock no more memory: right, but nothing overlaps
        return buffer

    def slot(self, size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.uint8, device=self.device)

    def start(self, host: torch.Tensor, slot: torch.Tensor) -> Arrival:
        self._side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._side):
            slot.copy_(host, non_blocking=True)
            done = torch.cuda.Event()
            done.record(self._side)
        return CudaArrival(done, self.device)


@dataclass(frozen=True, slots=True)
class CudaArrival:
    """An event of the lane's stream."""

    done: Any  # torch.cuda.Event
    device: torch.device

    def is_here(self) -> bool:
        return bool(self.done.query())

    def admit(self) -> None:
        torch.cuda.current_stream(self.device).wait_event(self.done)
