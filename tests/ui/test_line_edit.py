"""One line being typed: what each key makes of it, and that the cursor stays in view."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from fluxtui.screens.drawing.line_edit import LineEdit, pasted

PRINTED = st.text(alphabet=st.characters(blacklist_categories=("Cc", "Cs", "Cf", "Mn", "Me")), max_size=40)


def test_keys_change_it_where_the_cursor_is() -> None:
    edit = LineEdit.of("/data/my cats")
    assert edit.insert("!", 500) == LineEdit("/data/my cats!", 14)
    assert edit.move(-4).insert("2", 500) == LineEdit("/data/my 2cats", 10)
    assert edit.move(-4).rub() == LineEdit("/data/mycats", 8)
    assert edit.move(-100).rub() == LineEdit("/data/my cats", 0)
    assert edit.rub_word() == LineEdit("/data/my ", 9)
    assert edit.rub_word(" /").rub_word(" /") == LineEdit("/data/", 6)
    assert edit.move(-4).rub_word(" /") == LineEdit("/data/cats", 6)
    assert edit.move(-1).insert("xyz", len(edit.text) + 1) == LineEdit("/data/my catxs", 13)


def test_a_paste_is_one_line_whichever_way_the_terminal_ends_its_lines() -> None:
    assert pasted("/data/cats\r", 500) == pasted("/data/cats\r\n", 500) == pasted("/data/cats\n", 500) == "/data/cats"
    assert pasted("a cat\r\non a mat\rasleep", 500) == "a cat on a mat asleep"
    assert pasted("x" * 900, 500) == "x" * 499 + "…"


@given(PRINTED, st.integers(0, 40), st.integers(2, 30), PRINTED)
def test_the_cursor_is_in_view_and_nothing_goes_over_the_edge(text: str, cursor: int, room: int, ghost: str) -> None:
    edit = LineEdit(text, min(cursor, len(text)))
    line = edit.drawn(room, ghost)
    assert cell_len(line.text) <= room
    marks = [span.text for span in line.spans if span.role == "~text"]
    assert marks == [text[edit.cursor] if not edit.is_at_end else ghost[:1] or " "]
    if cell_len(text) < room:
        assert line.text.startswith(text)
