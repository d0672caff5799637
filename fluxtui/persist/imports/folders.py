"""The data sets of another trainer's configuration, be they several: its tables, and kohya's folders named 10_word."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from fluxtui.persist.datasets import folder as dataset_folder
from fluxtui.persist.datasets import parts as dataset_parts
from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.files.text import clean
from fluxtui.persist.files.tilde import expanded
from fluxtui.persist.settings import keys
from fluxtui.persist.settings.spec import DatasetSpec

_DEFAULTS = msgspec.to_builtins(DatasetSpec(path="-"))
_REPEATED = re.compile(r"(\d+)_(.*)")  # kohya's: times an epoch, and the words for pictures without a caption


@dataclass(frozen=True, slots=True)
class Table:
    """One data set as the configuration has it."""

    name: str  # as its keys are named there: "datasets.subsets"
    number: str  # which one, as it is told: "" or "[2]"
    values: Mapping[str, Any]


def split(document: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[Table]]:
    """The document without its data sets, and those, each with what the tables around it say."""
    if isinstance(held := document.get("datasets"), list):
        rest = {name: value for name, value in document.items() if name not in ("datasets", "general")}
        around = document.get("general") if isinstance(document.get("general"), Mapping) else {}
        return rest, list(_of_kohya(around or {}, held))
    config = document.get("config")
    processes = config.get("process") if isinstance(config, Mapping) else None
    first = processes[0] if isinstance(processes, list) and processes else None
    if isinstance(config, Mapping) and isinstance(first, Mapping) and isinstance(held := first.get("datasets"), list):
        bare = {name: value for name, value in first.items() if name != "datasets"}
        rest = {**document, "config": {**config, "process": [bare, *list(processes or [])[1:]]}}
        tables = [one for one in held if isinstance(one, Mapping)]
        return rest, [Table("config.process.datasets", _number(at), one) for at, one in enumerate(tables)]
    return document, []


def _of_kohya(around: Mapping[str, Any], held: list[Any]) -> Iterator[Table]:
    at = 0
    for table in (one for one in held if isinstance(one, Mapping)):
        inner = [one for one in table.get("subsets") or [] if isinstance(one, Mapping)]
        outer = {name: value for name, value in table.items() if name != "subsets"}
        for subset in inner or [{}]:
            yield Table("datasets.subsets", _number(at), {**around, **outer, **subset})
            at += 1


def _number(at: int) -> str:
    return f"[{at + 1}]" if at else ""


def join(
    sets: dict[str, object], first: Mapping[str, object], folder: str, further: Mapping[str, object], told: str, seen: set[str]
) -> list[str]:
    """Adds a further data set's folder to `dataset.folders`; what could not be, a sentence each.

    `first`, `further`: our keys as either says them; what the further one leaves unsaid is not what the first says. `seen`: the
    folders so far with their resolutions; one that stands there at several is one folder here.
    """
    left = []
    own: dict[str, object] = {}
    for name in dataset_parts.OWN:
        here = sets.get(f"dataset.{name}", _DEFAULTS[name])
        unsaid = _DEFAULTS[name] if f"dataset.{name}" in first else here
        if (meant := further.get(f"dataset.{name}", unsaid)) != here:
            own[name] = meant
    sides = sorted({*_sides(sets), *_sides(further)})
    before = sets.get("dataset.folders", [])
    is_same = not own and folder == sets.get("dataset.path")
    is_same |= isinstance(before, list) and dataset_parts.line_of(folder, own) in before
    if sides != sorted(_sides(sets)):
        if not is_same or before:
            theirs = keys.show(_sides(further))
            left.append(f"{told} resolution = {theirs}: all folders have one list here, which is now {keys.show(sides)}")
        sets["dataset.resolution"] = sides
    elif is_same and known(folder, further) in seen:
        return [f"{told} {clean(folder, 200)}: it stands twice; give it once, with dataset.repeats"]
    for key, value in further.items():
        name = key.removeprefix("dataset.")
        if name not in (*dataset_parts.OWN, "resolution") and sets.get(key, value) != value:
            left.append(f"{told} {name} = {keys.show(value)}: it is of the whole data set here, and {keys.show(sets[key])}")
    seen.add(known(folder, further))
    if not is_same:
        add(sets, folder, own)
    return left


def known(folder: str, said: Mapping[str, object]) -> str:
    """A folder at its resolutions, as an entry of `seen`."""
    return f"{folder} at {_sides(said)}"


def add(sets: dict[str, object], folder: str, own: Mapping[str, object]) -> None:
    """One more line of `dataset.folders`."""
    before = sets.get("dataset.folders", [])
    assert isinstance(before, list)
    sets["dataset.folders"] = keys.check("dataset.folders", [*before, dataset_parts.line_of(folder, own)])


def _sides(sets: Mapping[str, object]) -> list[int]:
    found = sets.get("dataset.resolution", [])
    return list(found) if isinstance(found, list) else []


def by_convention(sets: dict[str, object], folder: str, is_regularisation: bool, told: str) -> tuple[str, list[str]]:
    """The first of kohya's folders `10_word` inside of a folder, and what there is to say of them all.

    The others become lines of `dataset.folders`, and so do all where they are for regularisation: then there is no first. A
    folder that holds none is given back itself.
    """
    at = expanded(folder)
    try:
        inside = dataset_folder.pair(at).folders
    except FluxTUIError:
        return folder, []  # a folder that is not here is told of when the session is made
    found = [(path, match) for path in inside if (match := _REPEATED.fullmatch(path.name))]
    if not found:
        return folder, []
    plain = [clean(path.name, 100) for path in inside if not _REPEATED.fullmatch(path.name)]
    left = [f"{told}: {name} has no number before its name, and is not used there either" for name in plain]
    has_trigger, first = "dataset.trigger" in sets, ""
    extension = str(sets.get("dataset.caption_extension", _DEFAULTS["caption_extension"]))
    for path, match in found:
        is_bare = bool(dataset_folder.pair(path, extension).without_caption)
        words = match[2] if is_bare and not has_trigger and not is_regularisation else ""
        if words:
            left.append(f"{told}: pictures of {clean(path.name, 100)} have no caption, so its words are the trigger of all of it")
        repeats = min(1000, max(1, int(match[1])))
        if is_regularisation:
            add(sets, str(path), {"repeats": repeats, "regularisation": "*"})
        elif not first:
            first = str(path)
            sets |= {"dataset.repeats": repeats} | ({"dataset.trigger": words} if words else {})
        else:
            own = {"trigger": words} if not has_trigger and words != sets.get("dataset.trigger", "") else {}
            add(sets, str(path), {"repeats": repeats, **own})
    return first, left
