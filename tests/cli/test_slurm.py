"""The job script of docs/slurm.sh under Slurm's signals, with a stand-in for `scontrol` and for nothing else of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fluxtui.persist import process
from fluxtui.persist.sessions import overview
from tests.cli.conftest import Lab, until

SCRIPT = Path(__file__).parents[2] / "docs" / "slurm.sh"


def submit(folder: Path, home: Path) -> subprocess.Popen[str]:
    """As Slurm starts a batch script: a shell in a session of its own, with the number of the job."""
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {folder}/scontrol\n')
    (tools / "fluxtui").write_text(f'#!/bin/sh\nexec {sys.executable} -m fluxtui "$@"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "SLURM_JOB_ID": "4711", "FLUXTUI_HOME": str(home)}
    return subprocess.Popen(
        ["bash", str(SCRIPT), "a"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True, cwd=SCRIPT.parents[1],
    )  # fmt: skip


@pytest.mark.parametrize("preempted", [False, True], ids=["time limit", "preempted"])
def test_a_job_that_has_to_leave_goes_on_from_its_checkpoint_when_it_comes_back(
    preempted: bool, lab: Lab, tmp_path: Path
) -> None:
    lab.plan(step_seconds=0.1)
    lab.make("a", train__steps=60)
    job = submit(tmp_path, lab.home.root)
    seen = lab.await_step(12)
    if preempted:  # Slurm tells every process of the job
        assert seen.record is not None
        assert seen.record.keeper is not None
        assert process.send(seen.record.keeper, signal.SIGTERM)
    job.send_signal(signal.SIGTERM if preempted else signal.SIGUSR1)
    _, said = job.communicate(timeout=60)
    assert job.returncode == 0, said
    stopped = overview.look(lab.home, "a")
    assert (stopped.state, stopped.attempt) == ("stopped", 1), stopped
    requeued = tmp_path / "scontrol"
    assert (requeued.read_text() if requeued.exists() else "") == ("" if preempted else "requeue 4711\n")

    lab.plan(step_seconds=0.01)
    again = submit(tmp_path, lab.home.root)
    _, said = again.communicate(timeout=60)
    assert again.returncode == 0, said
    done = until(lambda: (found := overview.look(lab.home, "a")).state == "completed" and found)
    assert done.attempt == 2
    assert done.record is not None
    assert done.record.resumed_from == f"step-{stopped.step:09d}"
    requeued.unlink(missing_ok=True)
    third = submit(tmp_path, lab.home.root)
    third.communicate(timeout=60)
    assert third.returncode == 4, "a completed session is refused, and not trained again"
    assert not requeued.exists()
