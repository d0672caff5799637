"""File systems made for one test: a small tmpfs, an ext4 on a loop device, a read-only view of a folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def mounted(target: Path, *arguments: str | Path) -> Iterator[Path]:
    """`mount ARGUMENTS TARGET` for the time of the block."""
    target.mkdir(exist_ok=True)
    subprocess.run(["mount", *arguments, target], check=True, timeout=60)
    try:
        yield target
    finally:
        unmount(target)


def unmount(target: Path) -> None:
    """Unmount for good; a process of the test that has just been killed may hold it for a moment."""
    for _ in range(100):
        if subprocess.run(["umount", target], capture_output=True, timeout=60).returncode == 0:
            return
        time.sleep(0.05)
    subprocess.run(["umount", "-l", target], check=True, timeout=60)
    raise AssertionError(f"{target} stayed busy")


@contextmanager
def tmpfs(target: Path, size: str) -> Iterator[Path]:
    """A file system in memory of that size."""
    with mounted(target, "-t", "tmpfs", "-o", f"size={size},mode=0700", "none") as at:
        yield at


@contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """The folder itself, read-only."""
    with mounted(folder, "--bind", folder):
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True, timeout=60)
        yield folder


def make_ext4(image: Path, size_mib: int = 4) -> Path:
    """An image of an ext4 with a journal."""
    with open(image, "wb") as file:
        file.truncate(size_mib << 20)
    options = ["-q", "-F", "-m", "0", "-b", "1024", "-J", "size=1", "-E", "lazy_itable_init=0"]
    subprocess.run(["mkfs.ext4", *options, image], check=True, timeout=60)
    return image


@contextmanager
def ext4(image: Path, target: Path, options: str = "commit=600") -> Iterator[Path]:
    """The image on a loop device. data=writeback orders nothing that nobody asked to be ordered."""
    with mounted(target, "-o", f"loop,{options}", image) as at:
        yield at


def loop_device(image: Path) -> str:
    """`loop3`, the device that the mounted image is on."""
    found = subprocess.run(["losetup", "-j", image], capture_output=True, text=True, check=True, timeout=60).stdout
    return Path(found.partition(":")[0]).name


def cut_power(image: Path, copy: Path) -> Path:
    """What is on the disk at this moment: a copy of the backing file, taken while nothing was being written to it."""
    written = Path("/sys/block", loop_device(image), "stat")
    for _ in range(50):
        before = written.read_text().split()[4:9]  # writes, merges, sectors, milliseconds, requests on the way
        shutil.copyfile(image, copy)
        if written.read_text().split()[4:9] == before and before[-1] == "0":
            return copy
        time.sleep(0.01)
    raise AssertionError("the disk never stood still")


def fill(folder: Path, leave: int) -> Path:
    """A file that leaves about `leave` bytes free."""
    filler = folder / "filler"
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    size = 0
    try:
        with contextlib.suppress(OSError):  # it is full then
            while True:
                size += os.write(descriptor, bytes(4096))
        os.ftruncate(descriptor, max(0, size - leave))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return filler
