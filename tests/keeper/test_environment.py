"""What keeper and trainer find where they are started: the environment, and what signals do."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from keeper_lab import Lab, until

from fluxtui.engine.keeper import spawn

BLOCKING = "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, {15, 10}); os.execvp(sys.argv[1], sys.argv[1:])"


@pytest.mark.parametrize(
    ("own", "found"),
    [
        ({}, ("2500", None)),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, (None, "ACTIVE")),
        ({"GOMP_SPINCOUNT": "7"}, ("7", None)),
    ],
)
def test_idle_threads_of_a_trainer_soon_sleep_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, own: dict[str, str], found: tuple[str | None, str | None]
) -> None:
    """Threads that spin on cores that others use too: 7 s a step of the pico where it takes 0.1 s."""
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    environment = spawn._environment("run", [], 2)
    assert (environment.get("GOMP_SPINCOUNT"), environment.get("OMP_WAIT_POLICY")) == found
    assert environment["OMP_NUM_THREADS"] == "2"


def test_a_parent_that_ignores_sigchld_takes_no_exit_code_away(lab: Lab) -> None:
    """Its children inherit that over exec, and the kernel then reaps theirs: no exit code, "the keeper itself failed"."""
    one = lab.session(steps=5)
    one.start(wrap=["/bin/bash", "-c", 'trap "" CHLD; exec "$@"', "bash"]).wait()
    one.check()
    assert (one.record().status, one.record().exit_code) == ("completed", 0)


def test_a_parent_that_blocks_signals_makes_no_keeper_deaf(lab: Lab) -> None:
    lab.plan(step_seconds=0.05)
    one = lab.session(steps=1000)
    keeper = one.start(wrap=[sys.executable, "-c", BLOCKING])
    one.await_step(3)
    keeper.process.send_signal(signal.SIGTERM)
    until(lambda: one.record().status == "stopped")
    keeper.wait()
    one.check()


def test_what_makes_a_session_may_read_it_whatever_the_umask(lab: Lab) -> None:
    one = lab.session(steps=5)
    one.start(wrap=["/bin/bash", "-c", 'umask 777; exec "$@"', "bash"]).wait()
    one.check()
    assert one.record().status == "completed"
    assert not [path for path in one.folder.path.rglob("*") if not path.stat().st_mode & 0o400]


def test_numpy_starts_no_threads_in_a_trainer() -> None:
    """Where one could not be had (`ulimit -u`) OpenBLAS raised SIGINT, and the session was "stopped" with nobody having asked."""
    code = "import numpy, os; print(len(os.listdir('/proc/self/task')))"
    environment = spawn._environment("run", [], 2)
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout == "1\n"
