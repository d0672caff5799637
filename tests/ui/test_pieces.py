"""The pure pieces: text in cells, numbers in few characters, charts, terminal kinds, the table of actions."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.color import ColorSystem
from textual.app import App
from textual.widget import Widget

from fluxtui.actions import BY_NAME, TABLE, clashes
from fluxtui.screens.drawing import words
from fluxtui.screens.drawing.chart import Plot, binned, meter, nice_scale, smoothed, sparkline
from fluxtui.screens.drawing.curve import span_of
from fluxtui.screens.drawing.ink import Line, broken, fit, wrapped
from fluxtui.screens.drawing.terminal_kind import Tier, detect
from fluxtui.screens.log.scan import finder, folds, matching
from fluxtui.screens.settings import read_settings
from fluxtui.screens.terminal.driver import is_paste


@given(st.text(max_size=60), st.integers(0, 40))
def test_fit_fills_the_width_exactly(text: str, width: int) -> None:
    assert cell_len(fit(text, width)) == width


@given(st.text(alphabet=st.characters(blacklist_categories=("Cc", "Cs")), max_size=80), st.integers(2, 30))
def test_wrapped_lines_fit_and_lose_no_word(text: str, width: int) -> None:
    lines = wrapped(text, width)
    assert all(cell_len(line) <= width or len(line) == 1 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "").replace("\n", "")


@given(st.text(max_size=50), st.integers(2, 20))
def test_broken_pieces_make_the_text_again(text: str, width: int) -> None:
    assert "".join(broken(text, width)) == text


def test_a_line_is_cut_and_filled_by_cells() -> None:
    assert Line("日本語").to(5).width == 5
    assert Line("ab").to(5).text == "ab   "
    assert Line("abc", "def").cut(4).text == "abcd"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, ""),
        (-1, ""),
        (math.nan, ""),
        (0, "0s"),
        (59.9, "59s"),
        (60, "1m00s"),
        (599, "9m59s"),
        (600, "10m"),
        (3599, "59m"),
        (3600, "1h00m"),
        (86_399, "23h59m"),
        (86_400, "1d00h"),
        (86_400_000 - 1, "999d23h"),
        (86_400_000, ">999d"),
    ],
)
def test_a_duration_has_two_units_at_most_up_to_the_last_second_of_each(seconds: float | None, shown: str) -> None:
    assert words.duration(seconds) == shown


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_a_loss_takes_few_characters(value: float) -> None:
    assert len(words.loss(value)) <= 9
    assert not 0.0005 <= value <= 9999 or len(words.loss(value)) <= 6


def test_percent_says_all_only_when_it_is_all() -> None:
    assert words.percent(399, 400) == "99 %"
    assert words.percent(400, 400) == "100 %"
    assert words.percent(1, 0) == ""


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
@example([5e-324, 0.0])
@example([1e-310, 2e-310])
@example([1e308, -1e308])
def test_a_scale_has_room_for_what_is_usual(values: list[float]) -> None:
    scale = nice_scale(values)
    assert scale.low < scale.high
    assert scale.low <= max(min(values), -1e300) + 1e-6 * abs(min(values)) + 1e-9
    by_decades = nice_scale(values, wants_log=True)
    assert by_decades.low < by_decades.high


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=60),
    st.sampled_from(list(Tier)),
    st.integers(0, 20),
    st.integers(0, 6),
)
def test_a_plot_takes_any_numbers(values: list[float], tier: Tier, width: int, height: int) -> None:
    plot = Plot(width, height, tier)
    bins = binned(list(range(len(values))), values, 0, max(1, len(values)), plot.columns)
    plot.line(bins, nice_scale([value for value in values if math.isfinite(value)]), "chart")
    lines = plot.lines()
    assert len(lines) == height
    assert all(line.width == width for line in lines)
    assert tier is not Tier.ASCII or all(line.text.isascii() for line in lines)


def test_smoothing_follows_and_skips_what_is_no_number() -> None:
    assert smoothed([1.0] * 10) == pytest.approx([1.0] * 10)
    assert smoothed([2.0, math.nan, 2.0])[-1] == pytest.approx(2.0)
    assert math.isnan(smoothed([math.nan])[0])


def test_the_axis_of_a_run_moves_seldom_and_ends_at_the_plan() -> None:
    spans = [span_of(step, 400) for step in range(1, 401)]
    assert len(set(spans)) <= 4
    assert spans[-1] == 400
    assert all(span >= step for step, span in enumerate(spans, 1))


def test_meter_and_sparkline() -> None:
    assert meter(0.5, 10, Tier.ASCII) == ("#####", ".....")
    assert meter(2.0, 4, Tier.ASCII) == ("####", "")
    assert sparkline([0, None, 100], 0, 100, Tier.PLAIN) == "▁ █"


@pytest.mark.parametrize(
    ("environment", "tier", "has_colour"),
    [
        ({"TERM": "xterm-256color", "LANG": "en_US.UTF-8"}, Tier.EMOJI, True),
        ({"TERM": "xterm-256color"}, Tier.EMOJI, True),
        ({"TERM": "xterm-256color", "LC_ALL": "C", "LANG": "en_US.UTF-8"}, Tier.ASCII, True),
        ({"TERM": "xterm-256color", "LANG": "C"}, Tier.ASCII, True),
        ({"TERM": "xterm", "LANG": "C.UTF-8", "NO_COLOR": "1"}, Tier.PLAIN, False),
        ({"TERM": "xterm", "LANG": "C.UTF-8", "NO_COLOR": ""}, Tier.EMOJI, True),
        ({"TERM": "dumb", "LANG": "C.UTF-8"}, Tier.PLAIN, False),
        ({"TERM": "linux", "LANG": "C.UTF-8"}, Tier.PLAIN, True),
        ({"TERM": "xterm", "LANG": "C", "FLUXTUI_GLYPHS": "plain"}, Tier.PLAIN, True),
    ],
)
def test_what_a_terminal_can_show(environment: dict[str, str], tier: Tier, has_colour: bool) -> None:
    kind = detect(environment)
    assert (kind.tier, kind.has_colour) == (tier, has_colour)


@pytest.mark.parametrize(
    ("term", "colours"),
    [
        ("xterm-256color", ColorSystem.EIGHT_BIT),
        ("tmux-256color", ColorSystem.EIGHT_BIT),
        ("screen", ColorSystem.STANDARD),
        ("linux", ColorSystem.STANDARD),
        ("xterm-ghostty", ColorSystem.TRUECOLOR),
        ("alacritty", ColorSystem.TRUECOLOR),
        ("foot-extra", ColorSystem.TRUECOLOR),
        ("screen.xterm-kitty", ColorSystem.STANDARD),
    ],
)
def test_a_terminal_that_ssh_names_only_by_term_keeps_its_colours(term: str, colours: ColorSystem) -> None:
    assert detect({"TERM": term}).colours is colours
    assert detect({"TERM": term, "COLORTERM": "truecolor"}).colours is ColorSystem.TRUECOLOR


def test_a_paste_presses_no_keys_but_a_key_that_repeats_does() -> None:
    assert is_paste("K" * 10 + "x stop and kill everything that runs here, now, please")
    assert not is_paste("j" * 200)
    assert not is_paste("short")
    assert not is_paste("\x1b[B" * 40)


def test_no_key_does_two_things_in_one_context() -> None:
    assert clashes({}) == []
    assert clashes({"stop": "s"}) != []
    assert "no action" in clashes({"explode": "x"})[0]


def test_every_action_is_carried_out_by_somebody() -> None:
    from fluxtui.app import FluxApp
    from fluxtui.screens import board, form_screen, help, log_screen, session
    from fluxtui.screens.pages import (
        captions as caption_page,
    )
    from fluxtui.screens.pages import (
        checkpoints as checkpoint_page,
    )
    from fluxtui.screens.pages import (
        metrics as metric_page,
    )
    from fluxtui.screens.pages import (
        samples as sample_page,
    )
    from fluxtui.screens.pages import (
        spec as spec_page,
    )

    doers = {
        "board": board.Board, "session": session.SessionScreen, "log": log_screen.LogScreen, "metrics": metric_page.MetricPage,
        "samples": sample_page.SamplePage, "checkpoints": checkpoint_page.CheckpointPage, "spec": spec_page.SpecPage,
        "captions": caption_page.CaptionPage, "form": form_screen.FormScreen, "help": help.HelpScreen, "anywhere": FluxApp,
        "list": board.Sessions, "reader": board.LogPane,
    }  # fmt: skip
    for action in TABLE:
        for context in action.contexts:
            name = "do_" + action.name.replace("-", "_")
            places = (doers[context], session.SessionScreen, FluxApp)  # a page leaves to its screen what is the screen's
            assert any(hasattr(place, name) for place in places), (action.name, context)
            assert action.help.endswith(".")
    assert len(BY_NAME) == len(TABLE)


def test_no_name_of_ours_hides_one_of_textuals() -> None:
    import importlib
    import pkgutil

    import fluxtui.screens

    ours = {
        "BINDINGS", "CSS", "DEFAULT_CSS", "ENABLE_COMMAND_PALETTE", "TITLE", "can_focus", "compose", "render_lines",
        "get_default_screen", "_display", "_css_type_name", "_css_type_names", "_inherit_css", "_inherit_bindings",
        "_decorated_handlers",
        "_merged_bindings", "_computes", "_reactives", "can_focus_children",
    }  # fmt: skip
    for module in pkgutil.iter_modules(fluxtui.screens.__path__):
        for found in vars(importlib.import_module(f"fluxtui.screens.{module.name}")).values():
            if isinstance(found, type) and issubclass(found, Widget | App) and found.__module__.startswith("fluxtui"):
                base = next(kind for kind in found.__mro__ if kind.__module__.startswith("textual"))
                hidden = {
                    name for name in vars(found) if hasattr(base, name) and not name.startswith(("__", "on_", "_inherit"))
                } - ours
                assert not hidden, (found, hidden)


def test_settings_that_cannot_be_used_are_said_and_left_out(tmp_path) -> None:
    path = tmp_path / "config.toml"
    assert read_settings(path).keys == {}
    path.write_text('[ui]\ntheme = "nord"\n[keys]\nstop = "S"\n')
    assert (read_settings(path).theme, read_settings(path).keys) == ("nord", {"stop": "S"})
    path.write_text('[keys]\nstop = "s"\n')
    assert "both" in read_settings(path).troubles[0]
    path.write_bytes(b"\xff\x00 = [")
    assert "config.toml is not used" in read_settings(path).troubles[0]


def test_a_search_finds_the_lines_that_grep_finds() -> None:
    data = b"one\nTwo needle\n\nneedle needle\nthree\nNEEDLE"
    assert list(matching(data.lower(), 5, finder("needle"))) == [6, 8, 10]
    assert list(matching(data, 0, finder("Two"))) == [1]
    assert list(matching(data, 0, finder("^$"))) == [2]
    assert list(matching(data, 0, finder("T|h"))) == [1, 4]
    assert folds("abc") is True
    assert folds("Abc") is False
