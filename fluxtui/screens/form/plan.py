"""Memory and time beside the form: the engine's own plan of the answers, made in a process of its own once nobody types."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.files.text import clean
from fluxtui.persist.home import Home
from fluxtui.persist.settings import recipe
from fluxtui.persist.settings.spec import Spec
from fluxtui.screens.drawing import words

if TYPE_CHECKING:
    import subprocess

PATIENCE = 0.8  # seconds without another answer before a plan is begun: it takes some seconds of a core
KEPT = 40  # plans
Fact = tuple[str, str, str]  # label, value, role


class Planner:
    """One plan at a time; an answer that changes meanwhile ends it. `tell` is called from a thread when a plan is there."""

    def __init__(self, home: Home, tell: Callable[[], object]) -> None:
        self._home, self._tell = home, tell
        self._plans: dict[bytes, dict[str, Any]] = {}
        self._wanted = b""
        self._changed = threading.Event()  # of the thread that waits or runs: its answers are not those wanted any more
        self._child: subprocess.Popen[bytes] | None = None

    def want(self, spec: Spec | None) -> None:
        """Plan this from now on; None: nothing. Returns at once."""
        key = _key(spec) if spec is not None else b""
        if key == self._wanted:
            return
        self.stop()
        self._wanted = key
        if spec is not None and key not in self._plans:
            self._changed = threading.Event()
            threading.Thread(target=self._plan, args=(spec, key, self._changed), daemon=True, name="plan").start()

    def stop(self) -> None:
        """End what is going on."""
        self._wanted = b""
        self._changed.set()
        child = self._child
        if child is not None:
            child.terminate()

    def facts(self, steps: int) -> list[Fact]:
        """What there is to say of the answers now; `steps` where the plan does not know them before the data set is read."""
        if not self._wanted:
            return []
        plan = self._plans.get(self._wanted)
        return [("memory", "reckoning", "dim")] if plan is None else _said(plan, steps)

    def _plan(self, spec: Spec, key: bytes, changed: threading.Event) -> None:
        """Runs in a thread."""
        from fluxtui.control import engine

        if changed.wait(PATIENCE):
            return

        def began(child: subprocess.Popen[bytes]) -> None:
            self._child = child
            if changed.is_set():
                child.terminate()

        try:
            with tempfile.TemporaryDirectory(prefix="fluxtui-plan-") as folder:
                file = Path(folder) / "session.toml"
                recipe.save_spec(file, spec)
                arguments = ["--home", str(self._home.root), "--spec", str(file), "--json"]
                code, found, said = engine.last_object("plan", arguments, began)
        except (FluxTUIError, OSError) as error:
            code, found, said = 1, None, str(error)
        if changed.is_set():
            return
        if found is None:
            found = {"trouble": clean(said, 300) or f"the plan ended with code {code}"}
        if len(self._plans) >= KEPT:
            self._plans.pop(next(iter(self._plans)))
        self._plans[key] = found
        self._tell()


def _key(spec: Spec) -> bytes:
    """What the plan depends on: the spec without what names it."""
    return msgspec.json.encode(msgspec.structs.replace(spec, name="", title="", id=""), order="deterministic")


def _said(plan: dict[str, Any], steps: int) -> list[Fact]:
    if "trouble" in plan:
        return [("memory", str(plan["trouble"]), "warn")]
    peak = max(int(plan.get(name) or 0) for name in ("training_peak", "encoding_peak", "sampling_peak"))
    card, fits = clean(str(plan.get("card") or ""), 80), plan.get("fits")
    value = f"{words.size(peak)} at the peak"
    if card:
        value += f", and {words.size(int(plan.get('cuda_context') or 0))} of CUDA's own; "
        value += f"fits {card}" if fits else f"DOES NOT FIT {card} with its {words.size(int(plan.get('card_memory') or 0))}"
        change = clean(str(plan.get("change") or ""), 120)
        value += f": set {change}" if change else ""
    return [("memory", value, "warn" if card and not fits else "text"), _time(plan, steps)]


def _time(plan: dict[str, Any], steps: int) -> Fact:
    """By the session's own steps, by other sessions like it, or by what the card sustains."""
    steps = int(plan.get("steps") or steps)
    ways = (
        ("step_seconds", "measured"),
        ("like_step_seconds", "as a session like it took"),
        ("estimated_step_seconds", "estimated"),
    )
    for name, known in ways:
        speed = plan.get(name)
        if speed and steps:
            return "time", f"{words.duration(steps * speed)}, {words.step_time(speed)} s a step {known}", "text"
    return "time", "known once it has run some steps", "dim"
