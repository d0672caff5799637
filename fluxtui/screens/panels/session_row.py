"""One line of the sessions panel: which columns fit, and what stands in them."""

from __future__ import annotations

from collections.abc import Mapping

from fluxtui.persist.sessions.overview import Overview
from fluxtui.persist.sessions.record import ACTIVE
from fluxtui.screens.drawing import words
from fluxtui.screens.drawing.glyphs import ROLES, Glyphs
from fluxtui.screens.drawing.ink import Line, Span, fit, shorten
from fluxtui.screens.drawing.terminal_kind import Tier
from fluxtui.screens.panels.gauge_lines import numbers


def columns(width: int, tier: Tier) -> dict[str, int]:
    """The columns that fit a width, with theirs. Name and state are always there."""
    mark = 3 if tier is Tier.EMOJI else 2
    widths = {"name": 12, "state": mark + 10, "step": 11}
    left = width - sum(widths.values()) - 2 * (len(widths) - 1) - 2
    for name, need in (
        ("left", 6),
        ("phase", 10),
        ("loss", 6),
        ("percent", 5),
        ("gpu", 5),
        ("speed", 8),
        ("epoch", 7),
        ("started", 9),
        ("attempt", 3),
    ):
        if left >= need + 2:
            widths[name] = need
            left -= need + 2
    widths["name"] += min(max(left, 0), 24)
    order = ("name", "state", "step", "percent", "phase", "left", "speed", "loss", "epoch", "gpu", "started", "attempt")
    return {name: widths[name] for name in order if name in widths}


TITLES = {
    "name": "NAME",
    "state": "STATE",
    "step": "STEP",
    "percent": "",
    "phase": "PHASE",
    "left": "LEFT",
    "speed": "S/STEP",
    "loss": "LOSS",
    "epoch": "EPOCH",
    "gpu": "GPU",
    "started": "STARTED",
    "attempt": "TRY",
}
RIGHT = frozenset({"step", "percent", "left", "loss", "speed", "epoch", "attempt"})
_ENDS_WITH = {"checkpoint": "saving", "prove": "proof"}  # in six cells; the other phases as they are called
_TELLING = ("percent", "phase", "left", "speed", "loss", "epoch", "gpu")  # give way to the reason where nothing is training


def row(session: Overview, widths: dict[str, int], glyphs: Glyphs, is_selected: bool, gpus: Mapping[str, int]) -> Line:
    """One session; `gpus` are the machine's, UUID -> index."""
    line = Line(Span(glyphs.pointer if is_selected else " ", "!focus"), " ", ground="cursor" if is_selected else "")
    is_training = session.status in ACTIVE and session.state not in {"lost", "queued"} and bool(session.phase)
    if is_training and session.state in {"running", "stopping", "starting"}:
        for at, (name, width) in enumerate(widths.items()):
            line.add("  " if at else "").extend(_cell(session, name, width, glyphs, gpus))
        return line
    told, reason = False, told_of(session)
    for at, (name, width) in enumerate(widths.items()):
        if name in _TELLING and reason:
            if not told:
                room = sum(widths[other] + 2 for other in widths if other in _TELLING) - 2
                line.add("  ").add(fit(reason, room, glyphs.ellipsis), "dim")
                told = True
            continue
        line.add("  " if at else "").extend(_cell(session, name, width, glyphs, gpus))
    return line


def told_of(session: Overview) -> str:
    """What there is to say of a session that does not train now."""
    if session.state == "completed":
        seconds = (
            (session.finished_at - session.started_at).total_seconds() if session.finished_at and session.started_at else None
        )
        return f"proven, {words.count(session.steps, 'step')}" + (f" in {words.duration(seconds)}" if seconds is not None else "")
    return session.reason


def _cell(session: Overview, name: str, width: int, glyphs: Glyphs, gpus: Mapping[str, int]) -> Line:
    """One field of a session in exactly so many cells."""
    if name == "name":
        return Line(Span(fit(session.name, width, glyphs.ellipsis), "!text" if session.is_active else "text"))
    if name == "state":
        role = ROLES.get(session.state, "warn")
        return Line(Span(glyphs.state(session.state) + " ", role), Span(session.state, role)).to(width)
    text, role = _field(session, name, gpus)
    text = shorten(text, width, glyphs.ellipsis)
    pad = " " * (width - len(text))
    return Line(Span(pad + text if name in RIGHT else text + pad, role))


def _field(session: Overview, name: str, gpus: Mapping[str, int]) -> tuple[str, str]:
    match name:
        case "step":
            return (f"{session.standing}/{session.steps}" if session.steps else str(session.standing or "")), "text"
        case "percent":
            return words.percent(session.standing, session.steps), "dim"
        case "phase":
            return str(session.phase or ""), "text"
        case "left":
            if session.state != "running":
                return "", "text"
            is_at_the_end = 0 < session.steps <= session.step  # no step is left, and yet it is not over
            phase = session.phase or ""
            return (_ENDS_WITH.get(phase, phase) if is_at_the_end else words.duration(session.eta_seconds)), "text"
        case "speed":
            return words.step_time(session.step_seconds), "dim"
        case "loss":
            return words.loss(session.loss), "text"
        case "epoch":
            return (f"{session.epoch}/{session.epochs}" if session.epochs else ""), "dim"
        case "gpu":
            return gpu_words(session, gpus), "dim"
        case "started":
            return words.clock(session.started_at), "dim"
        case "attempt":
            return (str(session.attempt) if session.attempt else ""), "dim"
    raise AssertionError(name)


def gpu_words(session: Overview, gpus: Mapping[str, int]) -> str:
    """Where it runs: "cpu", "0", "0-3", or where not all of them are known here, or too many to name, "4 gpus"."""
    if not session.attempt:
        return ""
    if not session.gpus:
        return "cpu"
    known = numbers([gpus[uuid] for uuid in session.gpus if uuid in gpus])
    if all(uuid in gpus for uuid in session.gpus) and len(known) <= 5:
        return known
    return words.count(len(session.gpus), "gpu")
