"""GPU, CPU, memory, disk and network: one line where room is short, a panel to scroll where it has the focus or room."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from textual.binding import BindingType

from fluxtui.screens.drawing.ink import Line, Span
from fluxtui.screens.drawing.pane import Pane
from fluxtui.screens.keys.dispatch import bindings_for
from fluxtui.screens.keys.movement import MovementKeys
from fluxtui.screens.panels.gauge_lines import Painting, gpu_lines, host_lines, in_one_line

if TYPE_CHECKING:
    from fluxtui.gpu import Gpus, HostGauges

KEPT = 120  # readings of history
HISTORY_EVERY = 5  # readings between two points of the history: it is redrawn as a whole, which costs bytes


class Gauges(Pane, MovementKeys):
    """What the machine has and uses. The host's lines stay; the GPUs' are scrolled where they are more than fit."""

    DEFAULT_CSS: ClassVar[str] = "Gauges { height: 1; }"
    BINDINGS: ClassVar[list[BindingType]] = bindings_for("list")
    can_focus = True

    def __init__(self, id: str | None = None, frame: str = "bare") -> None:
        super().__init__(id=id, frame=frame)
        self.host: HostGauges | None = None
        self.gpus: Gpus | None = None
        self.has_history = False
        self.owners: Mapping[int, str] = {}  # pid of a rank -> session
        self._history: dict[str, deque[float | None]] = {"": deque(maxlen=KEPT)}  # "": the CPU's
        self._readings = 0
        self._top = 0
        self._total = self._room = 0  # lines of the GPUs, and how many of them fit

    def take(self, host: HostGauges | None, gpus: Gpus | None) -> None:
        """A new reading."""
        self.host, self.gpus = host, gpus
        if self._readings % HISTORY_EVERY == 0:
            if host is not None:
                self._history[""].append(host.cpu_percent)
            for gpu in gpus.devices if gpus else ():
                self._history.setdefault(gpu.uuid, deque(maxlen=KEPT)).append(gpu.utilisation)
        self._readings += 1
        self.repaint()

    @property
    def indices(self) -> dict[str, int]:
        """UUID of each GPU -> the number that nvidia-smi shows."""
        return {gpu.uuid: gpu.index for gpu in self.gpus.devices} if self.gpus else {}

    def rows_wanted(self, width: int, most: int) -> int:
        """Lines inside the frame for all there is to say, or as many as it may have."""
        painting = self._painting()
        host = len(host_lines(self.host, width, painting))
        return min(most, host + len(gpu_lines(self.gpus, width, most - host, painting)))

    def _painting(self) -> Painting:
        return Painting(self.glyphs, self.owners, self._history if self.has_history else {})

    def heading(self) -> Line:
        return Line(Span("machine", "!text" if self.has_focus else "text"))

    def corner(self, width: int) -> Line:
        if self._total <= self._room or not self._room:  # not laid out yet
            return Line()
        last = min(self._total, self._top + self._room)
        return Line(Span(f"{self._top + 1}-{last} of {self._total}", "dim"))

    def scroll_mark(self, height: int) -> tuple[int, int] | None:
        if self._total <= self._room or not self._room:
            return None
        size = max(1, self._room * self._room // self._total)
        first = round((self._room - size) * self._top / max(1, self._total - self._room))
        return first, first + size - 1

    def body(self, width: int, height: int) -> list[Line]:
        painting = self._painting()
        if self.frame == "bare":
            return [in_one_line(self.host, self.gpus, width, painting)]
        host = host_lines(self.host, width, painting)
        if len(gpu_lines(self.gpus, width, height - len(host), painting)) > height - len(host):
            host = [in_one_line(self.host, None, width, painting)]  # rather than GPUs out of sight
        self._room = max(0, height - len(host))
        lines = gpu_lines(self.gpus, width, self._room, painting)
        self._total = len(lines)
        self._top = max(0, min(self._top, self._total - self._room))
        return lines[self._top : self._top + self._room] + host

    # Moving

    def here(self) -> int:
        return self._top

    def last(self) -> int:
        return max(0, self._total - self._room)

    def page_rows(self) -> int:
        return self._room

    def walk_to(self, place: int) -> None:
        self._top = max(0, min(place, self.last()))
        self.repaint()
