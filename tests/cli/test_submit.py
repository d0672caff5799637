"""`fluxtui submit`: a session as a Slurm job by submitit, one node or two, under the signals that Slurm sends."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import submitit

from fluxtui.engine.slurm_options import options
from fluxtui.persist import process
from fluxtui.persist.errors import UsageError
from fluxtui.persist.files import toml
from fluxtui.persist.settings import recipe
from tests.cli.conftest import Lab, until
from tests.cli.fake_slurm import Cluster


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    made = Cluster(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{made.build()}:{os.environ['PATH']}")
    yield made
    if made.batch is not None and made.batch.poll() is None:
        made.signal(signal.SIGKILL)
        made.batch.kill()
        made.batch.wait()


def said_by(lab: Lab) -> str:
    """What the tasks of the job wrote, for a test that fails."""
    return "\n".join(path.read_text() for path in (lab.home.session("a").path / "slurm").glob("*.err"))


def test_a_job_that_waits_is_taken_back_and_one_that_runs_is_watched_and_stopped_through_the_home(
    lab: Lab, cluster: Cluster
) -> None:
    lab.plan(step_seconds=0.05)
    lab.make("a", train__steps=2000)
    lab.home.config.write_text('[slurm]\npartition = "gpu"\ntime = 01:30:00\n')
    called = lab.call("submit", "a", "--slurm", "partition=fast lane", "--slurm", "cpus_per_task=8")
    assert called.code == 0, called.err
    assert "job 4711" in called.err
    script = cluster.of("script")
    for wanted in ("--nodes=1", "--partition='fast lane'", "--time=90", "--cpus-per-task=8", "--requeue", "--signal=USR2@240"):
        assert f"#SBATCH {wanted}\n" in script, script
    assert "srun --unbuffered" in script
    assert " --cpus-per-task=8 " in script.partition("srun --unbuffered")[2], "Slurm 22.05 gives a task one CPU otherwise"
    assert "--gpus-per-node" not in script
    assert "job 4711 is pending" in lab.call("submit", "a").sentence
    assert "its job 4711 is cancelled" in lab.call("stop", "a").err
    assert cluster.of("state") == "CANCELLED"
    assert lab.look().state == "new"

    assert lab.call("submit", "a").code == 0
    cluster.run()
    lab.await_step(3)
    assert "running already" in lab.call("submit", "a").sentence
    assert lab.call("stop", "a").code == 0
    cluster.wait()
    assert (cluster.of("state"), cluster.of("requeues")) == ("COMPLETED", ""), said_by(lab)
    assert lab.look().state == "stopped"


@pytest.mark.parametrize("why", ["preempted", "time limit", "cancelled"])
def test_two_nodes_that_have_to_leave_stop_with_a_checkpoint_and_go_on_from_it_when_requeued(
    why: str, lab: Lab, cluster: Cluster
) -> None:
    lab.plan(step_seconds=0.05)
    lab.make("a", train__steps=120, hardware__nodes=2, hardware__rendezvous="127.0.0.1")
    assert lab.call("submit", "a").code == 0
    cluster.run()
    lab.await_step(7)
    if why == "preempted":
        cluster.preempt()
    elif why == "time limit":
        cluster.signal(signal.SIGUSR2)
    else:
        cluster.put("state", "CANCELLED")
        cluster.signal(signal.SIGTERM)
    cluster.wait()
    stopped = lab.look()
    assert (stopped.state, bool(stopped.checkpoint)) == ("stopped", True), (stopped, said_by(lab))
    if why == "cancelled":
        assert (cluster.of("state"), cluster.of("requeues")) == ("CANCELLED", "")
        return
    assert (cluster.of("state"), cluster.of("requeues")) == ("PENDING", "x"), said_by(lab)

    lab.plan(step_seconds=0.01)
    cluster.run()
    cluster.wait()
    done = until(lambda: (seen := lab.look()).state == "completed" and seen, what=lambda: (lab.look(), said_by(lab)))
    assert (done.attempt, done.record.resumed_from) == (2, stopped.checkpoint)
    assert cluster.of("state") == "COMPLETED"
    assert lab.call("submit", "a").code == 4


def test_a_node_that_fails_is_run_again_by_slurm_once_its_last_beat_is_old(lab: Lab, cluster: Cluster) -> None:
    lab.plan(step_seconds=0.05)
    lab.make("a", train__steps=60)
    assert lab.call("submit", "a").code == 0
    cluster.run()
    seen = lab.await_step(12)
    assert seen.record is not None
    assert seen.record.keeper is not None
    assert process.send(seen.record.keeper, signal.SIGKILL)
    cluster.wait()
    assert cluster.of("state") == "FAILED", "a session that is lost is no success"
    there = {"host": "dead-node", "boot_id": "of-the-dead", "beat_at": datetime.now(UTC) - timedelta(seconds=56)}
    toml.write(lab.home.session("a").attempt_file(1), msgspec.structs.replace(seen.record, **there))
    assert lab.look().state == "elsewhere"
    cluster.put("state", "PENDING")  # by --requeue
    cluster.run()
    cluster.wait()
    done = lab.look()
    assert (done.state, done.attempt) == ("completed", 2), (done, said_by(lab))
    assert done.record.resumed_from


NO_GPUS, GPUS = {"gpus_per_node": None, "mem": None}, {"gpus_per_node": 1, "cpus_per_task": 2, "mem": "32G", "time": 240}


@pytest.mark.parametrize(
    ("hardware", "given", "asked"),
    [
        ({"gpus": "auto"}, {}, GPUS | {"srun_args": ["--cpus-per-task=2"], "additional_parameters": {"requeue": True}}),
        ({"gpus": [0, 1], "nodes": 3, "workers": 2}, {}, {"gpus_per_node": 2, "cpus_per_task": 8, "mem": "56G", "nodes": 3}),
        ({"gpus": "all"}, {"gpus_per_node": "a100:4"}, {"gpus_per_node": "a100:4", "cpus_per_task": 8, "mem": "104G"}),
        ({"gpus": "all"}, {"gres": "gpu:h100:8"}, NO_GPUS | {"gres": "gpu:h100:8", "cpus_per_task": None}),
        ({"gpus": "auto"}, {"additional_parameters": {"gpus": 1, "requeue": False}}, {"additional_parameters": {"gpus": 1}}),
        ({"gpus": "auto"}, {"exclusive": True, "cpus_per_task": 5}, {"mem": None, "srun_args": ["--cpus-per-task=5"]}),
        ({"gpus": []}, {"time": 9}, NO_GPUS | {"cpus_per_task": None, "time": 9, "srun_args": None}),
        ({"gpus": []}, {"time": time(12, 0)}, {"time": 720}),  # as TOML reads 12:00:00
        ({"gpus": []}, {"time": "1-12:00:30"}, {"time": 36 * 60 + 1}),
        ({"gpus": []}, {"time": "2-0"}, {"time": 48 * 60}),
        ({"gpus": []}, {"time": "90:00"}, {"time": 90}),
        ({"gpus": "all"}, {}, "Slurm wants their number: --slurm gpus_per_node=8"),
        ({"gpus": "all"}, {"exclusive": True}, "Slurm wants their number"),  # a step is not given what was not counted
        ({"gpus": [0, 1]}, {"gpus_per_node": 1}, "wants 2 GPUs on each node, and Slurm is asked for 1"),
        ({"gpus": [], "nodes": 2}, {"nodes": 4}, "--set hardware.nodes=4"),
        ({"gpus": []}, {"ntasks_per_node": 8}, "leave ntasks_per_node out"),
        ({"gpus": []}, {"use_srun": False}, "leave use_srun out"),
        ({"gpus": []}, {"time": 8}, "would come and go without a step; ask for 9 minutes"),
        ({"gpus": []}, {"time": "infinite"}, "give minutes"),
        ({"gpus": []}, {"signal_delay_s": "soon"}, "number of seconds"),
        ({"gpus": []}, {"additional_parameters": "x"}, "is a table"),
    ],
)
def test_slurm_is_asked_for_what_the_spec_means(
    hardware: dict[str, Any], given: dict[str, Any], asked: dict[str, Any] | str, lab: Lab, cluster: Cluster
) -> None:
    lab.make("a", **{f"hardware__{key}": value for key, value in hardware.items()})
    spec = recipe.load_spec(lab.home.session("a").spec_file)
    if isinstance(asked, str):
        with pytest.raises(UsageError, match=asked):
            options(spec, given)
        return
    found = options(spec, given)
    assert {name: found.get(name) for name in asked} == asked
    submitit.SlurmExecutor(folder=lab.home.root, max_num_timeout=1).update_parameters(**found)  # knows every one of them


def test_what_is_missing_is_said_in_a_sentence(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    lab.make("a")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert "there is no srun on the PATH" in lab.call("submit", "a").sentence
    request.getfixturevalue("cluster")
    assert "no_such_option" in lab.call("submit", "a", "--slurm", "no_such_option=1").sentence
    assert "KEY=VALUE" in lab.call("submit", "a", "--slurm", "partition").sentence
    (tmp_path / "submitit.py").write_text("raise ImportError('not here')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ['PYTHONPATH']}")
    assert "pip install 'fluxtui[slurm]'" in lab.call("submit", "a").sentence
