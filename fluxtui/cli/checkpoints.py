"""checkpoints: list, verify, remove."""

from __future__ import annotations

import os
import stat
from argparse import ArgumentParser, Namespace
from pathlib import Path

from fluxtui.cli import out
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.errors import DamagedError, ExitCode, StorageError
from fluxtui.persist.home import Home
from fluxtui.persist.sessions import overview


def checkpoints_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the session")
    parser.add_argument("--rm", default="", dest="remove", metavar="C", help="remove this checkpoint")
    parser.add_argument("--verify", action="store_true", help="hash every file and compare")
    parser.add_argument("--json", action="store_true", help="a list of objects, one a checkpoint")


def checkpoints_verb(arguments: Namespace) -> int:
    home = Home.open()
    name = arguments.name
    overview.look(home, name)
    if arguments.remove:
        from fluxtui import control

        control.remove_checkpoint(home, name, arguments.remove)
        out.say(f"{arguments.remove} of {name} is removed.")
        return int(ExitCode.DONE)
    folder = home.session(name).checkpoints
    found = []
    for checkpoint in commit.committed(folder):
        problem = _damage(folder / checkpoint) if arguments.verify else _is_none(folder / checkpoint)
        found.append(
            {
                "name": checkpoint,
                "step": commit.step_of(checkpoint),
                "bytes": commit.bytes_of(folder / checkpoint),
                "path": str(folder / checkpoint),
                "damaged": problem,
            }
        )
    if arguments.json:
        out.data_json(found)
    elif found:
        rows = [(str(one["name"]), out.size(int(str(one["bytes"]))), str(one["damaged"] or "")) for one in found]
        out.table(("CHECKPOINT", "SIZE", ""), rows, right=(1,))
    else:
        out.say(f"{name} has no checkpoint yet.")
    return int(ExitCode.FAILED if any(one["damaged"] for one in found) else ExitCode.DONE)


def _is_none(path: Path) -> str | None:
    """What can be said without reading it: that something else than a folder lies there, or one that cannot be listed."""
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            return f"{path} is not a folder"
        os.listdir(path)
    except FileNotFoundError:
        return None  # retention, since it was listed
    except OSError as error:
        return str(StorageError.of(error, "list", path))
    return None


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint; None where every hash is right."""
    try:
        commit.verify_checkpoint(path)
    except (DamagedError, StorageError) as error:
        return str(error)
    return None
