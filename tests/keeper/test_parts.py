"""The small parts of the keeper on their own: pipe, log, watch, card, dispatch, life."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from keeper_lab import until

from fluxtui.engine import __main__ as engine
from fluxtui.engine import life
from fluxtui.engine.keeper import session_log
from fluxtui.engine.keeper.attempt_end import way_to
from fluxtui.engine.keeper.clock import LATE, Watch
from fluxtui.engine.keeper.lines import Lines
from fluxtui.engine.keeper.session_log import Log
from fluxtui.engine.keeper.spawn import CannotStartError, spawn_prover, spawn_trainer
from fluxtui.engine.keeper.termination import exit_of
from fluxtui.engine.wire import ProgressLine, TrainJob, encode
from fluxtui.persist import process
from fluxtui.persist.sessions.record import TERMINAL, TRANSITIONS
from fluxtui.persist.settings.spec import DatasetSpec, ModelSpec, Spec


@pytest.fixture
def pipe():
    read, write = os.pipe()
    os.set_blocking(read, False)
    yield read, write
    os.close(read)


def test_lines_come_whole_however_they_are_cut(pipe):
    read, write = pipe
    lines, data = Lines(read), encode(ProgressLine(step=1)) + encode(ProgressLine(step=2))
    found = []
    for byte in data:
        os.write(write, bytes([byte]))
        found += lines.read()
    assert [line.step for line in found] == [1, 2]
    assert lines.garbage == 0
    os.close(write)
    assert lines.read() == []
    assert not lines.is_open


@pytest.mark.parametrize(
    "garbage",
    [b"\n", b"{\n", b"null\n", b"[1]\n", b'{"step": "x"}\n', b'{"step": -1}\n', b'{"step": 1e400}\n', b"\xff\xfe\n",
     b'{"step":99999999999999999999}\n', b'{"phase":"dancing"}\n', b"[" * 3000 + b"\n", b"x" * 5000 + b"\n"],
)  # fmt: skip
def test_45_a_torn_or_hostile_line_is_counted_and_the_next_one_read(pipe, garbage):
    read, write = pipe
    lines = Lines(read)
    os.write(write, garbage + encode(ProgressLine(step=7)))
    assert [line.step for line in lines.read()] == [7]
    assert lines.garbage == 1


def test_45_a_line_of_a_megabyte_is_never_kept(pipe):
    read, write = pipe
    lines = Lines(read)
    for _ in range(32):
        os.write(write, b"y" * 32768)
        assert lines.read() == []
        assert len(lines._rest) <= 4096
    os.write(write, b"\n" + encode(ProgressLine(step=7)))
    assert [line.step for line in lines.read()] == [7]
    assert lines.garbage == 1


@given(st.binary(max_size=9000))
def test_45_no_bytes_on_the_pipe_raise_anything(data):
    read, write = os.pipe()
    os.set_blocking(read, False)
    lines = Lines(read)
    os.write(write, data + b"\n" + encode(ProgressLine(step=7)))
    assert lines.read()[-1].step == 7
    os.close(write)
    os.close(read)


def test_markers_stand_between_rules_on_lines_of_their_own(tmp_path):
    log = Log(tmp_path / "training.log")
    os.write(log.fd, b"half a line")
    log.marker("ERROR: TRAINING FAILED - \x1b[31mred\x1b[0m")
    text = (tmp_path / "training.log").read_text()
    assert text == f"half a line\n{'=' * 80}\nERROR: TRAINING FAILED - red\n{'=' * 80}\n"
    assert log.last_line() == "ERROR: TRAINING FAILED - red"


def test_the_log_is_cut_at_its_cap_and_its_end_is_kept_beside_it(tmp_path):
    path = tmp_path / "training.log"
    log = Log(path, cap=1000)
    other = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(other, b"".join(b"%06d\n" % number for number in range(200)))
    log.keep_short()
    assert path.stat().st_size == 0
    kept = (tmp_path / "training.log.1").read_text()
    assert kept.endswith("000199\n")
    assert len(kept) == 1000
    os.write(other, b"goes on\n")
    assert path.read_text() == "goes on\n"
    assert [name.name for name in tmp_path.iterdir() if "tmp" in name.name] == []


@pytest.mark.parametrize("stands_in_the_way", ["training.log.1", "training.log.1.tmp"])
def test_the_log_is_cut_even_where_no_copy_can_be_made(tmp_path, stands_in_the_way):
    path = tmp_path / "training.log"
    log = Log(path, cap=1000)
    (tmp_path / stands_in_the_way).mkdir()
    os.write(log.fd, b"x" * 5000)
    log.keep_short()
    assert path.stat().st_size == 0


def test_a_fifo_in_the_place_of_the_logs_copy_holds_nobody_up(tmp_path):
    log = Log(tmp_path / "training.log", cap=1000)
    os.mkfifo(tmp_path / "training.log.1.tmp")
    os.write(log.fd, b"x" * 5000)
    log.keep_short()
    assert (tmp_path / "training.log").stat().st_size == 0
    assert (tmp_path / "training.log.1").read_bytes() == b"x" * 1000


def test_the_watch_stands_still_for_what_came_late():
    watch = Watch()
    before = watch.now()
    time.sleep(LATE + 0.3)
    missed = watch.ticked(0.0)
    assert missed > LATE
    assert watch.now() - before < 0.2
    assert watch.ticked(0.0) == 0.0


def test_every_status_reaches_every_end_over_allowed_transitions_only():
    for now in TRANSITIONS:
        for end in sorted(TERMINAL):
            way = [now, *way_to(now, end)] if not (now == "queued" and end == "completed") else []
            for before, after in itertools.pairwise(way):
                assert after in TRANSITIONS[before]


def test_the_engine_names_its_verbs(capsys):
    assert engine.main([]) == 2
    assert engine.main(["dance"]) == 2
    assert "keep, join, train, check" in capsys.readouterr().err


def test_a_verb_that_is_missing_is_one_sentence(capsys, monkeypatch):
    monkeypatch.setitem(engine.VERBS, "publish", "fluxtui.engine.no_such_module")
    assert engine.main(["publish"]) == 2
    assert capsys.readouterr().err == "`publish` is not in this version of FluxTUI yet\n"


def run_life(body: str, **environment: str) -> subprocess.Popen:
    code = f"from fluxtui.engine import life\nimport time, sys\n{body}"
    return subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_a_trainer_of_another_parent_leaves_before_it_touches_anything():
    started = run_life("life.enter(); print('here')", FLUXTUI_KEEPER_PID="1")
    out, err = started.communicate(timeout=20)
    assert started.returncode == 70
    assert out == b""
    assert b"nothing trains unwatched" in err


def test_signals_become_a_flag_and_sigusr1_dumps_every_stack():
    body = "flag = life.enter(); print('up', flush=True)\nwhile not flag: time.sleep(0.05)\nprint(flag.signals, flush=True)"
    started = run_life(body, FLUXTUI_KEEPER_PID=str(os.getpid()))
    assert started.stdout.readline() == b"up\n"
    started.send_signal(signal.SIGUSR1)
    assert b"most recent call first" in started.stderr.readline()
    started.send_signal(signal.SIGTERM)
    assert started.stdout.readline() == b"['SIGTERM']\n"
    assert started.wait(10) == 0
    started.stdout.close()
    started.stderr.close()


def test_a_trainer_dies_with_the_parent_that_started_it():
    trainer = "from fluxtui.engine import life; import time, os; life.enter(); print(os.getpid(), flush=True); time.sleep(60)"
    keeper = f"""
import os, subprocess, sys, time
os.environ["FLUXTUI_KEEPER_PID"] = str(os.getpid())
subprocess.Popen([sys.executable, "-c", {trainer!r}])
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", keeper], stdout=subprocess.PIPE)
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    until(lambda: process.state_letter(pid) in (None, "Z"), 5)
    parent.stdout.close()


def test_what_is_written_while_the_copy_gets_its_name_is_kept(tmp_path, monkeypatch):
    path = tmp_path / "training.log"
    log, replace = Log(path, cap=1000), os.replace
    os.write(log.fd, b"x" * 1500 + b"\n")

    def slow(*names):
        os.write(log.fd, b"a line of that moment\n")
        replace(*names)

    monkeypatch.setattr(os, "replace", slow)
    log.keep_short()
    assert path.stat().st_size == 0
    assert (tmp_path / "training.log.1").read_text().endswith("a line of that moment\n")


def test_a_flood_past_four_times_the_cap_is_cut_wherever_the_copy_is(tmp_path, monkeypatch):
    path = tmp_path / "training.log"
    log = Log(path, cap=1000)
    os.write(log.fd, b"x" * 5000)
    monkeypatch.setattr(session_log, "_COPY_SECONDS", -1.0)  # no time to copy anything
    log.keep_short()
    assert path.stat().st_size == 0
    os.write(log.fd, b"y" * 1500)
    log.keep_short()
    assert path.stat().st_size == 1500  # the copy is on its way, and is given its time
    monkeypatch.setattr(session_log, "_COPY_SECONDS", 1.0)
    log.keep_short()
    assert path.stat().st_size == 0
    assert (tmp_path / "training.log.1").read_bytes() == b"y" * 1000


def descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("call", ["pipe2", "memfd_create", "pidfd_open"])
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("what", ["trainer", "prover"])
def test_40_no_descriptor_left_at_any_point_of_a_start_is_one_sentence_and_leaves_nothing(
    monkeypatch, tmp_path, call, number, what
):
    real, calls, before = getattr(os, call), [], descriptors()

    def fails(*arguments):
        calls.append(arguments)
        if len(calls) == number:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(*arguments)

    monkeypatch.setenv("FLUXTUI_TRAINER", "this")
    monkeypatch.setenv("FLUXTUI_PROVER", "this")
    monkeypatch.setattr(os, call, fails)
    with open(os.devnull, "wb") as nothing:
        failure, group = None, None
        try:
            group = spawned(what, tmp_path, nothing.fileno())
        except CannotStartError as error:
            failure = str(error)
    if len(calls) >= number:
        assert failure is not None
        assert "raise `ulimit -n`" in failure
    else:  # it has fewer such calls than that
        assert failure is None
        with group:
            pass
    assert descriptors() == before


def test_a_trainer_that_is_dead_before_anyone_looks_at_it_was_started_and_says_how_it_left(monkeypatch, tmp_path):
    real = os.pidfd_open

    def slow(pid):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return real(pid)

    monkeypatch.setenv("FLUXTUI_TRAINER", "no_such_module")
    monkeypatch.setattr(os, "pidfd_open", slow)
    with open(os.devnull, "wb") as nothing, spawned("trainer", tmp_path, nothing.fileno()) as group:
        assert [rank.identity.run_id for rank in group.ranks] == ["r", "r"]
        assert {exit_of(rank.pid) for rank in group.ranks} == {(1, None)}


def test_40_what_fails_between_fork_and_exec_is_one_sentence_and_leaves_nothing(monkeypatch, tmp_path):
    def fails(parent):
        raise RuntimeError("the kernel knows no such prctl")

    before = descriptors()
    monkeypatch.setattr(life, "die_with_parent", fails)
    with open(os.devnull, "wb") as nothing:
        for what in ("trainer", "prover"):
            with pytest.raises(CannotStartError, match=r"the trainer cannot be started: .*preexec"):
                spawned(what, tmp_path, nothing.fileno())
    assert descriptors() == before


def spawned(what, tmp_path, log_fd):
    if what == "prover":
        return spawn_prover([], "r", [], 1, log_fd)
    spec = Spec(name="one", id="i", model=ModelSpec(source="pico"), dataset=DatasetSpec(path="demo"))
    job = TrainJob(
        home=str(tmp_path), session=str(tmp_path), attempt=1, nonce="n", run_id="r", spec=spec, recipe_sha256="", threads=1
    )
    return spawn_trainer(job, 2, log_fd)
