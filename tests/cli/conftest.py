"""Homes in which real keepers run a trainer without torch, and the command line called in this process or as a user does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fluxtui import cli, control
from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.home import Home
from fluxtui.persist.sessions import overview, record_cache

STANDIN = Path(__file__).parent.parent / "keeper"
SMALL = {"train.steps": 30, "checkpoint.every_steps": 10, "guard.retry_delay": 0.2, "guard.grace": 1.0, "hardware.gpus": []}


def until(condition: Callable[[], Any], seconds: float = 30.0, what: Callable[[], object] | None = None) -> Any:
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, what() if what else condition
        time.sleep(0.02)
    return value


@dataclass
class Called:
    """What one verb did."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The one line on stderr of a verb that was refused."""
        assert self.code != 0, self
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


@dataclass
class Lab:
    """A home, and the plan of its stand-in trainer."""

    home: Home
    plan_file: Path
    capture: pytest.CaptureFixture[str]
    names: list[str] = field(default_factory=list)

    def plan(self, *deeds: dict[str, Any], **settings: Any) -> None:
        self.plan_file.write_text(json.dumps({"deeds": list(deeds), **settings}))

    def make(self, name: str = "a", **sets: Any) -> str:
        control.create(
            self.home, name, dataset="demo", model="pico", sets={**SMALL, **{k.replace("__", "."): v for k, v in sets.items()}}
        )
        return name

    def call(self, *words: str) -> Called:
        self.capture.readouterr()
        code = cli.main(list(words))
        seen = self.capture.readouterr()
        return Called(code, seen.out, seen.err)

    def look(self, name: str = "a") -> overview.Overview:
        return overview.look(self.home, name)

    def await_state(self, *states: str, name: str = "a") -> overview.Overview:
        return until(lambda: (seen := self.look(name)).state in states and seen, what=lambda: self.look(name))

    def await_step(self, step: int, name: str = "a") -> overview.Overview:
        return until(
            lambda: (seen := self.look(name)).step >= step and seen.status == "running" and seen, what=lambda: self.look(name)
        )


@pytest.fixture
def lab(home_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Lab]:
    plan = tmp_path / "plan.json"
    plan.write_text("{}")
    for name, value in {
        "FLUXTUI_TRAINER": "standin",
        "FLUXTUI_PROVER": "standin_prover",
        "FLUXTUI_STANDIN": str(plan),
        "FLUXTUI_RUNTIME": str(tmp_path / "runtime"),
        "PYTHONPATH": str(STANDIN),
    }.items():
        monkeypatch.setenv(name, value)
    record_cache._seen.clear()
    made = Lab(Home.open(home_path), plan, capsys)
    yield made
    for name in made.home.session_names():
        folder = made.home.session(name)
        if folder.lock_file.exists() and Lock.held(folder.lock_file):
            try:
                control.kill(made.home, name)
            except FluxTUIError:
                continue
            until(lambda folder=folder: not Lock.held(folder.lock_file))


@pytest.fixture
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a piece of Python in an interpreter of its own."""

    def run(text: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", text]
        return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120)

    return run
