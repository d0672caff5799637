"""The folders of a data set: `dataset.path` and those of `dataset.folders`, each with the keys that hold for it. No torch.

    /data/faces --repeats 5 --trigger vexo
    /data/people --regularisation --recursive

What a folder does not say of itself is as [dataset] has it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from fluxtui.persist.datasets import folder as dataset_folder
from fluxtui.persist.datasets.folder import Pairs
from fluxtui.persist.errors import UsageError
from fluxtui.persist.files.struct_init import init_struct
from fluxtui.persist.files.text import clean
from fluxtui.persist.settings.spec import DatasetSpec

# The rest of [dataset] is of the whole: the memory that a step takes goes by the resolution, the loss by the class word.
OWN = (
    "repeats", "trigger", "regularisation", "regularisation_weight", "recursive", "masks", "caption_extension", "caption_lines",
    "caption_dropout", "shuffle_tags", "keep_tags", "tag_dropout", "flip",
)  # fmt: skip
ALPHA = "alpha"  # of dataset.masks: each picture's own transparency
_OPTION = re.compile(r"\s+--(?=[A-Za-z])")
_BARE = {"recursive": "true", "caption_lines": "true", "flip": "true", "regularisation": "*"}  # what a key alone means
_NOTHING = ("''", '""')


def parts_of(data: DatasetSpec) -> tuple[DatasetSpec, ...]:
    """A [dataset] for each folder, in their order, with the keys that hold there and no further folders."""
    first = msgspec.structs.replace(data, folders=[])
    return (first, *(_part(first, line) for line in data.folders))


def _part(data: DatasetSpec, line: str) -> DatasetSpec:
    path, own = read(line)
    init_struct(DatasetSpec)
    return msgspec.convert({**msgspec.to_builtins(data), "path": path, **own}, DatasetSpec, strict=False)


def read(line: str) -> tuple[str, dict[str, str]]:
    """The folder of a line, and the keys behind it as they are typed."""
    path, *options = _OPTION.split(line.strip())
    own = {}
    for option in options:
        name, _, value = option.partition(" ")
        value = value.strip() or _BARE.get(name, "")
        own[name] = "" if value in _NOTHING else value
    return path.strip(), own


def line_of(path: str, own: Mapping[str, object]) -> str:
    """The other way round: a folder and its own keys as a line."""
    said = (f"--{name} {_typed(value)}" for name, value in own.items())
    return " ".join([path, *said])


def _typed(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value) or _NOTHING[0]


def problem_of(line: str) -> str:
    """What is wrong with a line, as the end of a sentence; empty where nothing is. Ranges: those of the keys."""
    path, *options = _OPTION.split(line.strip())
    if not path.strip() or path.startswith("--"):
        return "give a folder, and behind it what is its own, like '/data/faces --repeats 5'"
    names = [option.partition(" ")[0] for option in options]
    for option, name in zip(options, names, strict=True):
        if name not in OWN:
            return f"there is no --{clean(name, 40)}: a folder of its own has {', '.join(OWN)}"
        if names.count(name) > 1:
            return f"--{name} stands twice: give it once"
        if not option.partition(" ")[2].strip() and name not in _BARE:
            return f"--{name} says nothing: give a value, or {_NOTHING[0]} for none"
    return ""


def written(line: str) -> str:
    """The line with its folder as a spec writes it down: absolute."""
    path, *options = _OPTION.split(line.strip())
    return " --".join([dataset_folder.written(path.strip()), *options])


def written_sets(sets: Mapping[str, object]) -> dict[str, object]:
    """Those of the sets that name folders, with absolute paths."""
    found: dict[str, object] = {}
    if path := sets.get("dataset.path"):
        found["dataset.path"] = dataset_folder.written(str(path))
    if isinstance(lines := sets.get("dataset.folders"), list):
        found["dataset.folders"] = [written(line) for line in lines]
    return found


def pairs_of(part: DatasetSpec) -> Pairs:
    """What the folder of one part holds, by names. Raises as `dataset_folder.pair`."""
    folder = dataset_folder.resolve(part.path)
    masks = folder / part.masks if part.masks not in ("", ALPHA) else None
    return dataset_folder.pair(folder, part.caption_extension, is_recursive=part.recursive, without=masks)


def pairs(data: DatasetSpec) -> list[Pairs]:
    """What each folder of a data set holds."""
    return [pairs_of(part) for part in parts_of(data)]


def check_cheaply(data: DatasetSpec) -> list[Pairs]:
    """The pairs of each folder, where a training could start from them all; else one sentence that says what to fix.

    Raises `NotFoundError`, `UsageError` or `StorageError`.
    """
    parts = parts_of(data)
    if problem := overlap_of(parts):
        raise UsageError(f"{problem}.")
    found = [pairs_of(part) for part in parts]
    for part, held in zip(parts, found, strict=True):
        dataset_folder.must_start(dataset_folder.resolve(part.path), held, part.caption_extension, part.trigger)
    return found


def overlap_of(parts: Sequence[DatasetSpec]) -> str:
    """The sentence about a folder whose pictures would be taken twice; empty where there is none."""
    real = [Path(os.path.realpath(dataset_folder.resolve(part.path))) for part in parts]
    for at, inner in enumerate(real):
        for other, outer in enumerate(real):
            shown = clean(parts[at].path, 300)
            if at > other and inner == outer:
                return f"{shown} stands twice in the data set; give it once, with its repeats"
            if at != other and inner != outer and parts[other].recursive and inner.is_relative_to(outer):
                whole = clean(parts[other].path, 300)
                return f"{shown} lies in {whole}, which is recursive, so its pictures would count twice; leave one of the two out"
    return ""


def part_of(image: Path, parts: Sequence[DatasetSpec]) -> int:
    """In which part's folder an image lies; they do not overlap."""
    for number, part in enumerate(parts):
        folder = dataset_folder.resolve(part.path)
        if image.parent == folder or (part.recursive and image.is_relative_to(folder)):
            return number
    return 0
