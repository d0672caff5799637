"""Completions for a folder or a model: what lies on this machine, what the hub has, what was used before. For a thread."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from fluxtui.persist.datasets import folder as dataset_folder
from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.files.text import clean
from fluxtui.persist.files.tilde import expanded
from fluxtui.persist.home import Home
from fluxtui.persist.models import search as model_search
from fluxtui.persist.settings import recipe
from fluxtui.screens.drawing import words

FLUX_DEV = "black-forest-labs/FLUX.1-dev"
ON_THE_HUB = (FLUX_DEV, "black-forest-labs/FLUX.1-schnell", "black-forest-labs/FLUX.1-Krea-dev")
MOST = 60  # candidates of a question
LOOKED_INTO = 40  # folders whose pictures are counted
RECENT = 20  # sessions whose answers are offered again


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to go on."""

    text: str  # the whole answer
    note: str = ""  # what it is


def candidates(home: Home, question: str, typed: str) -> list[Candidate]:
    """Those that go with what was typed; none for a question that has no list."""
    if question == "dataset.path":
        return _data_sets(home, typed)[:MOST]
    if question == "model.source":
        return _models(home, typed)[:MOST]
    return []


def _data_sets(home: Home, typed: str) -> list[Candidate]:
    """The demo, data sets of other sessions, and folders; a path that ends in "/" lists what is in it."""
    found = [Candidate("demo", "the bundled pictures")] if "demo".startswith(typed) else []
    if not typed.startswith(("/", "~", ".")):
        used = [path for path in _recent(home, "dataset.path") if path != dataset_folder.DEMO and typed in path]
        found += [Candidate(words.place(path), "used before") for path in used]
    for at, path in enumerate(_below(typed or "./")):
        found.append(Candidate(path, _pictures(path) if at < LOOKED_INTO else ""))
    return _once(found)


def _models(home: Home, typed: str) -> list[Candidate]:
    """Pico, models of this machine, the hub's, and those of other sessions; what begins with the typed text comes first."""
    known = [Candidate("pico", "the bundled pocket FLUX, trains on a CPU"), *_on_this_machine(home)]
    known += [Candidate(name, "used before") for name in _recent(home, "model.source")]
    known += [Candidate(name, "on the hub") for name in ON_THE_HUB]
    wanted = typed.lower()
    fitting = [one for one in _once(known) if wanted in one.text.lower()]
    fitting.sort(key=lambda one: not one.text.lower().startswith(wanted))
    if typed.startswith(("/", "~", ".")):
        fitting += [Candidate(path) for path in _below(typed, model_search.SUFFIXES)]
    return _once(fitting)


def _on_this_machine(home: Home) -> list[Candidate]:
    """Pipelines in the home, single files in the folders of models, pipelines that the hub's caches hold."""
    found = [Candidate(name, "in models/") for name in _names(home.models) if name != "hub"]
    with contextlib.suppress(FluxTUIError):  # said where the model is looked at
        files = model_search.transformer_files(home)
        found += [Candidate(path.name, f"a file in {words.place(str(path.parent))}") for path in files]
    for cache in model_search.hub_caches(home):
        for snapshot in model_search.snapshots(cache):
            name = snapshot.parent.parent.name.removeprefix("models--").replace("--", "/")
            if (snapshot / "transformer").is_dir():
                found.append(Candidate(clean(name, 200), "of the hub, on this machine"))
    return found


def _recent(home: Home, dotted: str) -> list[str]:
    """What the newest sessions have there, newest first."""
    table, _, key = dotted.partition(".")
    found: list[str] = []
    try:
        files = [home.session(name).spec_file for name in home.session_names()]
    except FluxTUIError:
        return found
    for file in sorted(files, key=_written, reverse=True)[:RECENT]:
        try:
            found.append(str(getattr(getattr(recipe.load_spec(file), table), key)))
        except FluxTUIError:
            continue  # its own page says so
    return list(dict.fromkeys(found))


def _written(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _below(typed: str, suffixes: tuple[str, ...] = ()) -> list[str]:
    """Folders whose path begins so, as typed and with a "/" behind, and files that end in one of these."""
    path = expanded(typed)
    parent, stem = (path, "") if typed.endswith("/") else (path.parent, path.name)
    shown = typed[: len(typed) - len(stem)]
    found = [f"{shown}{name}/" for name in _names(parent) if name.startswith(stem)]
    return found + [f"{shown}{name}" for name in _names(parent, suffixes) if suffixes and name.startswith(stem)]


def _names(folder: Path, suffixes: tuple[str, ...] = ()) -> list[str]:
    """Names of folders; of files with these suffixes, where some are given. Those that a terminal cannot show are left out."""
    try:
        seen = [entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.name.isprintable()]
        return sorted(entry.name for entry in seen if (entry.suffix in suffixes if suffixes else entry.is_dir()))
    except OSError:
        return []


def _pictures(path: str) -> str:
    """What the folder holds, in words."""
    try:
        pairs = dataset_folder.pair(expanded(path))
    except FluxTUIError as error:
        return "cannot be read" if "read" in str(error) else ""
    if pairs.items:
        captions = len(pairs.items) - len(pairs.without_caption)
        return f"{words.count(len(pairs.items), 'picture')}, {words.count(captions, 'caption')}"
    return words.count(len(pairs.folders), "folder") if pairs.folders else "no pictures"


def _once(found: list[Candidate]) -> list[Candidate]:
    """Each answer once; the first note counts."""
    first: dict[str, Candidate] = {}
    for one in found:
        first.setdefault(one.text, one)
    return list(first.values())
