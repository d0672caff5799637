"""The overview of a session: how it stands, what comes next, its attempts with their reasons, its files."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from fluxtui.persist.sessions.overview import Overview
from fluxtui.persist.sessions.record import Record
from fluxtui.screens.drawing import words
from fluxtui.screens.drawing.glyphs import ROLES
from fluxtui.screens.drawing.ink import Line, Span, wrapped
from fluxtui.screens.drawing.terminal_kind import Tier
from fluxtui.screens.keys.dispatch import first_key
from fluxtui.screens.pages.reader import Reader
from fluxtui.screens.panels.attempts import attempts_lines
from fluxtui.screens.panels.next_step import next_step, step_lines
from fluxtui.screens.panels.selected import guard_words
from fluxtui.screens.panels.session_row import gpu_words
from fluxtui.screens.watching.watch import Detail

LABEL = 14  # cells
BESIDE = 116  # cells from which the attempts stand beside the facts
FACTS = 90  # cells of the facts then, at most
ATTEMPTS = 90  # cells of the attempts, at most: times far from what they belong to are not read
GAP = 3


class OverviewPage(Reader):
    """Facts by label, then the attempts."""

    def __init__(self, session: Overview) -> None:
        super().__init__()
        self.session: Overview | None = session
        self.detail: Detail | None = None

    def take_session(self, session: Overview | None) -> None:
        self.session = session
        self.repaint()

    def take_detail(self, detail: Detail) -> None:
        self.detail = detail
        self.repaint()

    def copied(self) -> tuple[str, str]:
        session = self.session
        if session is None:
            return "", ""
        return (session.output, "the file's path") if session.output else (str(session.path), "the folder's path")

    def text(self, width: int) -> list[Line]:
        session = self.session
        if session is None:
            return [Line(Span("This session is gone: its folder was deleted or moved.", "dim"))]
        lines = [Line()]
        role = ROLES.get(session.state, "text")
        if session.reason:
            lines += _fact("why", session.reason, width, role if role not in {"good", "dim"} else "text")
        lines += self._next(session, width)
        facts_width = width if width < BESIDE else min(width // 2, FACTS)
        told = [Line()]
        for label, value in facts(session, self.detail):
            told += _fact(label, value, facts_width - (GAP if facts_width < width else 0))
        tried = self._attempts(width if facts_width == width else min(width - facts_width, ATTEMPTS))
        if facts_width == width:
            return lines + told + tried
        rows = zip_longest(told, tried, fillvalue=Line())
        return lines + [Line(*left.spans).to(facts_width).extend(right) for left, right in rows]

    def _next(self, session: Overview, width: int) -> list[Line]:
        """The one key that comes next and what it does, over as many lines as it takes."""
        step = next_step(session)
        if not (step.action or step.first):
            return []
        key = first_key(self.app, step.action, self.glyphs.tier is Tier.ASCII) if step.action else ""
        lines = step_lines(step, key, max(8, width - LABEL))
        return [Line(Span(("" if at else "next").ljust(LABEL), "dim")).extend(line) for at, line in enumerate(lines)]

    def _attempts(self, width: int) -> list[Line]:
        records: Sequence[tuple[int, Record | None, str]] = self.detail.records if self.detail else ()
        lines = [Line(), Line(Span("attempts", "!text"))] if records else []
        return lines + attempts_lines(records, self.session, width, self.glyphs)


def facts(session: Overview, detail: Detail | None) -> list[tuple[str, str]]:
    """What there is to know, label by label; what is not known is left out."""
    record = session.record
    spec = detail.spec if detail else None
    found: list[tuple[str, str]] = [("title", session.title)]
    if session.attempt:
        done = f"{session.standing} of {session.steps} steps" if session.steps else f"{session.standing} steps"
        done += f" ({session.step} reached; it goes on from {session.standing})" if session.standing < session.step else ""
        epochs = f", epoch {session.epoch} of {session.epochs}" if session.epochs else ""
        found.append(("done", f"{done}{epochs}"))
    if session.step_seconds is not None:
        found.append(("speed", f"{words.step_time(session.step_seconds)} s a step"))
    if session.state == "running" and session.eta_seconds:
        found.append(("left", words.duration(session.eta_seconds)))
    found.append(("stops", session.stop_words.removeprefix("stops ")))
    if session.loss is not None:
        found.append(("loss", f"{words.loss(session.loss)}, mean of the last steps, 50 at most"))
    if session.is_active and spec is not None:
        found.append(("guard", (record.amber if record else "") or guard_words(session, spec.guard)))
    if record is not None:
        found += [
            ("runs on", f"{gpu_words(session, {})}{f', {record.threads} threads' if record.threads else ''} of {record.host}"),
            ("GPU", ", ".join(session.gpus)),
            ("memory", session.memory_words),
            ("GPU hint", record.gpu_hint),
            ("not exact", f"since step {record.inexact_since}" if record.inexact_since is not None else ""),
            ("exit", f"code {record.exit_code}" if record.exit_code is not None else record.signal),
            ("times", _times(session)),
        ]
        if record.proof is not None and record.proof.ok:
            proof = record.proof
            checks = words.count(len(proof.checks), "check")
            found.append(("proof", f"{checks}, {words.size(proof.size)}, tensors {proof.tensors_sha256[:16]}"))
    if spec is not None:
        found += [("model", spec.model.source), ("data set", ", ".join([spec.dataset.path, *spec.dataset.folders]))]
        found.append(("trigger", spec.dataset.trigger))
        train = spec.train
        recipe = f"rank {spec.lora.rank}, rate {train.learning_rate:g}, batch {train.batch_size}, seed {train.seed}"
        found.append(("recipe", recipe))
    elif detail is not None and detail.spec_problem:
        found.append(("spec", detail.spec_problem))
    found += [
        ("checkpoint", session.checkpoint),
        ("file", words.place(session.output)),
        ("folder", words.place(str(session.path))),
    ]
    return [(label, value) for label, value in found if value]


def _times(session: Overview) -> str:
    parts = []
    if session.started_at:
        parts.append(f"started {words.clock(session.started_at)}")
    if session.finished_at:
        parts.append(f"ended {words.clock(session.finished_at)}")
        if session.started_at and session.finished_at >= session.started_at:  # a clock may have been set back meanwhile
            parts.append(f"took {words.duration((session.finished_at - session.started_at).total_seconds())}")
    return ", ".join(parts)


def _fact(label: str, value: str, width: int, role: str = "text") -> list[Line]:
    pieces = wrapped(value, max(8, width - LABEL))
    return [Line(Span((label if not at else "").ljust(LABEL), "dim"), Span(piece, role)) for at, piece in enumerate(pieces)]
