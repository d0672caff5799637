"""What all tests share: an empty home, and tools that must be there where the fault suite runs as root."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FAULTS_ROOT = os.environ.get("FLUXTUI_FAULTS") == "root"

os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"  # nobody listens there: no test reaches the real hub, and none waits for it
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # before torch: many processes share the cores
os.environ.pop("HF_HUB_OFFLINE", None)  # tests of downloads speak to a hub of their own

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell's background job: what tests start would ignore Ctrl-C too
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def home_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty FLUXTUI_HOME and runtime folder of this test's own."""
    home = tmp_path / "home"
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("FLUXTUI_HOME", str(home))
    monkeypatch.setenv("FLUXTUI_RUNTIME", str(runtime))
    return home


@pytest.fixture
def needs() -> Callable[[str], str]:
    """`needs("tmux")` gives the tool's path; its absence is a failure under FAULTS=root and a named skip elsewhere."""

    def find(tool: str) -> str:
        path = shutil.which(tool)
        if path is None:
            message = f"{tool} is not installed; make test FAULTS=root installs it"
            pytest.fail(message) if FAULTS_ROOT else pytest.skip(message)
        return path

    return find
