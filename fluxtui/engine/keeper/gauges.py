"""The session's own GPUs as NVML's child sees them: which are free, whose memory is back, and a hint where one idles.

A hint, never a verdict: training is judged by progress alone, and a driver that hangs changes nothing here but the hint.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fluxtui.engine.keeper.process_tree import OWN_CHILD

if TYPE_CHECKING:
    from fluxtui import gpu

_PERIOD = 5.0
_HINT_EVERY = 30.0
_IDLE_BELOW = 5.0  # per cent
_IDLE_SECONDS = 300.0


@dataclass(slots=True)
class Gauges:
    """GPU readings of one keeper. Starts the reading child only where the machine has a driver, or a GPU was asked for."""

    uuids: list[str] = field(default_factory=list)  # of the session's GPUs
    _watch: gpu.GpuWatch | None = None
    _idle_since: float | None = None
    _next_hint: float = 0.0
    _hint: str = ""

    def start(self) -> None:
        if self._watch is None:
            from fluxtui import gpu  # here: a session of the CPU needs none of it

            os.environ[OWN_CHILD] = "1"
            self._watch = gpu.GpuWatch()
            self._watch.start(_PERIOD)

    def stop(self) -> None:
        if self._watch is not None:
            self._watch.stop()
            self._watch = None

    def latest(self) -> gpu.Gpus | None:
        """None where nothing is read; `at` is 0 until the first reading."""
        return None if self._watch is None else self._watch.latest()

    def card_memory(self) -> int:
        """Bytes of the smallest of the session's GPUs, as plans are made with; 0 where the driver does not say."""
        readings = self.latest()
        own = [one.memory_total for one in readings.devices if one.uuid in self.uuids] if readings else []
        return min(own, default=0)

    def hint(self, now: float) -> str:
        """`GPU under 5 % for 300 s`, looked at every 30 s; empty otherwise."""
        if not self.uuids or now < self._next_hint:
            return self._hint
        self._next_hint = now + _HINT_EVERY
        readings = self.latest()
        own = [one for one in readings.devices if one.uuid in self.uuids] if readings else []
        used = [one.utilisation for one in own if one.utilisation is not None]
        if not used or max(used) >= _IDLE_BELOW:
            self._idle_since, self._hint = None, ""
            return ""
        self._idle_since = now if self._idle_since is None else self._idle_since
        if now - self._idle_since >= _IDLE_SECONDS:
            self._hint = f"GPU under {_IDLE_BELOW:.0f} % for {now - self._idle_since:.0f} s"
        return self._hint

    def holds_memory(self, pids: set[int]) -> bool:
        """Whether any of these processes still has memory on the session's GPUs, as far as NVML says."""
        readings = self.latest()
        if not self.uuids or readings is None:
            return False
        return any(pids & set(one.processes) for one in readings.devices if one.uuid in self.uuids)


def has_driver() -> bool:
    """Processes here can reach an NVIDIA driver. Its version under /proc is seen in containers without a GPU too."""
    return Path("/dev/nvidiactl").exists()
