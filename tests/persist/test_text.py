"""Foreign text made inert."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxtui.persist.files.text import clean, collapse
from tests.persist.inert import is_inert


@given(st.text() | st.binary())
def test_nothing_that_a_terminal_obeys_comes_through(foreign: str | bytes) -> None:
    assert is_inert(clean(foreign))


@pytest.mark.parametrize(
    ("foreign", "shown"),
    [
        ("plain", "plain"),
        ("tab\tx", "tab     x"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;aGk=\x07x", "x"),
        ("\x1bPq#0\x1b\\x", "x"),
        ("\x9b31mx", "x"),
        ("a\x07b", "a\ufffdb"),
        ("a\x1b", "a"),
        ("é 漢字 🟢", "é 漢字 🟢"),
        ("\x1b]0;never ended and all of it stays", "0;never ended and all of it stays"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_what_is_shown_of_sequences(foreign: str | bytes, shown: str) -> None:
    assert clean(foreign) == shown


def test_a_long_text_is_cut_and_says_so() -> None:
    assert clean("x" * 100, 10) == "x" * 9 + "…"
    assert len(clean(b"\xe6\xbc\xa2" * 100_000, 50)) == 50


@pytest.mark.parametrize("evil", ["\x1b]" * 500_000, "\x9d" * 1_000_000, "\x1b[" + "1;" * 500_000, "\x1bP" + "a" * 1_000_000])
def test_no_text_takes_long(evil: str) -> None:
    start = time.perf_counter()
    clean(evil, 10_000)
    assert time.perf_counter() - start < 1.0


def test_a_progress_bar_leaves_what_stood_there_last() -> None:
    assert collapse("10 %\r20 %\r100 %") == "100 %"
    assert collapse("10 %\r20 %\r") == "20 %"
