"""Who trains next on what: the locks of the devices, and the order of those who wait for them.

The queue has no file. A waiting keeper holds its session's lock and has a record that says `queued`; it takes a device only
when no live waiting keeper that could use the same one has a smaller (priority, queued_at, name). A GPU's lock is the
machine's and lies in its runtime folder; the CPU's is the home's. A lease lives as long as the keeper wants it: through
retries, until the trainer is gone and its memory is back.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from fluxtui.engine.keeper.gauges import Gauges, has_driver
from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.files import toml
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.home import Home, runtime_folder
from fluxtui.persist.sessions.record import ACTIVE, Record
from fluxtui.persist.settings import recipe
from fluxtui.persist.settings.spec import HardwareSpec

Key = tuple[int, datetime, str]


@dataclass(frozen=True, slots=True)
class Other:
    """Another session of the home with a live keeper, not over."""

    name: str
    record: Record

    @property
    def key(self) -> Key:
        return _key(self.name, self.record)


@dataclass(slots=True)
class Lease:
    """The devices of one session, locked. No UUIDs: the CPU of its home."""

    uuids: list[str]
    _locks: list[Lock]

    def release(self) -> None:
        for lock in self._locks:
            lock.release()
        self._locks = []


@dataclass(slots=True)
class Turn:
    """One look at the queue: a lease, or whom it waits for."""

    lease: Lease | None = None
    waiting_for: str = ""


@dataclass(slots=True)
class Queue:
    """Waits on behalf of one session. `ask` is called about once a second and never blocks."""

    home: Home
    name: str
    hardware: HardwareSpec
    gauges: Gauges
    takes_cpu: bool = True  # the CPU's lock is the home's, and node 0 holds it for all machines of its session
    _wishes: dict[str, HardwareSpec] = field(default_factory=dict)  # of other sessions, by name

    def ask(self, own: Record) -> Turn:
        """Try for the devices. Raises `UsageError` where a GPU was asked for that this machine does not have."""
        wanted = self._wanted()
        if wanted is None:
            why = readings.why if (readings := self.gauges.latest()) else ""
            return Turn(waiting_for=f"the GPU driver ({why})" if why else "the GPU driver")
        others = self._others()
        waiting = [one for one in others if one.record.status == "queued" and not one.record.gpus]  # with gpus: between retries
        ahead = [one for one in waiting if one.key < _key(self.name, own) and self._competes(one.name, wanted)]
        if ahead:
            return Turn(waiting_for=f"{min(ahead, key=lambda one: one.key).name} (before it in the queue)")
        return self._take(wanted, others)

    def _wanted(self) -> list[list[str]] | None:
        """Alternatives, best first, each a list of UUIDs; `[[]]` is the CPU; None where the driver has not answered yet."""
        gpus = self.hardware.gpus
        said = os.environ.get("CUDA_VISIBLE_DEVICES")
        if gpus == [] or (isinstance(gpus, str) and (not has_driver() or _hides_all(said))):
            return [[]]
        self.gauges.start()
        readings = self.gauges.latest()
        if readings is None or readings.at == 0.0 or (not readings.devices and has_driver()):
            return None  # a driver that does not answer is waited for; nothing falls back to the CPU unasked
        from fluxtui.engine.keeper.gpu_choice import alternatives  # here: a session of the CPU needs none of it

        return alternatives(gpus, readings, os.environ)

    def _others(self) -> list[Other]:
        """A session that cannot be read does not wait."""
        found: list[Other] = []
        for name in self.home.session_names():
            if name == self.name:
                continue
            with suppress(FluxTUIError):
                folder = self.home.session(name)
                numbers = folder.attempt_numbers()
                if not numbers or not Lock.held(folder.lock_file):
                    continue
                record = toml.read(folder.attempt_file(numbers[-1]), Record)
                if record.status in ACTIVE:
                    found.append(Other(name, record))
                    if name not in self._wishes:
                        self._wishes[name] = recipe.apply(recipe.load_spec(folder.spec_file), record.overrides).hardware
        return found

    def _competes(self, name: str, wanted: list[list[str]]) -> bool:
        """Could it use a device that we could use?"""
        hardware = self._wishes.get(name)
        if hardware is None:
            return False
        if wanted == [[]]:
            return hardware.gpus == [] or (isinstance(hardware.gpus, str) and not has_driver())
        if isinstance(hardware.gpus, str):
            return True
        readings = self.gauges.latest()
        index_of = {one.uuid: str(one.index) for one in readings.devices} if readings else {}
        ours = {uuid for one in wanted for uuid in one}
        return any(str(gpu) in ours or str(gpu) in {index_of.get(uuid) for uuid in ours} for gpu in hardware.gpus)

    def _take(self, wanted: list[list[str]], others: list[Other]) -> Turn:
        busy = ""
        for uuids in wanted:
            locks: list[Lock] = []
            for path, uuid in self._lock_paths(uuids):
                lock = Lock.take(path)
                if lock is None:
                    busy = busy or _owner(uuid, others)
                    break
                locks.append(lock)
            else:
                return Turn(Lease(uuids, locks))
            for lock in locks:
                lock.release()
        return Turn(waiting_for=busy)

    def _lock_paths(self, uuids: list[str]) -> list[tuple[Path, str]]:
        if not uuids:
            return [(self.home.cpu_lock, "")] if self.takes_cpu else []
        return [(runtime_folder() / f"gpu-{uuid}", uuid) for uuid in sorted(uuids)]  # sorted: two who want both cannot cross


def _hides_all(said: str | None) -> bool:
    """Whether CUDA_VISIBLE_DEVICES says that no GPU is to be used: set and empty, -1, or Slurm's word for it."""
    return said is not None and said.strip() in ("", "-1", "NoDevFiles")


def _key(name: str, record: Record) -> Key:
    return (record.priority, record.queued_at, name)


def _owner(uuid: str, others: list[Other]) -> str:
    """Who holds a device, by the records of this home."""
    what = f"GPU {uuid}" if uuid else "the CPU"
    for one in others:
        holds = uuid in one.record.gpus if uuid else not one.record.gpus
        if holds and one.record.status != "queued":
            return f"{one.name} ({what})"
    return f"a session of another home ({what})" if uuid else what
