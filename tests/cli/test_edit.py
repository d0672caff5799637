"""A session that was not started is changed by key, by editor, by form; one that was started never is."""

from __future__ import annotations

import os
import pty
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fluxtui import control
from fluxtui.control import editor
from fluxtui.control.edit import DRAFT
from fluxtui.persist.errors import FluxTUIError, RefusedError, UsageError
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.settings import recipe
from fluxtui.refusals import Situation, edit_spec
from tests.cli.conftest import Lab
from tests.ui.fabricate import make_record


def test_keys_of_a_new_session_are_set_and_what_changed_is_said(lab: Lab) -> None:
    lab.make("a")
    before = recipe.load_spec(lab.home.session("a").spec_file)
    asked = lab.call("edit", "a", "--set", "train.steps=55", "--set", "title=My cat")
    assert asked.code == 0
    assert "[train] steps is 55, was 30" in asked.err
    spec = recipe.load_spec(lab.home.session("a").spec_file)
    assert (spec.train.steps, spec.title, spec.id) == (55, "My cat", before.id)
    assert "a is as it was" in lab.call("edit", "a", "--set", "train.steps=55").err


@pytest.mark.parametrize(
    ("sets", "code", "words"),
    [
        (["train.steps=-1"], 2, "whole number from 0"),
        (["dataset.path=/nowhere"], 3, "There is no data set folder"),
        (["validate.images=5000"], 2, "leave at least one to train on"),
        (["model.source=nobody-knows"], 3, "There is no model"),
    ],
)
def test_what_does_not_fit_changes_nothing(lab: Lab, sets: list[str], code: int, words: str) -> None:
    lab.make("a")
    before = lab.home.session("a").spec_file.read_bytes()
    asked = lab.call("edit", "a", *(word for pair in sets for word in ("--set", pair)))
    assert asked.code == code
    assert words in asked.sentence
    assert lab.home.session("a").spec_file.read_bytes() == before


def test_a_started_session_is_not_changed_and_the_way_out_is_said(lab: Lab) -> None:
    lab.make("a")
    make_record(lab.home.session("a"), status="stopped", step=3, reason="stopped")  # it has the time its trainer was started
    asked = lab.call("edit", "a", "--set", "train.steps=55")
    assert asked.code == 4
    assert "new OTHER --from a --set KEY=VALUE makes another" in asked.sentence
    assert "resume a --set" in asked.sentence
    with pytest.raises(RefusedError):
        control.draft(lab.home, "a")


def test_while_a_keeper_holds_the_session_nothing_is_changed(lab: Lab) -> None:
    lab.make("a")
    lock = Lock.take(lab.home.session("a").lock_file)
    assert lock is not None
    try:
        assert lab.call("edit", "a", "--set", "train.steps=55").code == 4
    finally:
        lock.release()
    assert lab.call("edit", "a", "--set", "train.steps=55").code == 0
    assert not Lock.held(lab.home.session("a").lock_file), "the lock is given back"


def test_an_edited_text_is_taken_over_and_one_that_misfits_is_kept(lab: Lab) -> None:
    lab.make("a")
    path = control.draft(lab.home, "a")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    path.write_text(text.replace("steps = 30", "stepz = 31"))
    with pytest.raises(UsageError, match=r"kept in .*session\.edited\.toml"):
        control.take_draft(lab.home, "a")
    assert recipe.load_spec(lab.home.session("a").spec_file).train.steps == 30
    assert "stepz = 31" in control.draft(lab.home, "a").read_text(), "the next edit begins with what was written"
    for wrong in ("no [ toml", text.replace('name = "a"', 'name = "b"'), text.replace("steps = 30", "steps = -4")):
        path.write_text(wrong)
        with pytest.raises(UsageError if "toml" not in wrong else Exception):
            control.take_draft(lab.home, "a")
        assert path.read_text() == wrong
    path.write_text(text.replace("steps = 30", "steps = 31"))
    assert control.take_draft(lab.home, "a") == ["[train] steps is 31, was 30"]
    assert not path.exists()
    assert recipe.load_spec(lab.home.session("a").spec_file).train.steps == 31


def test_without_a_terminal_an_editor_is_not_opened(lab: Lab) -> None:
    lab.make("a")
    assert "needs a terminal" in lab.call("edit", "a").sentence
    assert not (lab.home.session("a").path / DRAFT).exists()


def test_the_editor_of_the_environment_is_opened_on_a_terminal(lab: Lab, tmp_path: Path) -> None:
    lab.make("a")
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/^steps = 30/steps = 44/" "$2"\n')
    editor.chmod(0o755)
    master, slave = pty.openpty()
    environment = {**os.environ, "FLUXTUI_HOME": str(lab.home.root), "VISUAL": f"{editor} -w"}
    command = [sys.executable, "-m", "fluxtui", "edit", "a"]
    done = subprocess.run(command, stdin=slave, stdout=slave, stderr=subprocess.PIPE, env=environment, timeout=60, text=True)
    os.close(master)
    os.close(slave)
    assert done.returncode == 0, done.stderr
    assert "steps is 44, was 30" in done.stderr
    assert recipe.load_spec(lab.home.session("a").spec_file).train.steps == 44


def test_an_editor_that_is_not_here_is_told_with_one_that_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "nano").write_text("#!/bin/sh\n")
    (tmp_path / "nano").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("VISUAL", raising=False)
    for named, words in ((None, ["nano"]), ("  ", ["nano"]), ("nano -w", ["nano", "-w"])):
        monkeypatch.setenv("EDITOR", named) if named is not None else monkeypatch.delenv("EDITOR", raising=False)
        assert editor.command() == words
    monkeypatch.setenv("EDITOR", "code --wait")
    with pytest.raises(FluxTUIError, match=r"code cannot be started, it is not here; set EDITOR to .*, such as nano"):
        editor.command()
    monkeypatch.setenv("EDITOR", "'nano")
    with pytest.raises(FluxTUIError, match="quotes in EDITOR"):
        editor.command()
    (tmp_path / "nano").unlink()
    monkeypatch.delenv("EDITOR")
    with pytest.raises(FluxTUIError, match="There is no editor here; install one"):
        editor.command()


def test_one_taken_out_of_the_queue_is_changed_and_trains_with_what_was_set(lab: Lab) -> None:
    lab.plan(step_seconds=0.2)
    lab.make("busy")
    control.start(lab.home, "busy")
    lab.make("a")
    control.start(lab.home, "a")
    lab.await_state("queued", name="a")
    assert lab.call("edit", "a", "--set", "train.steps=7").code == 4  # its keeper has read the settings
    assert lab.call("stop", "a").err == "a: taken out of the queue.\n"
    control.wait(lab.home, "a")
    seen = lab.look("a")
    assert (seen.state, seen.reason, seen.never_trained) == ("stopped", "taken out of the queue", True)
    assert "TRAINING STOPPED BY USER - taken out of the queue, checkpoint none" in lab.call("logs", "a").out
    assert edit_spec(Situation(seen)) == ""
    assert lab.call("edit", "a", "--set", "train.steps=7").code == 0
    control.kill(lab.home, "busy")
    control.wait(lab.home, "busy")
    assert lab.call("resume", "a").code == 0
    assert control.wait(lab.home, "a", 60).steps == 7
    assert lab.call("edit", "a", "--set", "train.steps=9").code == 4  # now it has trained
    assert lab.look("busy").never_trained is False


@pytest.mark.parametrize("left", ["dataset.toml", "metrics.jsonl", "result.toml", "checkpoints/step-000000003/MANIFEST", "0001"])
def test_whatever_only_a_trainer_leaves_locks_the_settings(lab: Lab, left: str) -> None:
    lab.make("a")
    folder = lab.home.session("a")
    make_record(folder, status="stopped", reason="taken out of the queue", started_at=None)
    assert lab.call("edit", "a", "--set", "train.steps=7").code == 0
    if left == "0001":
        folder.attempt_file(1).write_bytes(b"torn")
    else:
        (folder.path / left).parent.mkdir(parents=True, exist_ok=True)
        (folder.path / left).write_bytes(b"x")
    assert lab.call("edit", "a", "--set", "train.steps=8").code == 4
