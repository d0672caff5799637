"""Disks that fail under a soak: a small one that is filled up for a while, and calls that are answered with an error.

Both need what a plain user may lack: mounting takes root, injecting takes strace. What is lacking is left out, and said.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SIZE = "64m"  # of the disk of a session's home, in memory
# Of the calls that change a disk those that no pipe and no process answers: an error of theirs is the disk's.
CALLS = "fsync,rename,mkdir,rmdir,unlink,ftruncate"


@contextmanager
def small_disk(at: Path) -> Iterator[bool]:
    """A disk of its own at that folder for the time of the block; False where none can be mounted."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0700", "tmpfs", at], capture_output=True)
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "-l", at], check=True)


@contextmanager
def filled(disk: Path) -> Iterator[int]:
    """No byte more fits on the disk for the time of the block; how many were free in the end."""
    filler = disk / "filler"
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for size in (2**20, 4096):
            with suppress(OSError):
                while True:
                    os.write(descriptor, bytes(size))
        space = os.statvfs(disk)
        yield space.f_bavail * space.f_frsize
    finally:
        os.close(descriptor)
        filler.unlink()


def can_inject() -> bool:
    """Whether strace is here and may look into a child of ours."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-f", "-o", "/dev/null", "true"], capture_output=True).returncode == 0


def fail_calls(pid: int, error: str, first: int, report: Path, seconds: float) -> int:
    """Answer the process's calls to the disk with that error, from the first-th on; how many were. Where none is made in
    that time, one more second is waited for one."""
    inject = f"inject={CALLS}:error={error}:when={first}+"
    command = ["strace", "-f", "-q", "-o", report, "-e", f"trace={CALLS}", "-e", inject, "-p", str(pid)]
    report.unlink(missing_ok=True)

    def failed() -> int:
        return report.read_text(errors="replace").count("(INJECTED)") if report.exists() else 0

    tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    began = time.monotonic()
    try:
        while tracer.poll() is None and time.monotonic() - began < (seconds if failed() else seconds + 1):
            time.sleep(0.02)
    finally:
        with suppress(ProcessLookupError):
            tracer.send_signal(signal.SIGINT)  # it lets go of the process and leaves
        tracer.wait(20)
    return failed()
