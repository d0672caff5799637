"""The machine's figures as lines: one for all, or some for each GPU and for the host, in as much room as there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fluxtui.screens.drawing import words
from fluxtui.screens.drawing.chart import meter, sparkline
from fluxtui.screens.drawing.glyphs import Glyphs
from fluxtui.screens.drawing.ink import Line, Span, shorten, wrapped
from fluxtui.screens.drawing.terminal_kind import Tier

if TYPE_CHECKING:
    from fluxtui.gpu import Gpu, Gpus, HostGauges

LABEL = 9  # cells before a bar
VALUE = 12  # cells behind it
BARS_FROM = 72  # cells of a GPU's one line that its figures take; what is over goes to two bars
WIDEST_BAR = 24
HOST_FIRST = 2  # parts of the host's line that count before how much the GPUs tell: disk and network give way
BEFORE_NETWORK = 3  # parts: why there is no GPU tells more than the network
OTHERS = "others"  # whose memory it is where it is no session's
FIGURES = {  # of `Gpu.missing`, in the words of the panel
    "memory": "memory",
    "utilisation": "busy",
    "power_watts": "power",
    "power_limit_watts": "power limit",
    "temperature_celsius": "temperature",
    "slowed_by": "throttling",
    "processes": "memory by session",
}


@dataclass(frozen=True, slots=True)
class Painting:
    """What lines are made with."""

    glyphs: Glyphs
    owners: Mapping[int, str]  # pid of a rank -> session
    traces: Mapping[str, Sequence[float | None]]  # GPU's UUID, or "" for the CPU -> its history in per cent; empty: not shown

    @property
    def celsius(self) -> str:
        return "C" if self.glyphs.tier is Tier.ASCII else "°C"


# All in one line


def in_one_line(host: HostGauges | None, gpus: Gpus | None, width: int, painting: Painting) -> Line:
    """The richest wording of the GPUs that leaves room for the host; what then does not fit is cut with a mark."""
    behind = _host_parts(host)
    devices = gpus.devices if gpus else ()
    if gpus is not None and gpus.why:
        said = Line(Span("" if devices else "GPU n/a: ", "dim"), Span(gpus.why, "warn" if devices else "dim"))
        behind.insert(len(behind) if devices else BEFORE_NETWORK, said)
    wordings = [_each(devices, painting, with_heat) for with_heat in (True, False)]
    wordings += [_together(devices, with_each) for with_each in (True, False)]
    first = behind[:HOST_FIRST] if devices else behind
    needed = [_needed(wording + first) for wording in wordings]
    chosen = next((wording for wording, need in zip(wordings, needed, strict=True) if need <= width), wordings[-1])
    line = Line(" ")
    for part in chosen + behind:
        gap = 3 if line.width > 1 else 0
        room = width - line.width - gap
        if part.width > room and (line.width + 12 > width or part.width < 30):
            line.add(" ").add(painting.glyphs.ellipsis, "dim")  # a figure that is cut says another one
            break
        if part.width > room and (end := _clause(part.text, room - len(painting.glyphs.ellipsis))):
            line.add(" " * gap).extend(part.cut(end)).add(painting.glyphs.ellipsis, "dim")
            break
        line.add(" " * gap).extend(part)
    return cut_marked(line, width, painting.glyphs.ellipsis)


def _clause(text: str, room: int) -> int:
    """Where the last whole clause of a sentence ends that fits, in cells; 0 where none does. The panel has all of it."""
    return max(0, *(text.rfind(mark, 0, max(0, room) + len(mark)) for mark in ("; ", ", ", " (", ": ")))


def _needed(parts: Sequence[Line]) -> int:
    return 1 + sum(part.width + 3 for part in parts)


def _host_parts(host: HostGauges | None) -> list[Line]:
    if host is None:
        return []
    memory = f"{words.size(host.memory_used)}/{words.size(host.memory_total)}"
    parts = [
        Line(Span("CPU ", "dim"), Span(f"{host.cpu_percent:.0f}%".rjust(4), "text")),
        Line(Span("mem ", "dim"), Span(memory, _fullness(host.memory_used, host.memory_total))),
        Line(
            Span("disk ", "dim"),
            Span(f"{words.size(host.disk_free)} free", _fullness(host.disk_total - host.disk_free, host.disk_total)),
        ),
    ]
    if host.network_read is not None and host.network_written is not None:
        parts.append(Line(Span("net ", "dim"), Span(_rates(host))))
    return parts


def _each(devices: Sequence[Gpu], painting: Painting, with_heat: bool) -> list[Line]:
    """A part a GPU."""
    parts = []
    for gpu in devices:
        part = Line(Span(f"GPU{gpu.index} ", "dim"), Span(f"{_busy(gpu)} ", _role(gpu.utilisation)), Span(_memory(gpu)))
        if with_heat:
            part.extend(_heat(gpu, painting))
        if gpu.slowed_by:
            part.add(f" slowed: {gpu.slowed_by[0]}" if with_heat else " slowed", "warn")
        parts.append(part)
    return parts


def _together(devices: Sequence[Gpu], with_each: bool) -> list[Line]:
    """One part for all of them."""
    if not devices:
        return []
    busy = [gpu.utilisation for gpu in devices]
    known = [value for value in busy if value is not None]
    mean = sum(known) / len(known) if known else None
    shares = " ".join("n/a" if value is None else f"{value:.0f}" for value in busy) if with_each else _percent(mean).rstrip("%")
    used, total = sum(gpu.memory_used for gpu in devices), sum(gpu.memory_total for gpu in devices)
    part = Line(Span(f"{words.count(len(devices), 'GPU')} ", "dim"), Span(f"{shares}% ", _role(mean)))
    part.add(f"{words.size(used)}/{words.size(total)}" if total else "n/a")
    slowed = sum(bool(gpu.slowed_by) for gpu in devices)
    return [part.add(f" {slowed} slowed" if slowed else "", "warn")]


# Line by line


def gpu_lines(gpus: Gpus | None, width: int, room: int, painting: Painting) -> list[Line]:
    """All GPUs, in the richest form that fits so many lines; the plainest where none does. What is missing is said below them."""
    if gpus is None:
        return []
    if not gpus.devices:
        pieces = wrapped(f"n/a: {gpus.why}", max(8, width - 8))
        return [Line(Span("GPU     " if at == 0 else " " * 8, "dim"), Span(piece, "dim")) for at, piece in enumerate(pieces)]
    said = notes(gpus, width)
    lines: list[Line] = []
    for form in (_full, _pair, _single):
        lines = [line for gpu in gpus.devices for line in form(gpu, width, painting)] + said
        if len(lines) <= room:
            break
    return lines


def notes(gpus: Gpus, width: int) -> list[Line]:
    """Why figures are missing, and of which GPUs; one sentence for all that miss the same for the same reason."""
    missing: dict[tuple[str, str], list[int]] = {}
    for gpu in gpus.devices:
        for name, why in gpu.missing.items():
            missing.setdefault((FIGURES.get(name, name), why), []).append(gpu.index)
    found = [(f"{numbers(where)} {name} n/a: {why}", "dim") for (name, why), where in missing.items()]
    found += [(gpus.why, "warn")] if gpus.why else []
    return [Line(Span(piece if not at else f"  {piece}", role)) for text, role in found
            for at, piece in enumerate(wrapped(text, max(8, width - 2)))]  # fmt: skip


def numbers(indices: Sequence[int]) -> str:
    """ "0", "0-3", "0,2,5-7"."""
    found: list[list[int]] = []
    for index in sorted(set(indices)):
        if found and index == found[-1][1] + 1:
            found[-1][1] = index
        else:
            found.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def _full(gpu: Gpu, width: int, painting: Painting) -> list[Line]:
    glyphs = painting.glyphs
    name = Line(Span(f"GPU {gpu.index}   ", "!text"), Span(shorten(gpu.name, width - 8, glyphs.ellipsis), "dim"))
    rows = [name, _bar("  busy", (gpu.utilisation or 0.0) / 100, _busy(gpu), width, _role(gpu.utilisation), glyphs)]
    if gpu.uuid in painting.traces:
        rows.append(_trail(painting.traces[gpu.uuid], width, glyphs))
    share = gpu.memory_used / max(1, gpu.memory_total)
    rows.append(_bar("  memory", share, _memory(gpu), width, _fullness(gpu.memory_used, gpu.memory_total), glyphs))
    rows.append(Line(" " * (LABEL - 1)).extend(_heat(gpu, painting)))
    if gpu.slowed_by:
        pieces = wrapped(f"slowed: {', '.join(gpu.slowed_by)}", max(8, width - LABEL))
        rows += [Line(" " * LABEL, Span(piece, "warn")) for piece in pieces]
    owned = _owned(gpu, painting)
    if owned:
        rows += [Line(" " * LABEL, Span(piece, "dim")) for piece in wrapped("  ".join(owned), max(8, width - LABEL))]
    return rows


def _pair(gpu: Gpu, width: int, painting: Painting) -> list[Line]:
    glyphs = painting.glyphs
    first = Line(Span(f"GPU {gpu.index}".ljust(LABEL), "!text"))
    room = max(0, width - LABEL - 5 - VALUE)
    full, rest = meter((gpu.utilisation or 0.0) / 100, room, glyphs.tier)
    first.add(full, "chart").add(rest, "faint").add(_busy(gpu).rjust(5), _role(gpu.utilisation))
    first.add(_memory(gpu).rjust(VALUE), _fullness(gpu.memory_used, gpu.memory_total))
    second = Line(" " * (LABEL - 1)).extend(_heat(gpu, painting))
    second.extend(_owned_and_slowed(gpu, painting, width - second.width))
    return [first, cut_marked(second, width, glyphs.ellipsis)]


def _single(gpu: Gpu, width: int, painting: Painting) -> list[Line]:
    """One line a GPU, with bars where there is room for both."""
    line = Line(Span(f"{gpu.index:>2} ", "!text"), Span(_busy(gpu).rjust(4), _role(gpu.utilisation)))
    room = min(WIDEST_BAR, (width - BARS_FROM) // 2)
    share = gpu.memory_used / max(1, gpu.memory_total)
    if room >= 8:
        full, rest = meter((gpu.utilisation or 0.0) / 100, room, painting.glyphs.tier)
        line.add(" ").add(full, "chart").add(rest, "faint").add(" ")
    line.add(f" {_memory(gpu)}", _fullness(gpu.memory_used, gpu.memory_total))
    if room >= 8:
        full, rest = meter(share, room, painting.glyphs.tier)
        line.to(3 + 4 + room + 3 + VALUE).add(" ").add(full, "chart").add(rest, "faint").add(" ")
    line.extend(_heat(gpu, painting))
    line.extend(_owned_and_slowed(gpu, painting, width - line.width))
    return [cut_marked(line, width, painting.glyphs.ellipsis)]


def _owned_and_slowed(gpu: Gpu, painting: Painting, room: int) -> Line:
    """Behind the heat: what is worth most first, for the rest may be cut; whose the rest is only where there is room."""
    line = Line()
    owned = _owned(gpu, painting)
    line.add("".join(f"  {one}" for one in owned if not one.startswith(OTHERS)), "dim")
    line.add(f"  slowed: {', '.join(gpu.slowed_by)}" if gpu.slowed_by else "", "warn")
    others = "".join(f"  {one}" for one in owned if one.startswith(OTHERS))
    return line.add(others, "dim") if line.width + len(others) <= room else line


def _heat(gpu: Gpu, painting: Painting) -> Line:
    """Power against its limit, and temperature; with a blank before them."""
    line = Line()
    if gpu.power_watts is None:
        line.add(" n/a W", "dim")
    else:
        limit = f"/{gpu.power_limit_watts:.0f}" if gpu.power_limit_watts else ""
        line.add(f" {gpu.power_watts:.0f}{limit} W", "dim")
    if gpu.temperature_celsius is None:
        return line.add(f" n/a {painting.celsius}", "dim")
    return line.add(f" {gpu.temperature_celsius:.0f} {painting.celsius}", _hot(gpu.temperature_celsius))


def _owned(gpu: Gpu, painting: Painting) -> list[str]:
    """Whose memory it is: each session's processes, then everybody else's together."""
    shares: dict[str, int] = {}
    for pid, used in gpu.processes.items():
        name = painting.owners.get(pid, OTHERS)
        shares[name] = shares.get(name, 0) + used
    ordered = sorted(shares.items(), key=lambda item: (item[0] == OTHERS, -item[1]))
    return [f"{name} {words.size(used) if used else 'n/a'}" for name, used in ordered]


def host_lines(host: HostGauges | None, width: int, painting: Painting) -> list[Line]:
    """CPU, memory, disk, network: a line each, and the CPU's history where there is one."""
    if host is None:
        return []
    glyphs = painting.glyphs
    rows = [_bar("CPU", host.cpu_percent / 100, f"{host.cpu_percent:.0f}%", width, "text", glyphs)]
    if "" in painting.traces:
        rows.append(_trail(painting.traces[""], width, glyphs))
    memory = f"{words.size(host.memory_used)}/{words.size(host.memory_total)}"
    share = host.memory_used / max(1, host.memory_total)
    rows.append(_bar("memory", share, memory, width, _fullness(host.memory_used, host.memory_total), glyphs))
    used = host.disk_total - host.disk_free
    free = f"{words.size(host.disk_free)} free"
    rows.append(_bar("disk", used / max(1, host.disk_total), free, width, _fullness(used, host.disk_total), glyphs))
    if host.network_read is not None:
        rows.append(Line(Span("network".ljust(LABEL), "dim"), Span(_rates(host).rjust(max(0, width - LABEL)))))
    return rows


def cut_marked(line: Line, width: int, ellipsis: str) -> Line:
    """The line in at most so many cells, with a mark where something is left out."""
    return line if line.width <= width else line.cut(max(0, width - len(ellipsis))).add(ellipsis, "dim")


def _bar(name: str, share: float, value: str, width: int, role: str, glyphs: Glyphs) -> Line:
    full, rest = meter(share, max(0, width - LABEL - VALUE), glyphs.tier)
    ink = "chart" if role == "text" else role
    return Line(Span(name.ljust(LABEL), "dim"), Span(full, ink), Span(rest, "faint"), Span(value.rjust(VALUE), role))


def _trail(values: Sequence[float | None], width: int, glyphs: Glyphs) -> Line:
    room = max(0, width - LABEL - VALUE)
    shown = list(values)[-room:] if room else []
    return Line(" " * LABEL, Span(" " * (room - len(shown)), "text"), Span(sparkline(shown, 0, 100, glyphs.tier), "trace"))


def _rates(host: HostGauges) -> str:
    return f"{words.size(host.network_read)}/s in, {words.size(host.network_written)}/s out"


def _busy(gpu: Gpu) -> str:
    return _percent(gpu.utilisation)


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.0f}%"


def _memory(gpu: Gpu) -> str:
    return f"{words.size(gpu.memory_used)}/{words.size(gpu.memory_total)}" if gpu.memory_total else "n/a"


def _role(utilisation: float | None) -> str:
    return "dim" if utilisation is None else "good" if utilisation >= 50 else "text"


def _hot(celsius: float) -> str:
    return "bad" if celsius >= 90 else "warn" if celsius >= 84 else "dim"


def _fullness(used: float, total: float) -> str:
    share = used / total if total else 0.0
    return "bad" if share > 0.97 else "warn" if share > 0.9 else "text"
