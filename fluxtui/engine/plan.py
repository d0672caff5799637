"""What a session will take: memory by phase, disk, steps and time, from the model's own shapes without loading it.

    python -m fluxtui.engine plan --home ROOT (--session NAME | --spec FILE.toml | --spec -) [--json]

`--spec -` reads a spec that is no session yet from standard input, as JSON. The fields of `Plan` are the JSON's: docs/memory.md.
Weights are counted, activations are measured: a forward and backward pass on the meta device (`memory/activations.py`). What no
count can know (the allocator's slack, CUDA's own gigabyte) is named, not hidden in a factor.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fluxtui.engine import quiet
from fluxtui.engine.plan_table import Plan, table
from fluxtui.persist import output
from fluxtui.persist.errors import ExitCode, FluxTUIError, NotFoundError, UsageError
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.settings import recipe
from fluxtui.persist.settings.compatibility import only_read_by
from fluxtui.persist.settings.spec import Spec

if TYPE_CHECKING:
    from fluxtui.engine.memory.model import Model
    from fluxtui.engine.memory.phases import Memory

_UNKNOWN_CARD = 48 * 10**9  # bytes that are taken where a session is for a GPU and this machine has none
_SPEC_LIMIT = 1 << 20  # bytes of a spec on standard input


def main(argv: list[str]) -> int:
    """A table, or one JSON object."""
    quiet.hush()
    parser = argparse.ArgumentParser(prog="fluxtui.engine plan")
    parser.add_argument("--home", type=Path, required=True)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--session")
    what.add_argument("--spec", help="a file, or - for JSON on standard input")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    try:
        if options.session:
            found = plan(options.home, options.session)
        else:
            found = plan_of(Home(options.home), _spec_from(options.spec), None)
    except FluxTUIError as error:
        print(str(error), file=sys.stderr)
        return int(error.exit_code)
    if options.json:
        output.write(json.dumps(asdict(found)) + "\n")
    else:
        output.write(table(found) + "\n")
    return int(ExitCode.DONE)


def _spec_from(name: str) -> Spec:
    if name != "-":
        return recipe.load_spec(Path(name))
    try:
        document = json.loads(sys.stdin.buffer.read(_SPEC_LIMIT))
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise UsageError("Standard input holds no spec: give one as a JSON object.")
    return recipe.from_document(document, Path("standard input"))


def plan(home: Path, session: str) -> Plan:
    """The plan of a session. Raises a `FluxTUIError` where its spec or its model cannot be read."""
    folder = Home(home).session(session)
    return plan_of(Home(home), recipe.load_spec(folder.spec_file), folder)


def plan_of(home: Home, spec: Spec, folder: SessionFolder | None) -> Plan:
    """The plan of a spec, with what earlier sessions measured. `folder`: its own, where it is a session. Raises as `plan`."""
    from fluxtui.engine.earlier import measured_by
    from fluxtui.engine.memory.model import model_of
    from fluxtui.engine.memory.phases import beside, memory_of
    from fluxtui.engine.memory.plan_cache import keep_in
    from fluxtui.engine.trainer.room import of_session, shape_of
    from fluxtui.persist.models.folder import recognise

    keep_in(home.cache)
    found = recognise(spec.model.source, home)
    model = model_of(found.path, is_schnell=found.is_guidance_distilled is False)
    here = _machine(spec)
    card, card_memory = here.card, here.card_memory
    is_for_gpu = spec.hardware.gpus != [] and spec.kind != "pico"  # whether or not this machine has one
    memory = memory_of(spec, model, card_memory or (_UNKNOWN_CARD if is_for_gpu else None))
    earlier = measured_by(home, spec, folder, memory.training_peak, card)
    does_fit, change = _fit(spec, model, memory, earlier.peak, card_memory)
    steps = _steps(spec, folder, here.ranks * spec.hardware.nodes) if folder else spec.train.steps or None
    estimated = _estimated(spec, model, memory, card) if card else None
    step_seconds = earlier.own_seconds or earlier.like_seconds or estimated
    return Plan(
        base_parameters=memory.weights.parameters,
        lora_parameters=memory.lora_parameters,
        tokens=(max(spec.dataset.resolution) // 16) ** 2 + model.text_tokens,
        precision=memory.precision,
        preset=memory.held.preset,
        base=memory.weights.on_device,
        streamed_blocks=memory.weights.streamed,
        unstreamed=memory.held.unstreamed,
        clip=memory.clip,
        lora=memory.lora,
        gradients=memory.gradients,
        optimizer=memory.optimizer,
        averaged=memory.averaged,
        activations=memory.activations.kept,
        workspace=memory.activations.peak - memory.activations.kept,
        encoders=memory.encoders,
        vae=memory.vae,
        training_peak=earlier.peak or memory.training_peak,
        planned_training_peak=memory.training_peak,
        probed_training_peak=earlier.peak,
        encoding_peak=memory.encoding_peak,
        sampling_peak=memory.sampling_peak,
        cuda_context=beside(memory),
        card=card,
        card_memory=card_memory or 0,
        fits=does_fit,
        change=change,
        hosted=memory.host * here.ranks,
        host_encoding=memory.host_encoding * here.ranks,
        host_free=free_host_memory(),
        checkpoint=memory.lora + memory.optimizer + memory.averaged,
        disk=of_session(spec, shape_of(found)),
        steps=steps,
        step_seconds=earlier.own_seconds,
        like_step_seconds=earlier.like_seconds,
        estimated_step_seconds=estimated,
        seconds=steps * step_seconds if steps and step_seconds else None,
        is_assumed=found.path is None,
        only_read_by=only_read_by(spec),
    )


def _fit(spec: Spec, model: Model, memory: Memory, probed: int | None, card: int | None) -> tuple[bool | None, str]:
    """Whether it fits, by what was probed where that is known, and the smallest change where it does not."""
    from fluxtui.engine.memory.fitting import fitting
    from fluxtui.engine.memory.phases import fits

    if card is None:
        return None, ""
    seen = replace(memory, training_peak=probed) if probed else memory
    if fits(seen, card):
        return True, ""
    change = fitting(spec, model, card, probed - memory.training_peak if probed else 0)
    return False, str(change) if change else ""


def free_host_memory() -> int:
    """Bytes of this machine, or of the container where that is less."""
    from fluxtui.gpu import host_gauges

    gauges = host_gauges()
    return max(0, gauges.memory_total - gauges.memory_used)


@dataclass(frozen=True, slots=True)
class _Machine:
    card: str  # the smallest GPU that the session may run on; "" where none is found
    card_memory: int | None  # its bytes
    ranks: int  # that a keeper would start


def _machine(spec: Spec) -> _Machine:
    from fluxtui.gpu import list_gpus
    from fluxtui.gpu.visible import uncertain, visible

    wanted = spec.hardware.gpus
    if wanted == []:
        return _Machine("", None, spec.hardware.ranks)
    here = list_gpus().devices
    left = list(here) if uncertain(here, os.environ) else visible(here, os.environ)  # the keeper refuses what is uncertain
    cards = [gpu for gpu in left if isinstance(wanted, str) or gpu.index in wanted or gpu.uuid in wanted]
    ranks = len(set(wanted)) if isinstance(wanted, list) else 1 if wanted == "auto" else len(cards)
    cards = [gpu for gpu in cards if gpu.memory_total]
    if not cards or spec.kind == "pico":
        return _Machine("", None, ranks if left or isinstance(wanted, list) else spec.hardware.ranks)
    smallest = min(cards, key=lambda gpu: gpu.memory_total)
    return _Machine(smallest.name, smallest.memory_total, ranks)


def _estimated(spec: Spec, model: Model, memory: Memory, name: str) -> float | None:
    """Seconds of an optimizer step by the roofline, at the mean of the listed resolutions; None for a card that is not known."""
    from fluxtui.engine.memory.precision import CODECS
    from fluxtui.engine.memory.roofline import card_named, step_flops, step_seconds

    card = card_named(name)
    if card is None:
        return None
    train, config = spec.train, model.config
    total = config.get("num_layers", 19) + config.get("num_single_layers", 38)
    coded = memory.weights.parameters if memory.precision in CODECS else 0
    each = [
        step_seconds(
            card, step_flops(config, (side // 16) ** 2, model.text_tokens, train.batch_size, train.gradient_checkpointing),
            coded, memory.weights.hosted, memory.weights.streamed / total, train.gradient_checkpointing,
        )
        for side in spec.dataset.resolution
    ]  # fmt: skip
    return train.gradient_accumulation * sum(each) / len(each)


def _steps(spec: Spec, folder: SessionFolder, ranks: int) -> int | None:
    from fluxtui.engine.trainer.plan_steps import planned_steps

    try:
        return planned_steps(spec, folder, ranks)
    except NotFoundError:
        return None
