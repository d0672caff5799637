"""Writes what is said once in the code into the documents: verbs and keys of README.md, docs/settings.md, the map
of docs/architecture.md.

    python docs/reference.py [--check]

`--check` writes nothing and fails where a document is behind the code.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from fluxtui import actions
from fluxtui.cli import verbs
from fluxtui.persist import keys, recipe

DOCS = Path(__file__).parent


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
        for key in (each for each in recipe.describe_keys() if each.table == table):
            default = "" if key.default is keys.REQUIRED else f"`{_toml(key.default)}`"
            mark = " (R)" if key.is_recipe else ""
            yield f"| `{key.name}`{mark} | {_cell(key.expected)} | {default} | {_cell(key.description)} |"


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


def documents() -> dict[Path, str]:
    """What each document should be."""
    readme = DOCS.parent / "README.md"
    text = with_section(readme.read_text(), "verbs", verb_table())
    text = with_section(text, "keys", key_table())
    architecture = DOCS / "architecture.md"
    mapped = with_section(architecture.read_text(), "modules", modules())
    return {readme: text, architecture: mapped, DOCS / "settings.md": "\n".join(settings()) + "\n"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
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
