"""Before anything is fetched, encoded or loaded: does the session fit the GPU, and this machine's memory?"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fluxtui.engine.earlier import probed_by
from fluxtui.engine.memory.fitting import NoMemoryError, refuse_too_large
from fluxtui.engine.memory.model import Model, model_of
from fluxtui.engine.memory.phases import Memory
from fluxtui.engine.memory.plan_cache import keep_in
from fluxtui.gpu import host_gauges
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.models.folder import recognise
from fluxtui.persist.room import words
from fluxtui.persist.settings.spec import Spec

_RETURN_SECONDS = 30.0  # how long a GPU's memory may take to come back after its processes are gone


def look_ahead(
    spec: Spec, home: Home, own: SessionFolder, card: int | None, ranks: int, say: Callable[[str], None],
    free: Callable[[], int] | None = None,
) -> Model | None:  # fmt: skip
    """The model that was planned with; None on the CPU, where nothing is looked at. Raises `Refusal` with the smallest change.

    `own`: the session's folder. `card`: bytes of the smallest GPU that trains. `free`: bytes that this process can have of its
    own. Of a model on the hub FLUX.1's published shape is taken: see `look_again`.
    """
    if card is None:
        return None
    keep_in(home.cache)
    found = recognise(spec.model.source, home)
    model = model_of(found.path, is_schnell=found.is_guidance_distilled is False)
    memory = _look(spec, model, home, own, card, ranks, say)
    if free is not None and spec.hardware.check_memory:
        _wait_for_room(memory, card, free, say)
    return model


def look_again(
    spec: Spec, before: Model | None, folder: Path, home: Home, own: SessionFolder, card: int | None, ranks: int,
    say: Callable[[str], None],
) -> None:  # fmt: skip
    """The same once the model is on this disk, where it is not of the shape that was taken for it."""
    if card is None or before is None:
        return
    model = model_of(folder, is_schnell=False)
    if (model.blocks, model.clip, model.encoders) != (before.blocks, before.clip, before.encoders):
        _look(spec, model, home, own, card, ranks, say)


def _look(
    spec: Spec, model: Model, home: Home, own: SessionFolder, card: int, ranks: int, say: Callable[[str], None]
) -> Memory:
    gauges = host_gauges()
    free = max(0, gauges.memory_total - gauges.memory_used)
    memory = refuse_too_large(spec, model, card, free, ranks, partial(probed_by, home, spec, own))
    held = memory.held
    if held.unstreamed:
        say(f"the {held.preset} preset would stream blocks; none are, for {held.unstreamed}")
    if memory.host_encoding * ranks > free > 0:
        say(
            f"the text encoders take {words(memory.host_encoding * ranks)} of host memory while captions are encoded, and "
            f"{words(free)} is free"
        )
    return memory


def _wait_for_room(memory: Memory, card: int, free: Callable[[], int], say: Callable[[str], None]) -> None:
    """Other programs' memory is in no plan. A process that has just ended may still hold some: that is waited for."""
    end, is_said = time.monotonic() + _RETURN_SECONDS, False
    while (left := free()) < memory.peak:
        if time.monotonic() >= end:
            planned = f"{words(memory.peak)} of its {words(card)} are planned"
            raise NoMemoryError(
                f"other programs hold {words(card - left)} of this GPU, and {planned}",
                "end them (`nvidia-smi` lists them), then fluxtui resume {name}; or set a smaller hardware.preset; "
                "hardware.check_memory=false tries it all the same",
            )
        if not is_said:
            say(f"{words(card - left)} of this GPU is held by other programs: waiting {_RETURN_SECONDS:.0f} s at the most")
            is_said = True
        time.sleep(0.5)
