"""CPU, memory, disk and network of this machine, or of the container where that is smaller. No GPU, no child."""

from __future__ import annotations

import os
import time
from pathlib import Path

from fluxtui.gpu.readings import HostGauges

_CGROUPS = Path("/sys/fs/cgroup")
_CPU_BEFORE = [0, 0]  # idle and all ticks at the call before
_NETWORK_BEFORE: list[tuple[float, int, int]] = []  # monotonic seconds, bytes read and written at the call before
_CARRIED_TWICE = ("veth", "docker", "br-", "virbr", "cni", "flannel")  # a card carries it too


def host_gauges(folder: Path | None = None) -> HostGauges:
    """The gauges; `folder` says which disk (default: FLUXTUI_HOME's). Raises nothing: a disk that cannot be asked has 0 bytes."""
    used, total = machine_memory(Path("/proc/meminfo"))
    limit = container_memory(_CGROUPS, Path("/proc/self/cgroup"))
    if limit is not None and limit[1] < total:
        used, total = limit
    path = _existing(folder or Path(os.environ.get("FLUXTUI_HOME") or "~"))
    try:
        disk = os.statvfs(path)
        free, size = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    except OSError:
        free, size = 0, 0
    rates = _network_rates(Path("/proc/net/dev"), time.monotonic())
    return HostGauges(
        cpu_percent=_cpu_percent(Path("/proc/stat")),
        cpu_count=os.cpu_count() or 1,
        memory_used=used,
        memory_total=total,
        disk_free=free,
        disk_total=size,
        disk_path=str(path),
        network_read=rates[0] if rates else None,
        network_written=rates[1] if rates else None,
    )


def machine_memory(meminfo: Path) -> tuple[int, int]:
    """Bytes used and bytes there are. proc_meminfo(5): what is not "available" cannot be had without swapping."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        total, available = (1024 * int(lines[key].split()[0]) for key in ("MemTotal", "MemAvailable"))
    except (OSError, ValueError, KeyError, IndexError):
        return 0, 0
    return total - available, total


def container_memory(cgroups: Path, own: Path) -> tuple[int, int] | None:
    """Bytes used and bytes allowed by the tightest memory limit on this process; None where there is none.

    Both versions of cgroups; `own` is /proc/self/cgroup. What is only file cache that can be dropped is not counted as used.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return None
    found: list[tuple[int, int]] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            names = ("memory/", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        elif not controllers:
            names = ("", "memory.max", "memory.current", "inactive_file")
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):
            found += _limit_of(cgroups / names[0] / "/".join(parts[:depth]), *names[1:])
    return min(found, key=lambda one: one[1], default=None)


def _limit_of(folder: Path, limit_name: str, usage_name: str, cache_name: str) -> list[tuple[int, int]]:
    try:
        limit = (folder / limit_name).read_text().strip()
        if limit == "max":
            return []
        used = int((folder / usage_name).read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
        cache = next((int(line.split()[1]) for line in lines if line.startswith(f"{cache_name} ")), 0)
        return [(max(0, used - cache), int(limit))]
    except (OSError, ValueError, IndexError):
        return []


def _cpu_percent(stat: Path) -> float:
    """Share of all cores that was busy since the call before. proc_stat(5): user nice system idle iowait irq softirq steal."""
    try:
        ticks = [int(value) for value in stat.read_text().split("\n", 1)[0].split()[1:9]]
        idle, whole = ticks[3] + ticks[4], sum(ticks)
    except (OSError, ValueError, IndexError):
        return 0.0
    idle_since, whole_since = idle - _CPU_BEFORE[0], whole - _CPU_BEFORE[1]
    _CPU_BEFORE[:] = [idle, whole]
    return min(100.0, max(0.0, 100.0 * (1 - idle_since / whole_since))) if whole_since > 0 else 0.0


def _network_rates(devices: Path, now: float) -> tuple[float, float] | None:
    """Bytes a second read and written since the call before; None at the first call, and where the kernel does not tell."""
    total = network_bytes(devices)
    before = _NETWORK_BEFORE[0] if _NETWORK_BEFORE else None
    _NETWORK_BEFORE[:] = [(now, *total)] if total else []
    if total is None or before is None or now <= before[0]:
        return None
    seconds = now - before[0]  # a card that went away takes its count with it: not a negative rate
    return max(0, total[0] - before[1]) / seconds, max(0, total[1] - before[2]) / seconds


def network_bytes(devices: Path) -> tuple[int, int] | None:
    """Bytes read and written by this machine's cards since they are up; None where the kernel does not tell.

    proc_net(5): two lines of titles, then a line a device: bytes read is the first of its numbers, bytes written the ninth.
    """
    read = written = 0
    try:
        for line in devices.read_text().splitlines()[2:]:
            name, _, numbers = line.partition(":")
            if name.strip() != "lo" and not name.strip().startswith(_CARRIED_TWICE):
                fields = numbers.split()
                read, written = read + int(fields[0]), written + int(fields[8])
    except (OSError, ValueError, IndexError):
        return None
    return read, written


def _existing(path: Path) -> Path:
    """The nearest folder above that exists."""
    path = Path(os.path.expanduser(path)).absolute()  # `Path.expanduser` raises where no home is known
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
