"""The keys of the spec: what each takes, whether a value fits, and the sentence that says so.

Everything is read off the structs of `spec.py`: the ranges are those of their `Meta`, so that `--set`, the form, the
checks and the docs cannot disagree.
"""

from __future__ import annotations

import difflib
import functools
import math
import re
from collections.abc import Iterable
from typing import Any, get_type_hints

import msgspec
from msgspec import inspect

from fluxtui.persist.datasets import parts as dataset_parts
from fluxtui.persist.errors import UsageError
from fluxtui.persist.files.text import clean
from fluxtui.persist.settings import layers, prompts
from fluxtui.persist.settings.spec import RECIPE_TABLES, Spec

REQUIRED = msgspec.NODEFAULT
HEAD = ("title",)  # keys outside all tables that a user may set


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """One key of the spec, as a form, a document or an error needs it."""

    table: str              # "train"; "" for a key outside all tables
    name: str               # "batch_size"
    expected: str           # "a whole number from 1 to 1024"
    description: str
    default: Any            # msgspec.NODEFAULT where one must be given
    choices: tuple[str, ...]  # of a key with a fixed set of words; else empty
    kind: str               # "int", "float", "bool", "str", "choice", "list"
    is_recipe: bool         # part of the recipe: fixed once the session exists

    @property
    def dotted(self) -> str:
        """`train.batch_size`, as `--set` takes it."""
        return f"{self.table}.{self.name}" if self.table else self.name

    @property
    def label(self) -> str:
        """`[train] batch_size`, as session.toml shows it."""
        return f"[{self.table}] {self.name}" if self.table else self.name


class _Entry(msgspec.Struct, frozen=True):
    key: Key
    annotation: Any         # the type with its Meta, as msgspec.convert takes it
    type: inspect.Type      # the same, taken apart


@functools.cache
def _entries() -> dict[str, _Entry]:
    """Every key by its dotted name, in the order of the file."""
    entries = {}
    head = get_type_hints(Spec, include_extras=True)
    for field in msgspec.structs.fields(Spec):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            hints = get_type_hints(field.type, include_extras=True)
            for inner in msgspec.structs.fields(field.type):
                entry = _entry(field.name, inner, hints[inner.name])
                entries[entry.key.dotted] = entry
        elif field.name in HEAD:
            entry = _entry("", field, head[field.name])
            entries[entry.key.dotted] = entry
    return entries


def _entry(table: str, field: msgspec.structs.FieldInfo, annotation: Any) -> _Entry:  # noqa: ANN401
    described = inspect.type_info(annotation)
    more = (described.extra_json_schema or {}) if isinstance(described, inspect.Metadata) else {}
    words = f"text like {more['examples'][0]}" if "examples" in more else expected(described)
    described = described.type if isinstance(described, inspect.Metadata) else described
    default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
    key = Key(
        table=table,
        name=field.name,
        expected=words,
        description=str(more.get("description", "")),
        default=default,
        choices=_choices(described),
        kind=_kind(described),
        is_recipe=table in RECIPE_TABLES,
    )
    return _Entry(key, annotation, described)


def all_keys() -> list[Key]:
    """Every key that a user may set, in the order of session.toml."""
    return [entry.key for entry in _entries().values()]


def tables() -> list[str]:
    """The tables of session.toml, in its order."""
    return list(dict.fromkeys(key.table for key in all_keys() if key.table))


def find(dotted: str) -> Key:
    """The key of that name; `UsageError` names the nearest ones."""
    entry = _entries().get(dotted)
    if entry is None:
        raise UsageError(unknown(dotted))
    return entry.key


def unknown(dotted: str) -> str:
    """The sentence about a key that does not exist."""
    names = list(_entries())
    shown = clean(dotted, 80)
    near = difflib.get_close_matches(dotted, names, n=3, cutoff=0.75)
    last = dotted.rpartition(".")[2]
    near += [name for name in names if name.rpartition(".")[2] == last and name not in near]
    near += [name for name in (*_of_other_trainers(last, names), *_near_by_name(last, names)) if name not in near]
    if near:
        return f"There is no key {shown}; did you mean {' or '.join(near[:3])}?"
    table = dotted.partition(".")[0]
    siblings = [name for name in names if name.startswith(f"{table}.")]
    if siblings:
        return f"There is no key {shown}; [{table}] has {', '.join(name.partition('.')[2] for name in siblings)}."
    return f"There is no key {shown}; write TABLE.KEY=VALUE with one of the tables {', '.join(tables())}."


def _of_other_trainers(last: str, names: Iterable[str]) -> list[str]:
    """What another trainer's key is here: `network_dim`, `lr`."""
    from fluxtui.persist.imports.tables import SOURCES  # where a key is wrong, and then alone

    targets = {"model": "model.source", "dataset": "dataset.path"}
    found = {name.rpartition(".")[2]: target for one in SOURCES.values() for name, (target, _) in one.table.items()}
    meant = found.get(last, "")
    return [name for name in names if name == targets.get(meant, meant)]


def _near_by_name(last: str, names: Iterable[str]) -> list[str]:
    by_last: dict[str, str] = {}
    for name in names:
        by_last.setdefault(name.rpartition(".")[2], name)
    return [by_last[match] for match in difflib.get_close_matches(last, by_last, n=2, cutoff=0.75)]


def check(dotted: str, value: object) -> Any:  # noqa: ANN401  (the type is the key's)
    """The value as the key's own type; `UsageError` names key, value and range."""
    key = find(dotted)
    entry = _entries()[dotted]
    try:
        fitting = msgspec.convert(value, entry.annotation)
    except (msgspec.ValidationError, OverflowError):
        raise UsageError(_misfit(key, value)) from None
    if isinstance(fitting, float) and not math.isfinite(fitting):
        raise UsageError(_misfit(key, value))
    problem = _beyond_the_type(dotted, fitting)
    if problem:
        raise UsageError(f"{key.label} is {show(value)}; {problem}.")
    return fitting


def _misfit(key: Key, value: object) -> str:
    near = difflib.get_close_matches(value, key.choices, n=1) if isinstance(value, str) else []
    hint = f"; did you mean {near[0]}?" if near else "."
    return f"{key.label} is {show(value)}; give {key.expected}{hint}"


def _beyond_the_type(dotted: str, value: object) -> str:
    """What no `Meta` can say: an empty text where all is well."""
    if dotted == "lora.targets":
        try:
            re.compile(str(value))
        except re.error as error:
            return f"give attention, attention+mlp, all, single, or a regular expression that is one ({error})"
    if dotted == "lora.layers" and isinstance(value, list):
        return next((problem for problem in map(layers.problem_of, value) if problem), "")
    if dotted == "sample.prompts" and isinstance(value, list):
        return next((problem for problem in map(_problem_of_prompt, value) if problem), "")
    if dotted == "dataset.folders" and isinstance(value, list):
        return next((problem for problem in map(_problem_of_folder, value) if problem), "")
    if dotted == "train.betas" and isinstance(value, list) and len(value) == 1:
        return "give two numbers like [0.9, 0.999], or [] for the optimizer's own"
    if dotted == "lora.lokr_factor" and value in (0, 1):
        return "give -1, or a side from 2 up"
    if dotted in ("dataset.trigger", "title") and not str(value).isprintable():
        return "give text of one line without control characters"
    if isinstance(value, list) and dotted in ("hardware.gpus", "dataset.resolution") and len(set(map(str, value))) != len(value):
        return "give each only once"
    if dotted == "hardware.gpus" and isinstance(value, list) and any(isinstance(item, int) and item < 0 for item in value):
        return "give indices from 0, or UUIDs"
    return ""


def _problem_of_prompt(line: str) -> str:
    """What stands behind a prompt is held against the keys of [sample] that it stands for."""
    if problem := prompts.problem_of(line):
        return problem
    letters = {name: letter for letter, name in prompts.OPTIONS.items()}
    for name, value in prompts.settings_of(line).items():
        try:
            check(f"sample.{name}", value)
        except UsageError:
            return f"--{letters[name]} is {show(value)}: give {find(f'sample.{name}').expected}"
    return ""


def _problem_of_folder(line: str) -> str:
    """What stands behind a folder is held against the keys of [dataset] that it stands for."""
    if problem := dataset_parts.problem_of(line):
        return problem
    for name, text in dataset_parts.read(line)[1].items():
        dotted = f"dataset.{name}"
        try:
            check(dotted, msgspec.convert(text, _entries()[dotted].annotation, strict=False))
        except (msgspec.ValidationError, UsageError):
            return f"--{name} is {show(text)}: give {find(dotted).expected}"
    return ""


def is_text(dotted: str) -> bool:
    """Whether the key takes words alone, so that `123` is meant as text too."""
    entry = _entries().get(dotted)
    return entry is not None and entry.key.kind in ("str", "choice")


def show(value: object) -> str:
    """A value as TOML writes it, inert and short."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{clean(value, 60)}"'
    if isinstance(value, list | tuple):
        return clean(f"[{', '.join(show(item) for item in value[:20])}{', …' if len(value) > 20 else ''}]", 100)
    return clean(str(value), 60)


def expected(described: inspect.Type) -> str:
    """What a type takes, in words: "a whole number from 1 to 1024"."""
    match described:
        case inspect.Metadata():
            return expected(described.type)
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            step = f", a multiple of {described.multiple_of}" if described.multiple_of else ""
            return f"a whole number{_range(described)}{step}"
        case inspect.FloatType():
            return f"a number{_range(described)}"
        case inspect.LiteralType():
            return _either([str(value) for value in described.values])
        case inspect.StrType():
            return _text(described)
        case inspect.ListType() | inspect.CollectionType():
            return f"{_count(described)} of which each is {expected(described.item_type)}"
        case inspect.UnionType():
            return _either([expected(member) for member in described.types])
    raise AssertionError(f"the spec has a type that has no words: {described}")


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _range(described: inspect.IntType | inspect.FloatType) -> str:
    low = f" from {_number(described.ge)}" if described.ge is not None else ""
    low = f" above {_number(described.gt)}" if described.gt is not None else low
    high = f" to {_number(described.le)}" if described.le is not None else ""
    high = f" below {_number(described.lt)}" if described.lt is not None else high
    if low.startswith(" above") and high.startswith(" to"):
        return f"{low} and up to{high.removeprefix(' to')}"
    if high.startswith(" below") and low:
        return f"{low} and{high}"
    if low.startswith(" from") and not high:
        return f"{low} up"
    return low + high


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else str(value)


def _text(described: inspect.StrType) -> str:
    if described.max_length is not None:
        return f"text of at most {described.max_length} characters"
    return "text that is not empty" if described.min_length else "text"


def _count(described: inspect.ListType | inspect.CollectionType) -> str:
    low, high = described.min_length or 0, described.max_length
    return "a list" if high is None else f"a list of {low} to {high}"


def _choices(described: inspect.Type) -> tuple[str, ...]:
    return tuple(str(value) for value in described.values) if isinstance(described, inspect.LiteralType) else ()


def _kind(described: inspect.Type) -> str:
    match described:
        case inspect.BoolType():
            return "bool"
        case inspect.IntType():
            return "int"
        case inspect.FloatType():
            return "float"
        case inspect.LiteralType():
            return "choice"
        case inspect.StrType():
            return "str"
    return "list"
