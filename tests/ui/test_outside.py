"""What leaves the UI for the world around it: the clipboard, the bell, an editor; on a real pty, and in a real tmux."""

from __future__ import annotations

import base64
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fluxtui.persist.files.lock import Lock
from fluxtui.persist.home import Home
from tests.journeys.terminal import FLUXTUI, Tmux
from tests.ui.fabricate import make_log, make_metrics, make_record, make_session
from tests.ui.glass import PtyApp

DEMO = Path(__file__).parent.parent.parent / "fluxtui" / "demo" / "images"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A stopped session with a log, on a picture of the user's own."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    shutil.copy(DEMO / "heart-01.png", pictures / "photo.png")
    (pictures / "photo.txt").write_text("a picture")
    home = Home.open(tmp_path / "home")
    folder = make_session(home, "mine", dataset__path=str(pictures))
    make_record(folder, status="stopped", step=50, reason="stopped by the user")
    make_metrics(folder, 50)
    make_log(folder, 50)
    return home


def test_outside_tmux_the_terminal_is_told_to_copy_and_the_notice_says_so(home: Home) -> None:
    with PtyApp(home.root) as ui:
        ui.see("mine")
        ui.type("y")
        ui.see("copied the name by the terminal (OSC 52)")
        assert [base64.b64decode(copied) for copied in ui.glass.copied] == [b"mine"]


def test_inside_tmux_the_copy_goes_through_tmux_and_the_notice_says_so(home: Home) -> None:
    with Tmux(80, 24) as tmux:
        tmux.start("env", f"FLUXTUI_HOME={home.root}", str(FLUXTUI))
        tmux.see("mine")
        tmux.keys("l")
        tmux.see("mine  log")
        tmux.see("step 50  loss")
        tmux.keys("v", "k", "y")
        tmux.see("copied 2 lines by tmux")
        copied = tmux._tmux("show-buffer").splitlines()
        assert [line.split("  ")[0].split(" ", 1)[1] for line in copied] == ["step 40", "step 50"]


def test_an_ending_rings_the_bell_once_and_stays_on_the_screen(home: Home) -> None:
    folder = make_session(home, "trains")
    lock = Lock.take(folder.lock_file)
    assert lock is not None
    make_record(folder, status="running", step=50)
    with PtyApp(home.root) as ui:
        ui.see("1 training")
        assert ui.glass.bells == 0
        make_record(folder, status="failed", step=50, reason="non-finite loss", finished_at=datetime.now(UTC))
        lock.release()
        ui.see("trains failed: non-finite loss")
        ui.see(lambda _: ui.glass.bells == 1)


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"LC_ALL": "C"}, {"TERM": "dumb"}], ids=lambda one: "".join(one))
def test_poor_terminals_show_every_page_of_a_session_without_a_leak(home: Home, environment: dict[str, str]) -> None:
    with PtyApp(home.root, 80, 24, **environment) as ui:
        ui.see("mine")
        for keys, shows in (
            ("\r", "attempt"),
            ("2", "steps 0 to 50"),
            ("3", "No samples were drawn"),
            ("4", "There is no checkpoint"),
            ("5", "compared with the defaults"),
            ("6", "step 50"),
            ("7", "photo.png"),
        ):
            ui.type(keys)
            ui.see(shows)
        if "LC_ALL" in environment:
            assert bytes(ui.received).isascii()
        else:
            assert all(set(style.split(";")) <= {"0", "1", "4", "7", ""} for style in ui.glass.styles), ui.glass.styles
        assert not ui.glass.leaks


def test_a_caption_goes_to_the_users_editor_and_comes_back(home: Home, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nstty -a < /dev/tty > "$0.tty"\nprintf "changed outside" > "$1"\n')
    editor.chmod(0o755)
    with PtyApp(home.root, 80, 24, EDITOR=str(editor), VISUAL="") as ui:
        ui.see("mine")
        ui.type("\r7")
        ui.see("a picture")
        ui.type("E")
        ui.see("changed outside")
        assert " icanon" in editor.with_name("editor.tty").read_text(), "the editor had no ordinary terminal"
        ui.type("2")
        ui.see("steps 0 to 50")  # the keys and the screen are ours again
        ui.type("q")
        ui.see("1 session")
        ui.type("q")
        assert ui.process.wait(20) == 0
        assert ui.attributes() == ui.before
        assert not ui.glass.leaks


def test_an_editor_that_is_not_there_is_said(home: Home) -> None:
    with PtyApp(home.root, 80, 24, EDITOR="no-such-editor", VISUAL="") as ui:
        ui.see("mine")
        ui.type("\r7")
        ui.see("a picture")
        ui.type("E")
        ui.see("no-such-editor cannot be started")
        assert ui.process.poll() is None


def test_what_is_wrong_in_config_toml_is_told_and_ends_nothing(home: Home) -> None:
    home.config.write_text('[ui]\ntheme = "nrd"\n[keys]\nkil = "ctrl+k"\n')
    with PtyApp(home.root, 80, 24) as ui:
        ui.see("remaps 'kil', which is no action")
        ui.see("puts this")
        assert ui.process.poll() is None
