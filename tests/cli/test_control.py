"""Sessions started, stopped, killed, resumed and waited for: real keepers, a trainer without torch."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

import pytest

from fluxtui import control
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.files import temporary
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.sessions import requests
from tests.cli.conftest import Lab, until


def next_line(lab: Lab) -> str:
    """What `show` says comes next."""
    return next(line.removeprefix("next").strip() for line in lab.call("show", "a").out.splitlines() if line.startswith("next"))


def test_from_new_to_completed_with_every_verb_that_looks(lab: Lab) -> None:
    lab.make("a")
    assert next_line(lab) == "fluxtui start a"
    started = lab.call("start", "a")
    assert (started.code, started.out) == (0, "")
    assert "keeps running when you leave" in started.err
    waited = lab.call("wait", "a", "--timeout", "60")
    assert waited.code == 0, waited
    assert waited.out.strip() == str(lab.home.session("a").product)
    shown = json.loads(lab.call("show", "a", "--json").out)
    assert (shown["state"], shown["step"], shown["steps"], shown["resumable"], shown["exit_code"]) == (
        "completed",
        30,
        30,
        False,
        0,
    )
    assert shown["tensors_sha256"]
    assert shown["next"] == next_line(lab) == "fluxtui export a --format comfyui -o a-comfyui.safetensors"
    assert "TRAINING COMPLETED SUCCESSFULLY" in lab.call("logs", "a").out
    assert "step-000000030" in lab.call("checkpoints", "a", "--verify").out
    for verb in ("start", "resume", "stop", "kill", "checkpoint", "sample"):
        refused = lab.call(verb, "a")
        assert refused.code == 4, refused
        assert "completed" in refused.sentence
        if verb in ("start", "resume"):
            named = re.search(r"fluxtui (new .*) trains on from it", refused.sentence)
            assert named is not None
            if verb == "start":
                assert lab.call("submit", "a").sentence == refused.sentence
            else:
                assert lab.call(*named[1].split()).code == 0  # what it names can be done
    assert lab.look().attempt == 1


def test_a_second_start_is_refused_and_so_is_removal_while_it_runs(lab: Lab) -> None:
    lab.plan(step_seconds=0.2)
    lab.make("a")
    assert control.start(lab.home, "a") == 1
    assert "already" in lab.call("start", "a").sentence
    assert next_line(lab) == "fluxtui wait a"
    assert lab.call("resume", "a").code == 4
    lab.await_step(1)
    assert lab.call("rm", "a", "--yes").code == 4
    assert lab.call("wait", "a", "--timeout", "0.3").code == 5
    assert lab.look().state == "running"


def test_a_start_that_has_to_wait_says_for_what_and_so_does_a_resume(lab: Lab) -> None:
    lab.plan(step_seconds=0.2)
    for name in ("a", "b"):
        lab.make(name)
    began = time.monotonic()
    assert control.start(lab.home, "a") == 1
    assert control.waits_for(lab.home, "a") == ""  # nothing is before it, and nobody waits to hear so
    assert time.monotonic() - began < control.watch.SETTLES
    waits = "b waits for a (the CPU) and starts by itself, also when you leave; fluxtui stop b takes it back."
    assert lab.call("start", "b").err.strip() == waits
    control.stop(lab.home, "b")
    control.wait(lab.home, "b")
    assert lab.call("resume", "b").err.strip() == "b waits for a (the CPU) and resumes by itself, attempt 2."


def test_of_many_starts_at_once_one_holds_the_session(lab: Lab) -> None:
    lab.plan(step_seconds=0.2)
    lab.make("a")
    answers: list[object] = []

    def start() -> None:
        try:
            answers.append(control.start(lab.home, "a"))
        except FluxTUIError as error:
            answers.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer for answer in answers if isinstance(answer, int)] == [1]
    assert all(
        "already" in str(answer) or "started before" in str(answer) for answer in answers if not isinstance(answer, int)
    ), answers


def test_a_front_that_can_have_no_thread_still_says_that_the_session_runs(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ulimit -u`: the keeper ran, and its start was called a fault of FluxTUI."""
    lab.make("a")
    with monkeypatch.context() as patch:
        patch.setattr(threading, "_start_new_thread", lambda *_: (_ for _ in ()).throw(RuntimeError("can't start new thread")))
        assert lab.call("start", "a").code == 0
    assert lab.await_state("completed").attempt == 1


def test_no_folder_for_temporary_files_is_needed_to_start_a_session(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container whose own file system is read-only: the start was called a fault of FluxTUI, check and plan a traceback."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: list(filter(None, [os.environ.get("TMPDIR")])))
    monkeypatch.delenv("TMPDIR", raising=False)
    lab.make("a")
    assert lab.call("start", "a").code == 0
    lab.await_state("completed")
    monkeypatch.setenv("TMPDIR", "/nowhere")  # to be put back
    temporary.find_folder()
    assert tempfile.gettempdir() == os.environ["FLUXTUI_RUNTIME"]


def test_where_no_process_can_be_started_the_limit_is_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    lab.make("a")
    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert "`ulimit -u`" in lab.call("start", "a").sentence


def test_stop_then_resume_goes_on_and_completes(lab: Lab) -> None:
    lab.plan(step_seconds=0.05)
    lab.make("a")
    control.start(lab.home, "a")
    lab.await_step(3)
    stopped = lab.call("stop", "a")
    assert stopped.code == 0, stopped
    assert "checkpoint" in stopped.err
    assert lab.call("wait", "a", "--timeout", "30").code == 1
    seen = lab.look()
    assert (seen.state, seen.is_resumable, seen.status) == ("stopped", True, "stopped")
    assert commit.committed(lab.home.session("a").checkpoints)
    lab.plan(step_seconds=0.0)
    assert "was started before" in lab.call("start", "a").sentence
    assert "[train] steps" in lab.call("resume", "a", "--set", "train.steps=5").sentence
    assert lab.call("resume", "a", "--set", "checkpoint.keep=9").code == 0
    assert lab.call("wait", "a", "--timeout", "60").code == 0
    record = lab.look().record
    assert record is not None
    assert (record.attempt, record.step, record.overrides) == (2, 30, {"checkpoint.keep": 9})


def test_samples_are_not_promised_where_no_prompt_can_be_drawn(lab: Lab) -> None:
    lab.plan(step_seconds=0.1)
    lab.make("a", sample__prompts=[])
    control.start(lab.home, "a")
    lab.await_step(2)
    refused = lab.call("sample", "a")
    assert (refused.code, "no prompts to draw" in refused.sentence) == (4, True), refused
    assert lab.call("checkpoint", "a").code == 0
    assert lab.call("kill", "a").code == 0


def test_two_fronts_that_press_stop_at_once_make_one_transition(lab: Lab) -> None:
    lab.plan(step_seconds=0.1)
    lab.make("a")
    control.start(lab.home, "a")
    lab.await_step(2)
    answers: list[object] = []

    def stop() -> None:
        try:
            answers.append(control.stop(lab.home, "a"))
        except FluxTUIError as error:
            answers.append(error)

    threads = [threading.Thread(target=stop) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(answer, control.Answer) and not answer.is_pending for answer in answers), answers
    assert lab.call("wait", "a", "--timeout", "30").code == 1
    assert [lab.look().state, lab.look().attempt] == ["stopped", 1]


def test_checkpoint_on_request_is_there_soon(lab: Lab) -> None:
    lab.plan(step_seconds=0.1)
    lab.make("a", checkpoint__every_steps=0)
    control.start(lab.home, "a")
    lab.await_step(2)
    assert lab.call("checkpoint", "a").code == 0
    until(lambda: commit.committed(lab.home.session("a").checkpoints))
    refused = lab.call("checkpoints", "a", "--rm", commit.committed(lab.home.session("a").checkpoints)[0])
    assert refused.code == 4
    assert lab.call("queue", "a", "--priority", "1").code == 4


def test_a_waiting_session_says_for_whom_can_be_moved_and_withdrawn(lab: Lab) -> None:
    lab.plan(step_seconds=0.2)
    lab.make("a")
    lab.make("b")
    control.start(lab.home, "a")
    lab.await_step(1)
    control.start(lab.home, "b")
    until(lambda: lab.look("b").record and lab.look("b").record.waiting_for, what=lambda: lab.look("b"))
    assert (lab.look("b").state, "a" in lab.look("b").reason) == ("queued", True)
    assert lab.call("queue", "b", "--priority", "-5").code == 0
    until(lambda: lab.look("b").record.priority == -5)
    assert lab.call("checkpoint", "b").code == 4
    assert lab.call("stop", "b").code == 0
    assert lab.call("wait", "b", "--timeout", "20").code == 1
    assert lab.look("b").state == "stopped"
    assert lab.look("a").state == "running"


def test_a_retry_is_not_an_end(lab: Lab) -> None:
    lab.plan({"attempt": 1, "at": 12, "do": "exit", "code": 3})
    lab.make("a")
    control.start(lab.home, "a")
    assert lab.call("wait", "a", "--timeout", "60").code == 0
    assert lab.look().attempt == 2
    assert "1" in lab.call("show", "a").out.rpartition("ATTEMPT")[2]


def test_an_engine_that_does_not_come_to_life_says_so_within_seconds(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.make("a")
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")
    start = time.monotonic()
    with pytest.raises(FluxTUIError, match="did not come to life: exit code 1"):
        control.start(lab.home, "a")
    assert time.monotonic() - start < 15
    assert lab.look().state == "new"


def test_a_request_for_another_attempt_changes_nothing(lab: Lab) -> None:
    lab.plan(step_seconds=0.1)
    lab.make("a")
    control.start(lab.home, "a")
    lab.await_step(2)
    folder = lab.home.session("a")
    requests.drop_request(folder, "kill", 7)
    (folder.control / "garbage.toml").write_bytes(b"\x00" * 1000)
    until(lambda: not [entry for entry in folder.control.iterdir() if not entry.name.startswith(".")])
    before = lab.look().step
    until(lambda: lab.look().step > before)
    assert lab.look().state == "running"


def test_the_session_outlives_the_front_that_started_it(lab: Lab) -> None:
    lab.plan(step_seconds=0.1)
    lab.make("a")
    text = "from fluxtui.cli import main; import time; main(['start', 'a']); print('on', flush=True); time.sleep(600)"
    front = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, start_new_session=True)
    assert front.stdout is not None
    assert front.stdout.readline() == b"on\n"
    front.stdout.close()
    lab.await_step(1)
    os.killpg(front.pid, signal.SIGKILL)
    front.wait()
    before = lab.look().step
    until(lambda: lab.look().step > before)
    assert Lock.held(lab.home.session("a").lock_file)


def test_logs_follow_growth_and_rotation(lab: Lab) -> None:
    lab.make("a")
    log = lab.home.session("a").log_file
    log.write_text("one\n\x1b[31mtwo\n")
    command = [sys.executable, "-m", "fluxtui", "logs", "a", "-f", "-n", "1"]
    following = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert following.stdout is not None
    assert following.stdout.readline() == "two\n"
    with open(log, "a") as file:
        file.write("three\nnot yet")
    assert following.stdout.readline() == "three\n"
    log.rename(log.with_name("training.log.1"))
    log.write_text("four\n")
    assert following.stdout.readline() == "four\n"
    following.send_signal(signal.SIGINT)
    assert following.wait(10) == 130
    following.stdout.close()
