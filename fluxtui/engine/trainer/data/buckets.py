"""Buckets: the size that an image is trained at, and the part of it that is used. No torch, no PIL.

An image is scaled down, never up, so that its area is at most resolution², and cropped in the middle to sides that are
multiples of 16 (the VAE reduces by 8, the transformer packs 2 x 2 latents). Where both scaled sides are at least
`step`, less than step / (shortest bucket side + step) of the image is cropped away.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SIDE_MULTIPLE = 16      # pixels: 8 by the VAE, 2 by packing


class TooSmallError(ValueError):
    """A side of the image is shorter than `SIDE_MULTIPLE` pixels: no bucket can hold it."""


@dataclass(frozen=True, slots=True, order=True)
class Bucket:
    """The size that a batch is trained at, in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def packed_tokens(self) -> int:
        """Image tokens that the transformer sees."""
        return self.width * self.height // SIDE_MULTIPLE**2


@dataclass(frozen=True, slots=True)
class Place:
    """One use of an image: its bucket, and the box of the image (turned upright) that is scaled to the bucket."""

    resolution: int
    bucket: Bucket
    box: tuple[float, float, float, float]      # left, top, right, bottom, in pixels of the image
    crop_loss: float                            # share of the image's area that is outside of the box, 0 … 1


def resolutions_for(width: int, height: int, resolutions: Iterable[int]) -> tuple[int, ...]:
    """The listed resolutions whose area the image has; where it is too small for all, the smallest one."""
    listed = sorted(set(resolutions))
    return tuple(resolution for resolution in listed if resolution**2 <= width * height) or (listed[0],)


def place(width: int, height: int, resolution: int, step: int = SIDE_MULTIPLE) -> Place:
    """Where an image of `width` x `height` pixels goes at `resolution`; `step` is the distance between bucket sides."""
    if min(width, height) < SIDE_MULTIPLE:
        raise TooSmallError(f"{width}x{height} pixels: each side must have at least {SIDE_MULTIPLE}")
    area = resolution**2
    sides = [
        (wide, high)
        for wide in _sides(width, math.isqrt(area * width // height), step)
        for high in _sides(height, math.isqrt(area * height // width), step)
        if wide * high <= area
    ] or [_thinnest(width, height, area)]
    wide, high = min(sides, key=lambda pair: (1.0 - _kept(width, height, *pair), -pair[0] * pair[1]))
    return Place(resolution, Bucket(wide, high), _centred_box(width, height, wide, high), 1.0 - _kept(width, height, wide, high))


def places(width: int, height: int, resolutions: Iterable[int], step: int = SIDE_MULTIPLE) -> tuple[Place, ...]:
    """Every use of an image in an epoch, smallest resolution first."""
    return tuple(place(width, height, resolution, step) for resolution in resolutions_for(width, height, resolutions))


@dataclass(frozen=True, slots=True)
class BucketRow:
    """A line of the bucket table."""

    bucket: Bucket
    uses: int                   # uses of images in an epoch, repeats included
    mean_crop_loss: float       # share of the area
    largest_crop_loss: float


def table(uses: Sequence[Place]) -> tuple[BucketRow, ...]:
    """Counts and crop loss a bucket, fullest first."""
    losses: dict[Bucket, list[float]] = {}
    for use in uses:
        losses.setdefault(use.bucket, []).append(use.crop_loss)
    rows = [BucketRow(bucket, len(lost), sum(lost) / len(lost), max(lost)) for bucket, lost in losses.items()]
    return tuple(sorted(rows, key=lambda row: (-row.uses, row.bucket)))


def _sides(side: int, ideal: int, step: int) -> set[int]:
    """The bucket sides next to the ideal one, below and above, that the image itself has (never upscaled)."""
    ideal = min(side, ideal)
    below = ideal // step * step or ideal // SIDE_MULTIPLE * SIDE_MULTIPLE
    return {found for found in (below, below + step) if SIDE_MULTIPLE <= found <= side}


def _thinnest(width: int, height: int, area: int) -> tuple[int, int]:
    """For a strip so narrow that its short side, scaled to the area, is under 16 pixels: as long as the area allows."""
    longest = area // SIDE_MULTIPLE // SIDE_MULTIPLE * SIDE_MULTIPLE
    if width >= height:
        return min(longest, width // SIDE_MULTIPLE * SIDE_MULTIPLE), SIDE_MULTIPLE
    return SIDE_MULTIPLE, min(longest, height // SIDE_MULTIPLE * SIDE_MULTIPLE)


def _kept(width: int, height: int, wide: int, high: int) -> float:
    """Share of the image's area left when it is cropped to the proportions of the bucket."""
    ratio = (wide * height) / (high * width)
    return min(ratio, 1.0 / ratio)


def _centred_box(width: int, height: int, wide: int, high: int) -> tuple[float, float, float, float]:
    if wide * height >= high * width:       # the bucket is the wider one: cut above and below
        kept = high * width / wide
        return 0.0, (height - kept) / 2, float(width), (height + kept) / 2
    kept = wide * height / high
    return (width - kept) / 2, 0.0, (width + kept) / 2, float(height)
