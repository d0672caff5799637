"""A new session: everything that can be known from names and JSON is checked before anything is made."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from fluxtui.control import room
from fluxtui.control.remove import sweep_sessions
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.datasets import folder as dataset_folder
from fluxtui.persist.datasets import parts as dataset_parts
from fluxtui.persist.datasets.folder import DEMO
from fluxtui.persist.errors import NotFoundError, RefusedError, UsageError
from fluxtui.persist.files import toml
from fluxtui.persist.files.text import clean
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.home import next_name as first_free
from fluxtui.persist.models import folder as model_folder
from fluxtui.persist.models.folder import PICO
from fluxtui.persist.sessions import overview
from fluxtui.persist.settings import compatibility, defaults, keys, recipe
from fluxtui.persist.settings.spec import DatasetSpec, Spec

DEFAULT_MODEL = "black-forest-labs/FLUX.1-dev"


def create(
    home: Home,
    name: str,
    dataset: str = "",
    model: str = "",
    trigger: str = "",
    preset: str = "",
    sets: Mapping[str, object] | None = None,
    title: str = "",
    from_session: str = "",
    from_checkpoint: str = "",
) -> SessionFolder:
    """Make a session that can be started as it stands.

    `sets` as `recipe.parse_sets` gives them. With `from_session` the spec begins as that session's; `from_checkpoint`
    ("newest", or a checkpoint's name) has it begin with that session's weights, optimizer and counters too.
    Raises `UsageError`, `NotFoundError`, `RefusedError` or `StorageError`.
    """
    folder = _free_name(home, name)
    chosen = dict(sets or {})
    for key, value in (("title", title), ("dataset.trigger", trigger)):
        if value:
            chosen.setdefault(key, value)
    if from_session:
        spec = _cloned(home, name, dataset, model, preset, chosen, from_session, from_checkpoint)
    elif from_checkpoint:
        raise UsageError("--checkpoint says where to begin in another session; name that session with --from.")
    else:
        spec = _fresh(home, name, dataset, model, preset, chosen)
    return make(home, folder, spec)


def create_from_file(home: Home, path: Path) -> SessionFolder:
    """Make a session from a spec that a user wrote; what it leaves out comes from the defaults of the model's kind."""
    spec = spec_of_file(home, path)
    return make(home, _free_name(home, spec.name), spec)


def spec_of_file(home: Home, path: Path) -> Spec:
    """The spec that such a session would have; no session is made."""
    document = toml.parse(toml.read_bytes(path, follow_links=True), path)
    return _fresh(home, str(document.get("name") or path.stem), "", "", "", _flattened(document, path))


def next_name(home: Home, stem: str) -> str:
    """`stem`, or the first of `stem-2`, `stem-3` … that no session has."""
    return first_free(stem, set(home.session_names()))


def _free_name(home: Home, name: str) -> SessionFolder:
    folder = home.session(name)
    if folder.path.exists():
        raise RefusedError(f"A session {name} exists already; choose another name, or remove it with fluxtui rm {name}.")
    return folder


def _fresh(home: Home, name: str, dataset: str, model: str, preset: str, chosen: dict[str, object]) -> Spec:
    """A spec from the defaults of the model's kind, the preset, and what was set, each over the one before."""
    path = dataset or str(chosen.get("dataset.path", ""))
    source = model or str(chosen.get("model.source", "")) or (PICO if path == DEMO else DEFAULT_MODEL)
    if not path:
        raise UsageError("No data set is named; give its folder with --dataset, or demo for the bundled one.")
    chosen = {key: value for key, value in chosen.items() if key not in ("model.source", "dataset.path")}
    chosen |= dataset_parts.written_sets(chosen)
    seen = model_folder.settle(source, home)
    written = dataset_folder.written(path)
    images = sum(len(pairs.items) for pairs in dataset_parts.pairs(dataset_with(DatasetSpec(path=written), chosen)))
    wanted = defaults.with_recipe(preset, images, chosen)
    spec = defaults.new_spec(name, seen.written, written, seen.kind, images, "", wanted)
    check_inputs(home, spec)
    return spec


def _cloned(
    home: Home, name: str, dataset: str, model: str, preset: str, chosen: dict[str, object], origin: str, checkpoint: str
) -> Spec:
    """The other session's spec with a new name, what was set over it, and perhaps its checkpoint to begin with."""
    other = home.session(origin)
    if not other.path.is_dir():
        raise NotFoundError(f"There is no session {origin} to begin from; fluxtui ls shows those there are.")
    spec = recipe.load_spec(other.spec_file)
    chosen |= dataset_parts.written_sets(chosen)
    before, wanted = spec, defaults.over(spec, preset, chosen)
    if dataset:
        wanted["dataset.path"] = dataset_folder.written(dataset)
    if model or "model.source" in chosen:
        seen = model_folder.settle(str(chosen.pop("model.source", "")) or model, home)
        wanted["model.source"] = seen.written
        spec = msgspec.structs.replace(spec, kind=seen.kind)
    if "train.epochs" in chosen and "train.steps" not in chosen:
        wanted["train.steps"] = 0  # who asks for epochs gets them: steps would win
    wanted["model.start_from"] = f"{origin}/{_checkpoint_of(other, checkpoint)}" if checkpoint else ""
    spec = recipe.apply(msgspec.structs.replace(spec, name=name, id=uuid.uuid4().hex, title=""), {**wanted, **chosen})
    if spec.model.start_from:
        _must_train_on(home, before, spec)
    check_inputs(home, spec)
    return spec


def _must_train_on(home: Home, before: Spec, spec: Spec) -> None:
    """The counters go on as well: a session that ends where the other's checkpoint is would train nothing."""
    origin, _, checkpoint = spec.model.start_from.partition("/")
    step, end = commit.step_of(checkpoint), spec.train.steps
    if not end and _sizes(spec) == _sizes(before):
        end = overview.look(home, origin).steps  # as many as were planned for that one
    if end and step >= end:
        raise UsageError(
            f"{origin} is at step {step} there, and {spec.name} would end at step {end}, so nothing would be trained; "
            f"say how far it is to go, for example --set train.steps={step + end}."
        )


def _sizes(spec: Spec) -> tuple[object, ...]:
    """What the number of steps follows from, where it is not given."""
    train = spec.train
    return (train.epochs, train.batch_size, train.gradient_accumulation, spec.dataset, spec.validate.images)


def _checkpoint_of(folder: SessionFolder, wanted: str) -> str:
    """The name of a committed checkpoint of the session. Raises `NotFoundError`."""
    names = commit.committed(folder.checkpoints)
    if wanted == "newest" and names:
        return names[-1]
    if wanted not in names:
        there = f"it has {', '.join(names[-8:])}" if names else "it has none"
        raise NotFoundError(f"{folder.name} has no checkpoint {wanted[:40]!a}; {there}.")
    return wanted


def _flattened(document: Mapping[str, Any], path: Path) -> dict[str, object]:
    """A user's document as `{"train.steps": 20}`, checked. Raises `UsageError` naming the file."""
    sets: dict[str, object] = {}
    try:
        for name, value in document.items():
            if name in ("name", "id", "kind"):
                continue
            if isinstance(value, dict):
                sets |= {f"{name}.{key}": keys.check(f"{name}.{key}", item) for key, item in value.items()}
            else:
                sets[name] = keys.check(name, value)
    except UsageError as error:
        raise UsageError(f"In {path}: {error}") from None
    return sets


def check_inputs(home: Home, spec: Spec) -> None:
    """What a training begins with is there, as far as names and JSON tell. Raises one sentence that says what to fix."""
    _check_text(spec)
    compatibility.check(spec)
    source = model_folder.recognise(spec.model.source, home)
    images = sum(len(pairs.items) for pairs in dataset_parts.check_cheaply(spec.dataset))
    held_out = spec.validate.images
    if held_out >= images:
        raise UsageError(f"[validate] images is {held_out}, and the data set has {images}; leave at least one to train on.")
    start_folder(home, spec)
    room.check(home, spec, source, images)


def dataset_with(data: DatasetSpec, sets: Mapping[str, object]) -> DatasetSpec:
    """A [dataset] with those of the sets over it that are of it. Raises `UsageError`."""
    own = {key.removeprefix("dataset."): keys.check(key, value) for key, value in sets.items() if key.startswith("dataset.")}
    return msgspec.structs.replace(data, **own)


def _check_text(spec: Spec) -> None:
    """A spec is UTF-8; the name of a folder on Linux may be any bytes, which come here as lone surrogates."""
    try:
        msgspec.json.encode(spec)
    except UnicodeEncodeError as error:
        what = clean(error.object, 200)
        raise UsageError(f"{what} is not UTF-8, so a spec cannot name it; rename it, or give a link to it instead.") from None


def start_folder(home: Home, spec: Spec) -> Path | None:
    """The other session's checkpoint that the session begins with; None where it needs none, having one of its own by now.

    Raises `NotFoundError` where it is gone.
    """
    if not spec.model.start_from or commit.committed(home.session(spec.name).checkpoints):
        return None
    origin, _, step = spec.model.start_from.partition("/")
    other = home.session(origin)
    if step not in commit.committed(other.checkpoints):
        raise NotFoundError(f"{spec.name} begins with {spec.model.start_from}, which is gone; make it again with new --from.")
    return other.checkpoints / step


def make(home: Home, folder: SessionFolder, spec: Spec) -> SessionFolder:
    """The folder with its spec, or nothing at all."""
    sweep_sessions(home)
    folder.create(lambda making: recipe.save_spec(making.spec_file, spec))
    return folder
