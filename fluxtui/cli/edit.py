"""edit: change a session that was not started yet."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from argparse import ArgumentParser, Namespace

from fluxtui import control
from fluxtui.cli.out import say
from fluxtui.persist import recipe
from fluxtui.persist.errors import ExitCode, FluxTUIError, UsageError
from fluxtui.persist.home import Home


def edit_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "--set", action="append", default=[], dest="sets", metavar="K=V", help="any of fluxtui keys; without it $EDITOR"
    )


def edit_verb(arguments: Namespace) -> int:
    home, name = Home.open(), arguments.name
    if arguments.sets:
        changes = control.edit(home, name, recipe.parse_sets(arguments.sets))
    elif not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(f"edit opens $EDITOR, which needs a terminal; without one, fluxtui edit {name} --set KEY=VALUE.")
    else:
        path = control.draft(home, name)
        _open_editor([*shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"), str(path)])
        changes = control.take_draft(home, name)
    say("; ".join(changes) if changes else f"{name} is as it was.")
    return int(ExitCode.DONE)


def _open_editor(command: list[str]) -> None:
    try:
        code = subprocess.call(command)
    except OSError as error:
        raise FluxTUIError(f"{command[0]} cannot be started: {error.strerror}; set EDITOR.") from None
    if code:
        raise FluxTUIError(f"{command[0]} ended with code {code}; nothing was changed.")
