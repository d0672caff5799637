"""A session as a Slurm job, by submitit: `python -m fluxtui.engine submit`, and what the job runs on each of its nodes.

Each node's task is a keeper in the foreground: the session's own on the first, `join` on the others. The session is watched,
stopped and killed through the shared home as any other. Where Slurm says that the job has to leave (SIGTERM at a preemption,
SIGUSR2 before the time limit) the keeper stops with a checkpoint, and the job goes back into the queue: run again, it resumes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxtui.engine import life, wire
from fluxtui.engine.slurm_options import options
from fluxtui.persist.errors import ExitCode, FluxTUIError, UsageError
from fluxtui.persist.files import toml
from fluxtui.persist.files.durable import make_folder
from fluxtui.persist.files.text import clean
from fluxtui.persist.home import Home
from fluxtui.persist.sessions import kept_spec, overview
from fluxtui.persist.sessions.slurm import SlurmJob, job_file, slurm_folder

if TYPE_CHECKING:
    import submitit

_LEAVE = (signal.SIGTERM, signal.SIGUSR2)
_ELSEWHERE_SECONDS = 90.0  # the beat of a node that failed is fresh for a minute
_REQUEUES = 10_000  # submitit counts them down; a training is over when it is proven


def main(argv: list[str]) -> int:
    """One JSON line on stdout: `{"ok": true, "job": "4711"}`, or why not."""
    parser = argparse.ArgumentParser(prog="python -m fluxtui.engine submit")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--session", required=True)
    parser.add_argument("--start-from", default="")
    parser.add_argument("--slurm", action="append", default=[], metavar="KEY=VALUE")
    words = parser.parse_args(argv)
    try:
        job = submit(Home.open(words.home), words.session, words.start_from, words.slurm)
    except FluxTUIError as error:
        print(json.dumps({"ok": False, "error": str(error), "code": int(error.exit_code)}), flush=True)
        return int(error.exit_code)
    print(json.dumps({"ok": True, "job": job}), flush=True)
    return ExitCode.DONE


def submit(home: Home, name: str, start_from: str, sets: list[str]) -> str:
    """Submit a job that keeps the session; its number. Raises `FluxTUIError`."""
    try:
        import submitit
    except ImportError:
        raise FluxTUIError("jobs are submitted by submitit, which is not installed: pip install 'fluxtui[slurm]'") from None
    folder = home.session(name)
    spec = kept_spec.load(folder)
    where = slurm_folder(folder)
    make_folder(where)
    try:
        executor = submitit.SlurmExecutor(folder=where, max_num_timeout=_REQUEUES)
    except RuntimeError:
        raise FluxTUIError("Slurm is not here: there is no srun on the PATH; submit from a login node of the cluster.") from None
    try:
        executor.update_parameters(**options(spec, _wanted(home, sets)))
    except (ValueError, TypeError) as error:
        raise UsageError(f"[slurm] of config.toml, or --slurm: {clean(' '.join(str(error).split()), 600)}") from error
    try:
        job = executor.submit(Task(str(home.root), name, start_from))
    except (RuntimeError, subprocess.SubprocessError, OSError) as error:  # sbatch's, in submitit's words
        raise FluxTUIError(f"sbatch did not take the job: {clean(' '.join(str(error).split()), 600)}") from error
    toml.write(job_file(folder), SlurmJob(job=job.job_id, submitted_at=datetime.now(UTC), host=socket.gethostname()))
    return str(job.job_id)


def _wanted(home: Home, sets: list[str]) -> dict[str, Any]:
    """[slurm] of config.toml, and over it what was given by --slurm: values are TOML, or text."""
    try:
        table = toml.read(home.config, dict[str, Any]).get("slurm", {}) if home.config.exists() else {}
    except FluxTUIError as error:
        raise UsageError(str(error)) from error
    found = dict(table) if isinstance(table, Mapping) else {}
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--slurm {clean(text, 80)} has no value; write it as KEY=VALUE, like partition=gpu.")
        try:
            found[key.strip()] = toml.parse(f"value = {value}".encode(), home.config)["value"]
        except FluxTUIError:
            found[key.strip()] = value.strip()
    return found


@dataclass(slots=True)
class Task:
    """What the job runs on each of its nodes. Pickled by submitit; run again by it after each requeue."""

    home: str
    session: str
    start_from: str

    def __call__(self) -> str:
        """Keep this node's part to its end, or until Slurm wants the node back; how the session then stands."""
        import submitit

        node = submitit.JobEnvironment().node
        requeue = signal.getsignal(signal.SIGUSR2)  # submitit's: it asks `checkpoint`, and gives the job back to the queue
        asked = _Asked()
        for number in _LEAVE:
            signal.signal(number, asked.take)
        self._keep(node, asked)
        if node:
            return "done"
        home = Home.open(Path(self.home))
        seen = overview.look(home, self.session)
        if asked.by and seen.status == "stopped" and _is_wanted_back(asked.by):
            assert callable(requeue)
            requeue(signal.SIGUSR2, None)  # ends this process
        if seen.status not in ("completed", "stopped"):
            raise FluxTUIError(f"{self.session} is {seen.state}: {seen.reason}")
        return seen.state

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Called by submitit before it requeues: the checkpoint is on disk already, and the same task resumes from it."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)

    def _keep(self, node: int, asked: _Asked) -> None:
        until = time.monotonic() + _ELSEWHERE_SECONDS
        while not asked.by:
            keeper, answer = self._start(node)
            asked.to(keeper)
            keeper.wait()
            if answer.get("ok"):
                return
            if answer.get("code") != ExitCode.REFUSED or not self._was_elsewhere() or time.monotonic() > until:
                raise FluxTUIError(str(answer.get("error") or f"the keeper left with exit code {keeper.returncode}"))
            time.sleep(2.0)

    def _start(self, node: int) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
        """The keeper, and its one line. It stops as by SIGTERM where this process is gone."""
        command = [sys.executable, "-m", "fluxtui.engine", "join" if node else "keep", "--home", self.home]
        command += ["--session", self.session]
        if node:
            command += ["--node", str(node)]
        else:
            has_run = bool(Home.open(Path(self.home)).session(self.session).attempt_numbers())
            command += ["--resume", "auto" if has_run else ""]
            command += ["--start-from", self.start_from] if self.start_from else []
        keeper = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True, cwd="/",
            env={**os.environ, wire.RUN_ID: uuid.uuid4().hex}, preexec_fn=life.stop_with_parent,
        )  # fmt: skip
        assert keeper.stdout is not None
        with keeper.stdout as said:
            line = said.readline(64 * 1024)
        try:
            answer = json.loads(line)
        except ValueError:
            answer = {}
        return keeper, answer if isinstance(answer, dict) else {}

    def _was_elsewhere(self) -> bool:
        """Whether another node's beat is what the keeper refused for; it may have grown old since."""
        return overview.look(Home.open(Path(self.home)), self.session).state in ("elsewhere", "lost")


class _Asked:
    """The first signal by which Slurm wants the node back, handed on to the keeper as a stop."""

    def __init__(self) -> None:
        self.by = ""
        self._tell: Callable[[], None] = lambda: None

    def take(self, number: int, _frame: object) -> None:
        self.by = self.by or signal.Signals(number).name
        self._tell()

    def to(self, keeper: subprocess.Popen[bytes]) -> None:
        """From now on to this one, which is our child: until it is waited for, its pid is nobody else's."""

        def tell() -> None:
            if keeper.returncode is None:
                os.kill(keeper.pid, signal.SIGTERM)

        self._tell = tell
        if self.by:
            tell()


def _is_wanted_back(by: str) -> bool:
    """Whether the job is to go on later. SIGUSR2 means so; SIGTERM does at a preemption, and not where the job was cancelled."""
    if by == "SIGUSR2":
        return True
    command = ["scontrol", "show", "job", "-o", os.environ.get("SLURM_JOB_ID", "")]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    facts = dict(word.split("=", 1) for word in said.split() if "=" in word)
    return "CANCELLED" not in facts.get("JobState", "") and facts.get("PreemptTime", "None") not in ("None", "Unknown", "")
