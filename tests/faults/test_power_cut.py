"""The power is cut at a system call of a commit (faults.md row 7): an ext4 on a loop device, whose backing file is copied.

What was never synced is not in the copy; what the program was told is committed must be. The journal orders nothing that
nobody asked for (data=writeback). The copy is mounted, and the judges look at it.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fluxtui.persist.checkpoints.commit import committed, step_name
from fluxtui.persist.files import toml
from fluxtui.persist.files.durable import write_file
from tests.faults import judge, mounts
from tests.faults.program import content
from tests.faults.sweep import Outcome, Traced

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]
OPTIONS = "data=writeback,commit=600"
STRUCK = ("fsync", "rename", "write", "unlinkat", "rmdir", "mkdir")


@pytest.fixture(autouse=True)
def tools(needs: Callable[[str], str]) -> None:
    for tool in ("strace", "mount", "mkfs.ext4", "losetup"):
        needs(tool)
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")


class Bench:
    """A prepared disk, and what is needed to cut its power again and again."""

    def __init__(self, scenario: str, at: Path) -> None:
        self.scenario, self.at = scenario, at
        self.prepared = mounts.make_ext4(at / "prepared.image")
        with mounts.ext4(self.prepared, at / "disk", OPTIONS) as disk:
            judge.prepare("commit" if scenario == "careless" else scenario, disk / "work")
            shutil.rmtree(disk / "work.warm")
            os.sync()

    def cut(self, call: str, number: int) -> Outcome | None:
        """Cut at the N-th such call: the copy lies at `cut.image`. None where the program ended before."""
        image = self.at / "disk.image"
        shutil.copyfile(self.prepared, image)
        with mounts.ext4(image, self.at / "disk", OPTIONS) as disk:
            work = self.at / "beside"  # trace and report lie off the disk that is cut
            traced = Traced(self.scenario, disk / "work", f"access,{call}", f"{call}:signal=STOP:when={number}", beside=work)
            traced.go()
            try:
                end = time.monotonic() + 60
                while not traced.is_stopped() and not traced.has_ended():
                    assert time.monotonic() < end, "neither stopped nor ended"
                    time.sleep(0.005)
                if not traced.is_stopped():
                    return None
                mounts.cut_power(image, self.at / "cut.image")
                return Outcome(-9, traced.report(), "", ())
            finally:
                traced.kill()


@pytest.mark.parametrize("scenario", ["commit", "resume", "record"])
def test_a_power_cut_at_any_call_leaves_what_was_committed(
    scenario: str, folder: Path, record_property: Callable[[str, object], None]
) -> None:
    bench = Bench(scenario, folder)
    cuts = 0
    for call in STRUCK:
        number = 1
        while (outcome := bench.cut(call, number)) is not None:
            with mounts.ext4(folder / "cut.image", folder / "after") as disk:
                try:
                    judge.judge(scenario, disk / "work", outcome, call, "SIGKILL")
                except AssertionError as error:
                    raise AssertionError(f"after a power cut at {call} {number}: {error}; reported {outcome.report}") from error
            cuts += 1
            number += 1
    # a write, two syncs and a rename; four files written and synced, two folders, two renames
    assert cuts >= (4 if scenario == "record" else 11)
    record_property("cuts", f"{scenario}: {cuts}")


def test_the_same_cut_tears_a_commit_that_syncs_nothing(folder: Path) -> None:
    """Otherwise the test above would show nothing."""
    bench = Bench("careless", folder)
    outcome = bench.cut("access", 2)  # at its very end, after its one sync of another file
    assert outcome is not None
    assert outcome.report == ("committed 3",)
    with mounts.ext4(folder / "cut.image", folder / "after") as disk:
        checkpoint = disk / "work" / "checkpoints" / step_name(3)
        whole = checkpoint.is_dir() and all(
            (checkpoint / name).exists() and (checkpoint / name).read_bytes() == data for name, data in content(3).items()
        )
        assert not whole, "nothing was synced and all is there: the power was never cut"
        assert set(committed(disk / "work" / "checkpoints")) >= {step_name(1), step_name(2)}


def test_a_beat_that_a_power_cut_catches_never_takes_the_transition_before_it_along(folder: Path) -> None:
    """Somebody else's sync commits the journal, and with it the beat's rename: its bytes must be there by then."""
    image = mounts.make_ext4(folder / "disk.image")
    with mounts.ext4(image, folder / "disk", f"{OPTIONS},noauto_da_alloc") as disk:
        toml.write(disk / "0001.toml", {"status": "running"})
        toml.write_beat(disk / "0001.toml", {"status": "running", "step": 7})
        write_file(disk / "other", b"x")
        mounts.cut_power(image, folder / "cut.image")
    with mounts.ext4(folder / "cut.image", folder / "after") as disk:
        assert (disk / "other").read_bytes() == b"x"
        assert toml.read(disk / "0001.toml", dict)["status"] == "running"
