"""What the machine itself says about an end: did the kernel kill for memory, is shared memory full, what was the peak.

Counters are looked at all the time, and only what rose in the last half minute counts: an OOM kill of hours ago, or of somebody
else's process, explains no end of today. All of it is best effort: what cannot be read says nothing.
"""

from __future__ import annotations

import os
import re
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_FILES = ("memory.events.local", "memory.events", "memory.oom_control")  # the kernel counts in the cgroup of who was killed
_VMSTAT = Path("/proc/vmstat")
RECENT = 30.0  # seconds: a data worker that was killed may be missed by its trainer for a while


def _count(path: Path) -> int | None:
    with suppress(OSError, ValueError):
        match = re.search(rb"^oom_kill (\d+)$", path.read_bytes(), re.M)
        return int(match.group(1)) if match else None
    return None


def cgroup_file(pid: int) -> Path | None:
    """The file with the oom_kill counter of a process's own memory cgroup, version 1 or 2; None where none can be read.

    Where its path is not to be seen (in a container whose root it is), the nearest above it is its own.
    """
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            bases = [_CGROUP / "memory"] if controllers else [_CGROUP, _CGROUP / "unified"]
            inner = Path(path.lstrip("/"))
            for step in (inner, *inner.parents):
                for found in (base / step / name for base in bases for name in _FILES):
                    if _count(found) is not None:
                        return found
    return None


@dataclass(slots=True)
class OutOfMemory:
    """Whether the kernel's OOM killer struck one of a group's processes just now. `now` is the keeper's watch, in seconds."""

    _files: set[Path] = field(default_factory=set)
    _pids: set[int] = field(default_factory=set)
    _seen: deque[tuple[float, dict[Path, int]]] = field(default_factory=deque)  # counters, the oldest of about RECENT ago
    _named: float | None = None  # when the kernel's log last named a process of ours
    _kmsg: int = field(default_factory=lambda: _open_kmsg())

    def look(self, pids: set[int], now: float) -> None:
        """While they live, every few seconds: remember them, and the counters of the cgroups they are in."""
        self._pids |= pids
        self._files |= {path for pid in pids if (path := cgroup_file(pid)) is not None}
        self._read_kernel_log(now)
        self._seen.append((now, self._counters()))
        while len(self._seen) > 1 and now - self._seen[1][0] >= RECENT:
            self._seen.popleft()

    def words(self, now: float) -> str:
        """Empty where it did not strike; else how we know: by the kernel's log, a cgroup's counter, or the machine's."""
        self._read_kernel_log(now)
        if self._named is not None and now - self._named < RECENT:
            return "the kernel's log names it"
        for path, count in self._counters().items():
            before = next((counts[path] for _, counts in self._seen if path in counts), count)
            if count > before:
                return "the machine ran out of memory" if path == _VMSTAT else f"its memory cgroup {path.parent} counted it"
        return ""

    def close(self) -> None:
        if self._kmsg >= 0:
            os.close(self._kmsg)
            self._kmsg = -1

    def _counters(self) -> dict[Path, int]:
        """Of the machine as a whole only where nothing nearer can be read: it counts everybody's."""
        files = self._files or ({_VMSTAT} if self._kmsg < 0 else set())
        return {path: count for path in files if (count := _count(path)) is not None}

    def _read_kernel_log(self, now: float) -> None:
        if self._kmsg < 0:
            return
        with suppress(BlockingIOError, OSError):
            for _ in range(10_000):
                match = re.search(rb"[Kk]illed process (\d+)", os.read(self._kmsg, 8192))
                if match and int(match.group(1)) in self._pids:
                    self._named = now


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
