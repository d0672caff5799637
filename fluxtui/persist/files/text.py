"""Foreign text made inert, once, where it enters: nothing in a log, caption, name or prompt moves a terminal.

Widgets and terminals obey ESC, C0 and C1 bytes wherever they come from; bidirectional controls make a line read as
what it is not. Each such character is shown as a visible one, so that a reader sees that something was there.
"""

from __future__ import annotations

import re

TAB = 8          # columns
SHOWN_AS = "\N{REPLACEMENT CHARACTER}"

_SEQUENCES = re.compile(
    r"\x1b(?:"
    r"\[[0-?]{0,64}[ -/]{0,8}[@-~]"                # CSI: colours, cursor
    r"|[\]PX^_][^\x07\x1b\x9c]{0,4096}(?:\x07|\x1b\\|\x9c)"   # OSC, DCS, SOS, PM, APC with their text
    r"|[ -/]{0,8}[0-~]"                            # two-character sequences
    r")?"
    r"|\x9b[0-?]{0,64}[ -/]{0,8}[@-~]"             # CSI as one C1 character
    r"|[\x90\x98\x9d-\x9f][^\x07\x1b\x90\x98\x9c-\x9f]{0,4096}(?:\x07|\x1b\\|\x9c)"
)
_CONTROLS = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f"
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional controls
    "\u2028\u2029\ufeff\ufff9-\ufffb"               # separators that break lines, marks that hide text
    "\ud800-\udfff"                                 # halves of surrogates: bytes that were not UTF-8
    "\U000e0000-\U000e0fff]"                        # tags: invisible text
)
_HARMLESS = re.compile(r"[ -~]*")


def clean(foreign: str | bytes, limit: int = 10_000) -> str:
    """One line of text that is safe to print: escape sequences dropped, other controls visible, tabs expanded.

    `limit` counts characters of the result; a longer text ends in "…". Bytes are read as UTF-8, bad ones made visible.
    """
    head = foreign[: 4 * limit + 4096]
    text = head.decode("utf-8", "replace") if isinstance(head, bytes) else head
    if _HARMLESS.fullmatch(text) is None:
        text = _CONTROLS.sub(SHOWN_AS, _SEQUENCES.sub("", text).expandtabs(TAB))
    return text if len(text) <= limit else text[: max(0, limit - 1)] + "…"


def collapse(line: str) -> str:
    """What a terminal would show of a line in which a progress bar drew itself over and over."""
    if "\r" not in line:
        return line
    return next((piece for piece in reversed(line.split("\r")) if piece), "")
