"""What a terminal does with pictures, written by itself: a sixel decoder, and kitty's store with its placeholders."""

from __future__ import annotations

import base64
import re
import unicodedata
from dataclasses import dataclass, field

# they melt with letters into one, and U+07FD is younger than the list
COMPOSING = (
    "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u0309\u030a\u030b\u030c\u030f\u0311\u0313\u0314\u0342\u0653\u0654\u07fd"
)


@dataclass
class Pixels:
    """A picture: width, height, and its pixels by place; those that were never drawn are missing."""

    width: int
    height: int
    drawn: dict[tuple[int, int], tuple[int, int, int]]


def read_sixels(sequence: str) -> Pixels:
    """A DCS q sequence by the letter of its grammar; anything that has no place in it is an error."""
    assert sequence.startswith("\x1bP"), sequence[:10]
    assert sequence.endswith("\x1b\\")
    head, _, body = sequence[2:-2].partition("q")
    assert re.fullmatch(r"[\d;]*", head)
    colours: dict[int, tuple[int, int, int]] = {}
    drawn: dict[tuple[int, int], tuple[int, int, int]] = {}
    width = height = x = y = colour = at = 0
    while at < len(body):
        character = body[at]
        numbers = re.compile(r"[\d;]*").match(body, at + 1)
        assert numbers is not None
        if character == '"':
            _, _, width, height = map(int, numbers[0].split(";"))
            at = numbers.end()
        elif character == "#":
            parts = list(map(int, numbers[0].split(";")))
            colour = parts[0]
            if len(parts) == 5:
                assert parts[1] == 2
                assert all(0 <= part <= 100 for part in parts[2:])
                colours[colour] = (round(parts[2] * 2.55), round(parts[3] * 2.55), round(parts[4] * 2.55))
            at = numbers.end()
        elif character == "$":
            x, at = 0, at + 1
        elif character == "-":
            x, y, at = 0, y + 6, at + 1
        else:
            count = 1
            if character == "!":
                run = re.compile(r"!(\d+)").match(body, at)
                assert run is not None
                count, at = int(run[1]), run.end()
                character = body[at]
            bits = ord(character) - 63
            assert 0 <= bits < 64, f"{character!r} is no sixel"
            for column in range(x, x + count):
                for bit in range(6):
                    if bits >> bit & 1:
                        drawn[column, y + bit] = colours[colour]
            x, at = x + count, at + 1
    return Pixels(width, height, drawn)


@dataclass
class Kitty:
    """Pictures that were handed over, by number; and what remains of the text without them."""

    pictures: dict[int, tuple[bytes, int, int]] = field(default_factory=dict)  # PNG, columns, rows
    forgotten: list[int] = field(default_factory=list)

    def feed(self, text: str) -> str:
        """Take the graphics commands out of what was sent."""
        data, number, columns, rows = b"", 0, 0, 0
        for found in re.finditer(r"\x1b_G([^;\x1b]*)(?:;([^\x1b]*))?\x1b\\", text):
            keys = dict(pair.split("=") for pair in found[1].split(","))
            assert keys.get("q") == "2", "an answer would press keys"
            assert len(found[2] or "") <= 4096
            if keys.get("a") == "d":
                assert keys["d"] == "I"
                self.forgotten.append(int(keys["i"]))
                self.pictures.pop(int(keys["i"]), None)
                continue
            if "i" in keys:
                assert (keys["a"], keys["U"], keys["f"], keys["t"]) == ("T", "1", "100", "d")
                number, columns, rows, data = int(keys["i"]), int(keys["c"]), int(keys["r"]), b""
            data += (found[2] or "").encode()
            if keys["m"] == "0":
                self.pictures[number] = (base64.b64decode(data, validate=True), columns, rows)
        return re.sub(r"\x1b_G[^\x1b]*\x1b\\", "", text)


def placeholders(text: str) -> list[tuple[int, int, int]]:
    """Number, row and column of every placeholder that was written, in order; by Unicode's own data, not by our table."""
    marks = [
        mark
        for mark in map(chr, range(0x300, 0x82E))
        if unicodedata.category(mark) == "Mn" and unicodedata.combining(mark) == 230 and not unicodedata.decomposition(mark)
        if mark not in COMPOSING
    ]
    found, number = [], 0
    for piece in re.finditer(r"\x1b\[([\d;]*)m|\U0010eeee(.)(.)", text):
        if piece[1] is not None:
            chosen = re.search(r"38;5;(\d+)", piece[1])
            number = int(chosen[1]) if chosen else number
        else:
            found.append((number, marks.index(piece[2]), marks.index(piece[3])))
    return found
