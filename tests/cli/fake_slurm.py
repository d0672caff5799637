"""Slurm's commands, played by one script under their names, and its scheduler, played by the test.

What submitit and FluxTUI call is here (sbatch, srun, squeue, scancel, scontrol), and runs the job's own script with Slurm's own
environment; a job begins when the test says so, and is told to leave by the signals that Slurm sends.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

COMMANDS = ("sbatch", "srun", "squeue", "scancel", "scontrol")
JOB = "4711"


class Cluster:
    """A folder with the commands in `bin`, and the state of the one job."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.batch: subprocess.Popen[bytes] | None = None

    def build(self) -> Path:
        """The folder of commands, for the PATH."""
        tools = self.folder / "bin"
        tools.mkdir(parents=True)
        for name in COMMANDS:
            (tools / name).write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {self.folder} {name} "$@"\n')
            (tools / name).chmod(0o755)
        return tools

    def of(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""

    def put(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def run(self) -> None:
        """The scheduler gives the job its nodes."""
        assert self.of("state") == "PENDING"
        self.put("state", "RUNNING"), self.put("preempted", ""), self.put("tasks", "")
        nodes = re.search(r"--nodes=(\d+)", self.of("script"))
        assert nodes
        own = {"SLURM_JOB_ID": JOB, "SLURM_JOB_NUM_NODES": nodes[1], "SLURM_NTASKS": nodes[1]}
        self.batch = subprocess.Popen(["bash", str(self.folder / "script")], env=os.environ | own, start_new_session=True)

    def tasks(self) -> list[int]:
        return [int(pid) for pid in self.of("tasks").split()]

    def signal(self, number: int) -> None:
        """As slurmstepd does: to each task."""
        for pid in self.tasks():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def preempt(self) -> None:
        self.put("preempted", "2026-01-01T00:00:00")
        self.signal(signal.SIGCONT), self.signal(signal.SIGTERM)

    def wait(self, seconds: float = 60) -> None:
        """Until the job has left its nodes."""
        assert self.batch is not None
        self.batch.wait(seconds)
        if self.of("state") == "RUNNING":
            self.put("state", "COMPLETED" if self.batch.returncode == 0 else "FAILED")


def sbatch(cluster: Cluster, script: str) -> None:
    cluster.put("script", Path(script).read_text())
    cluster.put("state", "PENDING")
    print(f"Submitted batch job {JOB}")


def srun(cluster: Cluster, *words: str) -> int:
    """One task a node, each in a session of its own, as on a machine of its own."""
    given = list(words)
    outputs: dict[str, str] = {}
    while given[0].startswith("--"):
        name = given.pop(0)
        if name in ("--output", "--error"):
            outputs[name] = given.pop(0)
    tasks = []
    for node in range(int(os.environ["SLURM_NTASKS"])):
        own = os.environ | {"SLURM_NODEID": str(node), "SLURM_PROCID": str(node), "SLURM_LOCALID": "0"}
        paths = [outputs[name].replace("%j", JOB).replace("%t", str(node)) for name in ("--output", "--error")]
        with open(paths[0], "ab") as out, open(paths[1], "ab") as err:
            tasks.append(subprocess.Popen(given, env=own, stdout=out, stderr=err, start_new_session=True))
    cluster.put("tasks", " ".join(str(task.pid) for task in tasks))
    return max(abs(task.wait()) for task in tasks)


def squeue(cluster: Cluster, *_: str) -> None:
    if cluster.of("state") in ("PENDING", "RUNNING"):
        print(cluster.of("state"))


def scancel(cluster: Cluster, *_: str) -> None:
    was = cluster.of("state")
    cluster.put("state", "CANCELLED")
    if was == "RUNNING":
        cluster.signal(signal.SIGCONT), cluster.signal(signal.SIGTERM)


def scontrol(cluster: Cluster, verb: str, *_: str) -> None:
    if verb == "requeue":
        cluster.put("state", "PENDING")
        cluster.put("requeues", cluster.of("requeues") + "x")
        return
    print(f"JobId={JOB} JobState={cluster.of('state')} Reason=None PreemptTime={cluster.of('preempted') or 'None'} Comment=a b")


def until(holds: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, holds
        time.sleep(0.05)


if __name__ == "__main__":
    _, where, name, *arguments = sys.argv
    played: dict[str, Callable[..., int | None]] = {
        "sbatch": sbatch, "srun": srun, "squeue": squeue, "scancel": scancel, "scontrol": scontrol,
    }  # fmt: skip
    sys.exit(played[name](Cluster(Path(where)), *arguments))
