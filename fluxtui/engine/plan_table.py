"""A plan as a table for people. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxtui.persist.room import words

if TYPE_CHECKING:
    from fluxtui.engine.plan import Plan


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
