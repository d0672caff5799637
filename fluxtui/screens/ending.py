"""Sessions that have just ended, in words; and the terminal's title."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fluxtui.persist.overview import Overview
from fluxtui.persist.record import ACTIVE
from fluxtui.screens import words


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
        return f"{session.name} completed and proven: {session.step} steps{loss}", "good"
    if session.state == "stopped":
        where = f", checkpoint {session.checkpoint}" if session.checkpoint else ""
        return f"{session.name} stopped at step {session.step}{where}", "info"
    return f"{session.name} {session.state}: {session.reason}", "bad" if session.state == "failed" else "warn"


def title_of(sessions: Iterable[Overview]) -> str:
    """ "fluxtui 43 % 12m": the training that is nearest to its end, and how many others go on."""
    training = [session for session in sessions if session.is_active and session.steps]
    if not training:
        return "fluxtui"
    nearest = min(training, key=lambda session: session.eta_seconds if session.eta_seconds is not None else float("inf"))
    title = f"fluxtui {words.percent(nearest.step, nearest.steps)} {words.duration(nearest.eta_seconds)}".strip()
    return title + (f" +{len(training) - 1}" if len(training) > 1 else "")
