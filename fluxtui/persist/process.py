"""Who is this pid: boot id, start time and run id; and signals that reach that process or nobody.

A pid on disk may be another process by now, and even pid and start time together repeat within 10 ms ticks. So a process
is known by all of boot id, start time and the run id in its environment, and it is signalled through a descriptor (pidfd)
that was opened before the check: whoever takes the pid afterwards cannot be hit.
"""

from __future__ import annotations

import functools
import os
import signal as signals
from pathlib import Path

from fluxtui.persist.sessions.record import ProcessIdentity

RUN_ID_VARIABLE = "FLUXTUI_RUN_ID"
_ENVIRONMENT_LIMIT = 4 << 20  # bytes read of an environment
_DEAD = frozenset("ZXx")


@functools.cache
def boot_id() -> str:
    """The id of this boot of the machine, 36 characters; empty where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def identify(pid: int) -> ProcessIdentity | None:
    """The identity of a living process; None where there is none, or only its remains (a zombie)."""
    found = _stat(pid)
    if found is None or found[0] in _DEAD:
        return None
    return ProcessIdentity(pid=pid, start_ticks=found[1], boot_id=boot_id(), run_id=run_id_of(pid) or "")


def identify_child(pid: int, run_id: str) -> ProcessIdentity | None:
    """The identity of a child of ours that is not reaped, were it dead already; None where /proc does not show it."""
    found = _stat(pid)
    return None if found is None else ProcessIdentity(pid=pid, start_ticks=found[1], boot_id=boot_id(), run_id=run_id)


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether that very process lives on this machine: same boot, same start time, same run id; a zombie does not."""
    return identity == identify(identity.pid) and bool(identity.boot_id)


def state_letter(pid: int) -> str | None:
    """R running, S sleeping, D waiting for a device, T stopped, t traced, Z zombie; None where there is no such process."""
    found = _stat(pid)
    return None if found is None else found[0]


def run_id_of(pid: int) -> str | None:
    """FLUXTUI_RUN_ID in the environment that the process was started with; None where it has none or is not ours to read."""
    wanted = os.fsencode(RUN_ID_VARIABLE) + b"="
    try:
        with open(f"/proc/{pid}/environ", "rb") as environment:
            variables = environment.read(_ENVIRONMENT_LIMIT).split(b"\0")
    except OSError:
        return None
    return next((os.fsdecode(variable[len(wanted) :]) for variable in variables if variable.startswith(wanted)), None)


def send(identity: ProcessIdentity, signal: int) -> bool:
    """Signal that very process; whether it was there to be signalled.

    An identity without a run id or boot id is never signalled: it could be anybody's.
    """
    if not identity.run_id or not identity.boot_id or identity.pid <= 1:
        return False
    try:
        descriptor = os.pidfd_open(identity.pid)
    except OSError:
        return False
    try:
        if not is_alive(identity):
            return False
        signals.pidfd_send_signal(descriptor, signal)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(descriptor)
    return True


def _stat(pid: int) -> tuple[str, int] | None:
    """State letter and start time in clock ticks since boot. proc(5): fields 3 and 22, after the name in parentheses."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as line:
            fields = line.read(4096).rpartition(b")")[2].split()
        return fields[0].decode("ascii"), int(fields[19])
    except (OSError, IndexError, ValueError):
        return None
