"""Real pictures: what is sent, in how many bytes, and that nothing of it stays or leaks; read back by an independent decoder."""

from __future__ import annotations

import io
import random
import shutil
import time
from pathlib import Path

import pytest
from PIL import Image
from rich.segment import Segment
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.geometry import Region
from textual.strip import Strip

from fluxtui.persist.home import Home
from fluxtui.screens.drawing.ink import Line
from fluxtui.screens.drawing.terminal_kind import TerminalKind, Tier
from fluxtui.screens.drawing.theme import DARK, Inks
from fluxtui.screens.pages.picture import draw
from fluxtui.screens.terminal.gallery import PLACEHOLDER, Answer, Gallery, Way, way_of
from fluxtui.screens.terminal.painter import Painter
from fluxtui.screens.terminal.picture_real import MOST_BYTES, cells, hung
from fluxtui.screens.terminal.replies import Replies
from fluxtui.screens.terminal.sixel import encoded
from tests.ui.fabricate import make_record, make_session
from tests.ui.glass import Glass, PtyApp
from tests.ui.pictures import Kitty, placeholders, read_sixels

DEMO = Path(__file__).parent.parent.parent / "fluxtui" / "demo" / "images"
KIND = TerminalKind(Tier.EMOJI, True)
INKS = Inks(DARK, KIND)
CELL = (10, 20)


def photograph(width: int, height: int) -> Image.Image:
    """As hard to pack as a photograph: a gradient with grain."""
    chance = random.Random(7)
    grain = Image.frombytes("RGB", (width, height), chance.randbytes(3 * width * height))
    return Image.blend(Image.linear_gradient("L").resize((width, height)).convert("RGB"), grain, 0.35)


def gallery_of(way: Way) -> Gallery:
    gallery = Gallery({"FLUXTUI_PICTURES": str(way)}, KIND)
    gallery.ask = lambda: Answer((4,), CELL)
    return gallery


def test_sixels_are_read_back_pixel_by_pixel() -> None:
    small = photograph(61, 40).quantize(50)
    wanted = small.convert("RGB")
    read = read_sixels(encoded(small))
    assert (read.width, read.height) == wanted.size
    assert len(read.drawn) == 61 * 40, "a pixel was never drawn, or one beyond the picture was"
    for (x, y), colour in read.drawn.items():
        pixel = wanted.getpixel((x, y))
        assert isinstance(pixel, tuple)
        assert all(abs(one - other) <= 2 for one, other in zip(colour, pixel, strict=True)), (x, y, colour, pixel)


@pytest.mark.parametrize("way", [Way.KITTY, Way.SIXEL])
@pytest.mark.parametrize("size", [(640, 480), (64, 64), (30, 700)])
def test_a_picture_keeps_to_its_cells_and_to_the_bytes_it_may_take(way: Way, size: tuple[int, int]) -> None:
    placed = hung(photograph(*size), 60, 20, gallery_of(way), way, CELL)
    assert placed.columns <= 60
    assert placed.rows <= 20
    assert placed.columns == 60 or placed.rows == 20, "it is as large as can be"
    assert len(placed.data) <= MOST_BYTES * 1.03
    if way is Way.SIXEL:
        read = read_sixels(placed.data)
        assert read.width <= placed.columns * CELL[0]
        assert read.height <= placed.rows * CELL[1]
        assert abs(read.width / read.height - size[0] / size[1]) < 0.1 * size[0] / size[1]
    else:
        kitty = Kitty()
        assert kitty.feed(placed.data) == ""
        png, columns, rows = kitty.pictures[placed.number]
        assert (columns, rows) == (placed.columns, placed.rows)
        with Image.open(io.BytesIO(png)) as found:
            assert abs(found.width / found.height - size[0] / size[1]) < 0.1 * size[0] / size[1]


def shown(*lines: Line, width: int = 40, height: int = 12) -> LayoutUpdate:
    strips = [[INKS.strip(line, width)] for line in (*lines, *(Line() for _ in range(height - len(lines))))]
    return LayoutUpdate(strips, Region(0, 0, width, height))


def test_kitty_is_given_a_picture_once_and_its_cells_name_each_place() -> None:
    gallery = gallery_of(Way.KITTY)
    painter = Painter(KIND, gallery)
    placed = hung(photograph(200, 200), 20, 10, gallery, Way.KITTY, CELL)
    first = painter.frame(shown(Line("samples"), *(Line("  ").extend(line) for line in cells(placed))))
    assert first is not None
    kitty, glass = Kitty(), Glass(40, 12)
    text = kitty.feed(first.sequence)
    assert list(kitty.pictures) == [placed.number]
    wanted = [(placed.number, row, column) for row in range(placed.rows) for column in range(placed.columns)]
    assert placeholders(text) == wanted
    assert first.sequence.index("\x1b_G") < first.sequence.index(PLACEHOLDER), "first the picture, then its place"
    glass.feed(first.sequence)
    assert not glass.leaks
    again = painter.frame(shown(Line("samples, again"), *(Line("  ").extend(line) for line in cells(placed))))
    assert again is not None
    assert "\x1b_G" not in again.sequence
    assert PLACEHOLDER not in again.sequence
    gone = painter.frame(shown(Line("dashboard")))
    assert gone is not None
    glass.feed(gone.sequence)
    assert PLACEHOLDER not in glass.text
    kitty.feed(painter.farewell())
    assert kitty.pictures == {}
    assert painter.farewell() == ""


def test_sixels_are_drawn_where_their_cells_are_and_what_lies_over_them_stays() -> None:
    gallery = gallery_of(Way.SIXEL)
    painter, glass = Painter(KIND, gallery), Glass(40, 12)
    placed = hung(photograph(200, 200), 16, 8, gallery, Way.SIXEL, CELL)
    lines = [Line("samples"), *(Line("  ").extend(line) for line in cells(placed))]
    first = painter.frame(shown(*lines))
    assert first is not None
    glass.feed(first.sequence)
    assert glass.pictures == [((2, 1), placed.data)]
    assert PLACEHOLDER not in first.sequence, "a character that the terminal does not know"
    assert painter.frame(shown(*lines)) is None, "it is sent again although nothing changed"
    notice = painter.frame(_line(3, "  over it      ", 40))
    assert notice is not None
    assert "\x1bP" not in notice.sequence
    back = painter.frame(shown(*lines[:4], Line("  here"), *lines[5:]))
    assert back is not None
    glass = Glass(40, 12)
    glass.feed(back.sequence)
    assert [where for where, _ in glass.pictures] == [(2, 1)]
    after = back.sequence.rindex("\x1b\\")
    assert "here" in back.sequence[after:], "the picture is drawn over what lies over it"
    gone = painter.frame(shown(Line("dashboard")))
    assert gone is not None
    assert "\x1bP" not in gone.sequence
    assert len(gone.sequence) >= placed.rows * placed.columns - placed.columns, "its cells are not overwritten"


def _line(y: int, text: str, width: int) -> ChopsUpdate:
    chops: list[dict[int, Strip | None]] = [{0: None} for _ in range(12)]
    chops[y] = {0: Strip([Segment(text.ljust(width), INKS.style("text"))], width)}
    return ChopsUpdate(chops, [(y, 0, width)], [[width]] * 12)


def test_a_foreign_text_that_looks_like_a_picture_is_none() -> None:
    for way in Way:
        painter = Painter(KIND, gallery_of(way))
        frame = painter.frame(shown(Line(f"a{PLACEHOLDER}\u0305\u0305b {PLACEHOLDER}")))
        assert frame is not None
        assert PLACEHOLDER not in frame.sequence


def test_a_number_that_is_given_again_hands_the_new_picture_over() -> None:
    gallery = gallery_of(Way.KITTY)
    painter = Painter(KIND, gallery)
    first = gallery.hang(1, 1, lambda number: f"\x1b_Gfirst{number}\x1b\\")
    painter.frame(shown(*cells(first)))
    for _ in range(239):
        gallery.hang(1, 1, str)
    second = gallery.hang(1, 1, lambda number: f"\x1b_Gsecond{number}\x1b\\")
    assert second.number == first.number
    assert not gallery.holds(first)
    painter.frame(shown(Line("x")))
    frame = painter.frame(shown(*cells(second)))
    assert frame is not None
    assert "\x1b_Gsecond" in frame.sequence


@pytest.mark.parametrize(
    ("environment", "way"),
    [
        ({"TERM": "xterm-kitty"}, Way.KITTY),
        ({"TERM": "xterm-ghostty"}, Way.KITTY),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, Way.KITTY),
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "tmux-256color", "TMUX": "/tmp/x", "KITTY_WINDOW_ID": "1"}, Way.BLOCKS),
        ({"TERM": "screen", "STY": "1.pts"}, Way.BLOCKS),
        ({"TERM": "screen-256color"}, Way.BLOCKS),
        ({"TERM": "linux"}, Way.BLOCKS),
        ({"TERM": "xterm-kitty", "FLUXTUI_PICTURES": "blocks"}, Way.BLOCKS),
        ({"TERM": "xterm", "FLUXTUI_PICTURES": "sixel"}, Way.SIXEL),
        ({"TERM": "xterm", "FLUXTUI_PICTURES": "nonsense"}, None),
    ],
)
def test_the_way_is_told_by_the_environment_or_asked(environment: dict[str, str], way: Way | None) -> None:
    assert way_of(environment, KIND) is way
    assert way_of({"TERM": "xterm-kitty"}, TerminalKind(Tier.ASCII, True)) is Way.BLOCKS
    assert way_of({"TERM": "xterm-kitty"}, TerminalKind(Tier.PLAIN, False)) is Way.BLOCKS


@pytest.mark.parametrize(
    ("answer", "way"),
    [
        (Answer((62, 4, 22), (9, 18)), Way.SIXEL),
        (Answer((62, 4, 22), (0, 0)), Way.BLOCKS),
        (Answer((62, 22), (9, 18)), Way.BLOCKS),
        (Answer(), Way.BLOCKS),
    ],
)
def test_the_terminals_answer_decides(answer: Answer, way: Way) -> None:
    gallery = Gallery({"TERM": "xterm-256color"}, KIND)
    asked: list[int] = []
    gallery.ask = lambda: (asked.append(1), answer)[1]
    assert gallery.settle()[0] is way
    assert gallery.settle()[0] is way
    assert asked == [1], "it is asked once"


def test_passing_a_picture_through_tmux_wants_tmux_to_let_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "tmux"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for said, way in (("on", Way.KITTY), ("all", Way.KITTY), ("off", Way.BLOCKS), ("", Way.BLOCKS)):
        fake.write_text(f"#!/bin/sh\necho '{said}'\n")
        fake.chmod(0o755)
        gallery = Gallery({"TERM": "tmux-256color", "TMUX": "x", "FLUXTUI_PICTURES": "kitty"}, KIND)
        assert gallery.settle()[0] is way, said
    placed = hung(photograph(20, 20), 4, 2, gallery, Way.KITTY, CELL)
    assert placed.data.startswith("\x1bPtmux;\x1b\x1b_G")
    assert placed.data.count("\x1bPtmux;") == placed.data.count("\x1b\x1b\\\x1b\\")


def test_a_reply_presses_no_key_however_it_comes_in_pieces() -> None:
    whole = "ab\x1b[6;20;10t\x1b[?62;4;22cq\x1b[A"
    for cut in range(len(whole) + 1):
        replies = Replies()
        replies.begin()
        typed = replies.taken(whole[:cut]) + replies.taken(whole[cut:])
        if whole[:cut].endswith(("\x1b", "\x1b[")) and cut < len(whole) - 2:
            continue  # a lone escape is a key: it is not held back
        assert typed == "abq\x1b[A", cut
        assert replies.wait(0.0) == Answer((62, 4, 22), (10, 20)), cut
    quiet = Replies()
    assert quiet.taken(whole) == whole, "nobody asked, so nothing is a reply"


def test_a_file_that_is_no_picture_is_said_whatever_the_way(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"torn")
    assert "cannot be shown" in draw(tmp_path / "x.png", 20, 10, KIND, gallery_of(Way.KITTY)).trouble


# The real UI on a real pty


@pytest.fixture
def sampled(home_path: Path) -> Path:
    home = Home.open(home_path)
    folder = make_session(home, "drawn")
    make_record(folder, status="stopped", step=200, reason="stopped")
    (folder.samples / "step-000000200").mkdir()
    for number, picture in enumerate(sorted(DEMO.glob("*.png"))[:2]):
        shutil.copy(picture, folder.samples / "step-000000200" / f"{number:02d}.png")
    return home_path


def until(condition: object, seconds: float = 20.0) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.01)


def open_samples(ui: PtyApp) -> None:
    ui.see("drawn")
    ui.type("\r")
    ui.see("7 captions")
    ui.type("3")


@pytest.mark.parametrize(
    ("environment", "is_asked"),
    [({}, True), ({"TMUX": "/tmp/no", "TERM": "tmux-256color"}, False), ({"FLUXTUI_PICTURES": "blocks"}, False)],
)
def test_a_terminal_that_shows_no_pictures_is_sent_none(sampled: Path, environment: dict[str, str], is_asked: bool) -> None:
    with PtyApp(sampled, **environment) as ui:
        open_samples(ui)
        ui.see("▀▀▀")
        assert ui.glass.pictures == []
        assert ui.glass.leaks == []
        assert bool(ui.glass.questions) == is_asked
        assert PLACEHOLDER not in ui.glass.text
        ui.type("\x1b[?62;22c" if is_asked else "")  # an answer that comes late
        ui.type("q")
        ui.see("sessions")
        assert ui.process.poll() is None


def test_a_terminal_with_sixels_is_sent_them_and_left_clean(sampled: Path) -> None:
    with PtyApp(sampled) as ui:
        open_samples(ui)
        until(lambda: "\x1b[c" in ui.glass.questions)
        ui.type("\x1b[6;20;10t\x1b[?62;4;22c")
        until(lambda: len(ui.glass.pictures) >= 2)
        (left, top), sequence = ui.glass.pictures[0]
        read = read_sixels(sequence)
        assert read.width * read.height == len(read.drawn)
        assert top + read.height / 20 <= 23, "it would scroll the screen"
        assert left + read.width / 10 <= 80
        assert PLACEHOLDER not in bytes(ui.received).decode("utf-8", "replace")
        count = len(ui.glass.pictures)
        ui.type("1")
        ui.see("attempts")
        assert len(ui.glass.pictures) == count
        ui.type("q")
        ui.see("sessions")
        assert ui.glass.leaks == []


@pytest.mark.parametrize("colorterm", ["", "truecolor"], ids=["over-ssh", "at-home"])
def test_kitty_is_handed_pictures_and_told_to_forget_them(sampled: Path, colorterm: str) -> None:
    with PtyApp(sampled, TERM="xterm-kitty", COLORTERM=colorterm) as ui:
        open_samples(ui)
        until(lambda: ui.glass.text.count(PLACEHOLDER) > 20 and _pictures_kept(ui) == 2)
        kitty = Kitty()
        kitty.feed(bytes(ui.received).decode("utf-8", "replace"))
        for png, _, _ in kitty.pictures.values():
            with Image.open(io.BytesIO(png)) as found:
                assert found.size == (64, 64)
        ui.type("1")
        ui.see("attempts")
        until(lambda: PLACEHOLDER not in ui.glass.text)
        ui.type("\x11")
        assert ui.process.wait(10) == 0
        until(lambda: _pictures_kept(ui) == 0)
        assert ui.glass.leaks == []


def _pictures_kept(ui: PtyApp) -> int:
    kitty = Kitty()
    kitty.feed(bytes(ui.received).decode("utf-8", "replace"))
    return len(kitty.pictures)
