"""A session as a Slurm job: submitted, and taken back while it waits. Once it runs its keeper hears requests as any other."""

from __future__ import annotations

from collections.abc import Sequence

from fluxtui.control import engine
from fluxtui.control.create import check_inputs, start_folder
from fluxtui.control.launch import ERRORS, completed
from fluxtui.control.watch import settled
from fluxtui.persist.errors import FluxTUIError, RefusedError
from fluxtui.persist.files import toml
from fluxtui.persist.files.text import clean
from fluxtui.persist.home import Home
from fluxtui.persist.sessions import kept_spec
from fluxtui.persist.sessions.slurm import SlurmJob, job_file

WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "CONFIGURING"})
_SECONDS = 30.0  # that a command of Slurm may take


def submit(home: Home, name: str, options: Sequence[str] = ()) -> str:
    """Submit a session that is not running, new or to be resumed; the job's number. Raises `FluxTUIError`."""
    seen = settled(home, name)
    if seen.is_active or seen.state == "elsewhere":
        raise RefusedError(f"{name} is {seen.state} already; fluxtui show {name} says where it is.")
    if seen.status == "completed" and not seen.is_resumable:
        raise completed(home, seen)
    job = job_of(home, name)
    if job and (state := state_of(job)):
        raise RefusedError(f"{name} is in Slurm already: job {job} is {state.lower()}; fluxtui stop {name} takes it back.")
    spec = kept_spec.load(home.session(name))
    check_inputs(home, spec)
    words = ["--home", str(home.root), "--session", name]
    words += ["--start-from", str(start_folder(home, spec))] if spec.model.start_from else []
    words += [word for option in options for word in ("--slurm", option)]
    code, answer, said = engine.last_object("submit", words)
    if answer is None:
        raise engine.failed("submit", code, said)
    if not answer.get("ok"):
        raise ERRORS.get(code, FluxTUIError)(clean(str(answer.get("error", said)), 1000))
    return str(answer["job"])


def cancel_waiting(home: Home, name: str) -> str:
    """Take the session's job back where it still waits in Slurm's queue; its number, empty where none waits."""
    job = job_of(home, name)
    if not job or state_of(job) not in WAITING:
        return ""
    code, said = _run("scancel", job)
    if code:
        raise FluxTUIError(f"scancel did not take job {job} back: {said}")
    return job


def job_of(home: Home, name: str) -> str:
    """Number of the newest job; empty where the session was never submitted."""
    try:
        return toml.read(job_file(home.session(name)), SlurmJob).job
    except FluxTUIError:
        return ""


def state_of(job: str) -> str:
    """PENDING, RUNNING … of a job that Slurm still has in its queue; empty where it is over, or Slurm is not here."""
    code, said = _run("squeue", "--noheader", "--jobs", job, "--format", "%T")
    return said.split()[0] if code == 0 and said.split() else ""


def _run(*command: str) -> tuple[int, str]:
    import subprocess

    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, clean(str(error), 300)
    return ran.returncode, clean((ran.stdout if ran.returncode == 0 else ran.stderr).strip(), 300)
