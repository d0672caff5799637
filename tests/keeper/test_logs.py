"""Fault 37: a log that floods while it is cut, rotated, replaced and deleted; the trainer never waits for anybody."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from keeper_lab import HERE, SLOW, Lab, fast, until

from fluxtui.engine.keeper.session_log import Log
from fluxtui.persist.logfile import tail

MEGABYTES = 400


def resident(pid: int) -> int:
    """Bytes of memory that a process ever had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) * 1024


def test_37_a_log_that_floods_while_it_is_cut_rotated_and_deleted_blocks_nobody(lab: Lab, tmp_path: Path):
    """Four million lines in one step, whose limit is a few seconds: a trainer that waited for a reader would be called hung."""
    lab.plan({"at": 5, "do": "flood", "megabytes": MEGABYTES}, {"at": 25, "do": "hang", "seconds": 1.5 * SLOW})
    one = lab.session(guard=fast(first_steps=20, step=20, batch=20))
    log = one.folder.log_file
    log.write_text("before\n")
    environment = os.environ | {"FLUXTUI_HOME": str(lab.home.root), "FLUXTUI_RUNTIME": str(lab.path / "runtime")}
    follow = [sys.executable, "-m", "fluxtui", "logs", "one", "-f"]
    followed = tmp_path / "followed"
    with followed.open("wb") as out:
        front = subprocess.Popen(follow, env=environment | {"PYTHONPATH": str(HERE.parent.parent)}, stdout=out, cwd="/")
        seen, deeds = 0, iter(("truncate", "nuls", "rename", "delete"))
        try:
            until(lambda: followed.read_bytes() == b"before\n")  # it follows
            keeper = one.start()
            while keeper.process.poll() is None:
                size = log.stat().st_size if log.exists() else 0
                if size > 20 * 2**20 and (deed := next(deeds, "")):
                    seen += spoil(log, deed)
                assert all(len(line) < 10_000 for line in tail(log, 5)) if log.exists() else True
                time.sleep(0.02)
            until(lambda: followed.stat().st_size > len("before\n"))
            most = resident(front.pid)
        finally:
            front.terminate()
            front.wait(20)
    assert seen >= 2, "the log was never long enough to be spoilt"
    one.check()
    assert (one.record().status, one.attempts) == ("completed", [1])
    assert most < 200 * 2**20, "whoever follows the log keeps it in memory"
    left = sum(path.stat().st_size for path in one.folder.path.glob("training.log*"))
    assert left < 2 * 64 * 2**20 + 4 * 2**20, "the cap does not hold"


def spoil(log: Path, deed: str) -> int:
    """What users, logrotate and disks do to a log that is being written."""
    if deed == "truncate":
        os.truncate(log, 0)
    elif deed == "nuls":
        with log.open("r+b") as file:
            file.write(bytes(2**20))
    elif deed == "rename":
        log.rename(log.with_name("training.log.old"))
        log.with_name("training.log.old").rename(log)
    else:
        log.unlink()
    return 1


@pytest.mark.parametrize("way", ["removed", "renamed", "replaced"])
def test_a_log_whose_name_is_gone_is_made_anew_and_gets_what_the_trainer_still_writes(lab: Lab, way: str):
    """The trainer's standard output is the old file for as long as it lives; its lines reach the one that a user sees."""
    reached, until_file = lab.path / "reached", lab.path / "until"
    hold = {"attempt": 1, "at": 5, "do": "wait_for", "reached": str(reached), "until": str(until_file)}
    loud = {"attempt": 1, "at": 6, "do": "flood", "megabytes": 1}
    lab.plan(hold, loud, {"attempt": 1, "at": 7, "do": "segfault"})
    one = lab.session(guard=fast(first_steps=20, step=20, batch=20))
    keeper, log = one.start(), one.folder.log_file
    until(reached.exists)
    assert "standin attempt 1" in one.log()
    if way == "removed":
        log.unlink()
    else:
        log.rename(log.with_name("training.log.old"))
    if way == "replaced":
        log.write_text("somebody's own\n")
    until(lambda: log.exists() and "it goes on here" in one.log())
    until_file.touch()
    keeper.wait()
    one.check()
    assert (one.record().status, one.attempts) == ("completed", [1, 2])
    text = one.log()
    assert text.startswith("somebody's own\n") == (way == "replaced")
    assert text.count("x" * 99 + "\n") == 10_000, "what the trainer wrote after that"
    in_order = ("it goes on here", "x" * 99, "Segmentation fault", "ERROR: TRAINING CRASHED", "standin attempt 2", "COMPLETED")
    places = [text.find(words) for words in in_order]
    assert places == sorted(places)
    assert places[0] >= 0
    assert log.stat().st_mode & 0o777 == 0o600 or way == "replaced"


def test_a_log_that_is_gone_with_its_whole_session_is_not_made_anew(tmp_path: Path):
    """Whoever removes the folder is a moment from removing the lock too: a new file would keep the folder from going."""
    log = Log(tmp_path / "training.log")
    log.path.unlink()
    log.keep_short()
    assert not log.path.exists()
    log.keep_short()
    assert log.path.exists()


def test_an_old_log_without_a_name_does_not_fill_the_disk_and_a_line_of_its_end_is_kept_whole(tmp_path: Path):
    log = Log(tmp_path / "training.log", cap=1000)
    given = os.dup(log.for_processes())
    log.path.unlink()
    log.keep_short()
    log.keep_short()
    for number in range(100):
        os.write(given, b"line %06d of the trainer\n" % number)
    os.write(given, b"half a ")
    log.line("a word between")
    os.write(given, b"line\n")
    log.keep_short()
    assert os.fstat(given).st_size == 0, "nobody sees what room it takes"
    both = log.path.with_name("training.log.1").read_text() + log.path.read_text()
    assert "[keeper] a word between\nhalf a line\n" in both
    os.write(given, b"and on\n")
    log.keep_short()
    assert log.path.read_text().endswith("and on\n")
    os.close(given)


def test_what_lies_in_the_logs_place_is_not_opened_and_the_log_goes_on_once_it_is_gone(tmp_path: Path):
    log = Log(tmp_path / "training.log")
    log.path.unlink()
    os.mkfifo(log.path)
    for _ in range(3):
        log.keep_short()
    log.line("said meanwhile")
    log.path.unlink()
    log.keep_short()
    assert "said meanwhile" in log.path.read_text()
