"""Changing the spec of a session that never trained. Once a trainer may have begun it stays as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from fluxtui.control.create import check_inputs
from fluxtui.persist.datasets import parts as dataset_parts
from fluxtui.persist.errors import FluxTUIError, RefusedError, UsageError
from fluxtui.persist.files import toml
from fluxtui.persist.files.durable import write_file
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.models import folder as model_folder
from fluxtui.persist.sessions import overview
from fluxtui.persist.sessions.begun import has_begun
from fluxtui.persist.sessions.overview import Overview
from fluxtui.persist.settings import defaults, recipe
from fluxtui.persist.settings.spec import Spec

DRAFT = "session.edited.toml"  # what somebody wrote in an editor; beside session.toml until it fits and is taken over
_IDENTITY = ("name", "id")


def edit(home: Home, name: str, sets: Mapping[str, object], preset: str = "") -> list[str]:
    """Set keys in the spec of a session that was not started; what changed, one phrase a key.

    `sets` as `recipe.parse_sets` gives them. Raises `UsageError`, `NotFoundError`, `RefusedError` or `StorageError`.
    """
    with _spec_to_change(home, name) as folder:
        before = recipe.load_spec(folder.spec_file)
        wanted: dict[str, object] = {**defaults.over(before, preset, sets), **sets}
        wanted |= dataset_parts.written_sets(wanted)
        if "train.epochs" in sets and "train.steps" not in sets:
            wanted["train.steps"] = 0  # who asks for epochs gets them: steps would win
        kind = before.kind
        if "model.source" in wanted:
            seen = model_folder.settle(str(wanted["model.source"]), home)
            wanted["model.source"], kind = seen.written, seen.kind
        return _save(home, folder, before, msgspec.structs.replace(recipe.apply(before, wanted), kind=kind))


def draft(home: Home, name: str) -> Path:
    """A copy of the spec for an editor; the one that somebody left before, where it did not fit. Raises `RefusedError`."""
    with _spec_to_change(home, name) as folder:
        path = folder.path / DRAFT
        if not path.is_file():
            write_file(path, toml.read_bytes(folder.spec_file))
        return path


def take_draft(home: Home, name: str) -> list[str]:
    """Take the edited copy over; what changed. Where it does not fit it is kept, and the error says so."""
    with _spec_to_change(home, name) as folder:
        path = folder.path / DRAFT
        before = recipe.load_spec(folder.spec_file)
        try:
            after = recipe.from_document(toml.parse(toml.read_bytes(path), path), path)
            _must_be_the_same(before, after)
            changes = _save(home, folder, before, after)
        except FluxTUIError as error:
            kept = f"what was written is kept in {path}: edit again, or remove it to start over"
            raise type(error)(f"{error} Nothing was changed; {kept}.") from None
        path.unlink(missing_ok=True)
        return changes


def _must_be_the_same(before: Spec, after: Spec) -> None:
    for key in _IDENTITY:
        if getattr(before, key) != getattr(after, key):
            wrong, right = getattr(after, key)[:80], getattr(before, key)
            raise UsageError(f"{key} is {wrong!a} and must stay {right!a}: it names the session.")


def _save(home: Home, folder: SessionFolder, before: Spec, after: Spec) -> list[str]:
    check_inputs(home, after)
    changes = recipe.differences(before, after, recipe.all_tables())
    changes += [f"title is {after.title!a}"] if before.title != after.title else []
    if changes or before != after:
        recipe.save_spec(folder.spec_file, after)
    return changes


@contextmanager
def _spec_to_change(home: Home, name: str) -> Iterator[SessionFolder]:
    """The session's folder, its lock held so that no keeper begins meanwhile. Raises `RefusedError` once it was started."""
    folder = home.session(name)
    _must_be_new(folder, overview.look(home, name))
    lock = Lock.take(folder.lock_file)
    if lock is None:
        raise RefusedError(f"{name} is being started or edited; look with fluxtui show {name}.")
    try:
        _must_be_new(folder, overview.look(home, name))
        yield folder
    finally:
        lock.release()


def _must_be_new(folder: SessionFolder, seen: Overview) -> None:
    if not has_begun(folder):
        return
    name, anew = folder.name, f"fluxtui new OTHER --from {folder.name} --set KEY=VALUE makes another with others"
    if not seen.is_resumable:
        after = "" if seen.status == "completed" else f"; once it has stopped, fluxtui resume {name} --set changes some"
        raise RefusedError(f"{name} was started, so its settings stay; {anew}{after}.")
    raise RefusedError(
        f"{name} was started, so its settings stay; {anew}, and fluxtui resume {name} --set KEY=VALUE changes those of guard, "
        "sample, checkpoint and hardware."
    )
