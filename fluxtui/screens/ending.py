"""Sessions that have just ended, in words; and the terminal's title."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fluxtui.persist.sessions.overview import Overview
from fluxtui.persist.sessions.record import ACTIVE
from fluxtui.screens.drawing import words
from fluxtui.screens.panels.sessions import ATTENTION

MOST_NAMED = 6  # sessions in one line


def endings(before: Mapping[str, Overview], after: Mapping[str, Overview]) -> list[tuple[str, str]]:
    """For each session that was active and is not any more: what to say, and its mood."""
    said = []
    for name, session in after.items():
        was = before.get(name)
        if was is None or was.status not in ACTIVE or was.state in {"lost", "elsewhere"}:
            continue
        if session.status in ACTIVE and session.state != "lost":
            continue
        said.append(_ending(session))
    return said


def _ending(session: Overview) -> tuple[str, str]:
    if session.state == "completed":
        loss = f", loss {words.loss(session.loss)}" if session.loss is not None else ""
        return f"{session.name} completed and proven: {words.count(session.step, 'step')}{loss}", "good"
    if session.state == "stopped":
        where = f", checkpoint {session.checkpoint}" if session.checkpoint else ""
        if session.started_at is None:
            return f"{session.name} {session.reason}", "info"
        how = "killed by you" if session.reason == "killed by you" else "stopped"
        return f"{session.name} {how} at step {session.step}{where}", "info"
    return f"{session.name} {session.state}: {session.reason}", "bad" if session.state == "failed" else "warn"


def goodbye(sessions: Iterable[Overview]) -> list[str]:
    """What to say when the UI is left, a line each: what trains, what waits, what needs somebody."""
    parts: dict[str, list[str]] = {"training goes on: ": [], "waiting: ": [], "need attention: ": []}
    for session in sorted(sessions, key=lambda session: session.name):
        if session.state in ATTENTION:
            parts["need attention: "].append(f"{session.name} {session.state}")
        elif session.state == "queued":
            parts["waiting: "].append(session.name)
        elif session.is_active:
            share = words.percent(session.step, session.steps) if session.state == "running" else ""
            parts["training goes on: "].append(f"{session.name} {share or session.state}")
    return [head + _listed(names) for head, names in parts.items() if names]


def _listed(names: list[str]) -> str:
    """A few of them, and how many more."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def title_of(sessions: Iterable[Overview]) -> str:
    """ "fluxtui 43 % 12m": the training that is nearest to its end, and how many others go on."""
    training = [session for session in sessions if session.is_active and session.steps]
    if not training:
        return "fluxtui"
    nearest = min(training, key=lambda session: session.eta_seconds if session.eta_seconds is not None else float("inf"))
    title = f"fluxtui {words.percent(nearest.step, nearest.steps)} {words.duration(nearest.eta_seconds)}".strip()
    return title + (f" +{len(training) - 1}" if len(training) > 1 else "")
