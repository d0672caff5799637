"""What a user does over a day, by keys in a default tmux; the trainer is a stand-in that commits real checkpoints.

The journey from the first run to the proof, with the real trainer, is in test_survives_tmux.
"""

from __future__ import annotations

import json
import os
import pty
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fluxtui import control
from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.home import Home
from fluxtui.persist.sessions import overview
from tests.journeys.terminal import FLUXTUI, Tmux, until

STANDINS = Path(__file__).parent.parent / "keeper"
SETTINGS = {"train.steps": 100_000, "checkpoint.every_steps": 50, "hardware.gpus": []}


class Day:
    """A home with one session `one`, its stand-in trainer, and a tmux with the UI."""

    def __init__(self, home: Home, plan: Path) -> None:
        self.home, self._plan = home, plan
        self.plan()

    def plan(self, *deeds: dict[str, object]) -> None:
        """What the stand-in does wrong from its next start on."""
        self._plan.write_text(json.dumps({"deeds": list(deeds), "step_seconds": 0.02}))

    def make(self, **sets: object) -> None:
        control.create(self.home, "one", dataset="demo", model="pico", sets={**SETTINGS, **sets})

    def state(self) -> str:
        return overview.look(self.home, "one").state

    def reaches(self, state: str, tmux: Tmux) -> None:
        until(lambda: self.state() == state, 60, lambda: f"{state}, but {self.state()}\n{tmux.screen()}")


@pytest.fixture
def day(home_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needs: Callable[[str], str]) -> Iterator[Day]:
    needs("tmux")
    plan = tmp_path / "plan.json"
    for name, value in {
        "FLUXTUI_TRAINER": "standin",
        "FLUXTUI_PROVER": "standin_prover",
        "FLUXTUI_STANDIN": str(plan),
        "PYTHONPATH": f"{STANDINS}{os.pathsep}{STANDINS.parent.parent}",
    }.items():
        monkeypatch.setenv(name, value)
    home = Home.open(home_path)
    yield Day(home, plan)
    for session in overview.look_all(home):
        if session.is_active:
            try:
                control.kill(home, session.name)
            except FluxTUIError:
                continue


def test_start_stop_and_resume_by_keys(day: Day) -> None:
    day.make()
    with Tmux(80, 24) as tmux:
        tmux.start(str(FLUXTUI))
        tmux.see("s starts it")
        tmux.keys("s")
        until(lambda: overview.look(day.home, "one").step > 60, 60, tmux.screen)
        tmux.see("guard: step")
        tmux.keys("x")
        day.reaches("stopped", tmux)
        tmux.see("resumes from step-")
        stopped_at = overview.look(day.home, "one").step
        tmux.keys("Space", "r")
        until(lambda: overview.look(day.home, "one").step > stopped_at, 60, tmux.screen)
        tmux.see("attempt 2")
        tmux.keys("q")
        until(lambda: not tmux.screen().strip(), 10, tmux.screen)  # the window is gone with its only program
    assert day.state() == "running"


def test_a_crash_says_its_reason_and_one_key_goes_on(day: Day) -> None:
    day.plan({"attempt": 1, "at": 120, "do": "exit", "code": 76, "error": "non-finite loss at step 120"})
    day.make()
    with Tmux(100, 30) as tmux:
        tmux.start(str(FLUXTUI))
        tmux.see("s starts it")
        tmux.keys("s")
        day.reaches("failed", tmux)
        tmux.see("non-finite loss at step 120")
        tmux.see("goes on from 100")
        tmux.see("N makes one with a lower learning rate")  # the same settings would fail again
        tmux.keys("Enter")
        tmux.see("1 overview")
        tmux.see("non-finite loss at step 120")
        tmux.keys("q", "r")
        until(lambda: overview.look(day.home, "one").step > 130, 60, tmux.screen)
        tmux.see("running")
        records = overview.records(day.home, "one")
        assert [record.status for _, record, _ in records if record] == ["failed", "running"]
        assert records[1][1] is not None
        assert records[1][1].resumed_from == "step-000000100"


def test_two_uis_at_once_in_one_tmux(day: Day) -> None:
    day.make()
    with Tmux(120, 36) as tmux:
        tmux.start(str(FLUXTUI))
        tmux.see("s starts it")
        tmux.call("new-window", str(FLUXTUI))
        tmux.see("s starts it")
        tmux.keys("s")
        day.reaches("running", tmux)
        tmux.call("select-window", "-t", "0")
        tmux.see("guard: step")  # the first one sees what the second did
        tmux.keys("x")
        day.reaches("stopped", tmux)
        tmux.call("select-window", "-t", "1")
        tmux.see("resumes from step-")
    assert len(overview.records(day.home, "one")) == 1


def test_detached_and_attached_again_it_shows_the_present(day: Day) -> None:
    day.make()
    with Tmux(120, 36) as tmux:
        tmux.start(str(FLUXTUI))
        tmux.see("s starts it")
        line = _Client(tmux.socket)
        line.see(b"starts it")
        tmux.keys("s")
        until(lambda: overview.look(day.home, "one").step > 20, 60, tmux.screen)
        line.drop()  # the connection is lost: tmux detaches the client, the UI does not notice
        seen = overview.look(day.home, "one").step
        until(lambda: overview.look(day.home, "one").step > seen + 50, 60, tmux.screen)
        again = _Client(tmux.socket)
        again.see(b"guard: ")
        again.send(b"x")
        day.reaches("stopped", tmux)
        tmux.see("resumes from step-")
        again.drop()


def test_a_resize_storm_leaves_a_whole_screen(day: Day) -> None:
    day.make()
    with Tmux(120, 36) as tmux:
        tmux.start(str(FLUXTUI))
        tmux.see("s starts it")
        tmux.keys("s")
        day.reaches("running", tmux)
        for width, height in [(20, 5), (200, 60), (61, 21), (80, 24), (60, 20), (160, 50)] * 5:
            tmux.call("resize-window", "-x", str(width), "-y", str(height))
        tmux.call("resize-window", "-x", "60", "-y", "20")
        tmux.see("61×21 is needed")
        tmux.call("resize-window", "-x", "200", "-y", "60")
        tmux.see("guard: step")
        screen = until(lambda: (now := tmux.screen()) and now.count("╭") == now.count("╰") > 3 and now, 20, tmux.screen)
        assert "too small" not in screen
        assert max(map(len, screen.splitlines())) <= 200


class _Client:
    """`tmux attach` on a line of its own."""

    def __init__(self, socket: str) -> None:
        self._master, slave = pty.openpty()
        environment = {**os.environ, "TERM": "xterm-256color"}
        self._process = subprocess.Popen(
            ["tmux", "-u", "-L", socket, "attach"],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
        )
        os.close(slave)
        self._received = bytearray()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            while data := os.read(self._master, 65536):
                self._received += data
        except OSError:
            return  # the line is gone

    def see(self, text: bytes) -> None:
        until(lambda: text in bytes(self._received), 20, lambda: self._received[-3000:].decode(errors="replace"))

    def send(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def drop(self) -> None:
        """The line goes dead."""
        self._process.kill()
        self._process.wait(10)
        os.close(self._master)
