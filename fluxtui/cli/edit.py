"""edit: change a session that was not started yet."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from fluxtui import control
from fluxtui.cli.out import say
from fluxtui.control import editor
from fluxtui.persist.errors import ExitCode, UsageError
from fluxtui.persist.home import Home
from fluxtui.persist.settings import recipe


def edit_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the session")
    parser.add_argument(
        "--set", action="append", default=[], dest="sets", metavar="K=V", help="a key of `fluxtui keys`; else $EDITOR opens"
    )


def edit_verb(arguments: Namespace) -> int:
    home, name = Home.open(), arguments.name
    if arguments.sets:
        changes = control.edit(home, name, recipe.parse_sets(arguments.sets))
    elif not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(f"edit opens $EDITOR, which needs a terminal; without one, fluxtui edit {name} --set KEY=VALUE.")
    else:
        words = editor.command()
        editor.edit_file(words, control.draft(home, name))
        changes = control.take_draft(home, name)
    say("; ".join(changes) if changes else f"{name} is as it was.")
    return int(ExitCode.DONE)
