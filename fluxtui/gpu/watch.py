"""Asking for the GPUs without ever waiting for the driver."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time

import msgspec

from fluxtui.gpu.readings import Gpus
from fluxtui.gpu.slot import NO_DRIVER, SIZE, unpack
from fluxtui.persist.files.struct_init import init_struct

# -P: a json.py that lies in the folder where `fluxtui` was typed is not ours to import
_COMMAND = (sys.executable, "-P", "-m", "fluxtui.gpu")
_SILENT_SECONDS = 5.0     # after which a driver counts as hanging; at least three periods
_KILL_SECONDS = 60.0      # of silence, after which the child is killed
_RESTART_SECONDS = 30.0   # before a child that died is started again; doubles each time
_RESTART_AT_MOST = 600.0


def list_gpus(timeout: float = 5.0) -> Gpus:
    """All GPUs now, by a child that is killed after `timeout` seconds. Never raises for what the driver does."""
    try:
        child = subprocess.Popen(_COMMAND, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError as error:
        return Gpus(why=f"the GPUs cannot be read: {error.strerror}", at=time.monotonic())
    assert child.stdout is not None
    with child.stdout as answers:
        data = _read_until(answers.fileno(), time.monotonic() + timeout)
    if data is None:
        child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(0.5)  # one stuck in the kernel cannot be reaped; it is left to itself
        return Gpus(why=f"the NVIDIA driver has not answered for {timeout:.0f} s", at=time.monotonic())
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(1.0)
    init_struct(Gpus)
    try:
        return msgspec.json.decode(data, type=Gpus)
    except msgspec.DecodeError:
        return Gpus(why=_died(child.returncode), at=time.monotonic())


def _read_until(descriptor: int, deadline: float) -> bytes | None:
    """All bytes up to the end of the pipe or `SIZE`; None where the deadline (monotonic) comes first."""
    data = b""
    while len(data) < SIZE:
        if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return None
        piece = os.read(descriptor, 65536)
        if not piece:
            break
        data += piece
    return data


def _died(code: int | None) -> str:
    how = "without an answer" if code is None or code >= 0 else f"by signal {-code}"
    return f"the process that reads the NVIDIA driver ended {how}; run `nvidia-smi`"


class GpuWatch:
    """A child that reads the GPUs again and again. No method ever waits for the driver.

    Not for several threads at once. The child ends with this process, however this process ends.
    """

    def __init__(self) -> None:
        self._period = 1.0
        self._memory = -1
        self._child: subprocess.Popen[bytes] | None = None
        self._last = Gpus(why="the GPUs are not read yet")
        self._started_at = 0.0        # monotonic
        self._restart_at = 0.0        # monotonic
        self._delay = _RESTART_SECONDS
        self._is_over = False         # there is no driver: nothing to watch

    def start(self, period: float = 1.0) -> None:
        """Begin to read every `period` seconds. Once; a second call does nothing."""
        if self._memory >= 0:
            return
        self._period = period
        self._memory = os.memfd_create("fluxtui-gpus", os.MFD_CLOEXEC)
        self._spawn()

    def latest(self) -> Gpus:
        """The newest reading; where there is none, or the driver hangs, no devices and why. Takes well under a millisecond."""
        if self._memory < 0:
            return self._last
        now = time.monotonic()
        found = unpack(os.pread(self._memory, SIZE, 0))
        if found is not None and found.at >= self._started_at:
            self._last = found
        if self._is_over:
            return self._last
        code = None if self._child is None else self._child.poll()
        if code == NO_DRIVER:
            self._is_over = True
            return self._last
        silent = now - max(self._started_at, self._last.at)
        if code is not None or self._child is None:
            self._start_again(now)
            return Gpus(why=_died(code), at=self._last.at)
        if silent > _KILL_SECONDS + self._period:
            self._child.kill()  # the next look finds it dead, unless the kernel keeps it
        if silent > max(_SILENT_SECONDS, 3 * self._period):
            return Gpus(why=f"the NVIDIA driver has not answered for {silent:.0f} s", at=self._last.at)
        return self._last

    def stop(self) -> None:
        """End the child. One that is stuck in the kernel is left to itself."""
        if self._child is not None:
            if self._child.stdin is not None:
                self._child.stdin.close()
            self._child.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(1.0)
            self._child = None
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1
        self._last = Gpus(why="the GPUs are not read any more")

    def _start_again(self, now: float) -> None:
        if self._restart_at == 0.0:
            self._restart_at = now + self._delay
        elif now >= self._restart_at:
            self._delay = min(2 * self._delay, _RESTART_AT_MOST)
            self._spawn()

    def _spawn(self) -> None:
        if self._child is not None and self._child.stdin is not None:
            self._child.stdin.close()
        self._restart_at, self._started_at = 0.0, time.monotonic()
        command = [*_COMMAND, str(self._memory), str(self._period)]
        try:
            # a session of its own: Ctrl-C in the terminal is not for it
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[self._memory],
                start_new_session=True,
            )
        except OSError:
            self._child = None  # no room for a process: tried again later
