"""`python -m fluxtui.engine VERB …`: imports only what the verb needs, and answers one sentence where it cannot."""

from __future__ import annotations

import importlib
import importlib.util
import sys

from fluxtui.persist import inherited, output
from fluxtui.persist.errors import StorageError
from fluxtui.persist.files import temporary

VERBS = {
    "keep": "fluxtui.engine.keeper.keep",
    "join": "fluxtui.engine.keeper.machines.follow",
    "train": "fluxtui.engine.trainer.train",
    "check": "fluxtui.engine.check",
    "plan": "fluxtui.engine.plan",
    "prove": "fluxtui.engine.prove",
    "export": "fluxtui.engine.export",
    "publish": "fluxtui.engine.publish",
    "submit": "fluxtui.engine.slurm",
    "machine": "fluxtui.engine.machine",
}
FOR_PEOPLE = frozenset({"check", "plan", "export", "publish"})  # what they print is data; the others' stdout is a log or a pipe
USAGE = 2


def main(argv: list[str]) -> int:
    """Run one verb; its own `main(argv) -> int` gives the exit code."""
    inherited.put_right()
    if not argv or argv[0] not in VERBS:
        said = f"there is no engine verb {argv[0]!r}" if argv else "an engine verb is needed"
        print(f"{said}: one of {', '.join(VERBS)}", file=sys.stderr)
        return USAGE
    module = VERBS[argv[0]]
    if importlib.util.find_spec(module) is None:
        print(f"`{argv[0]}` is not in this version of FluxTUI yet", file=sys.stderr)
        return USAGE
    try:
        temporary.find_folder()
    except StorageError as error:
        print(error, file=sys.stderr)
        return int(error.exit_code)
    if argv[0] in FOR_PEOPLE:
        return _speak(module, argv[1:])
    output.make_whole()
    output.take_any_letter()
    code: int = importlib.import_module(module).main(argv[1:])
    return code


def _speak(module: str, argv: list[str]) -> int:
    """A verb whose standard output is the answer: without it, or with a part of it, nothing was answered."""
    output.ready()
    output.take_any_letter()
    try:
        code: int = importlib.import_module(module).main(argv)
        output.finish()
    except BrokenPipeError:
        output.drop()
        return output.PIPE_CLOSED
    except StorageError as error:
        print(error, file=sys.stderr)
        return int(error.exit_code)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
