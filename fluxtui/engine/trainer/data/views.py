"""The parts of pictures that are trained on, and the reading of a picture for them. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from fluxtui.engine.trainer.data.buckets import Place
from fluxtui.engine.trainer.data.dataset import Dataset, Item
from fluxtui.engine.trainer.data.image import read_regular
from fluxtui.engine.trainer.refusal import DataError
from fluxtui.persist.files.text import clean

Entry = TypeVar("Entry")


@dataclass(frozen=True, slots=True)
class View:
    """A part of a picture as it is trained on."""

    item: Item
    place: Place
    is_mirrored: bool


def views_of(dataset: Dataset) -> list[View]:
    """Every view that an epoch or a validation may ask for."""
    found = []
    for item in (*dataset.items, *dataset.held_out):
        turns = (False, True) if dataset.of(item).flip else (False,)
        found += [View(item, place, turn) for place in item.places for turn in turns]
    return found


def by_picture(views: Mapping[Entry, View]) -> list[dict[Entry, View]]:
    """The views grouped by their picture, so that each is read and decoded once."""
    grouped: dict[Path, dict[Entry, View]] = {}
    for entry, view in views.items():
        grouped.setdefault(view.item.image, {})[entry] = view
    return list(grouped.values())


def read_unchanged(path: Path, wanted_sha256: str) -> bytes:
    """The bytes of a file that preflight has seen (DataError where it is another one now)."""
    data = read_regular(path)
    if sha256(data).hexdigest() != wanted_sha256:
        what = "leave the data set alone, then fluxtui resume {name}"
        raise DataError(f"{clean(path.name)} changed while the run was starting", what)
    return data
