"""A watch over GPUs never waits for the driver, whatever that does (faults.md row 27)."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fluxtui.gpu import Gpus, GpuWatch, list_gpus, watch


def until(watching: GpuWatch, condition: Callable[[Gpus], bool], seconds: float = 20.0) -> Gpus:
    end = time.monotonic() + seconds
    while True:
        before = time.perf_counter()
        found = watching.latest()
        assert time.perf_counter() - before < 0.25, "asking waited for the driver"
        if condition(found):
            return found
        assert time.monotonic() < end, found
        time.sleep(0.02)


def test_no_driver_at_all_says_so(monkeypatch: pytest.MonkeyPatch, watching: GpuWatch, tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("no library")  # stands before a real one, where a machine has that
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    for found in (list_gpus(20), _watched(watching)):
        assert found.devices == ()
        assert "no NVIDIA driver" in found.why
    assert watching._child is not None
    assert watching._child.wait(10) == 3, "nothing goes on watching where there is nothing to watch"
    assert "no NVIDIA driver" in watching.latest().why


def _watched(watching: GpuWatch) -> Gpus:
    watching.start(0.1)
    return until(watching, lambda found: found.at > 0)


def test_the_watch_follows_and_never_waits(driver: Callable[..., None], watching: GpuWatch) -> None:
    assert "not read yet" in watching.latest().why
    watching.start(0.05)
    assert until(watching, lambda found: bool(found.devices)).devices[0].utilisation == 97.0
    driver("busy=3")
    assert until(watching, lambda found: found.devices[0].utilisation == 3.0)
    driver("handle0=15")
    assert until(watching, lambda found: "fell off the bus" in found.why).devices == ()
    driver()
    assert until(watching, lambda found: bool(found.devices)), "a GPU that came back is seen again"
    watching.stop()
    assert watching.latest().devices == ()


def test_the_newest_reading_is_given_however_long_nobody_looked(driver: Callable[..., None], watching: GpuWatch) -> None:
    watching.start(0.005)
    until(watching, lambda found: bool(found.devices))
    time.sleep(1.0)  # nobody looks: some hundred readings pass
    driver("busy=1")
    time.sleep(0.3)
    assert watching.latest().devices[0].utilisation == 1.0


def test_a_driver_that_hangs_meanwhile_only_makes_the_answer_say_so(
    driver: Callable[..., None], watching: GpuWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_SILENT_SECONDS", 0.5)
    monkeypatch.setattr(watch, "_KILL_SECONDS", 1.0)
    monkeypatch.setattr(watch, "_RESTART_SECONDS", 0.1)
    watching._delay = 0.1
    watching.start(0.05)
    until(watching, lambda found: bool(found.devices))
    first = watching._child
    driver("count=hang")
    found = until(watching, lambda found: not found.devices)
    assert "has not answered for" in found.why
    driver()
    until(watching, lambda found: bool(found.devices))
    assert first is not None
    assert first.poll() == -signal.SIGKILL, "the hanging child was ended and another one started"
    assert watching._child is not first


def test_a_child_that_dies_is_started_again_with_patience(
    driver: Callable[..., None], watching: GpuWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching._delay = 0.2
    driver("memory=crash")
    watching.start(0.05)
    assert f"by signal {int(signal.SIGSEGV)}" in until(watching, lambda found: "ended" in found.why).why
    driver()
    until(watching, lambda found: bool(found.devices))
    assert watching._delay == 0.4


PARENT = """
import os, sys, time
from fluxtui.gpu import GpuWatch
watch = GpuWatch()
watch.start(0.05)
while not watch.latest().devices:
    time.sleep(0.02)
if sys.argv[1] == "hang":
    open(os.environ["FAKE_NVML"], "w").write("count=hang\\n")
    time.sleep(0.3)
print(watch._child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("state", ["well", "hang"])
def test_the_child_ends_with_its_parent_however_that_ends(driver: Callable[..., None], state: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, state], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert Path(f"/proc/{child}").exists()
    parent.kill()
    parent.wait()
    end = time.monotonic() + 10
    while Path(f"/proc/{child}/stat").exists() and Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < end, "the child outlived its parent"
        time.sleep(0.02)
