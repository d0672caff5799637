"""What a session will take: memory by phase, disk, steps and time, from the model's own shapes without loading it.

    python -m fluxtui.engine plan --home ROOT (--session NAME | --spec FILE) [--json]

With --spec, of a session that is not made yet.

Weights are counted, activations are measured: a forward and backward pass on the meta device (`memory/activations.py`). What no
count can know (the allocator's slack, CUDA's own gigabyte) is named, not hidden in a factor.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from fluxtui.engine import quiet
from fluxtui.persist import metrics, recipe
from fluxtui.persist.errors import ExitCode, FluxTUIError, NotFoundError
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.model_assembly import part_tensors
from fluxtui.persist.spec import Spec

if TYPE_CHECKING:
    from fluxtui.engine.memory.phases import Memory, Model

_UNKNOWN_CARD = 48 * 10**9  # bytes that are taken where a session is for a GPU and this machine has none
_FLUX1_ENCODERS, _FLUX1_VAE = 4_762_310_656 + 123_060_480, 83_819_683  # parameters, for a model that is still on the hub


@dataclass(frozen=True, slots=True)
class Plan:
    """Bytes, unless said otherwise."""

    base_parameters: int  # count
    lora_parameters: int  # count
    tokens: int  # of the largest picture, text included
    precision: str  # of the base, as it is held
    base: int  # on the device that trains, slots of streamed blocks included
    streamed_blocks: int  # count
    hosted: int  # streamed blocks' weights, in host memory
    lora: int  # float32
    gradients: int  # float32
    optimizer: int
    averaged: int  # the EMA's copy
    activations: int  # kept by one micro-step at the largest picture
    workspace: int  # what lives beside them at the worst moment: the block at work, decoded weights, gradients on their way
    encoders: int  # both text encoders: in memory alone, before the base
    vae: int
    training_peak: int
    encoding_peak: int
    sampling_peak: int  # 0 where nothing is drawn
    cuda_context: int  # beside each peak, where there is a GPU
    card: str  # the GPU that this is for; "" for the CPU
    card_memory: int  # 0 for the CPU
    fits: bool | None  # with a margin of 1 GB; None for the CPU
    checkpoint: int  # on disk, each
    disk: int  # all checkpoints that are kept and the product
    steps: int | None  # None: not before the data set was read
    step_seconds: float | None  # median of this session's own steps; None before it ran
    estimated_step_seconds: float | None  # by the work and what this card sustains; None for cards that are not known
    seconds: float | None  # for all steps
    is_assumed: bool  # the model is not on this disk: FLUX.1's published shape was taken


def main(argv: list[str]) -> int:
    """A table, or one JSON object."""
    quiet.hush()
    parser = argparse.ArgumentParser(prog="fluxtui.engine plan")
    parser.add_argument("--home", type=Path, required=True)
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--session", default="")
    asked.add_argument("--spec", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    try:
        found = plan(options.home, options.session, options.spec)
    except FluxTUIError as error:
        print(str(error), file=sys.stderr)
        return int(error.exit_code)
    print(json.dumps(asdict(found)) if options.json else table(found))
    return int(ExitCode.DONE)


def plan(home: Path, session: str, file: Path | None = None) -> Plan:
    """The plan of a session, or of the spec in a file. Raises a `FluxTUIError` where its spec or its model cannot be read."""
    from fluxtui.engine.memory.phases import CUDA_CONTEXT, fits, memory_of
    from fluxtui.engine.trainer.room import of_session, shape_of
    from fluxtui.persist.model_folder import recognise

    spec = recipe.load_spec(file or Home(home).session(session).spec_file)
    folder = SessionFolder(file.parent) if file else Home(home).session(session)
    found = recognise(spec.model.source, Home(home))
    model = model_of(found.path, is_schnell=found.is_guidance_distilled is False)
    card, card_memory = _card(spec)
    is_for_gpu = spec.hardware.gpus != [] and spec.kind != "pico"  # whether or not this machine has one
    memory = memory_of(spec, model, card_memory or (_UNKNOWN_CARD if is_for_gpu else None))
    steps, measured = _steps(spec, folder), _step_seconds(folder)
    estimated = _estimated(spec, model, memory, card) if card else None
    step_seconds = measured or estimated
    return Plan(
        base_parameters=memory.weights.parameters,
        lora_parameters=memory.lora_parameters,
        tokens=(max(spec.dataset.resolution) // 16) ** 2 + model.text_tokens,
        precision=memory.precision,
        base=memory.weights.on_device,
        streamed_blocks=memory.weights.streamed,
        hosted=memory.weights.hosted,
        lora=memory.lora,
        gradients=memory.gradients,
        optimizer=memory.optimizer,
        averaged=memory.averaged,
        activations=memory.activations.kept,
        workspace=memory.activations.peak - memory.activations.kept,
        encoders=memory.encoders,
        vae=memory.vae,
        training_peak=memory.training_peak,
        encoding_peak=memory.encoding_peak,
        sampling_peak=memory.sampling_peak,
        cuda_context=CUDA_CONTEXT,
        card=card,
        card_memory=card_memory or 0,
        fits=fits(memory, card_memory) if card_memory else None,
        checkpoint=memory.lora + memory.optimizer + memory.averaged,
        disk=of_session(spec, shape_of(found)),
        steps=steps,
        step_seconds=measured,
        estimated_step_seconds=estimated,
        seconds=steps * step_seconds if steps and step_seconds else None,
        is_assumed=found.path is None,
    )


def _card(spec: Spec) -> tuple[str, int | None]:
    """The name and bytes of the smallest GPU that the session may run on; ("", None) where none is found."""
    if spec.hardware.gpus == []:
        return "", None
    from fluxtui.gpu import list_gpus
    from fluxtui.gpu.visible import VISIBLE, visible

    wanted = spec.hardware.gpus
    left = visible(list_gpus().devices, os.environ.get(VISIBLE))
    cards = [gpu for gpu in left if isinstance(wanted, str) or gpu.index in wanted or gpu.uuid in wanted]
    cards = [gpu for gpu in cards if gpu.memory_total]
    if not cards or spec.kind == "pico":
        return "", None
    smallest = min(cards, key=lambda gpu: gpu.memory_total)
    return smallest.name, smallest.memory_total


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


def model_of(path: Path | None, is_schnell: bool) -> Model:
    """A pipeline's shapes, or FLUX.1's published ones for a model that is not on this disk."""
    from fluxtui.engine.family.flux1.components import LONGEST_TEXT, pipeline_at
    from fluxtui.engine.memory.phases import FLUX1_VAE, Model

    if path is None:
        config = {"guidance_embeds": not is_schnell}
        return Model(config, FLUX1_VAE, _FLUX1_ENCODERS, _FLUX1_VAE, LONGEST_TEXT[not is_schnell])
    found = pipeline_at(path)
    encoders = _weights(path / "text_encoder") + _weights(path / "text_encoder_2")
    return Model(found.transformer_config, found.vae_config, encoders, _weights(path / "vae"), found.text_tokens)


def _weights(folder: Path) -> int:
    """Parameters of a part, by the headers of its files."""
    return sum(prod(info.shape) for info in part_tensors(folder).values())


def _steps(spec: Spec, folder: SessionFolder) -> int | None:
    from fluxtui.engine.trainer.plan_steps import planned_steps

    try:
        return planned_steps(spec, folder, spec.hardware.ranks)
    except NotFoundError:
        return None


def _step_seconds(folder: SessionFolder) -> float | None:
    try:
        return median(metric.seconds for metric in metrics.read_tail(folder.metrics_file, 200))
    except FluxTUIError:
        return None


def table(found: Plan) -> str:
    """The plan for people."""
    from fluxtui.engine.trainer.room import words

    streamed = f", {found.streamed_blocks} blocks streamed" if found.streamed_blocks else ""
    parts = [
        (f"base, {found.base_parameters:,} parameters in {found.precision}{streamed}", found.base),
        (f"LoRA, {found.lora_parameters:,} parameters in float32", found.lora),
        ("its gradients", found.gradients),
        ("its optimizer", found.optimizer),
        ("its average", found.averaged),
        (f"activations at {found.tokens} tokens", found.activations),
        ("the block at work", found.workspace),
    ]
    peaks = [
        ("encoding (text encoders, then the VAE)", found.encoding_peak),
        ("training", found.training_peak),
        ("drawing samples", found.sampling_peak),
    ]
    lines = ["memory while training", *(f"  {name:<60}{words(size):>12}" for name, size in parts if size)]
    lines += ["the peak of each phase; phases never overlap"]
    lines += [f"  {name:<60}{words(size):>12}" for name, size in peaks if size]
    if found.hosted:
        lines.append(f"in host memory: {words(found.hosted)} of streamed blocks")
    lines.append(_on_card(found))
    lines.append(f"on disk: {words(found.disk)} for checkpoints of {words(found.checkpoint)} each and the product")
    lines += [f"steps: {found.steps or 'known once the data set was read'}", _time(found)]
    if found.is_assumed:
        lines.append("the model is not on this disk yet: the published shape of FLUX.1 was taken")
    return "\n".join(lines)


def _on_card(found: Plan) -> str:
    from fluxtui.engine.trainer.room import words

    beside = f"beside it about {words(found.cuda_context)} of CUDA's own, and the allocator's slack"
    if not found.card:
        return f"no GPU was found for it here; on one, {beside}"
    verdict = "fits with 1 GB to spare" if found.fits else "DOES NOT FIT with 1 GB to spare: see the presets in docs/memory.md"
    return f"on {found.card} ({words(found.card_memory)}): {verdict}; {beside}"


def _time(found: Plan) -> str:
    if found.seconds is None:
        return "time: known once it has run"
    measured = f"{found.step_seconds:.3g} s a step measured" if found.step_seconds else ""
    estimated = f"{found.estimated_step_seconds:.3g} s a step estimated" if found.estimated_step_seconds else ""
    return f"time: {found.seconds / 60:.0f} min at {', '.join(filter(None, (measured, estimated)))}"
