"""Faults that need the real trainer under its real keeper: 10, 36, and the stacks of a hang with data workers."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from fluxtui import control
from fluxtui.demo import PICO_DIR
from fluxtui.engine.keeper.process_tree import descendants, parents
from fluxtui.persist import process
from fluxtui.persist.home import Home
from fluxtui.persist.sessions import overview
from fluxtui.persist.sessions.overview import Overview
from tests.journeys.terminal import FLUXTUI, Tmux, fluxtui, until
from tests.keeper.pace import SLOW

TOKEN = "hf_TheTokenThatMustAppearNowhere0123456789"
SMALL = {
    "dataset.resolution": [64], "lora.rank": 2, "train.steps": 6, "train.batch_size": 1, "checkpoint.every_steps": 2,
    "sample.at_start": False, "sample.every_epochs": 0, "hardware.gpus": [], "guard.retry_delay": 0.2, "guard.grace": 1.0,
}  # fmt: skip


@pytest.fixture
def home(home_path: Path) -> Iterator[Home]:
    made = Home.open(home_path)
    yield made
    for seen in overview.look_all(made):
        if seen.is_active:
            control.kill(made, seen.name)
            until(lambda name=seen.name: not overview.look(made, name).is_active, 30)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (64, 64), (80 * number, 40, 90)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"picture {number}\n")
    return folder


def make(home: Home, name: str, pictures: Path, model: str = "pico", **sets: object) -> Callable[[], Overview]:
    """A session of the pico on the pictures, and a look at it."""
    more = {key.replace("__", "."): value for key, value in sets.items()}
    control.create(home, name, dataset=str(pictures), model=model, sets=SMALL | more)
    return lambda: overview.look(home, name)


def test_10_a_picture_that_becomes_a_pipe_after_preflight_hangs_nobody_and_is_named(home: Home, pictures: Path) -> None:
    """While the model loads: a plain open would wait for a writer for ever."""
    look = make(home, "swapped", pictures)
    control.start(home, "swapped")
    record = until(lambda: (seen := look()).phase == "load" and seen.record, 60, lambda: str(look()))
    assert process.send(record.ranks[0], signal.SIGSTOP)
    (pictures / "1.png").unlink()
    os.mkfifo(pictures / "1.png")
    process.send(record.ranks[0], signal.SIGCONT)
    until(lambda: not look().is_active, 60 * SLOW, lambda: str(look()))
    seen = look()
    assert (seen.state, seen.exit_code, seen.step) == ("failed", 77, 0)
    assert "1.png is not a regular file" in seen.reason
    assert "STUCK" not in home.session("swapped").log_file.read_text()


def test_10_a_hang_ends_with_the_stack_of_every_thread_and_of_the_data_workers(home: Home, pictures: Path) -> None:
    limits = {f"guard__{name}": 8.0 * SLOW for name in ("batch", "first_steps", "step", "checkpoint", "stop")}
    look = make(home, "stuck", pictures, train__steps=100_000, hardware__workers=1, **limits)
    control.start(home, "stuck")
    record = until(lambda: (seen := look()).step >= 5 and seen.record, 90 * SLOW, lambda: str(look()))
    rank = record.ranks[0].pid
    workers = descendants({rank}, parents())
    assert len(workers) == 1
    os.kill(rank, signal.SIGSTOP)
    assert until(lambda: process.state_letter(rank) == "T", 5)  # the fault happened
    seen = until(lambda: (now := look()).attempt == 2 and now, 60 * SLOW, lambda: str(look()))
    log = home.session("stuck").log_file.read_text()
    assert re.search(r"^TRAINING STUCK DETECTED - (train|data.*|checkpoint), \d+ seconds$", log, re.M), log[-2000:]
    stacks = log.partition("TRAINING STUCK DETECTED")[2].partition("attempt 2")[0]
    assert "loop.py" in stacks, "the thread that trains is missing"
    assert "in _tick" in stacks, "the thread that ticks is missing"
    assert "data_worker.py" in stacks, "the data worker is missing"
    assert all(process.state_letter(pid) is None for pid in (rank, *workers)), "one of them is left"
    first = overview.records(home, "stuck")[0][1]
    assert first is not None
    assert first.reason.startswith("hung in ")
    assert seen.record is not None


def test_14_a_data_worker_that_is_killed_ends_the_attempt_with_that_reason_and_another_follows(
    home: Home, pictures: Path
) -> None:
    look = make(home, "worker", pictures, train__steps=100_000, hardware__workers=1)
    control.start(home, "worker")
    record = until(lambda: (seen := look()).step >= 3 and seen.record, 90 * SLOW, lambda: str(look()))
    rank = record.ranks[0].pid
    (worker,) = descendants({rank}, parents())
    os.kill(worker, signal.SIGKILL)
    until(lambda: look().attempt == 2, 60 * SLOW, lambda: str(look()))
    first = overview.records(home, "worker")[0][1]
    assert first is not None
    assert (first.status, first.exit_code) == ("failed", 82)
    assert "data worker" in first.reason
    assert "SIGKILL" in first.reason
    assert "OOM" not in first.reason
    assert process.state_letter(rank) is None, "the trainer is left"


def test_36_a_token_in_the_environment_is_in_no_file_no_argument_and_on_no_screen(
    home: Home, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needs: Callable[[str], str]
) -> None:
    """A run that is killed, resumed and completed, one that fails, and the verbs that look."""
    needs("tmux")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY"):
        monkeypatch.setenv(name, TOKEN)
    monkeypatch.chdir(_with_traps(pictures, tmp_path / "trap"))  # nothing there is ever executed either
    model = str(_trapped_model(tmp_path / "model", tmp_path / "trap"))
    good, bad = make(home, "good", pictures, model, train__steps=40), make(home, "bad", pictures)
    texts = [_said("start", "good")]
    record = until(lambda: (seen := good()).step >= 3 and seen.record, 90 * SLOW, lambda: str(good()))
    arguments = _arguments()
    assert "fluxtui.engine train" in arguments
    assert TOKEN.encode() in Path(f"/proc/{record.ranks[0].pid}/environ").read_bytes()  # it is there to be leaked
    assert _listening([record.keeper.pid, record.ranks[0].pid]) == [], "a port is open"
    process.send(record.keeper, signal.SIGKILL)
    until(lambda: good().state == "lost", 20)
    texts += [_said("resume", "good"), _said("wait", "good", "--timeout", "120")]
    assert good().state == "completed", good()
    (pictures / "1.png").write_bytes(b"no picture")
    texts += [_said("start", "bad"), _said("wait", "bad", "--timeout", "60")]
    assert bad().state == "failed", bad()
    for words in (["ls"], ["show", "bad", "--json"], ["logs", "bad"], ["doctor"], ["verify", "good"]):
        texts.append(_said(*words))
    for words in (["check", str(pictures)], ["plan", "good"], ["export", "good", "--format", "kohya", "-o", str(tmp_path / "k")]):
        texts.append(_said(*words))  # these become the engine, where the data set is the working folder
    texts.append(_said("publish", "good", "--repo", "me/good"))
    with Tmux(160, 50) as tmux:
        tmux.start(str(FLUXTUI))
        texts += [tmux.see("completed"), _pressed(tmux, "l"), _pressed(tmux, "question_mark")]
    assert TOKEN not in "".join(texts)
    assert TOKEN not in arguments
    assert not (tmp_path / "trap").exists(), "something was executed from a data set or a model"
    places = [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert places == []


def _with_traps(folder: Path, trap: Path) -> Path:
    """Modules that would be imported, were the folder on anybody's path."""
    for name in ("json", "torch", "msgspec", "sitecustomize", "usercustomize", "conftest", "fluxtui", "numpy", "argparse", "PIL"):
        (folder / f"{name}.py").write_text(f"open({str(trap)!r}, 'w')\n")
    return folder


def _trapped_model(folder: Path, trap: Path) -> Path:
    """The pico with code beside each part, and configurations that ask for it to be run, as on the hub."""
    shutil.copytree(PICO_DIR, folder)
    for part in ("text_encoder", "text_encoder_2", "transformer", "vae", "tokenizer", "tokenizer_2"):
        (folder / part / "modeling.py").write_text(f"open({str(trap)!r}, 'w')\n")
        config = folder / part / "config.json"
        if config.exists():
            said = json.loads(config.read_text())
            said["auto_map"] = {"AutoModel": "modeling.Model", "AutoConfig": "modeling.Config"}
            config.write_text(json.dumps(said))
    return _with_traps(folder, trap)


def _listening(pids: list[int]) -> list[str]:
    """Sockets that listen for connections, among the descriptors of these processes (proc(5): state 0A)."""
    waiting = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                waiting.add(f"socket:[{fields[9]}]")
    links = [os.readlink(fd) for pid in pids for fd in Path(f"/proc/{pid}/fd").iterdir()]
    return [link for link in links if link in waiting]


def _said(*words: str) -> str:
    done = fluxtui(*words)
    return done.stdout + done.stderr


def _arguments() -> str:
    return subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout


def _pressed(tmux: Tmux, key: str) -> str:
    before = tmux.screen()
    tmux.call("send-keys", key if len(key) == 1 else "?")
    return until(lambda: (now := tmux.screen()) != before and now, 20, tmux.screen)
