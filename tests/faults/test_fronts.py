"""Fronts that die, are maltreated, or ask for what cannot be (faults 17, 38, 42, 43): a real tmux, a real pty."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from fluxtui import control
from fluxtui.persist import process
from fluxtui.persist.errors import RefusedError
from fluxtui.persist.files import toml
from fluxtui.persist.home import Home
from fluxtui.persist.process import is_alive
from fluxtui.persist.sessions import overview
from tests.journeys.terminal import FLUXTUI, Tmux, until
from tests.ui.glass import ROOT, PtyApp

STANDINS = ROOT / "tests" / "keeper"


@pytest.fixture
def home(home_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A home with one session, whose keeper will run the stand-in trainer, slowly."""
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"deeds": [], "step_seconds": 0.05}))
    for name, value in {
        "FLUXTUI_TRAINER": "standin",
        "FLUXTUI_PROVER": "standin_prover",
        "FLUXTUI_STANDIN": str(plan),
        "PYTHONPATH": f"{STANDINS}{os.pathsep}{ROOT}",
    }.items():
        monkeypatch.setenv(name, value)
    made = Home.open(home_path)
    control.create(made, "one", dataset="demo", model="pico", sets={"train.steps": 100_000, "hardware.gpus": []})
    yield made
    if overview.look(made, "one").is_active:
        control.kill(made, "one")
        until(lambda: not overview.look(made, "one").is_active, 30)


def step(home: Home) -> int:
    return overview.look(home, "one").step


class InTmux:
    """The UI in a tmux server that is killed."""

    def __init__(self) -> None:
        self.tmux = Tmux(120, 36)
        self.tmux.start(str(FLUXTUI))
        self.tmux.see("one")

    def press(self, key: str) -> None:
        self.tmux.keys(key)

    def die(self) -> None:
        server = psutil.Process(self.tmux.pid())
        self.tmux.kill_server()
        server.wait(10)
        assert not server.is_running()


class OnPty:
    """The UI on a line of its own, which drops; or the UI is killed."""

    def __init__(self, home: Home, how: str) -> None:
        self.how = how
        self.ui = PtyApp(home.root, 120, 36, PYTHONPATH=os.environ["PYTHONPATH"])
        self.ui.see("one")

    def press(self, key: str) -> None:
        self.ui.type(key)

    def die(self) -> None:
        if self.how == "kill -9":
            self.ui.process.kill()
        else:
            self.ui.close_master()
        assert self.ui.process.wait(10) != 0
        self.ui.close()


@pytest.mark.parametrize("how", ["kill -9", "tmux kill-server", "the line drops"])
def test_17_training_goes_on_whatever_ends_the_front_and_the_next_one_shows_the_truth(
    home: Home, how: str, needs: Callable[[str], str]
) -> None:
    needs("tmux")
    front = InTmux() if how == "tmux kill-server" else OnPty(home, how)
    front.press("s")
    until(lambda: step(home) > 3, 60, lambda: str(overview.look(home, "one")))
    record = overview.look(home, "one").record
    assert record is not None
    assert record.keeper is not None
    front.die()
    before = step(home)
    until(lambda: step(home) > before + 20, 60, lambda: str(overview.look(home, "one")))
    assert is_alive(record.keeper)
    assert all(is_alive(rank) for rank in record.ranks)
    with PtyApp(home.root, 120, 36, PYTHONPATH=os.environ["PYTHONPATH"]) as again:
        again.see("running")
        again.type("x")
        again.see(lambda text: "stopped" in text, 60)
    seen = overview.look(home, "one")
    assert (seen.state, seen.attempt) == ("stopped", 1)


@pytest.mark.parametrize("environment", [("TERM=dumb", "LANG=C"), ("TERM=screen-256color", "LC_ALL=C"), ("LANG=C.UTF-8",)])
def test_43_no_terminal_ends_the_ui(
    home: Home, environment: tuple[str, ...], tmp_path: Path, needs: Callable[[str], str]
) -> None:
    """20x5, a storm of sizes, a paste of a megabyte: in a real tmux; it still shows the session and leaves by q."""
    needs("tmux")
    paste = tmp_path / "paste"
    paste.write_text("K y\n" * (1 << 18))  # keys that would kill, if they were pressed
    control.start(home, "one")
    with Tmux(20, 5) as tmux:
        tmux.start("env", *environment, str(FLUXTUI))
        is_dumb = environment[0] == "TERM=dumb"
        if is_dumb:
            text = until(lambda: tmux.screen().strip() or (not _has_server(tmux) and "it ended"), 30)
            if text == "it ended":  # a terminal that cannot be drawn on is refused in a sentence, and that is all
                return
        for size in [(20, 5), (300, 90), (1, 1), (80, 2), (7, 60)] * 6 + [(120, 36)]:
            tmux.call("resize-window", "-x", str(size[0]), "-y", str(size[1]))
        mark = "guard" if is_dumb else "one"  # without an alternate screen tmux wraps anew what was drawn; some line is whole
        tmux.see(mark, 60)
        tmux.call("load-buffer", str(paste))
        tmux.call("paste-buffer", "-p")
        tmux.call("resize-window", "-x", "100", "-y", "30")
        tmux.see(mark, 60)
        assert overview.look(home, "one").is_active, "a paste pressed a key"
        until(lambda: _left(tmux), 60, lambda: tmux.screen())
    assert overview.look(home, "one").state in {"running", "starting"}


def _left(tmux: Tmux) -> bool:
    """Press q as a person does, with a pause: what comes in a stream is taken for the paste that goes on."""
    tmux.keys("q")
    end = time.monotonic() + 3.0
    while _has_server(tmux) and time.monotonic() < end:
        time.sleep(0.1)
    return not _has_server(tmux)


def _has_server(tmux: Tmux) -> bool:
    command = ["tmux", "-L", tmux.socket, "list-sessions"]
    return subprocess.run(command, capture_output=True, timeout=20).returncode == 0


def test_42_kill_of_what_does_not_run_is_a_message_and_signals_nobody(home: Home) -> None:
    """Never started, lost, finished. The lost one's record names a living stranger, as after a recycled pid."""
    with pytest.raises(RefusedError, match="was not started yet"):
        control.kill(home, "one")
    control.start(home, "one")
    until(lambda: step(home) > 3, 60)
    record = overview.look(home, "one").record
    assert record is not None
    assert record.keeper is not None
    assert process.send(record.keeper, signal.SIGKILL)
    until(lambda: overview.look(home, "one").state == "lost", 20)
    stranger = subprocess.Popen(["/bin/sleep", "60"])
    try:
        found = process.identify(stranger.pid)
        assert found is not None
        path = home.session("one").attempt_file(1)
        as_if = msgspec.structs.replace(found, run_id=record.run_id)
        toml.write(path, msgspec.structs.replace(record, keeper=as_if, ranks=[as_if]))
        before = path.read_bytes()
        with pytest.raises(RefusedError, match=r"Nothing of one runs: it is lost; fluxtui resume one"):
            control.kill(home, "one")
        assert path.read_bytes() == before
        assert stranger.poll() is None, "a stranger was signalled"
        assert os.listdir(home.session("one").control) == []
    finally:
        stranger.kill()
        stranger.wait()


def test_38_a_thousand_sessions_are_listed_by_the_command_in_a_moment(home: Home, tmp_path: Path) -> None:
    """`fluxtui ls` of a thousand, a hundred of them broken, beside `fluxtui ls` of one."""
    many = Home.open(tmp_path / "many")
    spec = home.session("one").spec_file.read_bytes()
    for number in range(1000):
        folder = many.sessions / f"s{number:04d}"
        (folder / "attempts").mkdir(parents=True)
        (folder / "session.toml").write_bytes(spec)
        if number % 10 == 0:
            (folder / "attempts" / "0001.toml").write_bytes(b"status = 'ru")
    ls = [str(FLUXTUI), "ls", "--json"]
    spent: dict[str, list[float]] = {"one": [], "many": []}
    for _ in range(5):
        for name, root in (("one", home.root), ("many", many.root)):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run(ls, env=os.environ | {"FLUXTUI_HOME": str(root)}, capture_output=True, text=True, timeout=60)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent[name].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    listed = json.loads(done.stdout)
    assert len(listed) == 1000
    assert sum(one["state"] == "unreadable" for one in listed) == 100
    assert min(spent["many"]) - min(spent["one"]) < 0.3, "CPU seconds; the wall clock of a shared machine says nothing"
