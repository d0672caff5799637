"""checkpoints: list, verify, remove."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from fluxtui.cli import out
from fluxtui.persist import commit, overview
from fluxtui.persist.errors import DamagedError, ExitCode
from fluxtui.persist.home import Home


def checkpoints_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--rm", default="", dest="remove", metavar="C", help="remove this one")
    parser.add_argument("--verify", action="store_true", help="hash every file")
    parser.add_argument("--json", action="store_true")


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
        files = [file for file in (folder / checkpoint).iterdir() if file.is_file()]
        problem = _damage(folder / checkpoint) if arguments.verify else None
        found.append(
            {
                "name": checkpoint,
                "step": commit.step_of(checkpoint),
                "bytes": sum(file.stat().st_size for file in files),
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


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint; None where every hash is right."""
    try:
        commit.verify_checkpoint(path)
    except DamagedError as error:
        return str(error)
    return None
