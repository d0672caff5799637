"""GPU, CPU, memory and disk: one line where room is short, bars with a short history where it is not."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from fluxtui.screens import words
from fluxtui.screens.chart import meter, sparkline
from fluxtui.screens.ink import Line, Span, shorten, wrapped
from fluxtui.screens.pane import Pane

if TYPE_CHECKING:
    from fluxtui.gpu import Gpu, Gpus, HostGauges

KEPT = 120  # readings of history
HISTORY_EVERY = 5  # readings between two points of the history: it is redrawn as a whole, which costs bytes


class Gauges(Pane):
    """What the machine has and uses."""

    DEFAULT_CSS: ClassVar[str] = "Gauges { height: 1; }"
    can_focus = False

    def __init__(self, id: str | None = None, frame: str = "bare") -> None:
        super().__init__(id=id, frame=frame)
        self.host: HostGauges | None = None
        self.gpus: Gpus | None = None
        self.has_history = False
        self.owners: Mapping[int, str] = {}  # pid of a rank -> session
        self._cpu: deque[float | None] = deque(maxlen=KEPT)
        self._gpu: dict[str, deque[float | None]] = {}
        self._readings = 0

    def take(self, host: HostGauges | None, gpus: Gpus | None) -> None:
        """A new reading."""
        self.host, self.gpus = host, gpus
        if self._readings % HISTORY_EVERY == 0:
            if host is not None:
                self._cpu.append(host.cpu_percent)
            for gpu in gpus.devices if gpus else ():
                self._gpu.setdefault(gpu.uuid, deque(maxlen=KEPT)).append(gpu.utilisation)
        self._readings += 1
        self.repaint()

    def heading(self) -> Line:
        return Line(Span("machine", "text"))

    def body(self, width: int, height: int) -> list[Line]:
        if self.frame == "bare":
            return [self._in_one_line(width)]
        return self._rows(width, height)

    def _in_one_line(self, width: int) -> Line:
        line = Line(" ")
        for part in self._short():
            if line.width + part.width + 3 > width:
                left = width - line.width - 4
                if left > 8:
                    line.add("   " if line.width > 1 else "").extend(part.cut(left)).add(self.glyphs.ellipsis, "dim")
                break
            line.add("   " if line.width > 1 else "").extend(part)
        return line

    def _short(self) -> list[Line]:
        parts = []
        for gpu in self.gpus.devices if self.gpus else ():
            busy = "n/a" if gpu.utilisation is None else f"{gpu.utilisation:.0f}%"
            parts.append(
                Line(
                    Span(f"GPU{gpu.index} ", "dim"),
                    Span(f"{busy} ", _role(gpu.utilisation)),
                    Span(f"{words.size(gpu.memory_used)}/{words.size(gpu.memory_total)}", "text"),
                )
            )
        if self.host is not None:
            host = self.host
            parts += [
                Line(Span("CPU ", "dim"), Span(f"{host.cpu_percent:.0f}%".rjust(4), "text")),
                Line(
                    Span("mem ", "dim"),
                    Span(
                        f"{words.size(host.memory_used)}/{words.size(host.memory_total)}",
                        _fullness(host.memory_used, host.memory_total),
                    ),
                ),
                Line(
                    Span("disk ", "dim"),
                    Span(f"{words.size(host.disk_free)} free", _fullness(host.disk_total - host.disk_free, host.disk_total)),
                ),
            ]
        if self.gpus is not None and not self.gpus.devices:
            parts.append(Line(Span("GPU n/a: ", "dim"), Span(self.gpus.why, "dim")))
        return parts

    def _rows(self, width: int, height: int) -> list[Line]:
        lines: list[Line] = []
        for gpu in self.gpus.devices if self.gpus else ():
            lines += self._gpu_rows(gpu, width)
        if self.gpus is not None and self.gpus.devices and self.gpus.why:
            lines += [Line(Span(piece, "warn")) for piece in wrapped(self.gpus.why, width)[:2]]
        if self.gpus is not None and not self.gpus.devices:
            pieces = wrapped(f"n/a: {self.gpus.why}", max(8, width - 8))[:2]
            lines += [
                Line(Span("GPU     " if at == 0 else " " * 8, "dim"), Span(piece, "dim")) for at, piece in enumerate(pieces)
            ]
        if self.host is not None:
            host = self.host
            lines.append(self._bar("CPU", host.cpu_percent / 100, f"{host.cpu_percent:.0f}%", width, "text"))
            if self.has_history:
                lines.append(self._trail(self._cpu, width))
            lines.append(
                self._bar(
                    "memory",
                    host.memory_used / max(1, host.memory_total),
                    f"{words.size(host.memory_used)}/{words.size(host.memory_total)}",
                    width,
                    _fullness(host.memory_used, host.memory_total),
                )
            )
            used = host.disk_total - host.disk_free
            lines.append(
                self._bar(
                    "disk",
                    used / max(1, host.disk_total),
                    f"{words.size(host.disk_free)} free",
                    width,
                    _fullness(used, host.disk_total),
                )
            )
        return lines[:height]

    def _gpu_rows(self, gpu: Gpu, width: int) -> list[Line]:
        name = Line(Span(f"GPU {gpu.index}   ", "!text"), Span(shorten(gpu.name, width - 8, self.glyphs.ellipsis), "dim"))
        busy = gpu.utilisation
        rows = [name, self._bar("  busy", (busy or 0.0) / 100, "n/a" if busy is None else f"{busy:.0f}%", width, _role(busy))]
        if self.has_history:
            rows.append(self._trail(self._gpu.get(gpu.uuid, deque()), width))
        facts = self._heat(gpu)
        if facts.spans:
            rows.append(facts)
        memory = f"{words.size(gpu.memory_used)}/{words.size(gpu.memory_total)}"
        rows.append(
            self._bar(
                "  memory",
                gpu.memory_used / max(1, gpu.memory_total),
                memory,
                width,
                _fullness(gpu.memory_used, gpu.memory_total),
            )
        )
        return rows

    def _heat(self, gpu: Gpu) -> Line:
        """Power against its limit, temperature, and whose memory it is."""
        line = Line()
        if gpu.power_watts is not None:
            limit = f" of {gpu.power_limit_watts:.0f}" if gpu.power_limit_watts else ""
            line.add(f"{gpu.power_watts:.0f}{limit} W", "dim")
        if gpu.temperature_celsius is not None:
            line.add("  " if line.spans else "").add(f"{gpu.temperature_celsius:.0f} °C", _hot(gpu.temperature_celsius))
        for pid, used in sorted(gpu.processes.items(), key=lambda item: -item[1])[:3]:
            line.add("  " if line.spans else "").add(f"{self.owners.get(pid, 'other')} {words.size(used)}", "dim")
        return Line(" " * 9).extend(line) if line.spans else line

    def _bar(self, name: str, share: float, value: str, width: int, role: str) -> Line:
        room = max(0, width - 9 - 12)
        full, rest = meter(share, room, self.glyphs.tier)
        return Line(
            Span(name.ljust(9), "dim"),
            Span(full, "chart" if role == "text" else role),
            Span(rest, "faint"),
            Span(value.rjust(12), role),
        )

    def _trail(self, values: deque[float | None], width: int) -> Line:
        room = max(0, width - 9 - 12)
        shown = list(values)[-room:] if room else []
        return Line(" " * 9, Span(" " * (room - len(shown)), "text"), Span(sparkline(shown, 0, 100, self.glyphs.tier), "trace"))


def _role(utilisation: float | None) -> str:
    return "dim" if utilisation is None else "good" if utilisation >= 50 else "text"


def _hot(celsius: float) -> str:
    return "bad" if celsius >= 90 else "warn" if celsius >= 84 else "dim"


def _fullness(used: float, total: float) -> str:
    share = used / total if total else 0.0
    return "bad" if share > 0.97 else "warn" if share > 0.9 else "text"
