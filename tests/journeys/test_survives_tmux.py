"""The product's promise in one test: started by keys, the terminal lost, the truth found again, proven at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.journeys.terminal import FLUXTUI, Tmux, fluxtui, shown, until


def test_the_demo_started_by_keys_outlives_the_tmux_server_and_is_proven(home_path: Path, needs: Callable[[str], str]) -> None:
    needs("tmux")
    with Tmux(120, 36) as first:
        first.start(str(FLUXTUI))
        first.see("demo")  # the first run says which key starts it
        first.keys("D")
        training = until(lambda: _training("demo"), 120, lambda: first.screen())
        server = psutil.Process(first.pid())
        first.kill_server()
        server.wait(timeout=10)
    assert not server.is_running(), "the tmux server did not die: this test would show nothing"

    seen = shown("demo")
    assert seen["state"] == "running", seen
    assert seen["attempt"] == training["attempt"] == 1

    with Tmux(120, 36) as second:
        second.start(str(FLUXTUI))
        second.see("running")
        until(lambda: shown("demo")["step"] > seen["step"], 60, lambda: second.screen())
        second.see("s/step", 20)
        second.see("completed", 180)
        second.keys("q")
    final = shown("demo")
    assert final["state"] == "completed"
    assert final["step"] == final["steps"]
    assert Path(final["output"]).is_file()
    verified = fluxtui("verify", "demo")
    assert verified.returncode == 0, verified.stderr
    _judge(final["output"])


def _training(name: str) -> dict[str, object] | None:
    """What is shown of a session once it has made a step; None before."""
    if not (Path(os.environ["FLUXTUI_HOME"]) / "sessions" / name / "attempts" / "0001.toml").exists():
        return None
    seen = shown(name)
    assert seen["state"] not in {"failed", "lost"}, seen
    return seen if seen["step"] > 0 else None


def _judge(lora: str) -> None:
    """The demo's figures, judged by colour and shape; the README's, with a margin: other machines round otherwise."""
    words = [sys.executable, "-m", "fluxtui.demo.measure", "--json"]
    base = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    after = json.loads(subprocess.run([*words, "--lora", lora], check=True, capture_output=True, text=True).stdout)
    assert base["concept"] < 0.05
    assert after["concept"] >= 0.85, after
    assert after["old"]["shape"] >= 0.9 * base["old"]["shape"] - 0.02, (base, after)
