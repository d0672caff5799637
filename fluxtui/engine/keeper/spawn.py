"""Processes that the keeper starts: the ranks of a trainer, and the prover. Pipes, environment, the job.

Each is a session of its own, so that its process group can be ended as a whole, and each has the run id in its environment.
The write end of the progress pipe never blocks, whoever writes; the job comes from a file in memory, so that a trainer
that never reads it holds up nobody.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType

import msgspec

from fluxtui.engine import life, wire
from fluxtui.engine.keeper.machines.network import interface_of
from fluxtui.engine.keeper.process_tree import OWN_CHILD, ProcessTree
from fluxtui.persist import process
from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.files.durable import write_all
from fluxtui.persist.sessions.record import ProcessIdentity

TRAINER = "FLUXTUI_TRAINER"  # for tests: a module to run instead of `fluxtui.engine train`
PROVER = "FLUXTUI_PROVER"
_RENDEZVOUS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK")
_INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


class CannotStartError(FluxTUIError):
    """A process of the engine could not be started at all."""


@dataclass(slots=True)
class Rank:
    """One process that was started. It is reaped last of all: until then its pid, and its group's, are nobody else's."""

    rank: int
    process: subprocess.Popen[bytes]
    pidfd: int
    identity: ProcessIdentity

    @property
    def pid(self) -> int:
        return self.process.pid


@dataclass(slots=True)
class Group:
    """The ranks of one trainer, or the one process of a prover."""

    what: str  # "trainer", "prover"
    run_id: str
    ranks: list[Rank]
    progress_fd: int  # read end
    request_fd: int = -1  # write end
    answer_fd: int = -1  # the prover's standard output
    tree: ProcessTree = field(init=False)

    def __post_init__(self) -> None:
        self.tree = ProcessTree(self.run_id, {rank.pid for rank in self.ranks})

    def request(self, line: wire.RequestLine) -> bool:
        """Send a request down to rank 0; False where it does not read, or is gone."""
        if self.request_fd < 0:
            return False
        try:
            os.write(self.request_fd, wire.encode(line))
        except OSError:
            return False
        return True

    def signal_ranks(self, number: int) -> None:
        """To each rank that was not reaped: its pid cannot be anyone else's."""
        for rank in self.ranks:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(rank.pidfd, number)

    def kill_groups(self) -> None:
        """SIGKILL to the process groups of the ranks. Their leaders are not reaped yet, so the groups are theirs."""
        for rank in self.ranks:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(rank.pid, signal.SIGKILL)

    def __enter__(self) -> Group:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        """Whatever happened in the block, no process of the group outlives it; what was opened for them is closed."""
        self.signal_ranks(signal.SIGKILL)
        self.kill_groups()
        self.tree.send(signal.SIGKILL)
        for rank in self.ranks:
            rank.process.wait()
            os.close(rank.pidfd)
        for fd in (self.progress_fd, self.request_fd, self.answer_fd):
            if fd >= 0:
                os.close(fd)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the ranks that a keeper starts stand among those of all machines, and where all of them meet."""

    node: int
    first: int  # rank of the first one here
    world_size: int
    address: str
    port: int


def spawn_trainer(job: wire.TrainJob, ranks: int, log_fd: int, place: Place | None = None) -> Group:
    """Start every rank of a trainer that this machine has; raises `CannotStartError`, with none left behind."""
    first, world_size = (place.first, place.world_size) if place else (0, ranks)
    module = os.environ.get(TRAINER)
    command = [sys.executable, "-m", module] if module else [sys.executable, "-m", "fluxtui.engine", "train"]
    with _Opened() as opened:
        progress, progress_end = opened.pipe(os.O_CLOEXEC | os.O_NONBLOCK)
        request_end, request = opened.pipe(os.O_CLOEXEC)
        os.set_blocking(request, False)
        environment = _environment(job.run_id, job.devices, job.threads) | (
            _meeting(place, ranks) if place else _rendezvous(ranks)
        )
        for number in range(first, first + ranks):
            own = {"RANK": str(number), wire.PROGRESS_FD: str(progress_end)}
            own |= {"LOCAL_RANK": str(number - first)} if world_size > 1 else {}
            own |= {wire.REQUEST_FD: str(request_end)} if number == 0 else {}
            keep = (progress_end, request_end) if number == 0 else (progress_end,)
            opened.ranks.append(_start(number, command, environment | own, keep, msgspec.json.encode(job), log_fd, log_fd))
        opened.kept = [progress, request]
        return Group("trainer", job.run_id, opened.ranks, progress, request)


def spawn_prover(arguments: Sequence[str], run_id: str, devices: Sequence[str], threads: int, log_fd: int) -> Group:
    """Start the process that proves the product; its answer is read from `answer_fd` once it has ended."""
    module = os.environ.get(PROVER)
    command = [sys.executable, "-m", module] if module else [sys.executable, "-m", "fluxtui.engine", "prove"]
    with _Opened() as opened:
        progress, progress_end = opened.pipe(os.O_CLOEXEC | os.O_NONBLOCK)
        answer = opened.memory("proof")
        environment = _environment(run_id, devices, threads) | {wire.PROGRESS_FD: str(progress_end)}
        opened.ranks.append(_start(0, [*command, *arguments], environment, (progress_end,), b"", answer, log_fd))
        opened.kept = [progress, answer]
        return Group("prover", run_id, opened.ranks, progress, answer_fd=answer)


class _Opened:
    """What was opened and started on the way to a group: whatever fails is one `CannotStartError`, and none of it is left."""

    def __init__(self) -> None:
        self.ranks: list[Rank] = []
        self.kept: list[int] = []  # descriptors that the group takes over
        self._descriptors: list[int] = []

    def pipe(self, flags: int) -> tuple[int, int]:
        """A read and a write end, as large as the kernel lets it be."""
        ends = os.pipe2(flags)
        self._descriptors += ends
        with suppress(OSError):
            fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, 2**20)
        return ends

    def memory(self, name: str) -> int:
        """A file in memory."""
        self._descriptors.append(os.memfd_create(name, os.MFD_CLOEXEC))
        return self._descriptors[-1]

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None) -> None:
        if error is not None:
            self.kept = []
            _undo(self.ranks)
        for descriptor in self._descriptors:
            if descriptor not in self.kept:
                os.close(descriptor)
        if isinstance(error, OSError | subprocess.SubprocessError):  # the latter: what runs between fork and exec failed
            raise CannotStartError(_why_not(error)) from error


def _start(
    number: int, command: Sequence[str], environment: Mapping[str, str], keep: Sequence[int], job: bytes, out_fd: int, err_fd: int
) -> Rank:
    given = os.memfd_create("job", os.MFD_CLOEXEC)
    try:
        write_all(given, job)
        os.lseek(given, 0, os.SEEK_SET)
        started = subprocess.Popen(
            command,
            stdin=given,
            stdout=out_fd,
            stderr=err_fd,
            pass_fds=keep,
            env=dict(environment),
            cwd="/",
            start_new_session=True,
            # Kept over exec, so there is no moment in which it would outlive us. The keeper has one thread: no lock is torn.
            preexec_fn=partial(life.die_with_parent, os.getpid()),
        )
    finally:
        os.close(given)
    try:
        pidfd = os.pidfd_open(started.pid)
        identity = process.identify_child(started.pid, environment[wire.RUN_ID])
    except OSError:
        started.kill()
        started.wait()
        raise
    if identity is None:  # not reaped, so it is there, were it dead: /proc itself is at fault
        started.kill()
        started.wait()
        os.close(pidfd)
        raise OSError(errno.ENOENT, "/proc cannot be read")
    return Rank(number, started, pidfd, identity)


def _environment(run_id: str, devices: Sequence[str], threads: int) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in (*_RENDEZVOUS, OWN_CHILD)}
    return _idle_threads(kept) | kept | {
        wire.KEEPER_PID: str(os.getpid()),
        wire.RUN_ID: run_id,
        "CUDA_VISIBLE_DEVICES": ",".join(devices),  # empty: a session of the CPU never touches a GPU
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        # numpy's pool: torch computes without it, and where none of its threads can be had OpenBLAS raises SIGINT in the trainer,
        # which would take it for a stop by the user
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONFAULTHANDLER": "1",  # a crash before the trainer's first act leaves a stack too
    }


def _idle_threads(environment: Mapping[str, str]) -> dict[str, str]:
    """How long a thread that has nothing to do spins before it sleeps; the user's own setting wins. Results are the same.

    libgomp's own 300,000 rounds hold a core that the thread waited for may need: where others use the cores too, a step of the
    pico took 4 to 11 s. With none (OMP_WAIT_POLICY=PASSIVE) it takes 2.6 times as long on a quiet machine, 0.117 s for 0.044.
    With these it is 0.045 s there, and 0.24 to 0.45 s beside two to four busy processes on two cores: the bare steps of
    `GOMP_SPINCOUNT=N OMP_NUM_THREADS=2 python bench/_bare.py 60 FILE`.
    """
    return {} if environment.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} else {"GOMP_SPINCOUNT": "2500"}


def _rendezvous(ranks: int) -> dict[str, str]:
    """What torch.distributed reads. One rank gets none of it, so that nothing listens on a port for it."""
    if ranks == 1:
        return {"WORLD_SIZE": "1"}
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def _meeting(place: Place, ranks: int) -> dict[str, str]:
    """What torch.distributed reads where ranks are on several machines. Loopback must not be what gloo or NCCL bind to."""
    found = {"WORLD_SIZE": str(place.world_size), "LOCAL_WORLD_SIZE": str(ranks), "GROUP_RANK": str(place.node)}
    found |= {"MASTER_ADDR": place.address, "MASTER_PORT": str(place.port)}
    interface = interface_of(place.address)
    return found | {name: interface for name in _INTERFACES if interface and not os.environ.get(name)}


def _undo(started: Sequence[Rank]) -> None:
    for rank in started:
        rank.process.kill()
        rank.process.wait()
        os.close(rank.pidfd)


def _why_not(error: OSError | subprocess.SubprocessError) -> str:
    if isinstance(error, subprocess.SubprocessError):
        return f"the trainer cannot be started: {error}"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "no file descriptors are left to start the trainer with: raise `ulimit -n`"
    if error.errno in (errno.EAGAIN, errno.ENOMEM):
        return (
            "no process can be started: the limit on processes (`ulimit -u`, a container's pids limit) or the memory is used up"
        )
    return f"the trainer cannot be started: {error.strerror or error}"
