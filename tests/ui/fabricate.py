"""A home with sessions of every state, made of real files through persist: for tests, pictures and a look by eye.

python -m tests.ui.fabricate FOLDER [EXTRA_SESSIONS]     keeps the locks held until it is interrupted
"""

from __future__ import annotations

import hashlib
import math
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from fluxtui.persist import metrics
from fluxtui.persist.files import toml
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.process import boot_id, identify
from fluxtui.persist.sessions.record import Phase, Proof, Record
from fluxtui.persist.settings.defaults import new_spec
from fluxtui.persist.settings.recipe import recipe_sha256, save_spec

LINE = "=" * 80


@dataclass
class Fabricated:
    """What must stay alive for the states to hold."""

    home: Home
    locks: list[Lock] = field(default_factory=list)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        for lock in self.locks:
            lock.release()


def make_session(home: Home, name: str, kind: str = "pico", **sets: object) -> SessionFolder:
    """A session that was never started."""
    folder = home.session(name)
    folder.create()
    dotted = {key.replace("__", "."): value for key, value in sets.items()}
    source = "pico" if kind == "pico" else "black-forest-labs/FLUX.1-dev"
    save_spec(folder.spec_file, new_spec(name, source, "demo", kind, 14, "vexo", dotted))  # type: ignore[arg-type]
    return folder


def make_record(folder: SessionFolder, attempt: int = 1, **fields: Any) -> Record:
    """Write a record of an attempt; the rest of its fields is plausible."""
    from fluxtui.persist.settings.recipe import load_spec

    spec = load_spec(folder.spec_file)
    now = fields.pop("now", None) or datetime.now(UTC)
    values: dict[str, Any] = {
        "session_id": spec.id,
        "attempt": attempt,
        "nonce": f"nonce{attempt}",
        "queued_at": now - timedelta(minutes=20),
        "host": socket.gethostname(),
        "boot_id": boot_id(),
        "run_id": f"run-{folder.name}",
        "recipe_sha256": recipe_sha256(spec),
        "steps": 400,
        "epochs": 16,
        "beat_at": now,
        "started_at": now - timedelta(minutes=19),
        "threads": 2,
    }
    values.update(fields)
    record = Record(**values)
    toml.write(folder.attempt_file(attempt), record)
    return record


def make_metrics(folder: SessionFolder, steps: int, attempt: int = 1, first: int = 1, seed: int = 1) -> None:
    """A loss that falls as losses do."""
    noise = random.Random(seed)
    descriptor = metrics.open_append(folder.metrics_file)
    now = datetime.now(UTC)
    lines = []
    for step in range(first, steps + 1):
        lines.append(
            msgspec.json.encode(
                metrics.StepMetric(
                    attempt=attempt,
                    step=step,
                    epoch=1 + step // 25,
                    loss=0.035 + 0.5 * math.exp(-step / 60) + abs(noise.gauss(0, 0.02)),
                    learning_rate=2e-3 * min(1, step / 20),
                    gradient_norm=0.4 + abs(noise.gauss(0, 0.1)),
                    seconds=0.07 + abs(noise.gauss(0, 0.004)),
                    at=now - timedelta(seconds=0.07 * (steps - step)),
                    validation_loss=0.05 + 0.4 * math.exp(-step / 80) if step % 50 == 0 else None,
                )
            )
            + b"\n"
        )
    os.write(descriptor, b"".join(lines))
    os.close(descriptor)


def make_log(folder: SessionFolder, steps: int, ending: str = "") -> None:
    """A log as trainer and keeper write it."""
    lines = [
        f"12:00:01 attempt 1 of {folder.name}",
        "12:00:02 14 images, 14 captions, trigger vexo",
        "12:00:03 text encoders: loaded in 0.4 s",
        "12:00:04 captions encoded: 14",
        "12:00:04 images encoded: 14, bucket 64x64",
        "12:00:05 transformer: 2 double and 4 single blocks, width 192",
        "12:00:05 LoRA: rank 16 over 44 layers, 1.2 M parameters in fp32",
    ]
    for step in range(10, steps + 1, 10):
        lines.append(
            f"12:{step // 60:02d}:{step % 60:02d} step {step}  loss {0.035 + 0.5 * math.exp(-step / 60):.4f}  0.072 s/step"
        )
        if step % 100 == 0:
            lines.append(f"12:{step // 60:02d}:{step % 60:02d} checkpoint step-{step:09d} committed, 3.2 MB in 0.04 s")
    if ending:
        lines += [LINE, *ending.split("\n"), LINE]
    folder.log_file.write_text("\n".join(lines) + "\n")


def make_product(folder: SessionFolder) -> Proof:
    data = b"\0" * 123456
    folder.product.write_bytes(data)
    return Proof(
        ok=True,
        file=folder.product.name,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        tensors_sha256="c0ffee" * 10 + "beef",
        checks=["exit code", "result", "file", "metadata", "keys", "finite", "non-zero", "diffusers loads it"],
        at=datetime.now(UTC),
    )


def _running(made: Fabricated, name: str, step: int, **fields: Any) -> SessionFolder:
    folder = make_session(made.home, name, **fields.pop("spec", {}))
    values: dict[str, Any] = {
        "status": "running",
        "phase": Phase.TRAIN,
        "step": step,
        "epoch": 1 + step // 25,
        "loss": 0.0412,
        "step_seconds": 0.072,
        "checkpoint": f"step-{step // 100 * 100:09d}" if step >= 100 else "",
    }
    make_record(folder, **{**values, **fields})
    make_metrics(folder, step)
    make_log(folder, step)
    lock = Lock.take(folder.lock_file)
    assert lock is not None
    made.locks.append(lock)
    return folder


def every_state(root: Path, extra: int = 0) -> Fabricated:
    """One session of each state, and as many completed ones as wanted."""
    made = Fabricated(Home.open(root))
    now = datetime.now(UTC)
    _running(made, "ring-lora", 230, step_seconds=0.074)
    _running(
        made,
        "portrait-dev",
        812,
        steps=2000,
        epochs=20,
        epoch=9,
        step_seconds=1.84,
        loss=0.3127,
        spec={"kind": "flux1"},
        gpus=["GPU-5f3a9c1e-b2"],
    )
    _running(
        made,
        "waiting-cat",
        0,
        status="queued",
        phase=None,
        waiting_for="the CPU, used by ring-lora",
        steps=0,
        epochs=0,
        loss=None,
        step_seconds=None,
        started_at=None,
    )
    _running(
        made,
        "just-begun",
        0,
        status="starting",
        phase=Phase.LOAD,
        inner="2.1 of 23.8 GB",
        steps=0,
        epochs=0,
        loss=None,
        step_seconds=None,
    )
    _running(made, "going-down", 120, status="stopping", phase=Phase.CHECKPOINT)
    _running(made, "stuck-batch", 96, amber="batch for 41 s (limit 300 s)")
    _running(made, "no-beat", 200, beat_at=now - timedelta(seconds=75))
    asleep = subprocess.Popen(["sleep", "1000"])
    made.processes.append(asleep)
    asleep.send_signal(signal.SIGSTOP)
    _wait_stopped(asleep.pid)
    _running(made, "put-to-sleep", 50, keeper=identify(asleep.pid))
    make_session(made.home, "a-new-one")
    done = make_session(made.home, "blue-vase")
    make_record(
        done,
        status="completed",
        step=400,
        epoch=16,
        phase=Phase.PROVE,
        loss=0.0391,
        step_seconds=0.071,
        exit_code=0,
        finished_at=now - timedelta(minutes=2),
        proof=make_product(done),
        output=str(done.product),
        reason="",
    )
    make_metrics(done, 400)
    make_log(done, 400, f"TRAINING COMPLETED SUCCESSFULLY\nModel saved: {done.product.name}")
    gone = make_session(made.home, "file-gone")
    make_record(
        gone, status="completed", step=400, epoch=16, exit_code=0, finished_at=now - timedelta(days=2), proof=make_product(gone)
    )
    gone.product.unlink()
    failed = make_session(made.home, "too-hot", train__learning_rate=1.0)
    make_record(
        failed,
        1,
        status="failed",
        step=40,
        epoch=2,
        exit_code=76,
        reason="non-finite loss at step 40",
        remedy="lower train.learning_rate (it is 1.0)",
        finished_at=now - timedelta(hours=3),
        started_at=now - timedelta(hours=3, minutes=4),
        checkpoint="",
    )
    make_metrics(failed, 40)
    make_log(failed, 40, "ERROR: TRAINING FAILED - non-finite loss at step 40")
    oom = make_session(made.home, "night-run")
    for attempt, reason in enumerate(("step took longer than 300 s", "killed by the OOM killer at 23.1 GiB"), 1):
        make_record(
            oom,
            attempt,
            status="failed",
            step=80 * attempt,
            epoch=4 * attempt,
            signal="SIGKILL",
            reason=reason,
            checkpoint=f"step-{64 * attempt:09d}",
            resumed_from="" if attempt == 1 else "step-000000064",
            finished_at=now - timedelta(hours=9 - attempt),
            started_at=now - timedelta(hours=10 - attempt),
            remedy="use a smaller train.batch_size or close what else uses memory" if attempt == 2 else "",
        )
    make_metrics(oom, 160)
    make_log(oom, 160, "ERROR: TRAINING CRASHED - killed by the OOM killer")
    stopped = make_session(made.home, "paused-fox")
    make_record(
        stopped,
        status="stopped",
        step=192,
        epoch=8,
        exit_code=75,
        reason="stopped by the user",
        checkpoint="step-000000192",
        finished_at=now - timedelta(minutes=50),
    )
    make_metrics(stopped, 192)
    make_log(stopped, 192, "TRAINING STOPPED BY USER - checkpoint step-000000192")
    lost = make_session(made.home, "power-cut")
    make_record(
        lost,
        status="running",
        phase=Phase.TRAIN,
        step=310,
        epoch=13,
        loss=0.05,
        boot_id="00000000-0000-0000-0000-000000000000",
        checkpoint="step-000000300",
        beat_at=now - timedelta(hours=5),
    )
    make_log(lost, 310)
    away = make_session(made.home, "other-pod")
    make_record(
        away,
        status="running",
        phase=Phase.TRAIN,
        step=77,
        host="pod-7",
        boot_id="11111111-0000-0000-0000-000000000000",
        loss=0.2,
        step_seconds=0.5,
    )
    torn = make_session(made.home, "torn-record")
    make_record(torn, status="running")
    torn.attempt_file(1).write_bytes(b'schema = 1\nsession_id = "abc')
    for number in range(extra):
        more = make_session(made.home, f"old-{number:04d}")
        make_record(
            more,
            status="stopped" if number % 3 else "failed",
            step=number % 400,
            epoch=1,
            reason="stopped by the user" if number % 3 else "data: image 3 is damaged",
            finished_at=now - timedelta(days=3, minutes=number),
            started_at=now - timedelta(days=3, minutes=number + 9),
        )
    return made


def keep_beating(made: Fabricated, is_over: threading.Event, period: float = 3.0) -> None:
    """Write the beats that the keepers of the fabricated runs would write; for a thread."""
    while not is_over.wait(period):
        for name in made.home.session_names():
            _beat(made.home.session(name), makes_steps=False)


def _wait_stopped(pid: int) -> None:
    from fluxtui.persist.process import state_letter

    while state_letter(pid) not in {"T", "t"}:
        time.sleep(0.005)


def main() -> None:
    made = every_state(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    print("made; interrupt to let go", flush=True)
    try:
        while True:
            time.sleep(5)
            for folder in (made.home.session(name) for name in made.home.session_names()):
                _beat(folder)
    except KeyboardInterrupt:
        made.close()


def _beat(folder: SessionFolder, makes_steps: bool = True) -> None:
    """Keep the beats of fabricated runs fresh, and let them make steps."""
    if folder.name in {"no-beat", "torn-record", "power-cut"} or not folder.attempt_numbers():
        return
    path = folder.attempt_file(folder.attempt_numbers()[-1])
    record = toml.read(path, Record)
    if record.status not in {"running", "queued", "starting", "stopping"}:
        return
    step = min(record.steps, record.step + 40) if makes_steps and folder.name == "ring-lora" else record.step
    if step > record.step:
        make_metrics(folder, step, first=record.step + 1, seed=step)
        with folder.log_file.open("a") as log:
            log.writelines(
                f"12:40:{at % 60:02d} step {at}  loss 0.0391  0.072 s/step\n" for at in range(record.step + 1, step + 1)
            )
    toml.write_beat(path, msgspec.structs.replace(record, beat_at=datetime.now(UTC), step=step))


if __name__ == "__main__":
    main()
