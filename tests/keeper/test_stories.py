"""The four stories of docs/recovery.md, from the outside: what panel, `show`, log, exit codes and files say.

16 epochs of 5 steps, a checkpoint every 4 epochs, as FluxGym's users have it. A real keeper, a trainer without torch.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from keeper_lab import HERE, Lab, Session, fast, removed, until
from standin import EPOCH, product_bytes

from fluxtui.persist import process
from fluxtui.persist.sessions import overview
from fluxtui.persist.sessions.record import Record

EPOCHS = 16
RULE = "=" * 80


@pytest.fixture
def one(lab: Lab) -> Session:
    return lab.session("my-lora", steps=EPOCHS * EPOCH, every=4 * EPOCH, guard=fast(batch=2, step=2, first_steps=3))


def call(one: Session, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line, as another terminal would."""
    environment = one.lab.environment({"FLUXTUI_HOME": str(one.lab.home.root), "PYTHONPATH": f"{HERE.parent.parent}:{HERE}"})
    command = [sys.executable, "-m", "fluxtui", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, cwd="/")


def show(one: Session) -> dict[str, object]:
    return json.loads(call(one, "show", "my-lora", "--json").stdout)


def markers(one: Session) -> list[str]:
    """The lines between two rules, in order."""
    return [found.strip() for found in re.findall(rf"{RULE}\n(.*?)\n{RULE}", one.log(), re.S)]


def epoch_of(record: Record) -> int:
    return int(record.checkpoint.removeprefix("step-")) // EPOCH if record.checkpoint else 0


def test_story_1_it_completes(one: Session, tmp_path: Path):
    told = tmp_path / "told"
    one.lab.home.config.write_text(f'on_end = "echo $FLUXTUI_NAME $FLUXTUI_STATE > {told}"\n')
    one.lab.plan(step_seconds=0.02)
    assert call(one, "start", "my-lora").returncode == 0
    waited = call(one, "wait", "my-lora", "--timeout", "100")
    assert waited.returncode == 0
    assert waited.stdout.strip() == str(one.folder.product)
    seen = show(one)
    assert (seen["state"], seen["step"], seen["epoch"], seen["exit_code"]) == ("completed", 80, EPOCHS + 1, 0)
    assert "✅" in call(one, "ls").stdout
    assert markers(one) == [f"TRAINING COMPLETED SUCCESSFULLY\nModel saved: {one.folder.product}"]
    assert "my-lora" in one.folder.card_file.read_text()
    until(told.exists)
    until(lambda: told.read_text() == "my-lora completed\n")
    one.check()


def test_story_2_a_guard_fires_at_epoch_8_and_the_session_goes_on_from_there(one: Session):
    one.lab.plan({"attempt": 1, "when": "batch", "at": 8 * EPOCH + 2, "do": "hang"}, step_seconds=0.02)
    assert call(one, "start", "my-lora").returncode == 0
    assert call(one, "wait", "my-lora", "--timeout", "100").returncode == 0
    first, second = one.records()
    assert first.reason.startswith("hung in data (no batch from the data loader) for ")
    assert (epoch_of(first), second.resumed_from) == (8, first.checkpoint)
    kinds = [found.split(" - ")[0] for found in markers(one)]
    assert kinds[:3] == ["TRAINING STUCK DETECTED", "ERROR: TRAINING FAILED", "TRAINING RESUMED"]
    assert markers(one)[2] == f"TRAINING RESUMED - from {one.folder.checkpoints / first.checkpoint} at step {8 * EPOCH}"
    stacks = one.log().partition("TRAINING STUCK DETECTED")[2].partition("ERROR: TRAINING FAILED")[0]
    assert "do_hang" in stacks
    assert show(one)["state"] == "completed"
    one.check()


def test_story_2_where_it_hangs_again_and_again_it_stays_failed_with_the_one_command(one: Session):
    one.lab.plan({"when": "batch", "at": 8 * EPOCH + 2, "do": "hang"})
    assert call(one, "start", "my-lora").returncode == 0
    waited = call(one, "wait", "my-lora", "--timeout", "200")
    assert waited.returncode == 1
    seen = show(one)
    assert (seen["state"], seen["attempt"], seen["resumable"]) == ("failed", 4, True)
    assert str(seen["reason"]).endswith("given up after 3 retries without a new checkpoint")
    assert "fluxtui resume my-lora" in str(seen["remedy"])
    assert "❌" in call(one, "ls").stdout
    assert "fluxtui resume my-lora" in waited.stderr
    one.lab.plan()
    assert call(one, "resume", "my-lora").returncode == 0
    assert call(one, "wait", "my-lora", "--timeout", "100").returncode == 0
    assert one.record().resumed_from == f"step-{8 * EPOCH:09d}"
    one.check()


@pytest.mark.root
def test_story_3_it_dies_in_silence_and_an_older_file_makes_nothing_green(one: Session):
    """The OOM killer at epoch 12, and a perfect product of another session of that name lies there."""
    group = Path("/sys/fs/cgroup/memory") / f"fluxtui-story-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(150 * 2**20))
        one.folder.product.write_bytes(product_bytes(bytes(32), "another session", "0" * 64, 80))
        one.lab.plan({"at": 12 * EPOCH + 1, "do": "eat_memory"})
        one.start(wrap=["/bin/sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"]).wait()
        assert int((group / "memory.oom_control").read_text().split("oom_kill ")[1]) >= 1  # the fault happened
        seen = show(one)
        assert (seen["state"], seen["signal"], seen["attempt"], seen["output"]) == ("failed", "SIGKILL", 1, None)
        assert str(seen["reason"]).startswith("host memory: the trainer was killed by the kernel's OOM killer")
        assert "hardware.workers=0" in str(seen["remedy"])
        assert epoch_of(one.record()) == 12
        assert [found.split(" - ")[0] for found in markers(one)] == ["ERROR: TRAINING CRASHED"]
        assert "✅" not in call(one, "ls").stdout
        assert call(one, "wait", "my-lora").returncode == 1
        assert call(one, "verify", "my-lora").returncode == 4
        one.check()
    finally:
        until(lambda: removed(group), 10)


@pytest.mark.parametrize("how", ["hang", "spin"])
def test_story_4_it_hangs_at_epoch_6_asleep_or_burning_and_nobody_else_is_touched(one: Session, how: str):
    """At 0 % and at 100 %: missing progress finds both. A stranger with the same command line goes on."""
    one.lab.plan({"attempt": 1, "at": 6 * EPOCH, "do": how}, step_seconds=0.02)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "fluxtui.engine", "train", "my-lora"])
    try:
        assert call(one, "start", "my-lora").returncode == 0
        rank = one.await_step(6 * EPOCH).ranks[0]
        seen = until(lambda: (now := overview.look(one.lab.home, "my-lora")).state == "stalled" and now)
        assert seen.reason
        assert call(one, "wait", "my-lora", "--timeout", "100").returncode == 0
        first, second = one.records()
        assert first.reason.startswith("hung in train for ")
        assert (epoch_of(first), second.resumed_from) == (4, first.checkpoint)
        assert not process.is_alive(rank)
        assert other.poll() is None, "a stranger was ended"
        one.check()
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
