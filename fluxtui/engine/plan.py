"""What a session will take: memory by phase, disk, steps and time, from the model's own shapes without loading it.

    python -m fluxtui.engine plan --home ROOT --session NAME [--json]

Weights are counted, activations are measured: a forward pass on the meta device, with a count of the bytes that autograd keeps.
What no count can know (the allocator's slack, CUDA's own gigabyte) is named, not hidden in a factor.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from fluxtui.engine import quiet
from fluxtui.persist import metrics, recipe, tensorfile
from fluxtui.persist.errors import ExitCode, FluxTUIError, NotFoundError
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.spec import Spec

CUDA_CONTEXT = 1 << 30  # bytes that a process takes on a GPU before its first tensor; about
_FLUX1_ENCODERS, _FLUX1_VAE = 4_762_310_656 + 123_060_480, 83_819_683  # parameters, for a model that is still on the hub


@dataclass(frozen=True, slots=True)
class Plan:
    """Bytes, unless said otherwise."""

    base_parameters: int  # count
    lora_parameters: int  # count
    tokens: int  # of the largest picture, text included
    base: int
    lora: int  # float32
    gradients: int  # float32
    optimizer: int
    activations: int  # of one micro-step at the largest picture
    encoders: int  # both text encoders: in memory alone, before the base
    vae: int
    training_peak: int  # base + lora + gradients + optimizer + activations
    encoding_peak: int
    cuda_context: int  # beside each peak, where there is a GPU
    checkpoint: int  # on disk, each
    disk: int  # all checkpoints that are kept and the product
    steps: int | None  # None: not before the data set was read
    step_seconds: float | None  # median of this session's own steps; None before it ran
    seconds: float | None  # for all steps
    is_assumed: bool  # the model is not on this disk: FLUX.1's published shape was taken


def main(argv: list[str]) -> int:
    """A table, or one JSON object."""
    quiet.hush()
    parser = argparse.ArgumentParser(prog="fluxtui.engine plan")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--session", required=True)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    try:
        found = plan(options.home, options.session)
    except FluxTUIError as error:
        print(str(error), file=sys.stderr)
        return int(error.exit_code)
    print(json.dumps(asdict(found)) if options.json else table(found))
    return int(ExitCode.DONE)


def plan(home: Path, session: str) -> Plan:
    """The plan of a session. Raises a `FluxTUIError` where its spec or its model cannot be read."""
    from fluxtui.engine.trainer.room import of_session, shape_of
    from fluxtui.persist.model_folder import recognise

    folder = Home(home).session(session)
    spec = recipe.load_spec(folder.spec_file)
    model = recognise(spec.model.source, Home(home))
    config, encoders, vae, text_tokens = _parts(model.path, is_schnell=model.is_guidance_distilled is False)
    width = _bytes_of_base(spec)
    tokens = (max(spec.dataset.resolution) // 16) ** 2
    base, lora, activations = measure(config, spec, tokens, text_tokens)
    steps, step_seconds = _steps(spec, folder), _step_seconds(folder)
    trained = 4 * lora
    return Plan(
        base_parameters=base,
        lora_parameters=lora,
        tokens=tokens + text_tokens,
        base=width * base,
        lora=trained,
        gradients=trained,
        optimizer=2 * trained,
        activations=activations,
        encoders=width * encoders,
        vae=4 * vae,
        training_peak=width * base + 4 * trained + activations,
        encoding_peak=max(width * encoders, 4 * vae),
        cuda_context=CUDA_CONTEXT,
        checkpoint=3 * trained,
        disk=of_session(spec, shape_of(model)),
        steps=steps,
        step_seconds=step_seconds,
        seconds=steps * step_seconds if steps and step_seconds else None,
        is_assumed=model.path is None,
    )


def measure(config: dict[str, Any], spec: Spec, tokens: int, text_tokens: int) -> tuple[int, int, int]:
    """(parameters of the base, of the LoRA, bytes of activations of a micro-step), from one block of each kind.

    What autograd keeps of 1 double and 1 single block is measured apart and multiplied; with gradient checkpointing it keeps
    the inputs of every block, and the inside of the largest one while that is computed again.
    """
    import torch

    def empty(double: int, single: int) -> Any:  # noqa: ANN401
        from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

        with torch.device("meta"):
            return FluxTransformer2DModel.from_config(config | {"num_layers": double, "num_single_layers": single})

    blocks = {"double": config.get("num_layers", 19), "single": config.get("num_single_layers", 38)}
    outside, outside_lora, outside_kept = _kept(empty(1, 1), spec, tokens, text_tokens, is_checkpointed=False)
    counts, loras, inside = {}, {}, {}
    for kind, shape in (("double", (2, 1)), ("single", (1, 2))):
        count, lora, kept = _kept(empty(*shape), spec, tokens, text_tokens, is_checkpointed=False)
        counts[kind], loras[kind], inside[kind] = count - outside, lora - outside_lora, kept - outside_kept
    rest = {kind: number - 1 for kind, number in blocks.items()}
    base = outside + sum(rest[kind] * counts[kind] for kind in blocks)
    lora = outside_lora + sum(rest[kind] * loras[kind] for kind in blocks)
    if not spec.train.gradient_checkpointing:
        return base, lora, outside_kept + sum(rest[kind] * inside[kind] for kind in blocks)
    one = _kept(empty(1, 1), spec, tokens, text_tokens, is_checkpointed=True)[2]
    two = _kept(empty(1, 2), spec, tokens, text_tokens, is_checkpointed=True)[2]
    return base, lora, one + (sum(blocks.values()) - 2) * (two - one) + max(inside.values())


def _kept(transformer: Any, spec: Spec, tokens: int, text_tokens: int, is_checkpointed: bool) -> tuple[int, int, int]:  # noqa: ANN401
    """(parameters, LoRA parameters, bytes that autograd keeps of one forward pass), all on the meta device."""
    import torch

    from fluxtui.engine.family.flux1.targets import target_names
    from fluxtui.engine.family.flux1.transformer import image_ids, text_ids
    from fluxtui.engine.trainer.lora import add_lora

    dtype = torch.float32 if _bytes_of_base(spec) == 4 else torch.bfloat16
    for parameter in transformer.parameters():
        parameter.data = parameter.data.to(dtype)
    transformer.requires_grad_(False)
    count = sum(parameter.numel() for parameter in transformer.parameters())
    try:
        adapter = add_lora(transformer, target_names(transformer, spec.lora.targets), spec.lora, seed=0)
    except FluxTUIError:
        raise NotFoundError(
            f"lora.targets {spec.lora.targets!r} names single blocks: the plan cannot be reckoned from one block."
        ) from None
    lora = sum(parameter.numel() for parameter in adapter.parameters())
    transformer.train()
    if is_checkpointed:
        transformer.enable_gradient_checkpointing()
    weights = {parameter.untyped_storage()._cdata for parameter in transformer.parameters()}
    kept: dict[int, tuple[int, Any]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = (storage.nbytes(), storage)  # held, so that no other takes its address
        return tensor

    meta, batch = torch.device("meta"), spec.train.batch_size
    config = transformer.config
    side = int(tokens**0.5)
    adapter.place.slots = list(range(batch))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.device("meta"):
        transformer(
            hidden_states=torch.empty(batch, tokens, config.in_channels, dtype=dtype),
            encoder_hidden_states=torch.empty(batch, text_tokens, config.joint_attention_dim, dtype=dtype),
            pooled_projections=torch.empty(batch, config.pooled_projection_dim, dtype=dtype),
            timestep=torch.empty(batch, dtype=dtype),
            guidance=torch.empty(batch) if config.guidance_embeds else None,
            img_ids=image_ids(2 * side, 2 * side, meta, dtype),
            txt_ids=text_ids(text_tokens, meta, dtype),
        )
    return count, lora, sum(size for size, _ in kept.values())


def _parts(path: Path | None, is_schnell: bool) -> tuple[dict[str, Any], int, int, int]:
    """The transformer's configuration, parameters of the encoders and of the VAE, text tokens."""
    from fluxtui.engine.family.flux1.components import LONGEST_TEXT, pipeline_at

    if path is None:
        return {"guidance_embeds": not is_schnell}, _FLUX1_ENCODERS, _FLUX1_VAE, LONGEST_TEXT[not is_schnell]
    components = pipeline_at(path)
    encoders = _weights(path / "text_encoder") + _weights(path / "text_encoder_2")
    return components.transformer_config, encoders, _weights(path / "vae"), components.text_tokens


def _weights(folder: Path) -> int:
    """Parameters in a folder's safetensors files, by their headers."""
    count = 0
    for file in folder.glob("*.safetensors"):
        for info in tensorfile.read_header(file, follow_links=True).tensors.values():
            number = 1
            for size in info.shape:
                number *= size
            count += number
    return count


def _bytes_of_base(spec: Spec) -> int:
    """Bytes of a weight of the base: as on the device that the session asks for, a GPU where it asks for whatever is there."""
    if spec.model.precision == "auto":
        return 4 if spec.hardware.gpus == [] or spec.kind == "pico" else 2
    return 4 if spec.model.precision == "fp32" else 2


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

    lines = ["memory while training"]
    for name, size in (
        (f"base, {found.base_parameters:,} parameters", found.base),
        (f"LoRA, {found.lora_parameters:,} parameters in float32", found.lora),
        ("its gradients", found.gradients),
        ("its optimizer", found.optimizer),
        (f"activations at {found.tokens} tokens", found.activations),
        ("together", found.training_peak),
    ):
        lines.append(f"  {name:<50}{words(size):>12}")
    lines += [
        "memory while encoding, before the base is loaded",
        f"  {'text encoders, then VAE':<50}{words(found.encoding_peak):>12}",
    ]
    lines += [f"on a GPU, beside it: about {words(found.cuda_context)} of CUDA's own, and the allocator's slack"]
    lines += [f"on disk: {words(found.disk)} for checkpoints of {words(found.checkpoint)} each and the product"]
    time = (
        "time: known once it has run"
        if found.seconds is None
        else f"time: {found.seconds / 60:.0f} min at {found.step_seconds:.3g} s a step"
    )
    lines += [f"steps: {found.steps or 'known once the data set was read'}", time]
    if found.is_assumed:
        lines.append("the model is not on this disk yet: the published shape of FLUX.1 was taken")
    return "\n".join(lines)
