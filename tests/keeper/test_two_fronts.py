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
from hypothesis.stateful import initialize, rule
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
BEGINS, ENDS = {"start", "resume"}, {"stop", "kill"}
OFTEN = [*DEEDS, "start", "resume", "resume"]


class TwoFronts(AnySession):
    """One session, two fronts, and whatever else can happen to it."""

    @initialize()
    def make(self) -> None:
        super().make()
        self.environment = dict(os.environ)
        os.environ.update(self.lab.environment({}))

    @rule(
        deeds=st.lists(st.sampled_from(OFTEN), min_size=1, max_size=2),
        crash=st.one_of(st.none(), st.sampled_from(CRASHES)),
        at=st.integers(0, STEPS - 1),
    )
    def start(self, deeds: list[str], crash: dict[str, object] | None, at: int) -> None:
        """What one front does, or two at once; a trainer that is begun may be going to crash at a step."""
        attempt = (self.one.attempts or [0])[-1] + 1
        self.lab.plan(*([{"attempt": attempt, "at": at, **crash}] if crash else []), step_seconds=0.02)
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
        is_ending = any(deed in ENDS and isinstance(answer, Answer) and not answer.is_pending for deed, answer in answers)
        if is_ending and not BEGINS & set(deeds):
            until(lambda: not self.is_kept(), 60, f"the end of what was told to be ending: {answers}")

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


TestTwoFronts = TwoFronts.TestCase
TestTwoFronts.settings = settings(TestAnySession.settings, max_examples=40 if SOAK else 3, stateful_step_count=20 if SOAK else 10)
del TestAnySession  # its own module runs it
