"""A pid on disk is signalled only if it is that very process."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from fluxtui.persist import process
from fluxtui.persist.process import RUN_ID_VARIABLE, boot_id, identify, is_alive, run_id_of, send, state_letter
from fluxtui.persist.sessions.record import ProcessIdentity


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen(["sleep", "60"], env={**os.environ, RUN_ID_VARIABLE: "run-1"})
    until(lambda: run_id_of(started.pid) == "run-1")  # before the exec it wears our own environment
    yield started
    started.kill()
    started.wait()


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def test_a_process_is_known_and_signalled(sleeper: subprocess.Popen[bytes]) -> None:
    found = identify(sleeper.pid)
    assert found is not None
    assert found.run_id == "run-1"
    assert found.boot_id == boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert is_alive(found)
    assert send(found, signal.SIGTERM)
    assert sleeper.wait(timeout=10) == -signal.SIGTERM
    assert not is_alive(found)
    assert identify(sleeper.pid) is None
    assert not send(found, signal.SIGTERM)


@pytest.mark.parametrize(
    "change",
    [
        *({"boot_id": "of another boot"}, {"boot_id": ""}, {"run_id": "run-2"}, {"run_id": ""}),
        *({"start_ticks": 1}, {"pid": 1}, {"pid": 0}, {"pid": -1}),
    ],
)
def test_whoever_differs_in_anything_is_never_signalled(sleeper: subprocess.Popen[bytes], change: dict[str, object]) -> None:
    found = identify(sleeper.pid)
    assert found is not None
    assert not send(msgspec.structs.replace(found, **change), signal.SIGKILL)
    assert is_alive(found)


def test_an_unsigned_process_with_the_right_pid_and_start_is_a_stranger(sleeper: subprocess.Popen[bytes]) -> None:
    stranger = subprocess.Popen(["sleep", "60"], env={})
    try:
        until(lambda: Path(f"/proc/{stranger.pid}/comm").read_text() == "sleep\n")
        found = identify(stranger.pid)
        assert found is not None
        assert found.run_id == ""
        assert not send(found, signal.SIGKILL)
        assert not is_alive(msgspec.structs.replace(found, run_id="run-1"))
        assert state_letter(stranger.pid) is not None
    finally:
        stranger.kill()
        stranger.wait()


def test_who_takes_the_pid_between_the_check_and_the_signal_is_not_hit(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = identify(sleeper.pid)
    assert found is not None

    def dies_meanwhile(identity: ProcessIdentity) -> bool:
        sleeper.kill()
        sleeper.wait()
        return True

    monkeypatch.setattr(process, "is_alive", dies_meanwhile)
    assert not send(found, signal.SIGTERM)  # the descriptor is of the dead process, whoever has its pid now


def test_a_zombie_is_not_alive_and_letters_say_what_a_process_does(sleeper: subprocess.Popen[bytes]) -> None:
    found = identify(sleeper.pid)
    assert found is not None
    until(lambda: state_letter(sleeper.pid) == "S")
    sleeper.send_signal(signal.SIGSTOP)
    until(lambda: state_letter(sleeper.pid) == "T")
    assert is_alive(found)
    sleeper.kill()
    until(lambda: state_letter(sleeper.pid) == "Z")
    assert not is_alive(found)
    assert not send(found, signal.SIGTERM)
    sleeper.wait()
    assert state_letter(sleeper.pid) is None
    assert run_id_of(sleeper.pid) is None


def test_a_name_full_of_parentheses_does_not_mislead(tmp_path: Path) -> None:
    program = tmp_path / ") R 1 (x) Z"
    program.symlink_to("/bin/sleep")
    started = subprocess.Popen([program, "60"])
    try:
        until(lambda: Path(f"/proc/{started.pid}/comm").read_text() == ") R 1 (x) Z\n")
        until(lambda: state_letter(started.pid) == "S")
        own = identify(started.pid)
        assert own is not None
        assert own.start_ticks >= identify(os.getpid()).start_ticks  # type: ignore[union-attr]
    finally:
        started.kill()
        started.wait()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="choosing the next pid needs root")
def test_a_recycled_pid_is_a_stranger_however_alike(sleeper: subprocess.Popen[bytes]) -> None:
    """faults.md row 19: the pid of the dead is given to another process, by ns_last_pid."""
    found = identify(sleeper.pid)
    assert found is not None
    sleeper.kill()
    sleeper.wait()
    for _ in range(200):  # others start processes too
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(found.pid - 1))
        stranger = subprocess.Popen(["sleep", "60"], env={**os.environ, RUN_ID_VARIABLE: "run-2"})
        try:
            if stranger.pid != found.pid:
                continue
            assert not is_alive(found)
            assert not send(found, signal.SIGKILL)
            assert stranger.poll() is None
            return
        finally:
            stranger.kill()
            stranger.wait()
    pytest.fail("the pid was never given again: this test shows nothing")
