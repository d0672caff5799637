"""Kitty's graphics protocol: a PNG handed over once, to stand where its placeholders stand. https://sw.kovidgoyal.net/kitty/graphics-protocol"""

from __future__ import annotations

import base64

_CHUNK = 4096  # bytes of base64 in one sequence, at the most


def handed_over(png: bytes, number: int, columns: int, rows: int, in_tmux: bool = False) -> str:
    """The sequences that give the terminal a picture for placeholders of that number; the one before it is forgotten."""
    encoded = base64.standard_b64encode(png).decode()
    chunks = [encoded[at : at + _CHUNK] for at in range(0, len(encoded), _CHUNK)]
    sequences = [forgotten(number, in_tmux)]
    for at, chunk in enumerate(chunks):
        head = f"a=T,U=1,q=2,f=100,t=d,i={number},c={columns},r={rows}," if at == 0 else "q=2,"
        sequences.append(_wrapped(f"\x1b_G{head}m={int(at < len(chunks) - 1)};{chunk}\x1b\\", in_tmux))
    return "".join(sequences)


def forgotten(number: int, in_tmux: bool = False) -> str:
    """The sequence that frees a picture."""
    return _wrapped(f"\x1b_Ga=d,d=I,q=2,i={number}\x1b\\", in_tmux)


def _wrapped(sequence: str, in_tmux: bool) -> str:
    """As tmux lets it through to the terminal behind it."""
    return "\x1bPtmux;" + sequence.replace("\x1b", "\x1b\x1b") + "\x1b\\" if in_tmux else sequence
