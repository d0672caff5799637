"""A real tmux server of a test's own, and the command line as a user calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

FLUXTUI = Path(sys.executable).with_name("fluxtui")


def fluxtui(*words: str, timeout: float = 240.0, **environment: str) -> subprocess.CompletedProcess[str]:
    """One call of the command line, without a terminal."""
    surroundings = {**os.environ, **environment}
    return subprocess.run(
        [FLUXTUI, *words], env=surroundings, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout
    )


def shown(name: str) -> dict[str, Any]:
    """`fluxtui show NAME --json`; raises where that fails."""
    done = fluxtui("show", name, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def until(condition: Callable[[], Any], seconds: float, what: Callable[[], str] | str = "") -> Any:
    """The first true answer of `condition`, asked ten times a second; an assertion that says what was seen last otherwise."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = condition()
        if answer:
            return answer
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds:.0f} s: {what() if callable(what) else what}")


class Tmux:
    """A tmux server with one window, killed at the end whatever happened."""

    def __init__(self, columns: int, rows: int) -> None:
        self.socket = f"fluxtui-{uuid.uuid4().hex[:8]}"
        self.size = (columns, rows)

    def __enter__(self) -> Tmux:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_server()

    def _tmux(self, *words: str, check: bool = True) -> str:
        command = ["tmux", "-L", self.socket, "-f", "/dev/null", *words]
        return subprocess.run(command, check=check, capture_output=True, text=True, timeout=20).stdout

    def start(self, *command: str) -> None:
        """A new server that runs the command as its only window."""
        columns, rows = map(str, self.size)
        self._tmux("new-session", "-d", "-x", columns, "-y", rows, *command)

    def keys(self, *names: str) -> None:
        self._tmux("send-keys", *names, check=False)

    def call(self, *words: str) -> None:
        """Any command of tmux."""
        self._tmux(*words)

    def screen(self) -> str:
        return self._tmux("capture-pane", "-p", check=False)

    def see(self, text: str, seconds: float = 30.0) -> str:
        """The screen once it shows the text."""
        return until(lambda: (seen := self.screen()) and text in seen and seen, seconds, lambda: f"{text!r} in\n{self.screen()}")

    def pid(self) -> int:
        """Pid of the tmux server."""
        return int(self._tmux("display-message", "-p", "#{pid}"))

    def kill_server(self) -> None:
        self._tmux("kill-server", check=False)
