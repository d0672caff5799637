"""Masks: how much each latent of a picture counts. Made of a picture's transparency or of a mask file, and cached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import torch

from fluxtui.engine.trainer.data.image import crop_mask, decode_mask
from fluxtui.engine.trainer.data.reading import Readers
from fluxtui.engine.trainer.data.views import View, by_picture, read_unchanged
from fluxtui.engine.trainer.refusal import DataError

Entry = TypeVar("Entry")
_WINDOW = 8     # pictures read ahead


def make_masks(views: Mapping[Entry, View], outside: float, readers: Readers) -> Iterator[tuple[Entry, torch.Tensor]]:
    """`(1, height / 8, width / 8)` uint8 for each view: 255 counts fully, 0 as much as `outside` says (DataError)."""
    for made in readers.ahead((_making(group, outside) for group in by_picture(views)), _WINDOW):
        yield from made


def _making(
    views: Mapping[Entry, View], outside: float
) -> tuple[str, Callable[[], list[tuple[Entry, torch.Tensor]]]]:
    """The job of a reader thread: the mask of one picture, read once, cut to each of its views."""
    item = next(iter(views.values())).item

    def make() -> list[tuple[Entry, torch.Tensor]]:
        if item.mask is not None:
            mask = decode_mask(read_unchanged(item.mask, item.mask_sha256), f"the mask of {item.name}", is_alpha=False)
        elif item.has_alpha_mask:
            mask = decode_mask(read_unchanged(item.image, item.image_sha256), item.name, is_alpha=True)
        else:
            mask = None
        made = []
        for entry, view in views.items():
            across, down = view.place.bucket.width // 8, view.place.bucket.height // 8
            if mask is None:
                made.append((entry, torch.full((1, down, across), 255, dtype=torch.uint8)))
                continue
            part = crop_mask(mask, view.place, (item.width, item.height), view.is_mirrored)
            if outside == 0 and part.getextrema() == (0, 0):
                raise DataError(f"the mask of {item.name} leaves nothing to train on", "set dataset.mask_outside above 0")
            made.append((entry, torch.frombuffer(bytearray(part.tobytes()), dtype=torch.uint8).view(1, down, across)))
        return made

    return item.name, make
