"""Specs made, changed, compared and hashed: the one way from what a user types to what is trained."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import rtoml

from fluxtui.persist.errors import UsageError
from fluxtui.persist.files import toml
from fluxtui.persist.files.struct_init import init_struct
from fluxtui.persist.files.text import clean
from fluxtui.persist.settings import keys
from fluxtui.persist.settings.keys import Key
from fluxtui.persist.settings.spec import RECIPE_TABLES, Spec

CHANGEABLE_TABLES = ("guard", "sample", "checkpoint", "hardware")  # by `resume --set`


def parse_sets(sets: Iterable[str]) -> dict[str, object]:
    """`["train.steps=20", "dataset.trigger=vexo"]` as `{"train.steps": 20, "dataset.trigger": "vexo"}`.

    A value is TOML; where it is not, or where the key takes only text, it is the text as typed.
    Raises `UsageError` for what is not KEY=VALUE, an unknown key, or a value that does not fit.
    """
    overrides: dict[str, object] = {}
    for text in sets:
        dotted, equals, value = text.partition("=")
        dotted = dotted.strip()
        if not equals:
            raise UsageError(f"--set {clean(text, 80)} has no value; write it as KEY=VALUE, like train.steps=2000.")
        overrides[dotted] = _fitting(dotted, _parse_value(dotted, value.strip()))
    return overrides


def _fitting(dotted: str, value: object) -> object:
    """The checked value; of a key that takes a list, one item may be given without brackets."""
    try:
        return keys.check(dotted, value)
    except UsageError as error:
        if keys.find(dotted).kind == "list" and not isinstance(value, list):
            with contextlib.suppress(UsageError):
                return keys.check(dotted, [value])
        raise error


def _parse_value(dotted: str, text: str) -> object:
    """A value as typed behind `=`."""
    try:
        document = rtoml.loads(f"value = {text}")
    except ValueError:
        return text
    value = document["value"] if set(document) == {"value"} else text
    return text if keys.is_text(dotted) and not isinstance(value, str) else value


def format_sets(overrides: Mapping[str, object]) -> list[str]:
    """The other way round: what `parse_sets` reads as these overrides."""
    return [f"{dotted}={toml.to_text({'v': value}).removeprefix('v = ').strip()}" for dotted, value in overrides.items()]


def apply(spec: Spec, overrides: Mapping[str, object], allowed_tables: Collection[str] | None = None) -> Spec:
    """The spec with the overrides in it. `allowed_tables` limits them, as `CHANGEABLE_TABLES` does on a resume.

    Raises `UsageError`, which names the key, the value and the range.
    """
    tables: dict[str, dict[str, object]] = {}
    for dotted, value in overrides.items():
        key = keys.find(dotted)
        if allowed_tables is not None and key.table not in allowed_tables:
            raise UsageError(_fixed(spec.name, key, allowed_tables))
        tables.setdefault(key.table, {})[key.name] = keys.check(dotted, value)
    changes: dict[str, Any] = dict(tables.pop("", {}))
    for table, values in tables.items():
        changes[table] = msgspec.structs.replace(getattr(spec, table), **values)
    return msgspec.structs.replace(spec, **changes)


def still_fitting(spec: Spec, overrides: Mapping[str, object]) -> dict[str, object]:
    """Those overrides of an earlier attempt that may be set on a resume: they hold until a new `--set` of the same key."""
    found: dict[str, object] = {}
    for key, value in overrides.items():
        with contextlib.suppress(UsageError):
            apply(spec, {key: value}, CHANGEABLE_TABLES)
            found[key] = value
    return found


def _fixed(name: str, key: Key, allowed_tables: Collection[str]) -> str:
    tables = ", ".join(f"[{table}]" for table in allowed_tables)
    return (
        f"{key.label} is part of the recipe and stays as it is; only {tables} can change on a resume. "
        f"For another recipe make a new session: fluxtui new NEW --from {name} --set {key.dotted}=VALUE."
    )


def recipe_sha256(spec: Spec) -> str:
    """The hash of what decides what is trained: the recipe's tables, keys sorted, without what equals the schema's default."""
    recipe = {table: _without_defaults(getattr(spec, table)) for table in RECIPE_TABLES}
    return hashlib.sha256(msgspec.json.encode(recipe, order="deterministic")).hexdigest()


def _without_defaults(table: msgspec.Struct) -> dict[str, object]:
    values = {}
    for field in msgspec.structs.fields(table):
        default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
        value = getattr(table, field.name)
        if value != default:
            values[field.name] = value
    return values


def all_tables() -> tuple[str, ...]:
    """Every table of a spec: for `differences`."""
    return tuple(keys.tables())


def differences(a: Spec, b: Spec, tables: Collection[str] = RECIPE_TABLES) -> list[str]:
    """What `b` has otherwise than `a`, one phrase a key: "[train] steps is 40, was 20"."""
    found = []
    for key in keys.all_keys():
        if key.table in tables:
            before, after = (getattr(getattr(spec, key.table), key.name) for spec in (a, b))
            if before != after:
                found.append(f"{key.label} is {keys.show(after)}, was {keys.show(before)}")
    return found


def load_spec(path: Path) -> Spec:
    """A spec from a file.

    Raises `NotFoundError`, `DamagedError` (no TOML), or `UsageError` for the first key that does not fit.
    """
    return from_document(toml.read(path, dict[str, Any]), path)


def from_document(document: Mapping[str, Any], path: Path) -> Spec:
    """A parsed `session.toml` as a spec; the path is for the messages. Raises `UsageError`."""
    tables = set(keys.tables())
    heads = {field.name for field in msgspec.structs.fields(Spec)} - tables
    for name, value in document.items():
        if name in tables and isinstance(value, dict):
            _check_table(name, value, path)
        elif name in tables:
            raise UsageError(f"In {path}: {name} is {keys.show(value)}; it is a table, write [{name}] above its keys.")
        elif name not in heads:
            raise UsageError(f"In {path}: {keys.unknown(name)}")
    init_struct(Spec)
    try:
        return msgspec.convert(document, Spec)
    except (msgspec.ValidationError, OverflowError) as error:
        raise UsageError(f"In {path}: {_missing_or(error)}") from None


def _check_table(table: str, values: Mapping[str, Any], path: Path) -> None:
    for name, value in values.items():
        try:
            keys.check(f"{table}.{name}", value)
        except UsageError as error:
            raise UsageError(f"In {path}: {error}") from None


def _missing_or(error: Exception) -> str:
    """msgspec's sentence in the words of the file."""
    text = str(error)
    if "missing required field" in text:
        name = text.split("`")[1]
        place = text.partition("`$.")[2].rstrip("`")
        return f"[{place}] {name} is missing; give it a value." if place else f"{name} is missing; give it a value."
    return f"{text}."


def save_spec(path: Path, spec: Spec) -> None:
    """Writes the complete spec durably. Raises `StorageError`."""
    toml.write(path, spec)
