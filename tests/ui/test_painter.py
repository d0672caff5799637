"""What reaches the terminal: only what differs, and nothing that it could obey."""

from __future__ import annotations

import pytest
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.geometry import Region
from textual.strip import Strip

from fluxtui.screens.painter import Painter, in_ascii
from fluxtui.screens.terminal_kind import TerminalKind, Tier
from tests.ui.glass import Glass

RED, BLUE = Style(color="#d75f5f", bgcolor="#121212"), Style(color="#87afd7", bgcolor="#121212", bold=True)
HOSTILE = (
    "\x1b[2J",
    "\x1b]52;c;aGk=\x07",
    "\x1b]8;;http://x\x1b\\link",
    "\x9b31m",
    "\x90dcs\x9c",
    "bell\x07",
    "a\u202eb\u2066c",
    "back\x08\r\n\ttab",
    "\x1bP+q\x1b\\",
    "[@click=app.quit]x[/]",
)


@pytest.fixture
def console() -> Console:
    return Console(color_system="truecolor", force_terminal=True, _environ={})


def whole(*lines: tuple[str, Style]) -> LayoutUpdate:
    strips = [[Strip([Segment(text.ljust(20), style)], 20)] for text, style in lines]
    return LayoutUpdate(strips, Region(0, 0, 20, len(lines)))


def part(y: int, text: str, style: Style) -> ChopsUpdate:
    chops = [{0: None} for _ in range(3)]
    chops[y] = {0: Strip([Segment(text.ljust(20), style)], 20)}
    return ChopsUpdate(chops, [(y, 0, 20)], [[20]] * 3)


def test_only_cells_that_differ_are_sent(console: Console) -> None:
    painter, glass = Painter(TerminalKind(Tier.EMOJI, True)), Glass(20, 3)
    first = painter.frame(whole(("loss 0.0412", RED), ("step 230", BLUE), ("", RED)), console)
    assert first is not None
    glass.feed(first.sequence)
    assert glass.text.splitlines()[:2] == ["loss 0.0412", "step 230"]
    assert painter.frame(whole(("loss 0.0412", RED), ("step 230", BLUE), ("", RED)), console) is None
    second = painter.frame(part(0, "loss 0.0419", RED), console)
    assert second is not None
    assert len(second.sequence) < 60
    glass.feed(second.sequence)
    assert glass.text.splitlines()[0] == "loss 0.0419"
    assert not glass.leaks


def test_a_terminal_whose_content_is_unknown_is_drawn_whole(console: Console) -> None:
    painter = Painter(TerminalKind(Tier.EMOJI, True))
    screen = whole(("one", RED), ("two", BLUE))
    assert painter.frame(screen, console) is not None
    painter.forget()
    again = painter.frame(screen, console)
    assert again is not None
    glass = Glass(20, 2)
    glass.feed(again.sequence)
    assert glass.text == "one\ntwo"


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_a_widget_draws_is_obeyed(console: Console, hostile: str) -> None:
    for tier in Tier:
        frame = Painter(TerminalKind(tier, True)).frame(whole((hostile, RED), ("", RED)), console)
        assert frame is not None
        glass = Glass(20, 2)
        glass.feed(frame.sequence)
        assert not glass.leaks, (hostile, glass.leaks)
        assert not glass.copied
        assert glass.bells == 0
        assert "\x1b]" not in frame.sequence


def test_without_colour_there_is_none(console: Console) -> None:
    frame = Painter(TerminalKind(Tier.PLAIN, False)).frame(whole(("loss", RED), ("step", BLUE)), console)
    assert frame is not None
    glass = Glass(20, 2)
    glass.feed(frame.sequence)
    assert glass.styles <= {"0", "1", "0;1", "7", "0;7"}, glass.styles


def test_ascii_keeps_every_width() -> None:
    for text in ("╭─ a ─╮", "🟢 running", "naïve café", "━━━──", "日本語", "e\u0301a"):
        from rich.cells import cell_len

        plain = in_ascii(text)
        assert plain.isascii()
        assert len(plain) == cell_len(text), (text, plain)


def test_wide_characters_leave_nothing_behind(console: Console) -> None:
    painter, glass = Painter(TerminalKind(Tier.EMOJI, True)), Glass(20, 2)
    for first in ("🟢🟢 ab", "x🟢y", "plain", "a日b", "日本", "🔵 stopped"):
        frame = painter.frame(
            LayoutUpdate(
                [[Strip([Segment(first, RED)]).adjust_cell_length(20, RED)], [Strip.blank(20, RED)]], Region(0, 0, 20, 2)
            ),
            console,
        )
        assert frame is not None
        glass.feed(frame.sequence)
        assert glass.text.splitlines()[0] == first
