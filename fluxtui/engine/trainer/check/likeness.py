"""Pictures that look alike: a difference hash and a tiny thumbnail, compared without comparing every pair. PIL, no torch."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

_SIDE = 8
_BITS = 2 * _SIDE * _SIDE
_BAND = 16          # bits; two hashes that differ in fewer than _BITS / _BAND bits share a band
_CLEARLY = 4        # of 255: how much brighter a field must be, lest noise in a plain area counts
_ALIKE_BITS = 5     # of 128
_ALIKE_COLOUR = 12  # of 255, in every field of the thumbnail

_Shelf = tuple[int, ...]    # band, its bits, cell of the mean colour


@dataclass(frozen=True, slots=True)
class Look:
    """What a picture looks like from afar."""

    hash: int           # 128 bits: in a grid of 8 x 8, whether a field is clearly brighter than its right and its lower neighbour
    thumbnail: bytes    # 4 x 4 RGB


def look_of(picture: Image.Image) -> Look:
    """The look of an RGB picture; scaling and recompressing it hardly change it."""
    grid = (_SIDE + 1, _SIDE + 1)
    grey = picture.convert("L").resize(grid, Image.Resampling.BOX).tobytes()
    bits = 0
    for row, column in itertools.product(range(_SIDE), range(_SIDE)):
        here = grey[row * grid[0] + column] - _CLEARLY
        bits = bits << 2 | (here > grey[row * grid[0] + column + 1]) << 1 | (here > grey[(row + 1) * grid[0] + column])
    return Look(bits, picture.resize((4, 4), Image.Resampling.BOX).tobytes())


def are_alike(one: Look, other: Look) -> bool:
    """True where two pictures are the same to the eye: the same forms in the same places, and the same colours."""
    if (one.hash ^ other.hash).bit_count() > _ALIKE_BITS:
        return False
    return all(abs(a - b) <= _ALIKE_COLOUR for a, b in zip(one.thumbnail, other.thumbnail, strict=True))


def alike(looks: Mapping[str, Look]) -> list[tuple[str, str]]:
    """Pairs of names whose pictures look alike: each picture with the first one before it (by name) that it is like.

    Only pictures that share a band of their hash and about their mean colour are compared; no pair within the bounds is
    missed (two hashes that differ in fewer bits than there are bands share one; means differ by no more than their fields).
    """
    shelves: dict[_Shelf, list[str]] = {}
    pairs: list[tuple[str, str]] = []
    for name in sorted(looks):
        look = looks[name]
        bands = [(band, look.hash >> band * _BAND & (1 << _BAND) - 1) for band in range(_BITS // _BAND)]
        means = [sum(look.thumbnail[channel::3]) / (len(look.thumbnail) // 3) for channel in range(3)]
        cells = list(itertools.product(*({_cell(mean - _ALIKE_COLOUR), _cell(mean + _ALIKE_COLOUR)} for mean in means)))
        candidates = sorted({other for band in bands for cell in cells for other in shelves.get((*band, *cell), ())})
        before = next((other for other in candidates if are_alike(look, looks[other])), None)
        if before is not None:
            pairs.append((before, name))
            continue        # its like is on the shelves already: a thousand copies are compared with one
        for band in bands:
            shelves.setdefault((*band, *map(_cell, means)), []).append(name)
    return pairs


def _cell(mean: float) -> int:
    """Means that differ by at most the bound lie in the same cell or in neighbouring ones."""
    return int(mean // (2 * _ALIKE_COLOUR))
