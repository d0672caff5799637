"""What an action does in its thread, by `control` and the engine: each returns what to say.

Both are imported by the first action that needs them: the dashboard comes up sooner.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.files.tilde import expanded
from fluxtui.persist.home import Home
from fluxtui.persist.sessions import overview
from fluxtui.screens.drawing import words

if TYPE_CHECKING:
    from fluxtui.screens.dialogs.export_box import Export

SETTLES = 2.0  # seconds in which a keeper says what it waits for


def started(home: Home, name: str) -> str:
    from fluxtui import control

    control.start(home, name)
    return fate(home, name, "started; it goes on when this window closes")


def fate(home: Home, name: str, went: str) -> str:
    """What became of a session whose keeper has just begun: it went, or it waits for something."""
    from fluxtui import control

    if waiting := control.waits_for(home, name, SETTLES):
        return f"{name} waits for {waiting} and starts by itself, also when this window closes"
    return f"{name} {went}"


def resumed(home: Home, name: str, checkpoint: str, accept_changes: bool) -> str:
    from fluxtui import control

    attempt = control.start(home, name, resume=checkpoint, accept_changes=accept_changes)
    return fate(home, name, f"resumes, attempt {attempt}")


def asked(home: Home, name: str, verb: str) -> str:
    from fluxtui import control

    requests: dict[str, Callable[[], control.Answer]] = {
        "stop": lambda: control.stop(home, name),
        "stop-after-epoch": lambda: control.stop(home, name, after_epoch=True),
        "kill": lambda: control.kill(home, name),
        "checkpoint": lambda: control.checkpoint(home, name),
        "sample": lambda: control.sample(home, name),
    }
    return requests[verb]().sentence


def moved(home: Home, name: str, first: bool) -> str:
    """To the one end or the other of those that wait."""
    from fluxtui import control

    waiting = [seen.record for seen in overview.look_all(home) if seen.state == "queued" and seen.name != name and seen.record]
    if not waiting:
        return f"{name} is the only one that waits"
    places = [record.priority for record in waiting]
    answer = control.queue(home, name, min(places) - 1 if first else max(places) + 1)
    if answer.is_pending:
        return answer.sentence
    return f"{name} starts {'before' if first else 'after'} all others that wait"


def removed(home: Home, name: str) -> str:
    from fluxtui import control

    control.remove(home, name)
    return f"{name} is deleted"


def verified(home: Home, name: str) -> str:
    from fluxtui import control

    proof = control.verify(home, name)
    checks = words.count(len(proof.checks), "check")
    return f"{name} is proven: {checks}, {words.size(proof.size)}, tensors {proof.tensors_sha256[:12]}"


def demo(home: Home, made: Callable[[str], None]) -> str:
    from fluxtui import control

    name = control.next_name(home, "demo")
    control.create(home, name, dataset="demo", model="pico")
    made(name)
    control.start(home, name)
    return fate(home, name, "started: it trains, draws and is proven in about two minutes")


def checkpoint_removed(home: Home, name: str, checkpoint: str) -> str:
    from fluxtui import control

    control.remove_checkpoint(home, name, checkpoint)
    return f"{checkpoint} of {name} is deleted"


def exported(home: Home, name: str, wanted: Export) -> str:
    from fluxtui.control import engine

    words = ["--home", str(home.root), "--session", name, "--format", wanted.form, "--dtype", wanted.dtype]
    words += ["--output", str(expanded(wanted.path).absolute()), "--checkpoint", wanted.checkpoint]
    words += ["--ema"] if wanted.is_averaged else []
    code, _, said = engine.last_object("export", words)
    if code:
        raise FluxTUIError(said) if said else engine.failed("export", code, said)
    weights = "averaged weights" if wanted.is_averaged else "weights"
    return f"{wanted.checkpoint} of {name} is written to {wanted.path}: {weights} in {wanted.form}'s form, {wanted.dtype}"
