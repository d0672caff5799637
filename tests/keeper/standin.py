"""A trainer without torch that commits real checkpoints, obeys requests, leaves a real product, and misbehaves on demand.

Its state is a hash chain over the steps, so one lost or repeated step changes the product. What it does wrong stands in
a JSON file (FLUXTUI_STANDIN): a list of deeds `{"attempt": 1, "at": 7, "do": "hang"}`, done once the step is reached; and
settings (`step_seconds`, `ignore_term`, `product`, ...).
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import mmap
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from fluxtui.engine import life, wire
from fluxtui.engine.trainer.claim import claim, write_pieces
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.files import tensorfile
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.home import SessionFolder
from fluxtui.persist.sessions.record import Footprint, Phase

EPOCH = 5  # steps


def nap(seconds: float) -> None:
    """Not time.sleep: libfaketime does not understand the absolute wake-up time that Python gives to the kernel."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        select.select([], [], [], left)


def product_bytes(state: bytes, session_id: str, recipe_sha256: str, step: int) -> bytes:
    facts = json.dumps({"session_id": session_id, "recipe_sha256": recipe_sha256, "step": step}, sort_keys=True)
    tensors = {f"block.{n}": ("U8", (32,), hashlib.sha256(state + bytes([n])).digest()) for n in range(4)}
    return b"".join(bytes(piece) for piece in tensorfile.serialize(tensors, {"fluxtui": facts}))


class Trainer:
    def __init__(self, job: wire.TrainJob, settings: dict, stop: life.StopFlag) -> None:
        self.job, self.settings, self.stop = job, settings, stop
        self.rank = int(os.environ.get("RANK", "0"))
        self.folder = SessionFolder(Path(job.session))
        self.progress_fd = int(os.environ[wire.PROGRESS_FD])
        self.request_fd = int(os.environ.get(wire.REQUEST_FD, "-1"))
        self.deeds = [one for one in settings.get("deeds", []) if one.get("attempt", job.attempt) == job.attempt]
        self.step, self.state = 0, hashlib.sha256(str(job.spec.train.seed).encode()).digest()
        self.wants_stop = self.wants_stop_after_epoch = False
        self.children: list[subprocess.Popen] = []

    def say(self, **what) -> None:
        with suppress(BlockingIOError):
            os.write(self.progress_fd, wire.encode(wire.ProgressLine(rank=self.rank, **what)))

    def run(self) -> int:
        if self.job.devices:
            print(f"card of {self.job.card_memory}, sees {os.environ['CUDA_VISIBLE_DEVICES']}", flush=True)
        self.misbehave("start")
        self.say(phase=Phase.PREFLIGHT, steps=self.job.spec.train.steps, versions={"standin": "1"})
        if self.rank > 0:
            return self.follow()
        self.folder.checkpoints.mkdir(exist_ok=True)
        lock = self.take_lock()
        self.say(phase=Phase.LOAD)
        self.misbehave("load")
        self.resume()
        for _ in range(self.settings.get("load_items", 0)):
            nap(0.05)
            self.say(phase=Phase.LOAD, item=_)
        self.train()
        if self.wants_stop:
            return wire.TrainerExit.STOPPED
        if self.settings.get("product", True):
            self.finish()
        self.misbehave("end")
        lock.release()
        return wire.TrainerExit.DONE

    def take_lock(self) -> Lock:
        end = time.monotonic() + 10
        while (lock := Lock.take(self.folder.checkpoints_lock)) is None:
            if time.monotonic() > end:
                self.say(error="another trainer holds the checkpoints")
                sys.exit(wire.TrainerExit.WRONG_PARENT)
            nap(0.02)
        return lock

    def resume(self) -> None:
        if self.job.resume == "":
            return
        name = self.job.resume
        if name == "auto":
            name = (
                commit.newest_verified(self.folder.checkpoints, lambda bad, why: self.say(note=f"{bad} set aside: {why}")) or ""
            )
        if not name:
            return
        manifest = commit.verify_checkpoint(self.folder.checkpoints / name)
        self.step = int(manifest.facts["step"])
        self.state = (self.folder.checkpoints / name / "state.bin").read_bytes()
        self.say(phase=Phase.LOAD, resumed_from=name, step=self.step)

    def train(self) -> None:
        every = self.job.spec.checkpoint.every_steps
        if "memory" in self.settings:
            self.say(phase=Phase.TRAIN, step=self.step, memory=Footprint(**self.settings["memory"]))
        while self.step < self.job.spec.train.steps:
            self.say(phase=Phase.TRAIN, step=self.step, waiting="batch")
            self.misbehave("batch")
            self.say(phase=Phase.TRAIN, step=self.step)
            self.misbehave(self.step)
            nap(self.settings.get("step_seconds", 0.01))
            self.state = hashlib.sha256(self.state + self.step.to_bytes(8, "big")).digest()
            self.step += 1
            self.say(phase=Phase.TRAIN, step=self.step, epoch=self.step // EPOCH + 1, loss=1.0 / self.step, step_seconds=0.01,
                     epoch_end=(self.step // EPOCH + 1) * EPOCH)
            self.read_requests()
            if self.wants_stop or (every and self.step % every == 0):
                self.commit()
            if self.wants_stop:
                return

    def read_requests(self) -> None:
        if self.stop:
            self.wants_stop = True
        os.set_blocking(self.request_fd, False)
        try:
            data = os.read(self.request_fd, 65536)
        except BlockingIOError:
            data = b""
        for text in data.splitlines():
            line = msgspec.json.decode(text, type=wire.RequestLine)
            if self.settings.get("deaf"):
                continue
            if line.verb == "stop":
                self.wants_stop = True
            elif line.verb == "stop-after-epoch":
                self.wants_stop_after_epoch = True
            elif line.verb == "checkpoint":
                self.commit()
                self.say(acknowledged=line.id)
            else:
                self.say(acknowledged=line.id)
        if self.wants_stop_after_epoch and self.step % EPOCH == 0:
            self.wants_stop = True

    def commit(self) -> None:
        self.say(phase=Phase.CHECKPOINT, item=0)
        name = commit.step_name(self.step)
        self.misbehave("commit")
        facts = {"step": self.step, "recipe_sha256": self.job.recipe_sha256}
        commit.commit_checkpoint(self.folder.checkpoints, name, {"state.bin": self.state, "fill.bin": bytes(20_000)}, facts)
        commit.retain(self.folder.checkpoints, self.job.spec.checkpoint.keep)
        self.say(phase=Phase.CHECKPOINT, checkpoint=name)

    def finish(self) -> None:
        self.say(phase=Phase.EXPORT)
        if self.settings.get("wrong_state"):
            self.state = bytes(32)
        data = product_bytes(self.state, self.job.spec.id, self.job.recipe_sha256, self.step)
        made = write_pieces(self.folder.product, [data])
        claim(self.job, self.folder, self.step, made)

    def follow(self) -> int:
        """A rank above 0: follows rank 0's steps by the checkpoints' result, only as far as tests of the keeper need it."""
        for step in range(self.job.spec.train.steps):
            self.step = step
            self.say(phase=Phase.TRAIN, step=step)
            self.misbehave(step)
            nap(self.settings.get("step_seconds", 0.01))
            if self.stop:
                return wire.TrainerExit.STOPPED
        return wire.TrainerExit.DONE

    def misbehave(self, moment: int | str) -> None:
        for deed in self.deeds:
            at = deed.get("at", 0)
            is_due = deed["when"] == moment and self.step >= at if "when" in deed else at == moment
            if is_due and deed.get("rank", 0) == self.rank and not deed.get("done"):
                deed["done"] = True
                getattr(self, "do_" + deed["do"])(deed)

    # --- deeds ---

    def do_hang(self, deed: dict) -> None:
        nap(deed.get("seconds", 3600))

    def do_draw(self, deed: dict) -> None:
        for item in range(deed["items"]):
            self.say(phase=Phase.SAMPLE, item=item)
            nap(deed["seconds"])
        self.say(phase=Phase.TRAIN)

    def do_spin(self, deed: dict) -> None:
        end = time.monotonic() + deed.get("seconds", 3600)
        while time.monotonic() < end:
            pass

    def do_hold_gil(self, deed: dict) -> None:
        print("holding the GIL", flush=True)
        libc, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(64)
        libc.pthread_mutex_lock(mutex)
        libc.pthread_mutex_lock(mutex)  # waits for itself, and goes on waiting after every signal

    def do_sigstop(self, deed: dict) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def do_exit(self, deed: dict) -> None:
        if deed.get("error"):
            self.say(error=deed["error"], remedy=deed.get("remedy", ""))
        os._exit(deed["code"])

    def do_raise(self, deed: dict) -> None:
        raise RuntimeError(deed.get("error", "something broke"))

    def do_signal(self, deed: dict) -> None:
        os.kill(os.getpid(), getattr(signal, deed["signal"]))
        nap(10)

    def do_segfault(self, deed: dict) -> None:
        ctypes.string_at(0)

    def do_abort(self, deed: dict) -> None:
        os.abort()

    def do_stray(self, deed: dict) -> None:
        """A child in a session of its own that holds the progress pipe, and another without our environment."""
        body = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(3600)"
        environment = None if deed.get("keeps_environment", True) else {}
        command = [sys.executable, "-S", "-c", body]
        child = subprocess.Popen(
            command, start_new_session=True, pass_fds=[self.progress_fd], env=environment, stdout=subprocess.PIPE
        )
        child.stdout.readline()
        self.children.append(child)
        Path(deed["pid_file"]).write_text(str(child.pid))

    def do_flood(self, deed: dict) -> None:
        line = b"x" * 99 + b"\n"
        for _ in range(deed["megabytes"]):
            os.write(1, line * 10_000)

    def do_garbage(self, deed: dict) -> None:
        os.set_blocking(self.progress_fd, True)
        os.write(self.progress_fd, bytes.fromhex(deed["hex"]) if "hex" in deed else deed["text"].encode() * deed.get("times", 1))
        os.set_blocking(self.progress_fd, False)

    def do_eat_memory(self, deed: dict) -> None:
        hoard = []
        while True:
            hoard.append(bytearray(os.urandom(1024) * 1024))

    def do_fill_shared_memory(self, deed: dict) -> None:
        """A batch that does not fit, as a data worker passes it: the file can be made that long, and its pages cannot be had."""
        fd = os.open("/dev/shm/batch", os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(fd, 4 * 2**20)
        pages = mmap.mmap(fd, 4 * 2**20)
        for start in range(0, len(pages), 4096):
            pages[start] = 1

    def do_remove_result(self, deed: dict) -> None:
        self.folder.result_file.unlink()

    def do_fill_disk(self, deed: dict) -> None:
        """Until not a byte fits any more; the OSError then ends this trainer as it would end a real one."""
        with open(deed["path"], "wb", buffering=0) as file:
            for size in (2**20, 4096, 1):
                with suppress(OSError):
                    while True:
                        file.write(bytes(size))
            file.write(b"x" * 4096)

    def do_touch(self, deed: dict) -> None:
        Path(deed["path"]).write_text(str(os.getpid()))

    def do_wait_for(self, deed: dict) -> None:
        """Signal that the moment has come and hold here until a file appears, saying "alive" progress all the time."""
        Path(deed["reached"]).write_text(str(os.getpid()))
        item = 0
        while not Path(deed["until"]).exists():
            item += 1
            self.say(phase=Phase.TRAIN, step=self.step, item=item)
            self.read_requests()
            if self.wants_stop:
                return
            nap(0.02)


def main() -> int:
    settings_file = os.environ.get("FLUXTUI_STANDIN")
    settings = json.loads(Path(settings_file).read_text()) if settings_file else {}
    if settings.get("before_life"):
        nap(settings["before_life"])
    stop = life.enter()
    if settings.get("ignore_term"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=wire.TrainJob)
    print(f"standin attempt {job.attempt} rank {os.environ.get('RANK')}", flush=True)
    trainer = Trainer(job, settings, stop)
    try:
        return trainer.run()
    except OSError as error:
        trainer.say(error=f"the disk refused a write: {error.strerror}")
        return wire.TrainerExit.STORAGE


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
