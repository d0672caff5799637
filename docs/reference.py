"""Writes what is said once in the code into the documents: verbs and keys of README.md, docs/settings.md,
docs/command-line.md, the map of docs/architecture.md, the plan of docs/memory.md.

    python docs/reference.py [--check]

`--check` writes nothing and fails where a document is behind the code.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from fluxtui import actions
from fluxtui.cli import verbs
from fluxtui.engine import check
from fluxtui.persist.errors import ExitCode
from fluxtui.persist.sessions import overview_json
from fluxtui.persist.settings import keys

DOCS = Path(__file__).parent
CODES = {
    ExitCode.DONE: "done",
    ExitCode.FAILED: "failed: the sentence says why",
    ExitCode.USAGE: "the words of the command are wrong",
    ExitCode.NOT_FOUND: "there is no such session, file or checkpoint",
    ExitCode.REFUSED: "refused: it is in the wrong state for that",
    ExitCode.TIMED_OUT: "timed out: `wait --timeout`, or a keeper that did not answer in time; the session goes on",
}
JSON_KEYS = {  # as `persist.sessions.overview_json.to_json` makes them; --check fails where one is missing here
    "schema": "number of this schema",
    "name": "the session's name and folder",
    "title": "its free text",
    "id": "unique, never used again",
    "kind": "whose defaults filled the spec: `pico`, `flux1`",
    "path": "its folder",
    "status": "as the keeper stored it: `queued`, `starting`, `running`, `stopping`, `completed`, `failed`, `stopped`; "
    "null before the first start",
    "state": "as it is shown: the status, or `new`, `lost`, `stalled`, `suspended`, `storage`, `silent`, `changed`, `elsewhere`, "
    "`unreadable`",
    "reason": "why it is so, in words",
    "remedy": "the one command or change that puts right what `reason` says; empty where nothing is wrong",
    "next": "the remedy, or where there is none the one command that follows: `wait` while it trains, `export` once it is proven",
    "phase": "`preflight`, `download`, `load`, `encode`, `cache`, `train`, `validate`, `sample`, `checkpoint`, `export`, `prove`",
    "inner": "how far it is inside the phase, in words",
    "attempt": "number of the newest attempt; 0 before the first",
    "step": "optimizer steps done, over all attempts",
    "standing": "the step that it stands at: `step`, or where it does not run the one that a resume goes on from",
    "steps": "optimizer steps planned; 0: not known yet",
    "epoch": "epoch it is in",
    "epochs": "epochs planned",
    "loss": "the newest, smoothed as the trainer reports it",
    "step_seconds": "seconds a step, median of the last ones",
    "eta_seconds": "seconds at this speed to the last step, or to the end of the epoch after which it stops",
    "stops_after_epoch": "the epoch after which it stops, because that was asked; null where it was not",
    "queued_at": "when it was queued",
    "started_at": "when its trainer was started",
    "finished_at": "when the attempt ended",
    "beat_at": "when its keeper last wrote",
    "exit_code": "of the trainer",
    "signal": "that ended the trainer",
    "gpus": "UUIDs of its GPUs, of node 0 where there are several machines",
    "nodes": "hosts of all machines that train it, node 0 first; empty for one machine",
    "host": "the machine it ran on",
    "priority": "in the queue; a smaller number goes first",
    "waiting_for": "what it is queued for",
    "amber": "what its guard is worried about",
    "gpu_hint": "a GPU that idles, said as a hint",
    "memory": "what a step of the largest pictures takes of a GPU: `planned`, `probed` (bytes), `step_seconds`, `card`; null "
    "where none was probed",
    "retry": "number of automatic retries so far",
    "resumed_from": "checkpoint that the attempt began with",
    "inexact_since": "step since which a resume is not exact (`--accept-changes`)",
    "recipe_sha256": "hash of the recipe part of the spec",
    "checkpoint": "the newest committed one",
    "output": "path of the proven file, while it is there",
    "tensors_sha256": "of the proven file's tensors",
    "resumable": "whether `fluxtui resume` would go on with it",
}  # fmt: skip


def verb_table() -> Iterator[str]:
    """Every verb, by group."""
    for group, members in verbs.GROUPS:
        yield f"| **{group}** | |"
        for verb in members:
            usage = _cell(f"fluxtui {verb.name} {verb.usage}".strip())
            yield f"| `{usage}` | {verb.help} |"


def key_table() -> Iterator[str]:
    """Every key of the dashboard, then what each screen adds."""
    for group in dict.fromkeys(action.group for action in actions.TABLE):
        yield f"| **{group}** | |"
        for action in (each for each in actions.TABLE if each.group == group):
            names = " ".join(f"`{actions.shown_key(key)}`" for key in action.keys.split(","))
            yield f"| {names} | {_cell(action.help)} |"


def settings() -> Iterator[str]:
    """Every key of session.toml."""
    yield "# Settings: every key of session.toml"
    yield ""
    yield "`fluxtui new NAME … --set table.key=value` sets one; `fluxtui keys WORD` finds one. The defaults are the schema's; the"
    yield "kind of model refines them (docs/recipes.md). Keys marked R are the recipe: fixed once the session exists."
    for table in keys.tables():
        yield from ("", f"## [{table}]", "", "| key | takes | default | |", "| --- | --- | --- | --- |")
        for key in (each for each in keys.all_keys() if each.table == table):
            default = "" if key.default is keys.REQUIRED else f"`{_toml(key.default)}`"
            mark = " (R)" if key.is_recipe else ""
            yield f"| `{key.name}`{mark} | {_cell(key.expected)} | {default} | {_cell(key.description)} |"


def command_line() -> Iterator[str]:
    """Every verb with its arguments, the exit codes, and each key of the JSON objects."""
    yield from ("# The command line: every verb, every exit code, every key of the JSON", "")
    yield "Data on stdout, all else on stderr. An error is one sentence that says what to do."
    yield from ("", "| exit code | |", "| --- | --- |")
    for code, meaning in CODES.items():
        yield f"| {int(code)} | {meaning} |"
    for group, members in verbs.GROUPS:
        yield from ("", f"## {group}")
        for verb in members:
            usage = f"fluxtui {verb.name} {verb.usage}".strip()
            yield from ("", f"### `{usage}`", "", f"{verb.help[:1].upper()}{verb.help[1:]}.")
            yield from _arguments(verb)
    yield from ("", f"## The object of `ls --json` and `show --json` (schema {overview_json.SCHEMA})", "")
    yield "`ls` prints a list of these, `show` one. A key may be added at any time; none changes its meaning. Times are ISO 8601"
    yield "with their zone; what is not known is null."
    yield from ("", "| key | |", "| --- | --- |")
    for key, meaning in JSON_KEYS.items():
        yield f"| `{key}` | {meaning} |"


def _arguments(verb: verbs.Verb) -> Iterator[str]:
    """A table of what it takes. Not argparse's own text: that differs from Python to Python."""
    parser = check._parser() if verb.name == "check" else verb.parser()  # of which all words go to the engine
    taken = [each for each in parser._actions if each.dest != "help"]
    if taken:
        yield from ("", "| takes | |", "| --- | --- |")
    for each in taken:
        value = "" if each.nargs == 0 else str(each.metavar or each.dest.upper())
        names = ", ".join(f"`{f'{name} {value}'.strip()}`" for name in each.option_strings) or f"`{value}`"
        yield f"| {_cell(names)} | {_cell(each.help or '')} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    return str(value)


def with_section(text: str, name: str, lines: Iterator[str]) -> str:
    """The text with what stands between the two marks of that name replaced."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    if not tail:
        raise SystemExit(f"there is no section between {begin.strip()} and {end}")
    return head + begin + "\n".join(lines) + "\n" + end + tail


def modules() -> Iterator[str]:
    """Every module, by package, with the first sentence of its docstring."""
    package = DOCS.parent / "fluxtui"
    yield "```"
    for path in sorted(package.rglob("*.py"), key=lambda path: (path.parent.parts, path.name != "__init__.py", path.name)):
        said = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].replace("\n", " ")
        where = path.relative_to(DOCS.parent)
        if path.name == "__init__.py":
            yield f"{where.parent}/  {said}".rstrip()
        else:
            yield f"    {path.name:<22}{said}"
    yield "```"


def plan_keys() -> Iterator[str]:
    """Every field of a plan with the comment beside it; those without one are bytes of what they are called."""
    yield "| key | what |"
    yield "| --- | --- |"
    source = (DOCS.parent / "fluxtui" / "engine" / "plan_table.py").read_text()
    fields = source.partition("class Plan:")[2].partition("\n\n\n")[0]
    for name, said in re.findall(r"^    (\w+): [^#\n]+?(?:  # (.+))?$", fields, re.MULTILINE):
        yield f"| `{name}` | {said.replace('None', 'null') or 'bytes'} |"


def documents() -> dict[Path, str]:
    """What each document should be."""
    readme = DOCS.parent / "README.md"
    text = with_section(readme.read_text(), "verbs", verb_table())
    text = with_section(text, "keys", key_table())
    architecture = DOCS / "architecture.md"
    mapped = with_section(architecture.read_text(), "modules", modules())
    memory = DOCS / "memory.md"
    planned = with_section(memory.read_text(), "plan", plan_keys())
    whole = {"command-line.md": command_line(), "settings.md": settings()}
    written = {DOCS / name: "\n".join(lines) + "\n" for name, lines in whole.items()}
    return {readme: text, architecture: mapped, memory: planned} | written


def json_keys() -> set[str]:
    """The keys of the object, from the code that makes it."""
    tree = ast.parse(inspect.getsource(overview_json.to_json))
    made = next(node for node in ast.walk(tree) if isinstance(node, ast.Dict))
    return {key.value for key in made.keys if isinstance(key, ast.Constant)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    missing = set(JSON_KEYS) ^ json_keys()
    if missing:
        raise SystemExit(f"JSON_KEYS of this script and persist.sessions.overview_json.to_json differ in {sorted(missing)}")
    behind = [path for path, text in documents().items() if not path.exists() or path.read_text() != text]
    for path in behind:
        if check:
            print(f"{path.name} is behind the code; run python docs/reference.py", file=sys.stderr)
        else:
            path.write_text(documents()[path])
            print(f"wrote {path.name}", file=sys.stderr)
    return 1 if check and behind else 0


if __name__ == "__main__":
    raise SystemExit(main())
