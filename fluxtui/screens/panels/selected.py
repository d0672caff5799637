"""The selected session: how far it is, what its guard sees, why it ended, the one key that comes next, its loss."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from fluxtui.persist.sessions.overview import Overview
from fluxtui.persist.sessions.record import ACTIVE
from fluxtui.persist.settings.spec import GuardSpec, Spec
from fluxtui.screens.drawing import words
from fluxtui.screens.drawing.chart import meter
from fluxtui.screens.drawing.curve import Curve, captioned, drawn, span_of
from fluxtui.screens.drawing.glyphs import ROLES
from fluxtui.screens.drawing.ink import Line, Span, both_ends, shorten, wrapped
from fluxtui.screens.drawing.pane import Pane
from fluxtui.screens.drawing.terminal_kind import Tier
from fluxtui.screens.keys.dispatch import first_key
from fluxtui.screens.panels.next_step import next_step, step_lines
from fluxtui.screens.watching.history import History

BESIDE = 100  # cells of width from which the chart stands beside the facts
NEXT = 3  # lines of what comes next, at most


class Selected(Pane):
    """Follows the selection of the sessions panel."""

    DEFAULT_CSS: ClassVar[str] = "Selected { height: 8; }"
    can_focus = True

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.session: Overview | None = None
        self.history = History()
        self.spec: Spec | None = None
        self._charted: tuple[object, ...] = ()  # what the chart was drawn from
        self._chart_lines: list[Line] = []

    def take(self, session: Overview | None) -> None:
        """Show this session from now on."""
        if session is None or self.session is None or session.id != self.session.id:
            self.history, self.spec = History(), None
        self.session = session
        self.repaint()

    def take_spec(self, spec: Spec | None) -> None:
        """Its settings: the time-outs, and what is trained."""
        self.spec = spec
        self.repaint()

    def take_history(self, history: History) -> None:
        """The metrics of the session, read anew."""
        self.history = history
        self.repaint()

    def heading(self) -> Line:
        session = self.session
        if session is None:
            return Line(Span("no session", "dim"))
        line = Line(Span(shorten(session.name, 40, self.glyphs.ellipsis), "!text" if self.has_focus else "text"))
        if session.title and session.title != session.name:
            line.add(f" {self.glyphs.dot} ", "faint").add(shorten(session.title, 40, self.glyphs.ellipsis), "dim")
        return line

    def corner(self, width: int) -> Line:
        session = self.session
        if session is None or not session.attempt:
            return Line()
        parts = [f"attempt {session.attempt}"] if session.attempt > 1 else []
        if session.started_at:
            parts.append(f"started {words.clock(session.started_at)}")
        if session.finished_at and session.status not in ACTIVE:
            parts.append(f"ended {words.clock(session.finished_at)}")
        return Line(Span(f" {self.glyphs.dot} ".join(parts), "dim"))

    def body(self, width: int, height: int) -> list[Line]:
        session = self.session
        if session is None:
            return []
        beside = width >= BESIDE and bool(self.history.steps) and height >= 4
        facts_width = 56 if beside else width
        facts = self._facts(session, facts_width, height)
        if not self.history.steps:
            return facts
        if beside:
            chart = self._chart(session, width - facts_width - 3, height)
            facts += [Line() for _ in range(height - len(facts))]
            return [fact.to(facts_width + 3).extend(line) for fact, line in zip(facts[:height], chart, strict=False)]
        room = height - len(facts)
        return facts + (self._chart(session, width, room) if room >= 2 else [])

    def _facts(self, session: Overview, width: int, height: int) -> list[Line]:
        lines = [self._bar(session, width)]
        if session.steps and (session.step or session.status in ACTIVE):
            lines.append(self._speed(session, width))
        if session.status in ACTIVE and session.state in {"running", "stalled", "stopping", "starting"}:
            lines.append(self._guard(session, width))
        if session.stop_words:
            lines.append(Line(Span(session.stop_words, "!warn")))
        reason_room = max(1, min(3, height - len(lines) - 1))
        if session.reason and session.state != "stalled":
            role = ROLES.get(session.state, "text")
            role = "text" if role in {"good", "dim"} else role
            lines += [Line(Span(piece, role)) for piece in wrapped(session.reason, width)[:reason_room]]
        if session.state == "new" and self.spec is not None:
            pieces = wrapped(recipe_words(self.spec), width)
            lines += [Line(Span(piece, "text")) for piece in pieces[: max(0, height - len(lines) - 1)]]
        return lines + self._next(session, width, min(NEXT, height - len(lines)))

    def _bar(self, session: Overview, width: int) -> Line:
        """State or phase, a bar, percent, steps."""
        glyphs = self.glyphs
        role = ROLES.get(session.state, "warn")
        word = str(session.phase) if session.state == "running" and session.phase else session.state
        left = Line(Span(f"{glyphs.state(session.state)} ", role), Span(word, f"!{role}")).to(
            14 if glyphs.tier is not Tier.EMOJI else 15
        )
        if not session.steps:
            inner = session.inner
            return left.add(inner, "dim")
        right = Line(
            Span(words.percent(session.standing, session.steps).rjust(6), "!text"),
            Span(f"  {session.standing} of {session.steps}", "text"),
        )
        room = width - left.width - right.width
        if room < 4:
            return both_ends(left, right, width)
        full, rest = meter(session.standing / session.steps, room, glyphs.tier)
        return left.add(full, role).add(rest, "faint").extend(right)

    def _speed(self, session: Overview, width: int) -> Line:
        """Epoch, speed, time left, loss; what is inside the phase."""
        parts: list[tuple[str, str]] = []
        if session.standing < session.step:
            parts += [(f"{session.step}", " reached"), ("goes on from", f" {session.standing}")]
        if session.step_seconds is not None:
            parts.append((words.step_time(session.step_seconds), " s/step"))
        if session.state in {"running", "stalled"} and session.eta_seconds:
            parts.append((words.duration(session.eta_seconds), " left"))
        if session.loss is not None:
            parts.append((words.loss(session.loss), " loss"))
        if session.epochs:
            parts.append((f"{session.epoch}/{session.epochs}", " epochs"))
        if session.inner and session.status in ACTIVE:
            parts.append((session.inner, ""))
        line = Line()
        for value, unit in parts:
            if line.width + len(value) + len(unit) + 3 > width:
                break
            line.add(f" {self.glyphs.dot} " if line.spans else "", "faint").add(value, "text").add(unit, "dim")
        return line

    def _guard(self, session: Overview, width: int) -> Line:
        """What the guard sees: "guard: step 0.2 s of 300 s", amber where the keeper says so."""
        amber = session.record.amber if session.record else ""
        hint = session.record.gpu_hint if session.record else ""
        if amber:
            return Line(Span("guard: ", "dim"), Span(shorten(amber, width - 7, self.glyphs.ellipsis), "!warn"))
        line = Line(Span("guard: ", "dim"), Span(guard_words(session, self.spec.guard if self.spec else None), "dim"))
        if hint and line.width + len(hint) + 3 <= width:
            line.add(f" {self.glyphs.dot} ", "faint").add(hint, "warn")
        return line

    def _next(self, session: Overview, width: int, most: int) -> list[Line]:
        """The one key that comes next, and why: in as many lines as it takes, where there are so many."""
        step = next_step(session)
        if most < 1 or not (step.action or step.first):
            return []
        lines = step_lines(step, first_key(self.app, step.action, self.glyphs.tier is Tier.ASCII) if step.action else "", width)
        if len(lines) > most:
            rest = " ".join(line.text.strip() for line in lines[most - 1 :])
            lines[most - 1 :] = [Line(Span(shorten(rest, width, self.glyphs.ellipsis), "dim"))]
        return lines

    def _chart(self, session: Overview, width: int, height: int) -> list[Line]:
        """The loss. Most of what this pane costs, so it is drawn anew only where it is another one."""
        steps, attempts = self.history.steps, self.history.attempts
        newest = steps[-1] if steps else 1
        last = max(1, span_of(newest, session.steps) if session.status in ACTIVE else newest)
        charted = (self.history, len(steps), newest, attempts[-1:], last, width, height, self.glyphs.tier)
        if charted != self._charted:
            curve = Curve(*self.history.window("loss", 0, float("inf")), "chart", "trace")
            lines, _ = drawn([curve], 0, last, width, height, self.glyphs.tier)
            self._charted, self._chart_lines = charted, captioned(lines, f"loss, steps 0 to {last}", width)
        return [Line(*line.spans) for line in self._chart_lines]


_GUARDED_AS = {"cache": "encode", "validate": "step", "export": "checkpoint", "preflight": "start"}


def guard_words(session: Overview, guard: GuardSpec | None) -> str:
    """What the guard looks at in this phase and how long it waits at the least, in words."""
    floors: dict[str, float] = msgspec.structs.asdict(guard) if guard else {}
    phase = str(session.phase or "start")
    if phase == "train":
        limit = floors.get("step", 0.0)
        if limit and session.step_seconds is not None:
            return f"step {words.step_time(session.step_seconds)} s of {max(limit, 20 * session.step_seconds):.0f} s"
        return "step" + (f", {limit:.0f} s at most" if limit else ", never ends it")
    if not floors:
        return phase
    limit = floors.get(_GUARDED_AS.get(phase, phase), 0.0)
    return f"{phase}, {limit:.0f} s without progress at most" if limit else f"{phase}, never ends it"


def recipe_words(spec: Spec) -> str:
    """What is trained, on what, and how: "pico on demo, 400 steps, rank 16, rate 0.003, batch 8"."""
    train = spec.train
    length = words.count(train.steps, "step") if train.steps else words.count(train.epochs, "epoch")
    folders = ", ".join([words.place(spec.dataset.path), *spec.dataset.folders])
    return (
        f"{words.place(spec.model.source)} on {folders}, {length}, rank {spec.lora.rank}, "
        f"rate {train.learning_rate:g}, batch {train.batch_size}"
    )
