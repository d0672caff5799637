"""A home of its own with real keepers in it, and the one checker of what must hold after every fault."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pace import SLOW
from standin_prover import expected_state

from fluxtui.persist import process
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.files import tensorfile, toml
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.sessions import requests
from fluxtui.persist.sessions.record import ACTIVE, TERMINAL, Record
from fluxtui.persist.settings import recipe
from fluxtui.persist.settings.spec import CheckpointSpec, DatasetSpec, GuardSpec, HardwareSpec, ModelSpec, Spec, TrainSpec

HERE = Path(__file__).parent


def fast(**floors: float | bool) -> GuardSpec:
    """Floors small enough for a test, in seconds of an idle machine."""
    seconds = {
        "start": 20,
        "load": 4,
        "download": 3,
        "encode": 3,
        "batch": 2,
        "first_steps": 3,
        "step": 2,
        "checkpoint": 3,
        "sample": 3,
    }
    seconds |= {"prove": 4, "stop": 6, "grace": 1, "retry_delay": 0.2}
    counts = ("auto_resume", "max_auto_resumes")
    return GuardSpec(**{key: value if key in counts else value * SLOW for key, value in (seconds | floors).items()})


FAST = fast()


def until(condition: Callable[[], object], seconds: float = 20.0, what: str = "") -> object:
    """Wait for a condition; its value."""
    seconds *= SLOW
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"{what or condition} did not come true in {seconds} s"
        time.sleep(0.02)
    return value


@dataclass
class Keeper:
    """A keeper that was started, and what it said to the front."""

    process: subprocess.Popen
    answer: dict

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait(self, seconds: float = 40.0) -> int:
        """Its exit code. `seconds` are those of an idle machine."""
        return self.process.wait(seconds * SLOW)


@dataclass
class Session:
    """One session folder of the lab."""

    lab: Lab
    folder: SessionFolder
    spec: Spec

    @property
    def attempts(self) -> list[int]:
        return self.folder.attempt_numbers()

    def record(self, attempt: int | None = None) -> Record:
        return toml.read(self.folder.attempt_file(attempt or self.attempts[-1]), Record)

    def records(self) -> list[Record]:
        return [self.record(number) for number in self.attempts]

    def log(self) -> str:
        return self.folder.log_file.read_text(errors="replace")

    def start(self, *arguments: str, may_fail: bool = False, wrap: list[str] | None = None, **environment: str) -> Keeper:
        command = [
            sys.executable,
            "-m",
            "fluxtui.engine",
            "keep",
            "--home",
            str(self.lab.home.root),
            "--session",
            self.folder.name,
        ]
        started = subprocess.Popen(
            [*(wrap or []), *command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.lab.errors,
            env=self.lab.environment(environment),
            cwd="/",
            start_new_session=True,
        )
        self.lab.keepers.append(started)
        line = started.stdout.readline()
        started.stdout.close()
        assert may_fail or line, self.lab.error_file.read_text()
        answer = json.loads(line) if line else {}
        assert may_fail or answer.get("ok"), answer
        return Keeper(started, answer)

    def run(self, *arguments: str, seconds: float = 40.0, **environment: str) -> Record:
        """Start, wait for the end, check everything that must hold; the last record."""
        self.start(*arguments, **environment).wait(seconds)
        self.check()
        return self.record()

    def request(self, verb: str, value: int | str | None = None, attempt: int | None = None) -> str:
        return requests.drop_request(self.folder, verb, attempt or self.attempts[-1], value)

    def await_status(self, *statuses: str, seconds: float = 20.0) -> Record:
        def reached() -> Record | None:
            record = self.record()
            return record if record.status in statuses else None

        return until(reached, seconds, f"{statuses}, not {self.record().status} ({self.record().reason})")

    def await_step(self, step: int, seconds: float = 20.0) -> Record:
        def reached() -> Record | None:
            record = self.record()
            return record if record.step >= step and record.ranks else None

        return until(reached, seconds, f"step {step}")

    def product_is_exact(self) -> bool:
        """The product holds the tensors of a run that was never interrupted."""
        from standin import product_bytes

        state = expected_state(self.spec.train.seed, self.spec.train.steps)
        wanted = product_bytes(state, self.spec.id, recipe.recipe_sha256(self.spec), self.spec.train.steps)
        return self.folder.product.read_bytes() == wanted

    def check(self) -> None:
        """What must hold after any fault: nothing torn, nothing falsely completed, nothing left running."""
        for name in commit.committed(self.folder.checkpoints):
            commit.verify_checkpoint(self.folder.checkpoints / name)
        for record in self.records():
            if record.status == "completed":
                assert record.proof is not None
                assert record.proof.ok
                assert self.product_is_exact()
                assert tensorfile.tensors_sha256(self.folder.product) == record.proof.tensors_sha256
            if record.status in TERMINAL:
                assert record.finished_at is not None
        for record in self.records()[:-1]:
            assert record.status in TERMINAL or record.boot_id != process.boot_id() or not self.is_kept(), record
        assert not self.strays(), self.strays()

    def is_kept(self) -> bool:
        return Lock.held(self.folder.lock_file)

    def strays(self) -> list[str]:
        """Processes of any attempt that still live while no keeper does."""
        if self.is_kept():
            return []
        ids = {record.run_id for record in self.records()}
        return [f"{pid} {_command(pid)}" for pid in _pids() if process.run_id_of(pid) in ids and process.state_letter(pid) != "Z"]


@dataclass
class Lab:
    """A home, and everything started in it."""

    path: Path
    home: Home
    keepers: list[subprocess.Popen] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.error_file = self.path / "stderr"
        self.errors = self.error_file.open("ab")
        self.plan_file = self.path / "plan.json"
        self.plan_file.write_text("{}")
        self.extra: dict[str, str] = {}

    def environment(self, more: dict[str, str]) -> dict[str, str]:
        own = {
            "FLUXTUI_TRAINER": "standin",
            "FLUXTUI_PROVER": "standin_prover",
            "FLUXTUI_STANDIN": str(self.plan_file),
            "FLUXTUI_RUNTIME": str(self.path / "runtime"),
            "PYTHONPATH": str(HERE),
        }
        kept = {key: value for key, value in os.environ.items() if not key.startswith("FLUXTUI_")}
        return {key: value for key, value in (kept | own | self.extra | more).items() if value != "-"}

    def plan(self, *deeds: dict, **settings: object) -> None:
        """What the stand-in trainer is to do wrong."""
        self.plan_file.write_text(json.dumps({"deeds": list(deeds), **settings}))

    def session(
        self, name: str = "one", steps: int = 30, every: int = 10, guard: GuardSpec = FAST, **hardware: object
    ) -> Session:
        spec = Spec(
            name=name,
            id=uuid.uuid4().hex,
            model=ModelSpec(source="pico"),
            dataset=DatasetSpec(path="demo"),
            train=TrainSpec(steps=steps),
            checkpoint=CheckpointSpec(every_steps=every),
            guard=guard,
            hardware=HardwareSpec(**({"gpus": []} | hardware)),
        )
        folder = self.home.session(name)
        folder.create()
        recipe.save_spec(folder.spec_file, spec)
        return Session(self, folder, spec)

    def close(self) -> None:
        for keeper in self.keepers:
            if keeper.poll() is None:
                with suppress(ProcessLookupError):
                    os.kill(keeper.pid, signal.SIGCONT)
                    keeper.kill()
                keeper.wait(20)
        self.errors.close()


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def is_active(record: Record) -> bool:
    return record.status in ACTIVE


def removed(group: Path) -> bool:
    """Whether a control group could be removed: it can once its last process is gone."""
    try:
        group.rmdir()
    except OSError:
        return False
    return True
