"""Fault 37: a log that floods while it is cut, rotated, replaced and deleted; the trainer never waits for anybody."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from keeper_lab import HERE, SLOW, Lab, fast, until

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
