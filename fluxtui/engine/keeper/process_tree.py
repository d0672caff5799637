"""The processes of a run: its ranks, their descendants, and all that carry its run id.

Found in /proc. A process is signalled only through a pidfd that was opened before the look whether boot id, start time and
run id still are what was seen; so a recycled pid is never touched.
"""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress
from dataclasses import dataclass, field

from fluxtui.persist import process
from fluxtui.persist.sessions.record import ProcessIdentity

OWN_CHILD = "FLUXTUI_KEEPER_CHILD"  # in the environment of the keeper's own children (its gauges), never of a trainer's


def parents() -> dict[int, int]:
    """pid -> parent's pid, of every process that can be seen."""
    found: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as file:
            found[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
    return found


def descendants(roots: set[int], parent_of: dict[int, int]) -> set[int]:
    """All pids below `roots`, the roots left out."""
    children: dict[int, list[int]] = {}
    for pid, parent in parent_of.items():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    open_ends = list(roots)
    while open_ends:
        for pid in children.get(open_ends.pop(), ()):
            if pid not in found:
                found.add(pid)
                open_ends.append(pid)
    return found - roots


def catches(pid: int, number: int) -> bool:
    """Does the process catch this signal? One that does not would die of it (SigCgt of /proc/PID/status)."""
    with suppress(OSError), open(f"/proc/{pid}/status", "rb") as file:
        match = re.search(rb"^SigCgt:\s*([0-9a-f]+)", file.read(), re.M)
        return match is not None and bool(int(match.group(1), 16) >> (number - 1) & 1)
    return False


@dataclass(slots=True)
class ProcessTree:
    """The processes of one run beside its ranks, as they were seen; asked again and again until none is left."""

    run_id: str
    ranks: set[int]
    known: dict[int, ProcessIdentity] = field(default_factory=dict)

    def look(self) -> list[ProcessIdentity]:
        """Every living one: seen before, below a rank, carrying the run id, or an orphan that fell to the keeper."""
        parent_of = parents()
        self.known = {pid: seen for pid, seen in self.known.items() if process.is_alive(seen)}
        below = descendants(self.ranks, parent_of)
        for pid in parent_of.keys() - self.ranks - self.known.keys():
            if pid in below or self._is_ours(pid, parent_of[pid]):
                self._remember(pid)
        return list(self.known.values())

    def send(self, number: int) -> None:
        """One signal to each of them."""
        for identity in self.look():
            send(identity, number)

    def _is_ours(self, pid: int, parent: int) -> bool:
        if pid == os.getpid():
            return False
        if process.run_id_of(pid) == self.run_id:
            return True
        return parent == os.getpid() and not _is_own_child(pid)

    def _remember(self, pid: int) -> None:
        identity = process.identify(pid)
        if identity is not None:
            self.known[pid] = identity


def send(identity: ProcessIdentity, number: int) -> None:
    """A signal to a process that was seen to belong to the run: a pidfd first, then the look whether it still is that one.

    `persist.process.send` refuses what has no run id, as it must for a pid from disk; a descendant may have cleared its
    environment, and was identified by its parents.
    """
    if identity.run_id:
        process.send(identity, number)
        return
    with suppress(OSError):
        fd = os.pidfd_open(identity.pid)
        try:
            if process.is_alive(identity):
                signal.pidfd_send_signal(fd, number)
        finally:
            os.close(fd)


def _is_own_child(pid: int) -> bool:
    """The keeper's gauges, and what is still between fork and exec: marked, or in the keeper's session. A trainer's never is."""
    with suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
        return OWN_CHILD.encode() + b"=" in file.read() or os.getsid(pid) == os.getsid(0)
    return True  # gone, or a zombie: nothing to signal


def reap(ranks: set[int]) -> None:
    """Reap orphans that fell to the keeper and died; ranks are left as they are, so that their pids stay theirs."""
    for pid, parent in parents().items():
        if parent == os.getpid() and pid not in ranks and process.state_letter(pid) == "Z":
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
