"""Killed anywhere, resumed, a run ends with the very bytes of one that was never interrupted."""

from __future__ import annotations

import os
import random
import signal
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.terminal import fluxtui, shown, until

SMALL = [
    "train.steps=24", "train.batch_size=2", "lora.rank=4", "lora.dropout=0.1", "dataset.caption_dropout=0.2",
    "checkpoint.every_steps=4", "sample.every_epochs=0", "sample.at_start=false", "guard.auto_resume=false",
]  # fmt: skip


def make(name: str) -> None:
    sets = [word for pair in SMALL for word in ("--set", pair)]
    done = fluxtui("new", name, "--model", "pico", "--dataset", "demo", *sets)
    assert done.returncode == 0, done.stderr


def finish(name: str) -> dict[str, Any]:
    done = fluxtui("wait", name, "--timeout", "180")
    seen = shown(name)
    assert done.returncode == 0, (done.stderr, seen)
    return seen


@pytest.fixture
def uninterrupted(home_path: Path) -> str:
    make("whole")
    assert fluxtui("start", "whole").returncode == 0
    return finish("whole")["tensors_sha256"]


@pytest.mark.parametrize("victim", ["keeper", "ranks"])
def test_sigkill_at_random_steps_and_resume_gives_the_same_bytes(uninterrupted: str, victim: str) -> None:
    rng = random.Random(f"kill {victim}")
    make("broken")
    assert fluxtui("start", "broken").returncode == 0
    for at in sorted(rng.sample(range(2, 22), 2)):
        until(lambda at=at: shown("broken")["step"] >= at, 90, lambda: str(shown("broken")))
        os.kill(until(lambda: _pid("broken", victim), 90, lambda: str(shown("broken"))), signal.SIGKILL)
        dead = until(lambda: _ended("broken"), 30, lambda: str(shown("broken")))
        assert dead["state"] == ("lost" if victim == "keeper" else "failed"), dead
        assert fluxtui("resume", "broken").returncode == 0
    seen = finish("broken")
    assert seen["attempt"] == 3, "the kills did not end two attempts: this test would show nothing"
    assert seen["tensors_sha256"] == uninterrupted


def _pid(name: str, victim: str) -> int:
    """0 while a new attempt has no ranks yet."""
    attempts = sorted((Path(os.environ["FLUXTUI_HOME"]) / "sessions" / name / "attempts").glob("*.toml"))
    record = tomllib.loads(attempts[-1].read_text())
    return record["keeper"]["pid"] if victim == "keeper" else next((rank["pid"] for rank in record.get("ranks", [])), 0)


def _ended(name: str) -> dict[str, Any] | None:
    seen = shown(name)
    return seen if seen["state"] in {"lost", "failed", "stopped"} else None
