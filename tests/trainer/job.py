"""Trainers as real processes: a home, a session, a job on standard input, the progress pipe read to its end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from fluxtui.engine import quiet, wire
from fluxtui.engine.life import StopFlag
from fluxtui.engine.trainer import preflight
from fluxtui.engine.trainer.loop import train
from fluxtui.engine.trainer.prepare import prepare
from fluxtui.engine.trainer.reporter import Reporter
from fluxtui.engine.trainer.run import Run
from fluxtui.engine.wire import TrainerExit
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.files import toml
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.sessions.record import Record, Result
from fluxtui.persist.settings import recipe
from fluxtui.persist.settings.spec import DatasetSpec, ModelSpec, Spec

SMALL: dict[str, Any] = {
    "dataset.resolution": [64], "dataset.trigger": "zorp", "lora.rank": 4, "lora.alpha": 4.0, "train.steps": 8,
    "train.batch_size": 2, "train.learning_rate": 1e-3, "train.warmup_steps": 0, "train.gradient_checkpointing": False,
    "checkpoint.every_epochs": 0,
    "checkpoint.every_minutes": 0.0, "sample.at_start": False, "sample.every_epochs": 0,
}  # fmt: skip


@dataclass
class Ended:
    """How a trainer ended, and what it said."""

    code: int
    lines: list[wire.ProgressLine]
    log: str

    @property
    def error(self) -> str:
        return next((line.error for line in self.lines if line.error), "")


@dataclass
class Bench:
    """A home with one session in it, and trainers of it."""

    root: Path
    spec: Spec
    home: Home = field(init=False)
    folder: SessionFolder = field(init=False)
    attempt: int = 0
    nonce: str = ""

    def __post_init__(self) -> None:
        self.home = Home.open(self.root)
        self.folder = self.home.session(self.spec.name)
        if not self.folder.exists():
            self.folder.create()
            recipe.save_spec(self.folder.spec_file, self.spec)

    def train(self, ranks: int = 1, **job: Any) -> Ended:
        """One attempt to its end."""
        return Running(self, ranks, **job).wait()

    def start(self, ranks: int = 1, **job: Any) -> Running:
        return Running(self, ranks, **job)

    def new_job(self, **changes: Any) -> wire.TrainJob:
        self.attempt += 1
        self.nonce = uuid.uuid4().hex
        job = wire.TrainJob(
            home=str(self.home.root), session=str(self.folder.path), attempt=self.attempt, nonce=self.nonce, run_id="run-1",
            spec=self.spec, recipe_sha256=recipe.recipe_sha256(self.spec), threads=1,
        )  # fmt: skip
        return msgspec.structs.replace(job, **changes)

    def run_here(self, **job: Any) -> Run:
        """The same in this process, for what is looked at afterwards; raises what the trainer raises."""
        run = self.prepare_here(**job)
        assert train(run) in (TrainerExit.DONE, TrainerExit.STOPPED)
        return run

    def prepare_here(self, **job: Any) -> Run:
        """A run in this process, before its first step."""
        quiet.hush()
        made, reporter = self.new_job(**job), Reporter(None)
        return prepare(made, self.folder, preflight.run(made, self.folder, reporter), reporter, StopFlag())

    def result(self) -> Result:
        return toml.read(self.folder.result_file, Result)

    def checkpoints(self) -> list[str]:
        return commit.committed(self.folder.checkpoints)

    def write_record(self) -> Record:
        """What the keeper of the last attempt would have written by the end of it."""
        record = Record(
            session_id=self.spec.id, attempt=self.attempt, nonce=self.nonce, status="running", queued_at=datetime.now(UTC),
            host="test", boot_id="test", run_id="run-1", recipe_sha256=recipe.recipe_sha256(self.spec), exit_code=0,
        )  # fmt: skip
        toml.write(self.folder.attempt_file(self.attempt), record)
        return record


class Running:
    """A trainer that runs, each rank a process of its own, as the keeper starts them."""

    def __init__(
        self, bench: Bench, ranks: int, environment: dict[str, str] | None = None,
        arguments: tuple[str, ...] = ("-m", "fluxtui.engine", "train"), **job: Any,
    ) -> None:  # fmt: skip
        self.lines: list[wire.ProgressLine] = []
        self.changed = threading.Condition()
        self.log_file = bench.root / f"log-{bench.spec.name}-{bench.attempt + 1}"
        read, write = os.pipe()
        self._request_read, self.requests = os.pipe()
        data = msgspec.json.encode(bench.new_job(**job))
        common = os.environ | {wire.PROGRESS_FD: str(write), wire.KEEPER_PID: str(os.getpid()), wire.RUN_ID: "run-1"}
        common |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "WORLD_SIZE": str(ranks)} | (environment or {})
        if ranks > 1:
            common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
        self.processes = []
        with self.log_file.open("wb") as log:
            for rank in range(ranks):
                own = {"RANK": str(rank)} | ({"LOCAL_RANK": str(rank)} if ranks > 1 else {})
                own |= {wire.REQUEST_FD: str(self._request_read)} if rank == 0 else {}
                process = subprocess.Popen(
                    [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=log, stderr=log,
                    pass_fds=(write, self._request_read), env=common | own, cwd="/", start_new_session=True,
                )  # fmt: skip
                assert process.stdin is not None
                process.stdin.write(data)
                process.stdin.close()
                self.processes.append(process)
        os.close(write)
        os.close(self._request_read)
        self._reader = threading.Thread(target=self._read, args=(read,))
        self._reader.start()

    def _read(self, fd: int) -> None:
        with os.fdopen(fd, "rb") as pipe:
            for raw in pipe:
                with self.changed:
                    self.lines.append(msgspec.json.decode(raw, type=wire.ProgressLine))
                    self.changed.notify_all()
        with self.changed:
            self.changed.notify_all()

    def until_step(self, step: int) -> None:
        """Waits for the line of that step, or for the end."""
        with self.changed:
            self.changed.wait_for(
                lambda: any((line.step or 0) >= step for line in self.lines) or not self.is_running, timeout=120
            )

    @property
    def is_running(self) -> bool:
        return self.processes[0].poll() is None

    def request(self, verb: str) -> str:
        """Sends a request down the pipe; its id."""
        name = uuid.uuid4().hex
        os.write(self.requests, msgspec.json.encode({"id": name, "verb": verb}) + b"\n")
        return name

    def signal(self, number: int) -> None:
        for process in self.processes:
            process.send_signal(number)

    def wait(self, seconds: float = 240) -> Ended:
        for process in self.processes:
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.signal(9)
                raise
        os.close(self.requests)
        self._reader.join()
        return Ended(self.processes[0].returncode, self.lines, self.log_file.read_text(errors="replace"))


def small_spec(model: Path, data: Path, name: str = "little", **sets: Any) -> Spec:
    """A spec that trains in seconds. Keywords are keys of the spec with `__` for the dot."""
    values = SMALL | {key.replace("__", "."): value for key, value in sets.items()}
    spec = Spec(
        name=name, id=f"id-of-{name}", kind="pico", model=ModelSpec(source=str(model)), dataset=DatasetSpec(path=str(data))
    )
    return recipe.apply(spec, values)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
