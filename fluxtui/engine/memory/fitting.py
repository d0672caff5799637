"""The smallest change with which a session fits the card that is here, and the refusal of one that does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from fluxtui.engine.memory.model import Model
from fluxtui.engine.memory.phases import MARGIN, Memory, beside, fits, memory_of
from fluxtui.engine.memory.presets import against_streaming
from fluxtui.engine.trainer.refusal import Refusal
from fluxtui.engine.wire import TrainerExit
from fluxtui.persist.room import words
from fluxtui.persist.settings import recipe
from fluxtui.persist.settings.spec import Spec

_SMALLEST_SIDE = 512  # pixels: what pictures and samples are brought down to, and no further
_ALL_THE_SAME = "hardware.check_memory=false tries it all the same"


class NoMemoryError(Refusal):
    """The GPU has not enough memory for what the session plans."""

    exit = TrainerExit.GPU_MEMORY


@dataclass(frozen=True, slots=True)
class Change:
    """What to set so that a plan fits."""

    sets: dict[str, object]  # keys of the spec; none where it fits as it is
    memory: Memory  # with that

    def __str__(self) -> str:
        return ", ".join(recipe.format_sets(self.sets))


def fitting(spec: Spec, model: Model, card: int, beyond: int = 0) -> Change | None:
    """The first that fits of: more blocks streamed (slower, the same result), then what else costs the least, with as few
    blocks streamed as that takes. None where nothing helps. `card`: bytes. `beyond`: bytes that training took beyond its plan.
    """
    for sets in _options(spec, memory_of(spec, model, card).precision):
        changed = recipe.apply(spec, sets)
        memory = _planned(changed, model, card, beyond)
        if fits(memory, card):
            return Change(sets, memory)
        if against_streaming(changed) or memory.encoding_peak + beside(memory) + MARGIN > card:
            continue
        # on the way two slots come in, and larger ones with the first double block: so not by halves, but one by one
        for number in range(memory.held.stream_blocks + 1, model.blocks + 1):
            more = sets | {"hardware.stream_blocks": number}
            memory = _planned(recipe.apply(spec, more), model, card, beyond)
            if fits(memory, card):
                return Change(more, memory)
    return None


def _planned(spec: Spec, model: Model, card: int, beyond: int) -> Memory:
    memory = memory_of(spec, model, card)
    return replace(memory, training_peak=memory.training_peak + beyond)


def _options(spec: Spec, precision: str) -> Iterator[dict[str, object]]:
    """Settings to try, streaming aside: none, each alone, then more and more of them together."""
    yield {}
    each = list(_changes(spec, precision))
    yield from each
    together: dict[str, object] = {}
    for number, one in enumerate(each):
        together = together | one
        if number:
            yield together


def _changes(spec: Spec, precision: str) -> Iterator[dict[str, object]]:
    """From what changes no number, over what changes few, to what changes what is trained."""
    train, sample = spec.train, spec.sample
    if spec.hardware.compile:
        yield {"hardware.compile": False}
    if not train.gradient_checkpointing:
        yield {"train.gradient_checkpointing": True}
    for batch in range(train.batch_size - 1, 0, -1):
        if train.batch_size % batch == 0:
            accumulated = train.gradient_accumulation * train.batch_size // batch
            yield {"train.batch_size": batch, "train.gradient_accumulation": accumulated}
    if spec.lora.kind != "lora":
        yield {"lora.kind": "lora"}
    if precision in ("bf16", "fp32"):
        plain: dict[str, object] = {} if spec.lora.kind == "lora" else {"lora.kind": "lora"}
        yield {"model.precision": "int8", **plain}
    if sample.prompts and max(sample.width, sample.height) > _SMALLEST_SIDE:
        yield {"sample.width": min(sample.width, _SMALLEST_SIDE), "sample.height": min(sample.height, _SMALLEST_SIDE)}
    sides = sorted(spec.dataset.resolution)
    while len(sides) > 1 and sides[-1] > _SMALLEST_SIDE:
        sides = sides[:-1]
        yield {"dataset.resolution": sides}
    if sides[-1] > _SMALLEST_SIDE:
        yield {"dataset.resolution": [_SMALLEST_SIDE]}


def refuse_too_large(
    spec: Spec, model: Model, card: int, host_free: int, ranks: int, probed: Callable[[int], int | None] = lambda _: None
) -> Memory:
    """The plan, where it fits the card (bytes) and what is free of host memory (bytes; 0: not known) for all ranks.

    `probed`: what training took when such a plan (bytes) was probed, None where none was; it counts in the plan's place.
    Raises `Refusal` naming the smallest change that helps; where `hardware.check_memory` is off, never.
    """
    memory = memory_of(spec, model, card)
    if not spec.hardware.check_memory:
        return memory
    seen = replace(memory, training_peak=probed(memory.training_peak) or memory.training_peak)
    if not fits(seen, card):
        raise NoMemoryError(*too_large(spec, model, seen, card, seen.training_peak - memory.training_peak))
    if host_free and memory.host * ranks > host_free:
        raise Refusal(
            f"{memory.held.stream_blocks} streamed blocks take {words(memory.host * ranks)} of host memory, and "
            f"{words(host_free)} is free",
            "close other programs, set model.precision=nf4 or hardware.stream_blocks lower, or take a machine with more memory; "
            + _ALL_THE_SAME,
        )
    return memory


def too_large(spec: Spec, model: Model, memory: Memory, card: int, beyond: int) -> tuple[str, str]:
    """Why a plan does not fit, and what to change: one sentence each. `beyond` as in `fitting`."""
    peaks = {"encoding": memory.encoding_peak, "training": memory.training_peak, "drawing samples": memory.sampling_peak}
    phase = max(peaks, key=lambda name: peaks[name])
    needed = peaks[phase] + beside(memory) + MARGIN
    kept = f" ({memory.held.unstreamed} keeps blocks from being streamed)" if memory.held.unstreamed else ""
    why = f"{phase} would take {words(needed)} of GPU memory, 1 GB to spare in it, and the GPU has {words(card)}{kept}"
    change = fitting(spec, model, card, beyond)
    return why, (f"set {change}; {_ALL_THE_SAME}" if change else f"no setting makes it fit: use a larger GPU; {_ALL_THE_SAME}")
