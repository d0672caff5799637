"""What comes next for a session: what is to be put right first, then the one key that helps, and what it does."""

from __future__ import annotations

import re
from typing import NamedTuple

from fluxtui.persist.sessions.overview import Overview
from fluxtui.screens.drawing import words
from fluxtui.screens.drawing.ink import Line, Span, wrapped

_GOES_ON = re.compile(r"^ (goes on from the last checkpoint|starts from step 0: there is no checkpoint yet)")


class Step(NamedTuple):
    """ "fix what fluxtui check names, then r resumes from step 200"."""

    action: str  # by its name in the table of actions; "" where no key does it, and `first` says all
    text: str  # what its key does
    first: str = ""  # what is to be done before


def next_step(session: Overview) -> Step:
    """The action that comes next and what it does, in words."""
    match session.state:
        case "new":
            return Step("start", "starts it")
        case "failed" | "stopped" | "lost" if session.is_resumable:
            return _after(session)
        case "failed" | "stopped" | "lost":
            return Step("log", f"shows the log{'; ' + session.remedy if session.remedy else ''}")
        case "completed":
            return Step("copy", f"copies its path; 4 E exports it, v proves it again  {words.place(session.output)}")
        case "changed":
            return Step("resume", "makes the file again from the last checkpoint")
        case "unreadable":
            return Step("resume", "goes on from the checkpoints") if session.is_resumable else Step("log", "shows its log")
    return _of_active(session)


def _of_active(session: Overview) -> Step:
    match session.state:
        case "queued":
            return Step("stop", "takes it out of the queue")
        case "stopping":
            return Step("kill", "ends it at once")
        case "stalled" | "suspended" | "storage" | "silent":
            return Step("log", "shows its log; K ends it at once")
        case "running" | "starting" if session.stop_words:
            return Step("stop", "stops it now, with a checkpoint; q leaves, training goes on")
        case "running" | "starting" | "elsewhere":
            return Step("stop", "stops it with a checkpoint; q leaves, training goes on")
    return Step("", "")


def _after(session: Overview) -> Step:
    """Of one that has ended and may be resumed: where the same would fail again, its remedy comes before the key, or is another
    key's. The remedy names its commands as docs/recovery.md does; the one that a key does is said by the key."""
    remedy, name = session.remedy, re.escape(session.name)
    if "--accept-changes" in f"{session.reason} {remedy}":
        return Step("resume", "asks whether to go on with the changes", "put back what changed; or")
    resumes = f"resumes from {session.checkpoint}" if session.checkpoint else "resumes from the beginning"
    again = re.search(rf"fluxtui resume {name}(?![\w-])", remedy)
    anew = re.search(r"fluxtui new ", remedy)
    if anew and not (again and again.start() < anew.start()):
        what = re.sub(r"^make one", "makes one", remedy[: anew.start()].rstrip(" :"))
        what = what if what.startswith("makes one") else f"makes one like it, where you {what}"
        return Step("clone", f"{what}; or {remedy[anew.start() :]}")
    if again and remedy[again.end() :].startswith(" --"):
        return Step("", "", remedy)
    if again:
        rest = _GOES_ON.sub("", remedy[again.end() :])
        return Step("resume", resumes + rest, re.sub(r"^then$", "", remedy[: again.start()].strip()))
    return Step("resume", resumes, f"{remedy}; then" if remedy else "")


def step_lines(step: Step, key: str, width: int) -> list[Line]:
    """The words of a step in lines of that width, its key in the accent's colour wherever it comes to stand."""
    if not key:
        return [Line(Span(piece, "dim")) for piece in wrapped(step.first, width)]
    if not step.first:
        pieces = wrapped(step.text, max(1, width - len(key) - 1))
        lines = [Line(Span(key, "!accent"), " ", Span(pieces[0], "dim"))]
        return lines + [Line(" " * (len(key) + 1), Span(piece, "dim")) for piece in pieces[1:]]
    *before, last = wrapped(step.first, width)
    pieces = wrapped(f"{last} {key} {step.text}", width)
    lines = [Line(Span(piece, "dim")) for piece in before]
    if not pieces[0].startswith(f"{last} {key}"):  # no room for the key: it begins a line of its own
        return [*lines, Line(Span(last, "dim")), *step_lines(Step(step.action, step.text), key, width)]
    rest = pieces[0][len(last) + 1 + len(key) :]
    lines.append(Line(Span(f"{last} ", "dim"), Span(key, "!accent"), Span(rest, "dim")))
    return lines + [Line(Span(piece, "dim")) for piece in pieces[1:]]
