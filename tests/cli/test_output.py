"""Standard output that cannot be written is a failure of one sentence; words that cannot be written change no outcome."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fluxtui import cli
from tests.cli.conftest import Lab


@pytest.mark.parametrize("verb", [["ls"], ["help"], ["completion"], ["keys"], ["show", "a", "--json"]])
def test_output_that_cannot_be_written_is_a_failure_of_one_sentence(lab: Lab, verb: list[str]) -> None:
    lab.make("a")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fluxtui", *verb], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "fluxtui: standard output cannot be written: No space left on device\n"


def test_a_verb_of_the_engine_whose_answer_cannot_be_written_says_so_and_one_that_nobody_hears_is_well(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    check = [sys.executable, "-m", "fluxtui", "check", str(tmp_path), "--trigger", "x"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(check, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "standard output cannot be written: No space left on device\n")
    closed = ["bash", "-c", 'exec "$@" <&- >&-', "bash", *check]
    done = subprocess.run(closed, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_words_that_cannot_be_written_change_no_outcome() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-m", "fluxtui", "show", "nope"], stderr=full, check=False)
    assert done.returncode == 3


def test_a_file_that_is_opened_never_gets_the_number_of_a_stream_that_was_closed(tmp_path: Path) -> None:
    body = "import os; from fluxtui.persist import output; output.ready(); print(os.open(os.devnull, 0), file=open('n', 'w'))"
    closed = ["bash", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, body]
    subprocess.run(closed, cwd=tmp_path, check=True, env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])})
    assert int((tmp_path / "n").read_text()) > 2


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_fits_in_part_only_is_a_failure_too(tmp_path: Path, unbuffered: str) -> None:
    command = ["bash", "-c", 'ulimit -f 4; exec "$0" -m fluxtui keys', sys.executable]  # 4 KiB of about 20
    with open(tmp_path / "keys", "wb") as file:
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(command, stdout=file, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    assert (tmp_path / "keys").stat().st_size <= 4096
    assert done.returncode == 1
    assert done.stderr == "fluxtui: standard output cannot be written: File too large\n"


def test_a_working_folder_that_was_removed_is_said_in_one_sentence(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    command = ["bash", "-c", 'cd "$1"; rmdir "$1"; exec "$0" -m fluxtui new a --dataset here', sys.executable, str(gone)]
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2]), "FLUXTUI_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert done.stderr == "fluxtui: the folder that this shell is in was removed; cd into one that exists, and say it again\n"


def test_an_editor_that_failed_is_heard_though_the_parent_ignores_sigchld(lab: Lab) -> None:
    """Then the kernel keeps no exit code of a child, and Python says 0: what failed would pass for well."""
    lab.make("a")
    ignoring = ["bash", "-c", 'trap "" CHLD; exec "$@"', "bash", sys.executable, "-m", "fluxtui", "edit", "a"]
    terminal, ours = os.openpty()
    environment = {**os.environ, "EDITOR": "false"}
    done = subprocess.run(ignoring, stdin=ours, stdout=ours, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    os.close(terminal)
    os.close(ours)
    assert (done.returncode, done.stderr) == (1, "fluxtui: false ended with code 1; nothing was changed.\n")
