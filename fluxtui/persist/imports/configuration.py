"""Configurations of other trainers as keys of ours: FluxGym's ui_state.json, kohya's TOML or JSON, ai-toolkit's YAML.

Every key is either carried over or named with the reason why not; nothing is dropped in silence, and a value that becomes
another one is named too. What their keys mean stands in `tables.py`. Nothing is executed; of the paths in it only a
file of prompts and kohya's `dataset_config` are opened, and kohya's folders are listed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fluxtui.persist.errors import FluxTUIError, UsageError
from fluxtui.persist.files import toml
from fluxtui.persist.files.text import clean
from fluxtui.persist.files.tilde import expanded
from fluxtui.persist.imports import folders as import_folders
from fluxtui.persist.imports import prompts as import_prompts
from fluxtui.persist.imports.folders import Table
from fluxtui.persist.imports.tables import SOURCES, Source
from fluxtui.persist.imports.values import CannotError, Changed, arguments
from fluxtui.persist.settings import keys
from fluxtui.persist.settings.prompts import line_of

LIMIT = 4 * 1024 * 1024     # bytes of a configuration
LEAVES = 10_000             # values
NODES = 10 * LEAVES         # of YAML, whose aliases can make a small file into a huge document
DEPTH = 30                  # tables and lists within each other
_TOO_MUCH = "The configuration is too large or too deep to be one of a training."

@dataclass(slots=True)
class Imported:
    """What a configuration says in our words."""

    source: str                                                # whose it is: "kohya"
    sets: dict[str, object] = field(default_factory=dict)      # "train.steps" -> 1500
    dataset: str = ""
    model: str = ""
    trained: str = ""                                          # kohya's folder of folders named 10_word
    kept: str = ""                                             # the same, of regularisation pictures
    parts: list[str] = field(default_factory=list)             # files of text encoders and VAE, where the model is one too
    beside: Path = Path()                                      # where the configuration lies
    near: list[str] = field(default_factory=list)              # what it does not name and was found near it: a path each
    left: list[str] = field(default_factory=list)              # what was not carried over, or as something else: a line each


def read(path: Path) -> Imported:
    """The configuration in our words. Raises `NotFoundError`, `DamagedError`, or `UsageError` where it is none of the three."""
    rest, tables = import_folders.split(_parse(path))
    flat = dict(_spread(_flatten(rest)))
    left: list[str] = []
    if not tables:
        tables, left = _named_tables(flat, path.parent)
    source = _source_of(flat, tables)
    found = Imported(source, sets=dict(SOURCES[source].unsaid), beside=path.parent, left=left)
    overridden = _overridden(flat, SOURCES[source])
    for name, value in flat.items():
        if (winner := overridden.get(name)) is not None:
            found.left.append(f"{clean(name, 100)} = {keys.show(value)}: {winner} wins over it")
        else:
            _carry(found, name, value, SOURCES[source])
    _carry_folders(found, tables, SOURCES[source])
    for target, value in SOURCES[source].by_optimizer.get(str(found.sets.get("train.optimizer", "adamw")), {}).items():
        found.sets.setdefault(target, value)
    for target, (other, why) in SOURCES[source].follows.items():
        _follow(found, target, other, why)
    if source == "FluxGym":
        _find_near(found)
    if found.model.endswith((".safetensors", ".sft")):
        found.model = ",".join([found.model, *found.parts])
    said = {name.rpartition(".")[2] for name in flat}
    found.sets.pop("dataset.path", None)
    found.left += [f"{name}, unsaid: {why}" for name, why in SOURCES[source].notes.items() if name not in said]
    return found


def _named_tables(flat: dict[str, Any], beside: Path) -> tuple[list[Table], list[str]]:
    """The data sets of the file that kohya's `dataset_config` names, the key done with; else a sentence that says why not."""
    key = next((name for name, value in flat.items() if name.rpartition(".")[2] == "dataset_config" and value), None)
    if key is None:
        return [], []
    value = str(flat.pop(key))
    try:
        rest, tables = import_folders.split(_parse(beside / expanded(value)))
    except FluxTUIError as error:
        return [], [f"{clean(key, 100)} = {keys.show(value)}: {str(error).rstrip('.')}; give the folders with --dataset"]
    ignored = [name for name in ("train_data_dir", "reg_data_dir") if any(flat.pop(one, None) for one in _ending(flat, name))]
    left = [f"{name}: dataset_config wins over it" for name in ignored]
    return tables, left + [f"{clean(value, 200)}: {clean(str(name), 100)}: there is no such key here" for name in rest]


def _find_near(found: Imported) -> None:
    """FluxGym keeps a LoRA's pictures in `datasets/NAME` and its files of FLUX.1 in `models`, beside `outputs/NAME`."""
    beside = found.beside.absolute()
    root = beside.parent.parent
    if not found.dataset and (pictures := root / "datasets" / beside.name).is_dir():
        found.dataset = str(pictures)
        found.near.append(found.dataset)
    file = root / "models" / "unet" / f"{found.model.rpartition('/')[2].lower().replace('.1', '1')}.sft"
    if found.model.startswith("black-forest-labs/") and file.is_file():
        found.model = str(file)
        found.near.append(found.model)


def _ending(flat: Mapping[str, Any], last: str) -> list[str]:
    return [name for name in flat if name.rpartition(".")[2] == last]


def _parse(path: Path) -> Mapping[str, Any]:
    """A document of tables, of a size and depth that a training has."""
    data = toml.read_bytes(path, LIMIT, follow_links=True)
    suffix = path.suffix.lower()
    try:
        if suffix == ".toml":
            document: object = toml.parse(data, path)
        elif suffix == ".json":
            document = json.loads(data)
        elif suffix in (".yaml", ".yml"):
            document = _parse_yaml(data, path)
        else:
            raise UsageError(f"{path} is of no known kind; give a .json, .toml or .yaml configuration.")
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read: {clean(str(error), 200)}.") from error
    if not isinstance(document, Mapping):
        raise UsageError(f"{path} holds no configuration: its outermost part is no table.")
    if _reaches_deeper(document, DEPTH):
        raise UsageError(_TOO_MUCH)
    return document


def _parse_yaml(data: bytes, path: Path) -> object:
    """The document, made of safe types only. Its size is known before it is made: aliases repeat what they name."""
    import yaml  # type: ignore[import-untyped,unused-ignore]  # accelerate needs it, so it is there

    try:
        loader = yaml.SafeLoader(data)
        root = loader.get_single_node()
        _weigh(root, {})
        return None if root is None else loader.construct_document(root)
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {clean(' '.join(str(error).split()), 200)}.") from error


def _weigh(node: Any, known: dict[int, int]) -> int:  # noqa: ANN401  (a node of yaml, which has no types)
    """How many values a node comes to, each alias counted. Raises `UsageError` where those are too many, or without end."""
    if id(node) not in known:
        known[id(node)] = NODES + 1  # until it is known: what holds itself has no end
        parts = node.value if isinstance(getattr(node, "value", None), list) else []
        inner = (part for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,)))
        known[id(node)] = 1 + sum(_weigh(part, known) for part in inner)
    if known[id(node)] > NODES:
        raise UsageError(_TOO_MUCH)
    return known[id(node)]


def _reaches_deeper(value: object, depth: int) -> bool:
    """Whether anything is nested in it by more levels than so many: each later look at it may recurse."""
    if depth < 0:
        return True
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return any(_reaches_deeper(one, depth - 1) for one in inner)


def _flatten(value: object, prefix: str = "", spent: list[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Leaves by dotted name. A list of tables counts by its first one; a list of plain values is a leaf."""
    spent = spent if spent is not None else [0]
    spent[0] += 1
    if spent[0] > LEAVES:
        raise UsageError(_TOO_MUCH)
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flatten(inner, f"{prefix}.{name}" if prefix else str(name), spent)
    elif isinstance(value, list) and value and prefix.rpartition(".")[2] in ("samples", "prompts"):
        yield prefix.removesuffix("samples").removesuffix("prompts") + "prompts", [line_of(one) for one in value]
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        yield from _flatten(value[0], prefix, spent)
        for number in range(1, len(value)):
            yield f"{prefix}[{number + 1}]", _ONLY_FIRST
    else:
        yield prefix, value


_ONLY_FIRST = object()


def _spread(leaves: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """kohya's lists of NAME=VALUE as keys of their own."""
    for name, value in leaves:
        if name.rpartition(".")[2] in ("optimizer_args", "network_args") and value:
            yield from ((f"{name}.{key}", one) for key, one in arguments(value).items())
        else:
            yield name, value


def _source_of(flat: Mapping[str, Any], tables: Sequence[Table]) -> str:
    """Whose configuration it is, by keys that only that one has."""
    if any(name.startswith("config.process.") for name in (*flat, *(table.name for table in tables))):
        return "ai-toolkit"
    last = {name.rpartition(".")[2] for name in flat} | {name for table in tables for name in table.values}
    if last & {"concept_sentence", "lora_name", "max_train_epochs_ui", "train_script", "train_config"}:
        return "FluxGym"
    if last & {"network_dim", "pretrained_model_name_or_path", "train_data_dir", "image_dir", "network_module"}:
        return "kohya"
    raise UsageError("The configuration is none of FluxGym's, kohya's or ai-toolkit's; fluxtui keys lists what is taken here.")


def _overridden(flat: Mapping[str, Any], source: Source) -> dict[str, str]:
    """Keys that another one overrides in that trainer, with the name of that one."""
    said = {name for name, value in flat.items() if value not in (None, "", False)}

    def named(ending: str) -> list[str]:
        return [name for name in said if name == ending or name.endswith(f".{ending}")]

    return {loser: winner for winner, ending in source.wins if named(winner) for loser in named(ending)}


def _carry(found: Imported, name: str, value: object, source: Source) -> None:
    """Take one key over, or say why not."""
    shown, last = clean(name, 100), name.rpartition(".")[2]
    ends = [name, ".".join(name.split(".")[-2:]), last]
    entry = next((source.table[end] for end in ends if end in source.table), None)
    done = source.done_here.get(name) or source.done_here.get(last)
    if value is _ONLY_FIRST:
        found.left.append(f"{shown}: only the first of several is carried over")
    elif value is None or value == "" or (done is not None and str(value).lower() in done):
        return  # nothing is asked for, or what is always so here
    elif entry is None:
        found.left.append(f"{shown} = {keys.show(value)}: there is no such key here")
    else:
        target, convert = entry
        try:
            if target == "sample.prompts":
                value = import_prompts.read_named(value, found.beside)
            meant = convert(value)
            if isinstance(meant, Changed):
                found.left.append(f"{shown} = {keys.show(value)}: it is {_shown(target, meant.value)} here; {meant.why}")
                meant = meant.value
            _take(found, target, meant)
        except (CannotError, UsageError, ValueError, TypeError) as error:
            found.left.append(f"{shown} = {keys.show(value)}: {clean(str(error), 300)}")


def _shown(target: str, value: object) -> str:
    pairs = value.items() if isinstance(value, Mapping) else [(target, value)]
    return " and ".join(f"{name} = {keys.show(one)}" for name, one in pairs)


def _carry_folders(found: Imported, tables: Sequence[Table], source: Source) -> None:
    """The first data set's keys are those of [dataset]; each further one's folder has what is its own behind it."""
    first: dict[str, object] = {}
    seen: set[str] = set()
    for table in tables:
        one = Imported(found.source, beside=found.beside)
        for name, value in table.values.items():
            _carry(one, f"{table.name}.{name}", value, source)
        told = f"{table.name}{table.number}"
        found.left += [f"{told}{line.removeprefix(table.name)}" for line in one.left]
        if not found.dataset:
            first, found.dataset = one.sets, one.dataset
            found.sets |= first | {"dataset.path": one.dataset}
            seen.add(import_folders.known(one.dataset, one.sets))
        elif not one.dataset:
            found.left.append(f"{told}: it names no folder")
        else:
            found.left += import_folders.join(found.sets, first, one.dataset, one.sets, told, seen)
    for folder, is_regularisation, name in ((found.trained, False, "train_data_dir"), (found.kept, True, "reg_data_dir")):
        if folder:
            inside, left = import_folders.by_convention(found.sets, folder, is_regularisation, name)
            found.left += left
            if not is_regularisation:
                found.dataset = inside
            elif inside == folder:
                import_folders.add(found.sets, folder, {"regularisation": "*"})


def _follow(found: Imported, target: str, other: str, why: str) -> None:
    """One of ours takes another one's value, as it does there; named where something else was said."""
    meant = keys.check(target, found.sets[other])
    if found.sets.get(target, meant) != meant:
        found.left.append(f"{target} = {keys.show(found.sets[target])}: it is {keys.show(meant)} here; {why}")
    found.sets[target] = meant


def _take(found: Imported, target: str, value: object) -> None:
    if isinstance(value, Mapping):
        for name, one in value.items():
            found.sets[name] = keys.check(name, one)
    elif target == "dataset":
        found.dataset = str(value)
    elif target == "dataset by convention":
        found.trained = str(value)
    elif target == "regularisation by convention":
        found.kept = str(value)
    elif target == "part of the model":
        found.parts.append(str(value))
    elif target == "model":
        found.model = str(value)
    else:
        found.sets[target] = keys.check(target, value)
