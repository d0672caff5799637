"""The real UI on a real pty: what it leaves behind, what it sends, what a terminal can do to it."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fluxtui.persist.home import Home
from fluxtui.persist.settings.recipe import load_spec
from fluxtui.screens.terminal.driver import PASTE_GOES_ON
from tests.ui.fabricate import Fabricated, make_log, make_record, make_session
from tests.ui.glass import ROOT, PtyApp

LEFT_OVER = {"7"}  # line wrap is on again; everything else that was set is unset; 25 is the visible cursor


def _slowness() -> float:
    """How many times slower than an idle one this machine starts an interpreter now."""
    took = []
    for _ in range(3):
        began = time.monotonic()
        subprocess.run([sys.executable, "-S", "-c", "pass"], check=True)
        took.append(time.monotonic() - began)
    return max(1.0, sorted(took)[1] / 0.04)


def _has_read_all(ui: PtyApp) -> bool:
    """Whether nothing that was typed still lies in the terminal's input."""
    waiting = fcntl.ioctl(ui._slave, termios.FIONREAD, b"\0" * 4)
    return int.from_bytes(waiting, sys.byteorder) == 0


def _until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the UI does not read its input"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_restores_the_terminal_and_ends_at_once(states: Fabricated, number: int) -> None:
    with PtyApp(states.home.root) as ui:
        ui.see("put-to-sleep")
        began = time.monotonic()
        ui.process.send_signal(number)
        assert ui.process.wait(10) == 128 + number
        assert time.monotonic() - began < 0.5 * _slowness()
        ui.see(lambda _: ui.glass.modes <= LEFT_OVER | {"25"})
        assert ui.attributes() == ui.before
        assert not ui.glass.leaks


def test_sighup_ends_it_even_where_the_parent_ignores_it(states: Fabricated) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with PtyApp(states.home.root) as ui:
            ui.see("put-to-sleep")
            ui.process.send_signal(signal.SIGHUP)
            assert ui.process.wait(10) == 128 + signal.SIGHUP
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("has_controlling_terminal", [True, False])
def test_a_terminal_that_is_gone_ends_it_without_a_spin(states: Fabricated, has_controlling_terminal: bool) -> None:
    with PtyApp(states.home.root, has_controlling_terminal=has_controlling_terminal) as ui:
        ui.see("put-to-sleep")
        began = time.monotonic()
        ui.close_master()
        assert ui.process.wait(10) != 0
        assert time.monotonic() - began < 0.5 * _slowness()


def test_a_terminal_that_takes_nothing_blocks_neither_loop_nor_end(states: Fabricated) -> None:
    with PtyApp(states.home.root, 200, 60) as ui:
        ui.see("put-to-sleep")
        ui.pause(True)
        for _ in range(200):
            ui.type("jk+_")
        began = time.monotonic()
        ui.process.send_signal(signal.SIGTERM)
        assert ui.process.wait(10) == 128 + signal.SIGTERM
        assert time.monotonic() - began < 0.6 * _slowness()
        assert ui.attributes() == ui.before


def test_a_line_that_stalled_shows_the_latest_when_it_goes_on(states: Fabricated) -> None:
    with PtyApp(states.home.root, 120, 36) as ui:
        ui.see("put-to-sleep")
        ui.pause(True)
        for _ in range(400):
            ui.type("Gg")
        ui.type("o")
        ui.pause(False)
        ui.see("by name", 60)
        assert not ui.glass.leaks


def test_q_says_what_goes_on_training(states: Fabricated) -> None:
    with PtyApp(states.home.root) as ui:
        ui.see("put-to-sleep")
        ui.type("q")
        assert ui.process.wait(10) == 0
        ui.see(lambda _: b"training goes on: " in bytes(ui.received) and b"ring-lora 57 %" in bytes(ui.received))
        assert ui.attributes() == ui.before


def test_the_title_says_how_far_it_is(states: Fabricated) -> None:
    with PtyApp(states.home.root) as ui:
        ui.see(lambda _: ui.glass.title.startswith("fluxtui 57 %"))


@pytest.mark.parametrize(
    "environment",
    [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"LC_ALL": "C"}, {"TERM": "linux"}, {"TERM": "vt100", "LANG": "C", "NO_COLOR": "1"}],
)
def test_poor_terminals_show_the_same_without_a_leak(states: Fabricated, environment: dict[str, str]) -> None:
    with PtyApp(states.home.root, 100, 30, **environment) as ui:
        ui.see("put-to-sleep")
        ui.type("?")
        ui.see("Finish the step, write a checkpoint, stop.")
        if "NO_COLOR" in environment or environment.get("TERM") == "dumb":
            sent = {number for style in ui.glass.styles for number in style.split(";")}
            assert sent <= {"0", "1", "4", "7", ""}, ui.glass.styles
            assert "7" in sent, "the line that the keys act on stands out by its colour alone"
        if environment.get("LC_ALL") == "C" or environment.get("LANG") == "C":
            assert bytes(ui.received).isascii()
        ui.type("q")
        ui.type("q")
        assert ui.process.wait(10) == 0
        assert not ui.glass.leaks


def test_a_resize_storm_and_a_tiny_terminal(states: Fabricated) -> None:
    with PtyApp(states.home.root) as ui:
        ui.see("put-to-sleep")
        for size in [(20, 5), (200, 60), (1, 1), (61, 21), (60, 20), (132, 43)] * 4:
            ui.resize(*size)
            ui.type("j")
        ui.resize(20, 5)
        ui.see("too small")
        ui.resize(80, 24)
        ui.see("── sessions ──")
        assert ui.process.poll() is None


def test_a_megabyte_pasted_presses_no_key(states: Fabricated) -> None:
    text = "K y x X d y q and other words that name keys " * 22_000
    for pasted in (f"\x1b[200~{text}\x1b[201~", text[:200_000], text[:4100]):  # the last one ends in a piece of four keys
        with PtyApp(states.home.root) as ui:
            ui.see("put-to-sleep")
            for start in range(0, len(pasted), 4096):
                ui.type(pasted[start : start + 4096])
            _until(lambda ui=ui: _has_read_all(ui))
            time.sleep(2 * PASTE_GOES_ON)  # what comes sooner is taken for the rest of the paste
            ui.type("o")
            ui.see("by name", 60)
            assert "at once?" not in ui.glass.text
            assert ui.process.poll() is None


def test_a_long_paste_arrives_whole_and_in_order(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    words = " ".join(f"word{number:04d}" for number in range(380))  # 3419 characters: more than one read may hold
    with PtyApp(home.root, 120, 36) as ui:
        ui.see("new session")
        ui.type("n")
        ui.see("what it comes to")
        ui.type("\t")
        for start in range(0, len(words) + 12, 1000):
            ui.type(f"\x1b[200~{words}\x1b[201~"[start : start + 1000])
            time.sleep(0.05)
        ui.see("word0379", 30)
        ui.type("\x01")  # to the beginning
        ui.see("word0000 word0001 word0002", 30)


def test_a_paste_goes_where_the_keys_typed_right_before_it_lead(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    with PtyApp(home.root, 120, 36) as ui:
        ui.see("new session")
        ui.type("n")
        ui.see("what it comes to")
        ui.type("abc\x1b[B\x1b[Bname of title\x1b[A\x1b[200~my/first\r\x1b[201~ one")
        ui.see("title                  my/first one", 30)
        ui.see("name                   abc ", 30)


def test_idle_it_sends_almost_nothing(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    done = make_session(home, "resting")
    make_record(done, status="stopped", step=10, reason="stopped by the user")
    with PtyApp(home.root, 80, 24) as ui:
        ui.see("resting")
        ui.see("CPU")
        time.sleep(2)
        before, began = len(ui.received), time.monotonic()
        time.sleep(6)
        rate = (len(ui.received) - before) / (time.monotonic() - began)
        assert rate < 100, rate


def test_foreign_text_is_shown_inert_wherever_it_comes_from(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    evil = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b31m\u202egnp.exe [@click=app.quit]press[/] \x1bP1$r\x1b\\"
    folder = make_session(home, "evil", title="a [red]title[/red]")
    make_record(folder, status="failed", step=3, reason=evil, remedy=evil, checkpoint="step-000000001")
    make_log(folder, 30)
    folder.log_file.write_bytes(folder.log_file.read_bytes() + (evil + "\n").encode() * 5 + b"\xff\xfe\x00\x1b[31mend\n")
    with PtyApp(home.root, 120, 36) as ui:
        ui.see("evil")
        ui.see("[@click=app.quit]press[/]")
        for keys in ("l", "q", "\r", "2", "5", "6", "1", "q", "r"):
            ui.type(keys)
            time.sleep(0.3)
        assert not ui.glass.leaks, ui.glass.leaks[:5]
        assert not ui.glass.copied
        assert ui.glass.bells == 0
        assert ui.process.poll() is None


def test_the_front_loads_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "PIL", "diffusers", "transformers", "psutil", "pynvml")
    script = f"import fluxtui.app, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_without_a_terminal_it_says_what_to_use() -> None:
    script = "import sys; from pathlib import Path; from fluxtui.app import run; from fluxtui.persist.home import Home; "
    script += "sys.exit(run(Home(Path('x'))))"
    done = subprocess.run([sys.executable, "-c", script], stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "fluxtui ls" in done.stderr


def test_the_settings_are_edited_in_the_users_editor_and_the_terminal_comes_back(home_path: Path, tmp_path: Path) -> None:
    home = Home.open(home_path)
    folder = make_session(home, "mine", train__steps=77, dataset__path="demo", model__source="pico")
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\necho EDITING; sed -i "s/^steps = $FROM/steps = $TO/" "$1"\n')
    editor.chmod(0o755)
    with PtyApp(home_path, EDITOR=str(editor), VISUAL=str(editor), FROM="77", TO="78") as ui:
        ui.see("mine")
        ui.type("\r")
        ui.see("7 captions")
        ui.type("5")
        ui.see("compared with")
        ui.type("E")
        ui.see("steps is 78, was 77")
        assert b"EDITING" in bytes(ui.received)
        ui.see("spec")
        assert load_spec(folder.spec_file).train.steps == 78
        assert not ui.glass.leaks, ui.glass.leaks
        ui.type("E")  # a second edit finds nothing to change
        ui.see("nothing changed")


def test_what_is_typed_in_one_burst_is_text_of_what_it_opens_and_no_command(states: Fabricated) -> None:
    """As over a slow line: every key of "/paused" arrives at once, and `p`, `a`, `s`, `e`, `d` are keys of the list too."""
    with PtyApp(states.home.root) as ui:
        ui.see("put-to-sleep")
        ui.type("/paused")
        ui.see(lambda text: "filter paused" in text and "1 of 17" in text)
        ui.type("\rl")
        ui.see("TRAINING STOPPED BY USER")
        ui.type("&step 19\r")
        ui.see("only step 19 · 1 match")
        ui.type("qq:sort\r")
        ui.see("by name")
        ui.type("nsdxK")
        ui.see("sdxK")
        assert ui.process.poll() is None


FAULTY = """
import sys; from pathlib import Path
from fluxtui import app; from fluxtui.persist import fault; from fluxtui.persist.home import Home
def fails(self): raise RuntimeError("a mistake of ours")
app.FluxApp.do_theme = fails
fault.PACKAGE = Path(sys.argv[1]) / "package"
sys.exit(app.run(Home.open(Path(sys.argv[1]))))
"""


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_fault_of_ours_ends_the_window_with_a_sentence_and_the_terminal_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_replaced: bool
) -> None:
    monkeypatch.setenv("FLUXTUI_RUNTIME", str(tmp_path / "runtime"))
    package = tmp_path / "home" / "package"
    package.mkdir(parents=True)
    (package / "old.py").touch()
    time.sleep(0.05)  # ticks of the kernel's clock: older than the process
    with PtyApp(tmp_path / "home", 100, 24, program=FAULTY) as ui:
        ui.see("run the demo")
        if is_replaced:
            (package / "new.py").touch()
        ui.type("T")
        assert ui.process.wait(20) == 1
        end = time.monotonic() + 20
        while b"shows it again" not in ui.received and time.monotonic() < end:
            time.sleep(0.01)
        said = " ".join(bytes(ui.received).decode("utf-8", "replace").rpartition("fluxtui: ")[2].split())
        assert "Traceback" not in said
        assert ui.attributes() == ui.before
    if is_replaced:
        assert said.startswith("FluxTUI was replaced on the disk while the UI was open")
    else:
        assert said.startswith("a fault of FluxTUI in the UI, please report it with")
        assert "a mistake of ours" in (tmp_path / "runtime" / "faults.log").read_text()
