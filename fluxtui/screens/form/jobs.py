"""Makes or changes a session from a filled-in form or from an editor. For threads: each returns what to say."""

from __future__ import annotations

from fluxtui import control
from fluxtui.persist.home import Home
from fluxtui.persist.settings import recipe
from fluxtui.screens import jobs
from fluxtui.screens.form.fields import Evaluation

_OWN = frozenset({"name", "preset", "weights", "model.source", "dataset.path"})  # answers that are no keys to set


def made(home: Home, origin: str, seen: Evaluation, starts: bool) -> str:
    """Make the session that the answers describe, and perhaps start it."""
    given, sets = _answers_of(seen)
    name = seen.values["name"]
    control.create(
        home,
        name,
        dataset=given.get("dataset.path", "") if origin else seen.values["dataset.path"],
        model=given.get("model.source", "") if origin else seen.values["model.source"],
        preset=given.get("preset", ""),
        sets=sets,
        from_session=origin,
        from_checkpoint="newest" if given.get("weights") == "newest" else "",
    )
    return jobs.started(home, name) if starts else f"{name} is made; s starts it"


def edited(home: Home, name: str, seen: Evaluation, starts: bool) -> str:
    """Change the session by the answers, and perhaps start it."""
    given, sets = _answers_of(seen)
    sets |= {key: given[key] for key in ("model.source", "dataset.path") if key in given}
    changes = control.edit(home, name, sets, given.get("preset", ""))
    return jobs.started(home, name) if starts else _said(name, changes)


def drafted(home: Home, name: str) -> str:
    """Take over what was written in an editor."""
    return _said(name, control.take_draft(home, name))


def _said(name: str, changes: list[str]) -> str:
    return f"{name}: {'; '.join(changes) or 'nothing changed'}"


def _answers_of(seen: Evaluation) -> tuple[dict[str, str], dict[str, object]]:
    """What was answered, and those of the answers that are keys of the schema, as typed values."""
    given = {name: value.strip() for name, value in seen.answers.items() if value.strip()}
    return given, recipe.parse_sets(f"{name}={value}" for name, value in given.items() if name not in _OWN)
