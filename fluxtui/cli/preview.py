"""check, plan, keys, cache, doctor: what can be known before, and of the machine."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

import msgspec

from fluxtui import control
from fluxtui.cli import out
from fluxtui.cli.relay import become_engine
from fluxtui.persist.errors import ExitCode, UsageError
from fluxtui.persist.files import toml
from fluxtui.persist.files.temporary import memory_file
from fluxtui.persist.files.text import clean
from fluxtui.persist.home import Home
from fluxtui.persist.sessions import overview
from fluxtui.persist.settings import keys, recipe
from fluxtui.persist.settings.spec import Spec


def check_arguments(parser: ArgumentParser) -> None:
    parser.prefix_chars = "\0"  # no word is an option here: all go to the engine's parser, --help and options that come first too
    parser.add_argument("words", nargs="*", metavar="DATASET …", help="fluxtui check --help says more")


def check_verb(arguments: Namespace) -> int:
    if not arguments.words:
        raise UsageError("Name the data set to examine: a folder of images and captions, or demo.")
    become_engine("check", arguments.words)


def plan_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "name", metavar="NAME | SPEC.toml | -", help="a session, or a spec file; - reads a spec as JSON from stdin"
    )
    parser.add_argument("--json", action="store_true", help="one object, as documented in docs/memory.md")


def plan_verb(arguments: Namespace) -> int:
    home = Home.open()
    name: str = arguments.name
    if name == "-" or name.endswith(".toml") or "/" in name:
        if name != "-":
            _give_on_stdin(_spec_in(home, Path(name)))
        words = ["--home", str(home.root), "--spec", "-"]
    else:
        overview.look(home, name)
        words = ["--home", str(home.root), "--session", name]
    become_engine("plan", words + (["--json"] if arguments.json else []))


def _spec_in(home: Home, path: Path) -> Spec:
    """A session's own spec as it stands; one that a user wrote with what `fluxtui start` would put where it says nothing."""
    is_whole = "id" in toml.parse(toml.read_bytes(path, follow_links=True), path)
    return recipe.load_spec(path) if is_whole else control.spec_of_file(home, path)


def _give_on_stdin(spec: Spec) -> None:
    """What this process becomes reads it there."""
    with memory_file() as file:
        file.write(msgspec.json.encode(spec))
        file.seek(0)
        os.dup2(file.fileno(), 0)


def keys_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("word", metavar="WORD", nargs="?", default="", help="only keys that contain this word")
    parser.add_argument("--json", action="store_true", help="a list of objects, one a key")


def keys_verb(arguments: Namespace) -> int:
    word = arguments.word.lower()
    found = [key for key in keys.all_keys() if word in f"{key.dotted} {key.description}".lower()]
    if arguments.json:
        out.data_json([_as_json(key) for key in found])
        return int(ExitCode.DONE)
    if not found:
        known = keys.unknown(arguments.word)
        if "did you mean" not in known and "." not in arguments.word:
            known = f"No key has the word {clean(arguments.word, 40)} in its name or meaning; fluxtui keys lists all."
        raise UsageError(known)
    table = None
    for key in found:
        if key.table != table:
            table = key.table
            out.data(f"\n[{table}]" if table else "at the top")
        default = "must be given" if isinstance(key.default, type(keys.REQUIRED)) else keys.show(key.default)
        out.data(f"  {key.name} = {default}")
        out.data(f"      {key.expected}{f': {key.description}' if key.description else ''}")
    return int(ExitCode.DONE)


def _as_json(key: keys.Key) -> dict[str, object]:
    return {
        "key": key.dotted,
        "type": key.kind,
        "expected": key.expected,
        "choices": key.choices,
        "default": None if isinstance(key.default, type(keys.REQUIRED)) else key.default,
        "description": key.description,
        "recipe": key.is_recipe,
    }


def cache_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--prune", action="store_true", help="remove what no running session uses")
    parser.add_argument("--keep", type=float, default=0.0, metavar="GIB", help="with --prune: keep the newest GIB gibibytes")
    parser.add_argument("--json", action="store_true", help="sizes in bytes, as one object")


def cache_verb(arguments: Namespace) -> int:
    from fluxtui.persist import cache_folder

    home = Home.open()
    removed = cache_folder.Usage(0, 0)
    if arguments.prune:
        if not 0 <= arguments.keep < 1e6:
            raise UsageError(f"--keep is {arguments.keep:g}; give GiB from 0 up.")
        removed = cache_folder.prune(home.cache, int(arguments.keep * 2**30))
    used = cache_folder.usage(home.cache)
    if arguments.json:
        out.data_json({"path": str(home.cache), "entries": used.entries, "bytes": used.bytes, "limit": cache_folder.LIMIT})
        return int(ExitCode.DONE)
    if arguments.prune:
        out.say(f"{removed.entries} entries removed, {out.size(removed.bytes)} freed.")
    out.data(f"{used.entries} entries, {out.size(used.bytes)} of at most {out.size(cache_folder.LIMIT)}, in {home.cache}")
    return int(ExitCode.DONE)


def doctor_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="a list of findings")


def doctor_verb(arguments: Namespace) -> int:
    from fluxtui.cli.doctor import examine

    findings = examine()
    if arguments.json:
        out.data_json(findings)
    else:
        for found in findings:
            mark = {"good": "ok  ", "note": "note", "bad": "BAD "}[found.level]
            out.data(f"{mark}  {found.subject}: {found.found}{f' -> {found.remedy}' if found.remedy else ''}")
    return int(ExitCode.FAILED if any(found.level == "bad" for found in findings) else ExitCode.DONE)
