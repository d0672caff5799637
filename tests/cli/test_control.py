"""Sessions started, stopped, killed, resumed and waited for: real keepers, a trainer without torch."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

import pytest

from fluxtui import control
from fluxtui.persist import process
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.errors import FluxTUIError, RefusedError, StorageError
from fluxtui.persist.files import temporary
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.sessions import requests
from fluxtui.persist.sessions.record import Proof
from tests.cli.conftest import Lab, until
from tests.ui.fabricate import make_record


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


def test_a_folder_that_may_not_be_entered_is_no_fault_of_a_kill(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.make("a")
    for call in ("stat", "open"):
        real = getattr(os, call)

        def denied(path: Any, *words: Any, real: Any = real, **named: Any) -> Any:
            if str(path).endswith("slurm/job.toml"):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            return real(path, *words, **named)

        monkeypatch.setattr(os, call, denied)
    assert "was not started yet" in lab.call("kill", "a").sentence


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


def test_kill_of_a_keeper_that_is_frozen_reaches_that_process_and_the_trainer_goes_with_it(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fluxtui.control import ask

    monkeypatch.setattr(ask, "KILL_SECONDS", 1.0)
    lab.plan(step_seconds=0.1)
    lab.make("a")
    control.start(lab.home, "a")
    record = lab.await_step(2).record
    assert record is not None
    assert record.keeper is not None
    os.kill(record.keeper.pid, signal.SIGSTOP)
    until(lambda: lab.look().state == "suspended")
    answer = control.kill(lab.home, "a")
    assert "did not answer" in answer.sentence
    until(lambda: not any(process.is_alive(one) for one in [record.keeper, *record.ranks]))
    assert lab.look().state == "lost"
    assert lab.call("kill", "a").code == 4
    lab.plan()
    assert lab.call("resume", "--lost").code == 0
    assert lab.call("wait", "a", "--timeout", "60").code == 0


def test_kill_of_a_copy_that_shares_its_lock_ends_no_other_session(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from fluxtui.control import ask

    monkeypatch.setattr(ask, "KILL_SECONDS", 1.0)
    lab.plan(step_seconds=0.1)
    lab.make("a")
    control.start(lab.home, "a")
    record = lab.await_step(2).record
    assert record is not None
    assert record.keeper is not None
    copy = lab.home.session("b").path
    shutil.copytree(lab.home.session("a").path, copy, copy_function=os.link)  # as cp -al does
    assert lab.look("b").is_active, "the copy shares lock and record"
    with pytest.raises(StorageError, match="no process of yours here"):
        control.kill(lab.home, "b")
    assert process.is_alive(record.keeper)
    assert lab.look("a").state == "running"


def test_kill_blames_no_keeper_where_something_lies_in_the_place_of_the_lock(lab: Lab) -> None:
    lab.make("a")
    lock = lab.home.session("a").lock_file
    lock.unlink(missing_ok=True)
    lock.mkdir()
    asked = lab.call("kill", "a")
    lock.rmdir()
    assert (asked.code, asked.sentence) == (1, f"fluxtui: {lock} is not a regular file, so it cannot be a lock; remove it")


def test_a_dead_keeper_is_told_and_all_that_is_lost_resumes_at_once(lab: Lab) -> None:
    lab.plan(step_seconds=0.1)
    lab.make("a")
    control.start(lab.home, "a")
    record = lab.await_step(2).record
    assert record is not None
    assert record.keeper is not None
    os.kill(record.keeper.pid, signal.SIGKILL)
    assert lab.call("wait", "a", "--timeout", "20").code == 1
    assert "keeper died" in lab.look().reason
    assert "resume a" in lab.call("stop", "a").sentence
    lab.plan()
    resumed = lab.call("resume", "--lost")
    assert (resumed.code, "attempt 2" in resumed.err) == (0, True)
    assert lab.call("wait", "a", "--timeout", "60").code == 0
    assert "No session is lost" in lab.call("resume", "--lost").err


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


def test_a_completed_file_that_is_gone_is_made_again_by_a_resume(lab: Lab) -> None:
    lab.make("a")
    control.start(lab.home, "a")
    assert lab.call("wait", "a", "--timeout", "60").code == 0
    with pytest.raises(RefusedError, match="completed"):
        control.start(lab.home, "a", resume="auto")
    lab.home.session("a").product.unlink()
    assert (lab.look().state, lab.look().is_resumable) == ("changed", True)
    assert lab.call("wait", "a").code == 1
    assert control.start(lab.home, "a", resume="auto") == 2
    assert lab.call("wait", "a", "--timeout", "60").code == 0


def test_a_completed_file_that_was_changed_is_kept_and_made_again_by_a_resume(lab: Lab) -> None:
    lab.make("a")
    control.start(lab.home, "a")
    assert lab.call("wait", "a", "--timeout", "60").code == 0
    product = lab.home.session("a").product
    proven = product.read_bytes()
    flipped, times = bytes([proven[0] ^ 1]) + proven[1:], product.stat()
    product.write_bytes(flipped)
    os.utime(product, ns=(times.st_atime_ns, times.st_mtime_ns))  # as touch and rsync set it back
    seen = lab.look()
    assert (seen.state, seen.remedy, seen.is_resumable) == ("changed", "fluxtui resume a", True)
    assert lab.call("verify", "a").code == 1
    assert lab.call("resume", "a").code == 0
    assert lab.call("wait", "a", "--timeout", "60").code == 0
    assert product.read_bytes() == proven
    assert [path.read_bytes() for path in product.parent.glob(".changed-*")] == [flipped]
    assert "is kept as .changed-a.safetensors-1" in lab.home.session("a").log_file.read_text()


def test_over_a_completed_file_that_cannot_be_read_nothing_is_made(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.make("a")
    product, real = lab.home.session("a").product, os.lstat
    make_record(lab.home.session("a"), status="completed", proof=Proof(ok=True, size=1, sha256="0"))

    def fails(path: Any, **more: Any) -> os.stat_result:
        if str(path) == str(product):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, **more)

    monkeypatch.setattr(os, "lstat", fails)
    refused = lab.call("resume", "a")
    assert refused.code == 4
    assert "the file cannot be read: the disk failed" in refused.sentence
    assert "cannot be read" in lab.call("show", "a").out


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


def test_without_its_records_a_session_goes_on_from_its_checkpoint_and_never_from_nothing(lab: Lab) -> None:
    lab.make("a")
    assert lab.call("start", "a").code == 0
    assert lab.call("wait", "a", "--timeout", "60").code == 0
    folder = lab.home.session("a")
    until(lambda: not Lock.held(folder.lock_file))  # the keeper outlives its last record by a card and a clean-up
    shutil.rmtree(folder.attempts)
    shown = json.loads(lab.call("show", "a", "--json").out)
    assert (shown["state"], shown["remedy"]) == ("unreadable", "fluxtui resume a")
    assert "step-000000030 is there" in shown["reason"]
    refused = lab.call("start", "a")
    assert refused.code == 4
    assert "fluxtui resume a" in refused.sentence
    assert lab.call("resume", "a").code == 0
    assert lab.call("wait", "a", "--timeout", "60").code == 0
    assert "step 1/30" not in lab.call("logs", "a", "-n", "100000").out.partition("COMPLETED")[2]


def test_a_resume_whose_checkpoints_were_taken_away_never_begins_at_step_0_without_a_word(lab: Lab) -> None:
    lab.make("a", train__steps=100_000)
    assert control.start(lab.home, "a") == 1
    until(lambda: bool(commit.committed(lab.home.session("a").checkpoints)))
    control.stop(lab.home, "a")
    assert lab.call("wait", "a", "--timeout", "60").code == 1
    folder = lab.home.session("a")
    newest = commit.committed(folder.checkpoints)[-1]
    shutil.move(folder.checkpoints, folder.path / "elsewhere")
    refused = lab.call("resume", "a")
    assert refused.code == 4
    assert f"a had {newest}, and no checkpoint is in" in refused.sentence
    assert folder.attempt_numbers() == [1]
    assert lab.call("resume", "a", "--accept-changes").code == 0


def test_a_completed_session_whose_spec_is_gone_is_refused_in_one_plain_sentence(lab: Lab) -> None:
    lab.make("a")
    assert (control.start(lab.home, "a"), lab.call("wait", "a", "--timeout", "60").code) == (1, 0)
    folder = lab.home.session("a")
    kept = folder.kept_spec_file.read_text()
    folder.spec_file.unlink()
    refused = lab.call("resume", "a")  # as `show` says
    assert refused.code == 4
    assert refused.sentence == "fluxtui: a is completed; its lost session.toml was made again from its keeper's copy"
    assert folder.spec_file.read_text() == kept
    folder.spec_file.unlink()
    folder.kept_spec_file.unlink()
    refused = lab.call("resume", "a")
    assert refused.code == 4
    said = "a: The spec session.toml is unreadable: it is gone; fix session.toml, or fluxtui rm a."
    assert refused.sentence == f"fluxtui: {said}"
