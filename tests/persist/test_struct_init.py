"""Two threads that use a struct type for the first time at once: with msgspec alone the process dies (seen with 0.22)."""

from __future__ import annotations

import signal
import subprocess
import sys

PROGRAM = """
import sys, threading, time, typing
from pathlib import Path
import msgspec
from fluxtui.persist.files import toml

inside = threading.Event()

def slow(type):
    inside.set()
    time.sleep(0.5)
    return type

class Inner(msgspec.Struct):
    y: "slow(int)" = 1

class Outer(msgspec.Struct):
    n: Inner

def convert():
    READ({"n": {"y": 2}})

READ = {
    "ours": lambda document: toml.convert(document, Outer, Path("x")),
    "msgspec": lambda document: msgspec.convert(document, Outer),
}[sys.argv[1]]
first, second = (threading.Thread(target=convert) for _ in range(2))
first.start()
inside.wait()  # Outer is known by half: its field waits for Inner
second.start()
first.join()
second.join()
print("fine")
"""


def run(how: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, timeout=120)


def test_two_threads_that_meet_a_type_at_once_take_no_front_with_them() -> None:
    done = run("ours")
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr
    assert run("msgspec").returncode == -signal.SIGSEGV, "msgspec guards itself by now: `meet` can go"
