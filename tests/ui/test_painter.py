"""What reaches the terminal: only what differs, and nothing that it could obey."""

from __future__ import annotations

import pytest
from rich.color import Color, ColorSystem
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.geometry import Region
from textual.strip import Strip
from textual.theme import Theme

from fluxtui.screens.drawing.terminal_kind import TerminalKind, Tier
from fluxtui.screens.drawing.theme import DARK, LIGHT, Inks
from fluxtui.screens.terminal.painter import Painter, in_ascii
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


def whole(*lines: tuple[str, Style]) -> LayoutUpdate:
    strips = [[Strip([Segment(text.ljust(20), style)], 20)] for text, style in lines]
    return LayoutUpdate(strips, Region(0, 0, 20, len(lines)))


def part(y: int, text: str, style: Style) -> ChopsUpdate:
    chops = [{0: None} for _ in range(3)]
    chops[y] = {0: Strip([Segment(text.ljust(20), style)], 20)}
    return ChopsUpdate(chops, [(y, 0, 20)], [[20]] * 3)


def test_only_cells_that_differ_are_sent() -> None:
    painter, glass = Painter(TerminalKind(Tier.EMOJI, True)), Glass(20, 3)
    first = painter.frame(whole(("loss 0.0412", RED), ("step 230", BLUE), ("", RED)))
    assert first is not None
    glass.feed(first.sequence)
    assert glass.text.splitlines()[:2] == ["loss 0.0412", "step 230"]
    assert painter.frame(whole(("loss 0.0412", RED), ("step 230", BLUE), ("", RED))) is None
    second = painter.frame(part(0, "loss 0.0419", RED))
    assert second is not None
    assert len(second.sequence) < 60
    glass.feed(second.sequence)
    assert glass.text.splitlines()[0] == "loss 0.0419"
    assert not glass.leaks


def test_a_terminal_whose_content_is_unknown_is_drawn_whole() -> None:
    painter = Painter(TerminalKind(Tier.EMOJI, True))
    screen = whole(("one", RED), ("two", BLUE))
    assert painter.frame(screen) is not None
    painter.forget()
    again = painter.frame(screen)
    assert again is not None
    glass = Glass(20, 2)
    glass.feed(again.sequence)
    assert glass.text == "one\ntwo"


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_a_widget_draws_is_obeyed(hostile: str) -> None:
    for tier in Tier:
        frame = Painter(TerminalKind(tier, True)).frame(whole((hostile, RED), ("", RED)))
        assert frame is not None
        glass = Glass(20, 2)
        glass.feed(frame.sequence)
        assert not glass.leaks, (hostile, glass.leaks)
        assert not glass.copied
        assert glass.bells == 0
        assert "\x1b]" not in frame.sequence


def test_without_colour_there_is_none() -> None:
    frame = Painter(TerminalKind(Tier.PLAIN, False)).frame(whole(("loss", RED), ("step", BLUE)))
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


def test_wide_characters_leave_nothing_behind() -> None:
    painter, glass = Painter(TerminalKind(Tier.EMOJI, True)), Glass(20, 2)
    for first in ("🟢🟢 ab", "x🟢y", "plain", "a日b", "日本", "🔵 stopped"):
        frame = painter.frame(
            LayoutUpdate(
                [[Strip([Segment(first, RED)]).adjust_cell_length(20, RED)], [Strip.blank(20, RED)]], Region(0, 0, 20, 2)
            ),
        )
        assert frame is not None
        glass.feed(frame.sequence)
        assert glass.text.splitlines()[0] == first


@pytest.mark.parametrize("theme", [DARK, LIGHT], ids=["dark", "light"])
@pytest.mark.parametrize("colours", list(ColorSystem)[:3], ids=["16", "256", "all"])
def test_the_selected_line_is_read_however_many_colours_there_are(theme: Theme, colours: ColorSystem) -> None:
    """Contrast as WCAG reckons it, of the colours that are really sent: 2.4 is what the light theme has with all of them."""
    inks = Inks(theme, TerminalKind(Tier.EMOJI, True, colours))
    for ground in ("", "cursor"):
        for role in ("text", "dim", "good", "bad", "warn", "live", "info", "accent"):
            style = inks.style(role, ground)
            assert style.color is not None
            assert style.bgcolor is not None
            assert contrast(sent(style.color, colours), sent(style.bgcolor, colours)) >= 2.4, (role, ground)


def test_a_terminal_of_sixteen_colours_tells_states_by_colour() -> None:
    inks = Inks(DARK, TerminalKind(Tier.PLAIN, True, ColorSystem.STANDARD))
    states = [inks.style(role).color for role in ("good", "bad", "warn", "live", "info")]
    shown = {sent(colour, ColorSystem.STANDARD) for colour in states if colour is not None}
    assert len(shown) == len(states)
    assert all(max(colour) - min(colour) > 100 for colour in shown), "a grey tells nothing"


def sent(colour: Color, colours: ColorSystem) -> tuple[int, int, int]:
    return colour.downgrade(colours).get_truecolor()


def contrast(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: tuple[int, int, int]) -> float:
    linear = [part / 3294.6 if part < 10.1 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
