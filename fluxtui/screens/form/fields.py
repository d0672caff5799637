"""What a form asks for, and what its answers make: fields from the schema, a spec from the answers, a sentence for each misfit.

Pure but for `evaluate`, which looks at folders and is for a thread.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from fluxtui.control import room
from fluxtui.control.create import check_inputs, dataset_with
from fluxtui.persist.datasets import folder as dataset_folder
from fluxtui.persist.datasets import parts as dataset_parts
from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.files.text import clean
from fluxtui.persist.home import Home, name_like, next_name, safe_name
from fluxtui.persist.models import folder as model_folder
from fluxtui.persist.settings import compatibility, defaults, keys, recipe
from fluxtui.persist.settings.spec import DatasetSpec, Spec
from fluxtui.screens.drawing import words
from fluxtui.screens.form.candidates import FLUX_DEV, Candidate, candidates

FIRST = (  # asked first, in this order; all else of the schema comes after, by table
    "name", "title", "model.source", "dataset.path", "dataset.trigger", "preset", "train.steps", "train.learning_rate",
    "train.batch_size", "lora.rank", "dataset.resolution", "sample.prompts", "train.seed",
)  # fmt: skip
WHAT = FIRST[:5]
LABELS = {
    "model.source": "model",
    "dataset.path": "data set",
    "dataset.trigger": "trigger",
    "sample.prompts": "sample prompts",
}
UNANSWERED = "?"  # stands for the folder of pictures as long as none is given
HIDDEN = frozenset({"model.start_from"})  # given by "begin with"


@dataclass(frozen=True, slots=True)
class Field:
    """One question."""

    name: str  # "train.steps", or one of the form's own: name, preset, from, weights
    label: str
    group: str
    help: str
    expected: str = ""
    choices: tuple[str, ...] = ()
    kind: str = "str"  # "int", "float", "bool", "str", "choice", "list", "path", "model"


def fields(is_clone: bool, with_all: bool, edits: bool = False) -> list[Field]:
    """The questions of the form, in order; one that `edits` asks for no name: the session has one."""
    by_name = {key.dotted: _of_key(key) for key in keys.all_keys() if key.dotted not in HIDDEN}
    own = {
        "name": Field("name", "name", "what", "Name of the session and of the file it makes.", "a-z, 0-9, '.', '_' and '-'"),
        "preset": Field(
            "preset", "recipe", "how", "A named recipe to begin with.", choices=("", *defaults.RECIPES), kind="choice"
        ),
    }
    asked = [own.get(name) or by_name[name] for name in FIRST if not (edits and name == "name")]
    if is_clone:
        weights = "Begin with the other session's newest checkpoint too: its weights, optimizer and counters."
        asked.insert(1, Field("weights", "go on from it", "what", weights, "no or newest", ("no", "newest"), "choice"))
    rest = [entry for name, entry in by_name.items() if name not in FIRST] if with_all else []
    return asked + rest


def _of_key(key: keys.Key) -> Field:
    kind = {"dataset.path": "path", "model.source": "model"}.get(key.dotted, key.kind)
    group = "what" if key.dotted in WHAT else "how" if key.dotted in FIRST else f"[{key.table}]"
    choices = ("true", "false") if key.kind == "bool" else key.choices
    label = LABELS.get(key.dotted, key.name.replace("_", " "))
    return Field(key.dotted, label, group, key.description, key.expected, choices, kind)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the answers come to."""

    answers: Mapping[str, str]  # those that were looked at
    errors: Mapping[str, str] = field(default_factory=dict)  # field -> sentence
    values: Mapping[str, str] = field(default_factory=dict)  # field -> what holds where nothing was answered
    spec: Spec | None = None
    facts: Sequence[tuple[str, str]] = ()  # what the session will be, label by label
    candidates: Sequence[Candidate] = ()  # ways to go on typing the field in focus
    focus: str = ""  # the field they are of
    steps: int = 0  # optimizer steps, about; 0: not known

    @property
    def problem(self) -> str:
        """The first thing to fix; empty where the session can be made."""
        return next(iter(self.errors.values()), "")


def evaluate(
    home: Home, answers: Mapping[str, str], origin: str = "", focus: str = "", has_gpu: bool = False, edits: bool = False
) -> Evaluation:
    """Look at the answers: folders are read, nothing is written. `origin` names the session that is cloned, or changed itself."""
    errors: dict[str, str] = {}
    sets = _sets(answers, errors)
    given = {name: value.strip() for name, value in answers.items() if value.strip()}
    base = _base_of(home, origin, errors)
    source = given.get("model.source") or (base.model.source if base else "") or (FLUX_DEV if has_gpu else "pico")
    path = given.get("dataset.path") or (base.dataset.path if base else "") or ("demo" if source == "pico" else "")
    name = origin if edits else given.get("name") or _free_name(home, origin or Path(path).name or "my-lora")
    if not edits:
        _check_name(home, name, errors)
    sets |= dataset_parts.written_sets(sets)
    kind, images, captions = _look(home, source, base.dataset if base else None, path, sets, errors)
    spec = None
    try:
        preset = given.get("preset", "")
        written = dataset_folder.written(path) if path else UNANSWERED
        if base is not None:
            fixed = {"dataset.path": written, "model.source": source}
            changed = recipe.apply(base, {**fixed, **defaults.over(base, preset, sets), **sets})
            spec = msgspec.structs.replace(changed, kind=kind)
        else:
            wanted = defaults.with_recipe(preset, images, sets)
            spec = defaults.new_spec(name, source, written, kind, images, "", wanted)
        if not errors:
            check_inputs(home, spec)
    except FluxTUIError as error:
        errors.setdefault(_blamed(str(error)), _plain(str(error)))
    values = {"name": name, "model.source": source, "dataset.path": path, "preset": "none", "weights": "no"} | _values(spec)
    facts = _facts(home, spec, source, images, captions) if spec else []
    return Evaluation(
        answers=dict(answers),
        errors=errors,
        values=values,
        spec=spec if not errors else None,
        facts=facts,
        candidates=candidates(home, focus, answers.get(focus, "").strip()),
        focus=focus,
        steps=_steps(spec, images) if spec else 0,
    )


def _sets(answers: Mapping[str, str], errors: dict[str, str]) -> dict[str, object]:
    """The answers that are keys of the schema, as typed values."""
    sets: dict[str, object] = {}
    for name, value in answers.items():
        if not value.strip() or name in {"name", "preset", "weights", "model.source", "dataset.path"}:
            continue
        try:
            sets |= recipe.parse_sets([f"{name}={value.strip()}"])
        except FluxTUIError as error:
            errors[name] = _plain(str(error))
    return sets


def _base_of(home: Home, origin: str, errors: dict[str, str]) -> Spec | None:
    if not origin:
        return None
    try:
        return recipe.load_spec(home.session(origin).spec_file)
    except FluxTUIError as error:
        errors["name"] = _plain(str(error))
        return None


def _check_name(home: Home, name: str, errors: dict[str, str]) -> None:
    try:
        if home.session(safe_name(name)).path.exists():
            errors["name"] = f"There is a session {name} already; choose another name."
    except FluxTUIError as error:
        errors["name"] = _plain(str(error))


def _look(
    home: Home, source: str, base: DatasetSpec | None, path: str, sets: Mapping[str, object], errors: dict[str, str]
) -> tuple[defaults.Kind, int, int]:
    """Kind of the model; images and captions of the data set."""
    kind: defaults.Kind = "flux1"
    images = captions = 0
    try:
        kind = model_folder.recognise(source, home).kind
    except FluxTUIError as error:
        errors["model.source"] = _plain(str(error))
    if not path:
        errors["dataset.path"] = "Give the folder of your pictures, each with a caption of the same name in a .txt; or demo."
        return kind, 0, 0
    try:
        held = dataset_parts.pairs(dataset_with(msgspec.structs.replace(base or DatasetSpec(path=path), path=path), sets))
        images = sum(len(pairs.items) for pairs in held)
        captions = images - sum(len(pairs.without_caption) for pairs in held)
    except FluxTUIError as error:
        errors["dataset.path"] = _plain(str(error))
    return kind, images, captions


def _values(spec: Spec | None) -> dict[str, str]:
    """What each key of the schema holds, as a form shows it."""
    if spec is None:
        return {}
    found = {}
    for key in keys.all_keys():
        value = getattr(getattr(spec, key.table), key.name) if key.table else getattr(spec, key.name)
        found[key.dotted] = value if isinstance(value, str) else keys.show(value)
    return found


def _each_epoch(spec: Spec, images: int) -> int:
    """Pictures of an epoch, at the most: one is used once at each listed resolution that it is large enough for."""
    if spec.dataset.folders:
        try:
            parts = dataset_parts.parts_of(spec.dataset)
            images = sum(part.repeats * len(dataset_parts.pairs_of(part).items) for part in parts)
        except FluxTUIError:
            return 0  # said at its field already
        return images * len(spec.dataset.resolution)
    return max(0, images - spec.validate.images) * spec.dataset.repeats * len(spec.dataset.resolution)


def _steps(spec: Spec, images: int) -> int:
    """Optimizer steps, about: the buckets' last batches are not full."""
    batch = spec.train.batch_size * spec.train.gradient_accumulation
    return spec.train.steps or -(-_each_epoch(spec, images) // batch) * spec.train.epochs


def _facts(home: Home, spec: Spec, source: str, images: int, captions: int) -> list[tuple[str, str]]:
    train = spec.train
    found = [("pictures", f"{words.count(images, 'picture')}, {words.count(captions, 'caption')}")]
    each = _each_epoch(spec, images)
    batch = train.batch_size * train.gradient_accumulation
    if train.steps and each:
        epochs = -(-train.steps // -(-each // batch))  # the last batch of an epoch is a smaller one
        found.append(("training", f"{train.steps} steps of {batch}, about {words.count(epochs, 'epoch')}"))
    elif each:
        found.append(("training", f"{train.epochs} epochs, about {_steps(spec, images)} steps of {batch}"))
    if told := compatibility.only_read_by(spec):
        found.append(("read by", told))
    prompts = len(spec.sample.prompts)
    found.append(("samples", f"{words.count(prompts, 'prompt')}" if prompts else "none: no prompt is given"))
    try:
        seen = model_folder.recognise(source, home)
        weight = f", {words.size(seen.weight_bytes)}" if seen.weight_bytes else ""
        weight = ", fetched from the hub at the first start" if seen.hub_id else weight
        found.append(("model", f"{'pico' if seen.kind == 'pico' else 'FLUX.1'}{weight}"))
        found.append(("disk", f"{words.size(room.estimate(spec, seen).total)} at most"))
    except FluxTUIError:
        pass  # said at its field already
    return found


def _free_name(home: Home, stem: str) -> str:
    try:
        taken = set(home.session_names())
    except FluxTUIError:
        taken = set()
    return next_name(name_like(stem), taken)


def _blamed(sentence: str) -> str:
    """The field that a sentence of the checks is about."""
    found = re.match(r"\[(\w+)\] (\w+)", sentence)
    if found:
        return f"{found[1]}.{found[2]}"
    return "dataset.path" if "caption" in sentence or "image" in sentence else "name"


def _plain(sentence: str) -> str:
    """A sentence of the command line as a form says it."""
    return clean(re.sub(r"^\[\w+\] ", "", sentence), 400)
