"""Says what a picture of the demo's world shows: background, colour, shape. Numpy and PIL only.

The background is the border's colour; what differs from it is the shape's mask; the mask's inner colour gives the
colour; the mask, cut to its bounding box and scaled, is compared with each shape's template by intersection over union.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fluxtui.demo import pictures

GRID = 48  # pixels, side of the scaled masks
LEAST_OVERLAP = 0.70  # below it the mask is like no shape
MOST_SPREAD = 45.0  # Euclidean, 0-255 RGB; beyond it an area is not of one colour
LEAST_AREA = 60  # pixels; a smaller mask is dirt
JUDGED_SHAPES = (
    *pictures.SHAPES,
    pictures.CONCEPT_SHAPE,
    "ring",
    "moon",
)  # the last two: to have somewhere to err

Pixels = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judge sees; None where it is like nothing of the world."""

    shape: str | None
    colour: str | None
    background: str | None
    overlap: float  # intersection over union with the best template, 0 to 1


def judge(picture: Image.Image) -> Verdict:
    """The verdict on one RGB picture of 64 x 64."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float64)
    border = np.median(border_pixels(pixels), axis=0)
    background = plain(border_pixels(pixels), pictures.BACKGROUNDS, reach=60.0)
    mask = shape_mask(pixels, border)
    if mask.sum() < LEAST_AREA:
        return Verdict(None, None, background, 0.0)
    distance = np.linalg.norm(pixels - border, axis=2)
    inner = pixels[mask & (distance >= np.median(distance[mask]))]
    colour = plain(inner, pictures.COLOURS, reach=90.0)
    shape, overlap = best_shape(mask)
    return Verdict(shape, colour, background, overlap)


def border_pixels(pixels: Pixels) -> Pixels:
    """The outermost two rows and columns, (n, 3)."""
    frame = np.ones(pixels.shape[:2], dtype=bool)
    frame[2:-2, 2:-2] = False
    return pixels[frame]


def plain(area: Pixels, palette: dict[str, tuple[int, int, int]], reach: float) -> str | None:
    """The name of the area's colour, (n, 3); None where the pixels have no colour in common."""
    middle = np.median(area, axis=0)
    spread = float(np.median(np.linalg.norm(area - middle, axis=1)))
    return nearest(middle, palette, reach) if spread <= MOST_SPREAD else None


def nearest(colour: Pixels, palette: dict[str, tuple[int, int, int]], reach: float) -> str | None:
    """The palette's nearest name, or None beyond `reach` (Euclidean, 0-255 RGB)."""
    distances = {name: float(np.linalg.norm(colour - np.array(value))) for name, value in palette.items()}
    name = min(distances, key=lambda key: distances[key])
    return name if distances[name] <= reach else None


def shape_mask(pixels: Pixels, border: Pixels) -> Mask:
    """What is nearer to the shape's colour than to the border's, (64, 64)."""
    distance = np.linalg.norm(pixels - border, axis=2)
    strong = float(np.quantile(distance, 0.98))
    is_apart: Mask = distance > max(0.5 * strong, 25.0)
    return is_apart


def best_shape(mask: Mask) -> tuple[str | None, float]:
    """The most alike template and its overlap; None below LEAST_OVERLAP."""
    scaled = scale_to_box(mask)
    overlaps = {shape: float((scaled & template).sum() / (scaled | template).sum()) for shape, template in templates().items()}
    shape = max(overlaps, key=lambda key: overlaps[key])
    return (shape if overlaps[shape] >= LEAST_OVERLAP else None), overlaps[shape]


def scale_to_box(mask: Mask) -> Mask:
    """The mask cut to its bounding box (stray pixels left out), scaled to GRID x GRID."""
    rows, columns = np.flatnonzero(mask.sum(axis=1) >= 2), np.flatnonzero(mask.sum(axis=0) >= 2)
    if not len(rows) or not len(columns):
        return np.zeros((GRID, GRID), dtype=bool)
    cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scaled = Image.fromarray(cut.astype(np.uint8) * 255).resize((GRID, GRID), Image.Resampling.BILINEAR)
    return np.asarray(scaled) > 127


@cache
def templates() -> dict[str, Mask]:
    """Each shape's own mask, scaled as the pictures' masks are."""
    side = pictures.SIZE
    return {
        shape: scale_to_box(np.asarray(pictures.draw_mask(shape, (side / 2, side / 2), 20.0)) > 127) for shape in JUDGED_SHAPES
    }
