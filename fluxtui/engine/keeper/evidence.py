"""What the machine itself says about an end: did the kernel kill for memory, is shared memory full, what was the peak.

Counters are read when the run starts and again when it has ended. All of it is best effort: what cannot be read says nothing.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_FILES = ("memory.events", "memory.oom_control", "memory.events.local")


def _count(path: Path) -> int | None:
    with suppress(OSError, ValueError):
        match = re.search(rb"^oom_kill (\d+)$", path.read_bytes(), re.M)
        return int(match.group(1)) if match else None
    return None


def cgroup_files(pid: int) -> list[Path]:
    """Files with an oom_kill counter of the memory cgroups of a process and their ancestors, version 1 and 2."""
    found: list[Path] = []
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            bases = [_CGROUP / "memory"] if controllers else [_CGROUP, _CGROUP / "unified"]
            inner = Path(path.lstrip("/"))
            for base in bases:
                found += [base / step / name for step in (inner, *inner.parents) for name in _FILES]
    return [path for path in found if _count(path) is not None]


@dataclass(slots=True)
class OutOfMemory:
    """Whether the kernel's OOM killer struck since the beginning."""

    pids: set[int] = field(default_factory=set)
    _before: dict[Path, int] = field(default_factory=dict)
    _vmstat: int = field(default_factory=lambda: _count(Path("/proc/vmstat")) or 0)
    _kmsg: int = field(default_factory=lambda: _open_kmsg())

    def look(self, pids: set[int]) -> None:
        """While they live: remember their pids and the counters of the cgroups they are in."""
        self.pids |= pids
        for pid in pids:
            for path in cgroup_files(pid):
                self._before.setdefault(path, _count(path) or 0)

    def words(self) -> str:
        """Empty where it did not strike; else how we know. A counter of a cgroup, the kernel's log, or the machine's counter."""
        named = self._named_by_kernel()
        for path, before in self._before.items():
            if (_count(path) or 0) > before:
                return f"its memory cgroup {path.parent} was at its limit"
        if named:
            return "the kernel's log names it"
        after = _count(Path("/proc/vmstat")) or 0
        return "the machine ran out of memory" if after > self._vmstat else ""

    def close(self) -> None:
        if self._kmsg >= 0:
            os.close(self._kmsg)
            self._kmsg = -1

    def _named_by_kernel(self) -> bool:
        if self._kmsg < 0:
            return False
        with suppress(BlockingIOError, OSError):
            for _ in range(10_000):
                match = re.search(rb"[Kk]illed process (\d+)", os.read(self._kmsg, 8192))
                if match and int(match.group(1)) in self.pids:
                    return True
        return False


def _open_kmsg() -> int:
    """The kernel's log from here on, where we may read it; -1 where not."""
    try:
        fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return -1
    with suppress(OSError):
        os.lseek(fd, 0, os.SEEK_END)
    return fd


def peak_memory(pid: int) -> int:
    """Bytes: the most host memory that a process ever had resident; 0 where it cannot be read."""
    with suppress(OSError), open(f"/proc/{pid}/status", "rb") as file:
        match = re.search(rb"^VmHWM:\s*(\d+) kB", file.read(), re.M)
        return int(match.group(1)) * 1024 if match else 0
    return 0


def activity(pid: int) -> tuple[float, int]:
    """CPU seconds and bytes read by a process since it began: read calls and pages of mapped files."""
    cpu, read = 0.0, 0
    with suppress(OSError, ValueError, IndexError):
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        with open(f"/proc/{pid}/io", "rb") as file:
            read = sum(int(value) for value in re.findall(rb"^(?:rchar|read_bytes): (\d+)$", file.read(), re.M))
    return cpu, read


def is_shared_memory_full() -> bool:
    """Less than 1 MiB left in /dev/shm: what data workers pass batches through."""
    with suppress(OSError):
        space = os.statvfs("/dev/shm")
        return space.f_blocks > 0 and space.f_bavail * space.f_frsize < 2**20
    return False


def bytes_below(folder: Path) -> int:
    """Bytes of all files in the folders of `folder`: grows while a checkpoint is written. One level, as checkpoints are."""
    total = 0
    with suppress(OSError):
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                with suppress(OSError):
                    total += sum(one.stat(follow_symlinks=False).st_size for one in os.scandir(entry.path))
    return total
