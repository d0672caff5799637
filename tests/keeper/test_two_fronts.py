"""Two fronts that do anything at once to one session, through `fluxtui.control` as all fronts do: the machine of `test_stateful`.

What a front was told is held against what then happens: an attempt that was begun has a record of its own, a session that is
being ended or stopped comes to its end, one that was removed is gone and its name is free.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from keeper_lab import fast, until
from test_stateful import CRASHES, SOAK, STEPS, AnySession, TestAnySession

from fluxtui import control
from fluxtui.control import keepers
from fluxtui.control.ask import Answer
from fluxtui.persist import process
from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.home import Home

DEEDS: dict[str, Callable[[Home, str], object]] = {
    "start": control.start,
    "resume": lambda home, name: control.start(home, name, resume="auto"),
    "stop": control.stop,
    "stop-after-epoch": lambda home, name: control.stop(home, name, after_epoch=True),
    "kill": control.kill,
    "checkpoint": control.checkpoint,
    "remove": control.remove,
}
BEGINS, ENDS = ["start", "resume"], ["stop", "kill"]


class TwoFronts(AnySession):
    """One session, two fronts, and whatever else can happen to it."""

    @initialize()
    def make(self) -> None:
        super().make()
        self.environment = dict(os.environ)
        os.environ.update(self.lab.environment({}))

    @rule(
        deeds=st.lists(st.sampled_from([*BEGINS, "remove"]), min_size=1, max_size=2),
        crash=st.one_of(st.none(), st.sampled_from(CRASHES)),
        at=st.integers(0, STEPS - 1),
    )
    def start(self, deeds: list[str], crash: dict[str, object] | None, at: int) -> None:
        """Whatever state it is in; a trainer that is begun may be going to crash at a step."""
        attempt = (self.one.attempts or [0])[-1] + 1
        self.lab.plan(*([{"attempt": attempt, "at": at, **crash}] if crash else []), step_seconds=0.02)
        self.do(deeds)

    @precondition(lambda self: self.is_kept())
    @rule(deeds=st.lists(st.sampled_from([*DEEDS, *ENDS]), min_size=1, max_size=2))
    def ask(self, deeds: list[str]) -> None:
        """While a keeper is at work on it."""
        self.do(deeds)

    @precondition(lambda self: self.is_kept())
    @rule(ratio=st.floats(0, 1), deeds=st.lists(st.sampled_from(ENDS), min_size=1, max_size=2))
    def wait_for_the_end(self, ratio: float, deeds: list[str]) -> None:
        """Somewhere on its way it is ended."""
        self.wait_for_a_step(ratio)
        self.do(deeds)

    def do(self, deeds: list[str]) -> None:
        """Requests of one front, or of two at once, and what each was told held against what happens."""
        answers = self.at_once(deeds)
        begun = [answer for deed, answer in answers if deed in BEGINS and isinstance(answer, int)]
        assert len(set(begun)) == len(begun), f"one attempt was begun twice: {answers}"
        for _, answer in answers:
            if isinstance(answer, FluxTUIError):
                assert str(answer), answer
                assert "\n" not in str(answer), answer
        if any(deed == "remove" and answer is None for deed, answer in answers):
            assert not self.one.folder.exists(), answers
            self.one = self.lab.session(steps=STEPS, guard=fast(step=2, batch=2, first_steps=3, max_auto_resumes=2))
            self.newest = -1
            return
        assert set(begun) <= set(self.one.attempts), f"no record of what was begun: {answers}"
        for deed, answer in answers:
            if isinstance(answer, Answer) and answer.sentence.startswith("one: ") and not answer.is_pending:
                assert deed in self.obeyed(), f"no record says what the front was told: {answers}"
        is_ending = any(deed in ENDS and isinstance(answer, Answer) and not answer.is_pending for deed, answer in answers)
        if is_ending and not set(BEGINS) & set(deeds):
            until(lambda: not self.is_kept(), 40, f"the end of what was told to be ending: {answers}")

    def obeyed(self) -> set[str]:
        """What the keepers say they were asked and took on."""
        acks = [ack for record in self.one.records() for ack in record.acks]
        return {ack.verb for ack in acks if ack.outcome.startswith("accepted")}

    def at_once(self, deeds: list[str]) -> list[tuple[str, object]]:
        """Each deed by a front of its own, and what that was told."""
        answers: list[tuple[str, object]] = []

        def front(deed: str) -> None:
            try:
                answers.append((deed, DEEDS[deed](self.lab.home, "one")))
            except BaseException as error:  # noqa: BLE001  (an error that no front expects is raised below)
                answers.append((deed, error))

        threads = [threading.Thread(target=front, args=(deed,)) for deed in deeds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for _, answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, FluxTUIError):
                raise AssertionError(f"a front met {answer!r}") from answer
        return answers

    @rule()
    def kill_the_keeper(self) -> None:
        """Found as `fluxtui kill` finds one whose record is torn."""
        found = keepers.find(self.lab.home, "one")
        if found is not None and process.send(found, 9):
            until(lambda: process.state_letter(found.pid) in (None, "Z"), 10, "the keeper's end")
        if not self.is_kept():
            until(lambda: not self.strays(), 3, "a process outlives its keeper")

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            if hasattr(self, "environment"):
                os.environ.clear()
                os.environ.update(self.environment)


def test_two_fronts_at_every_turn_of_a_life_are_told_what_then_happens():
    """What the machine draws now and then, once for certain."""
    machine = TwoFronts()
    machine.make()
    try:
        for begins, ratio, ends in (
            (["start", "start"], 0.2, ["checkpoint", "stop"]),
            (["resume", "start"], 0.1, ["kill", "kill"]),
            (["resume", "resume"], 0.0, ["stop", "kill"]),
            (["resume", "remove"], 0.1, ["stop-after-epoch", "remove"]),
            (["start", "remove"], 0.0, ["remove", "stop"]),
        ):
            machine.start(deeds=begins, crash=None, at=0)
            machine.what_is_shown_is_the_truth()
            machine.wait_for_a_step(ratio=ratio)
            machine.do(ends)
            machine.what_is_shown_is_the_truth()
            machine.what_was_committed_is_there()
    finally:
        machine.teardown()


TestTwoFronts = TwoFronts.TestCase
TestTwoFronts.settings = settings(TestAnySession.settings, max_examples=40 if SOAK else 4, stateful_step_count=20 if SOAK else 10)
del TestAnySession  # its own module runs it
