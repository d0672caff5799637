"""What is read off the machine at one moment."""

from __future__ import annotations

from msgspec import Struct, field


class Gpu(Struct, frozen=True, kw_only=True):
    """One NVIDIA GPU, or one MIG instance of it (which has the index of its GPU and a UUID of its own)."""

    index: int                              # NVML's, as nvidia-smi shows it; CUDA may count differently
    uuid: str
    name: str
    memory_total: int = 0                   # bytes; 0 where unknown
    memory_used: int = 0                    # bytes
    utilisation: float | None = None        # per cent of the last sample period in which a kernel ran
    power_watts: float | None = None
    power_limit_watts: float | None = None
    temperature_celsius: float | None = None
    slowed_by: tuple[str, ...] | None = None  # why its clocks are held down at this moment, in words; empty: they are not
    processes: dict[int, int] = field(default_factory=dict)  # pid -> bytes, as far as this container sees pids; 0: unknown
    missing: dict[str, str] = field(default_factory=dict)    # name of a figure above -> why it is missing


class Gpus(Struct, frozen=True):
    """All GPUs at one moment."""

    devices: tuple[Gpu, ...] = ()
    why: str = ""                           # what is missing, and why: one sentence; may stand beside devices
    at: float = 0.0                         # time.monotonic() of the reading; 0: never read


class HostGauges(Struct, frozen=True, kw_only=True):
    """CPU, memory, disk and network. Where a container's limit is below the machine's memory, memory is the container's."""

    cpu_percent: float                      # of all cores, since the call before (the first: since boot)
    cpu_count: int
    memory_used: int                        # bytes that cannot be had without swapping or killing
    memory_total: int                       # bytes
    disk_free: int                          # bytes that a plain user may still write
    disk_total: int                         # bytes
    disk_path: str                          # the folder whose disk that is
    network_read: float | None = None       # bytes a second since the call before, loopback left out; None: not known yet
    network_written: float | None = None    # bytes a second
