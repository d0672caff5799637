"""What a plan says, and the same as a table for people. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from fluxtui.persist.room import words


@dataclass(frozen=True, slots=True)
class Plan:
    """Bytes, unless said otherwise."""

    base_parameters: int  # count
    lora_parameters: int  # count
    tokens: int  # of the largest picture, text included
    precision: str  # of the base, as it is held
    preset: str  # whose numbers were taken; "" for none
    base: int  # on the device that trains, slots of streamed blocks included
    streamed_blocks: int  # count
    unstreamed: str  # the setting for whose sake blocks stay that the preset would stream; "" where none does
    clip: int  # where it is trained along
    lora: int  # float32
    gradients: int  # float32
    optimizer: int
    averaged: int  # the EMA's copy
    activations: int  # kept by one micro-step at the largest picture
    workspace: int  # what lives beside them at the worst moment: the block at work, decoded weights, gradients on their way
    encoders: int  # both text encoders: in memory alone, before the base
    vae: int
    training_peak: int  # probed where a session like this one was, else planned
    planned_training_peak: int  # always the sum of the parts
    probed_training_peak: int | None  # by a step on a GPU; None where none was taken
    encoding_peak: int
    sampling_peak: int  # 0 where nothing is drawn
    cuda_context: int  # beside each peak, where there is a GPU
    card: str  # the GPU that this is for; "" for the CPU
    card_memory: int  # 0 for the CPU
    fits: bool | None  # with a margin of 1 GB; None for the CPU
    change: str  # the smallest change with which it fits, "hardware.stream_blocks=12"; "" where it fits, or nothing helps
    hosted: int  # streamed blocks' weights, in host memory, of all ranks
    host_encoding: int  # text encoders, where they run on the CPU for want of room on the GPU
    host_free: int  # of host memory, now
    checkpoint: int  # on disk, each
    disk: int  # all checkpoints that are kept and the product
    steps: int | None  # None: not before the data set was read
    step_seconds: float | None  # median of this session's own steps; None before it ran
    like_step_seconds: float | None  # of other sessions with the same model, settings and card
    estimated_step_seconds: float | None  # by the work and what this card sustains; None for cards that are not known
    seconds: float | None  # for all steps, by the first of these that is known
    is_assumed: bool  # the model is not on this disk: FLUX.1's published shape was taken
    only_read_by: str  # the sentence about a product that not every program reads; "" where all do


def table(found: Plan) -> str:
    """The plan for people."""
    streamed = f", {found.streamed_blocks} blocks streamed" if found.streamed_blocks else ""
    parts = [
        (f"base, {found.base_parameters:,} parameters in {found.precision}{streamed}", found.base),
        (f"LoRA, {found.lora_parameters:,} parameters in float32", found.lora),
        ("its gradients", found.gradients),
        ("its optimizer", found.optimizer),
        ("its average", found.averaged),
        ("CLIP, trained along", found.clip),
        (f"activations at {found.tokens} tokens", found.activations),
        ("the block at work", found.workspace),
    ]
    peaks = [
        ("encoding (text encoders, then the VAE)", found.encoding_peak),
        ("training, as planned", found.planned_training_peak),
        ("training, as a step on the GPU took it", found.probed_training_peak or 0),
        ("drawing samples", found.sampling_peak),
    ]
    lines = ["memory while training", *(f"  {name:<60}{words(size):>12}" for name, size in parts if size)]
    lines += ["the peak of each phase; phases never overlap"]
    lines += [f"  {name:<60}{words(size):>12}" for name, size in peaks if size]
    lines += _in_host_memory(found)
    if found.unstreamed:
        lines.append(f"no blocks are streamed, as the {found.preset} preset would: {found.unstreamed} keeps them")
    lines.append(_on_card(found))
    lines.append(f"on disk: {words(found.disk)} for checkpoints of {words(found.checkpoint)} each and the product")
    lines += [f"steps: {found.steps or 'known once the data set was read'}", _time(found)]
    if found.only_read_by:
        lines.append(f"the file: {found.only_read_by}")
    if found.is_assumed:
        lines.append("the model is not on this disk yet: the published shape of FLUX.1 was taken")
    return "\n".join(lines)


def _in_host_memory(found: Plan) -> list[str]:
    """What lies there beside the process itself, where a GPU trains, and whether that is free now."""
    lines = []
    for size, what in ((found.host_encoding, "text encoders, while captions are encoded"), (found.hosted, "streamed blocks")):
        if size:
            lack = f", and only {words(found.host_free)} is free: it would be used up" if size > found.host_free > 0 else ""
            lines.append(f"in host memory: {words(size)} of {what}{lack}")
    return lines


def _on_card(found: Plan) -> str:
    beside = f"beside it about {words(found.cuda_context)} of CUDA's own, and the allocator's slack"
    if not found.card:
        return f"no GPU was found for it here; on one, {beside}"
    change = f"set {found.change}" if found.change else "no setting makes it fit"
    verdict = "fits with 1 GB to spare" if found.fits else f"DOES NOT FIT with 1 GB to spare: {change}"
    return f"on {found.card} ({words(found.card_memory)}): {verdict}; {beside}"


def _time(found: Plan) -> str:
    if found.seconds is None:
        return "time: known once it has run"
    ways = (
        (found.step_seconds, "measured"),
        (found.like_step_seconds, "measured in sessions like this one"),
        (found.estimated_step_seconds, "estimated"),
    )
    said = ", ".join(f"{seconds:.3g} s a step {how}" for seconds, how in ways if seconds)
    return f"time: {found.seconds / 60:.0f} min at {said}"
