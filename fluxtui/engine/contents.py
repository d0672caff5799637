"""What a product must hold: the keys and shapes that its recipe makes of its base, and that the libraries take all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluxtui.engine.trainer.exit_reason import first_line
from fluxtui.engine.trainer.reporter import Reporter
from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.settings.layers import sizes_of
from fluxtui.persist.settings.spec import Spec


class NotProvenError(FluxTUIError):
    """What is missing, in one sentence."""


@dataclass(frozen=True, slots=True)
class Networks:
    """What the recipe adapts, on the meta device: modules, names and shapes, without their bytes."""

    transformer: Any  # FluxTransformer2DModel
    clip: Any | None  # CLIPTextModel, where it is trained along


def empty_networks(spec: Spec, home: Path, model_commit: str) -> Networks:
    """Of the base that a session trained."""
    from fluxtui.engine.trainer.source import open_model

    components = open_model(spec.model, home, model_commit, Reporter(None), is_offline=True)
    return Networks(components.empty_transformer(), components.empty_clip() if spec.train.clip_learning_rate else None)


def expected_shapes(spec: Spec, base: Networks) -> dict[str, tuple[int, ...]]:
    """Key -> shape of every tensor that this base and the recipe's targets make."""
    from fluxtui.engine.family.flux1.keys import key_of
    from fluxtui.engine.family.flux1.targets import clip_names, target_names
    from fluxtui.engine.trainer.adapter.decomposed import shapes_of

    layers = {name: base.transformer.get_submodule(name) for name in target_names(base.transformer, spec.lora.targets)}
    if base.clip is not None:
        layers |= {known: base.clip.get_submodule(name) for name, known in clip_names(base.clip).items()}
    ranks = {name: size.rank for name, size in sizes_of(spec.lora, layers).items()}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, layer in layers.items():
        rank = ranks[name] if spec.lora.kind == "lokr" else max(ranks.values())  # a LoRA's are padded to the largest
        for part, shape in shapes_of(spec.lora, rank, layer.out_features, layer.in_features).items():
            shapes[key_of(name, part)] = shape
    return shapes


def update_norm(parts: Mapping[str, Any]) -> float:
    """The Frobenius norm of a module's update: of B·A by `|B A|^2 = tr(B'B A A')`, of w1 (x) w2 by `|w1| |w2|`."""
    if "lokr_w1" not in parts:
        return _product_norm(parts["lora_B"], parts["lora_A"])
    inner = parts["lokr_w2"].double().norm() if "lokr_w2" in parts else _product_norm(parts["lokr_w2_a"], parts["lokr_w2_b"])
    return float(parts["lokr_w1"].double().norm() * inner)


def _product_norm(left: Any, right: Any) -> float:  # noqa: ANN401  (torch.Tensor; torch is imported late)
    left, right = left.double(), right.double()
    return float(((left.T @ left) * (right @ right.T)).sum().clamp(min=0.0).sqrt())


def loads_in_diffusers(product: Path, keys: set[str], base: Networks) -> None:
    """`FluxPipeline.load_lora_weights` takes the file, and leaves out nothing of it."""
    from diffusers.pipelines.flux.pipeline_flux import FluxPipeline

    pipeline = FluxPipeline(None, None, base.clip, None, None, None, base.transformer)
    try:
        pipeline.load_lora_weights(str(product), adapter_name="proof")
    except (ValueError, RuntimeError, KeyError) as error:
        raise NotProvenError(f"diffusers does not load it: {first_line(error)}") from error
    loaded = {f"transformer.{name}" for name in _adapted(base.transformer)}
    loaded |= {f"text_encoder.text_model.{name.removeprefix('text_model.')}" for name in _adapted(base.clip)}
    demand(loaded == keys, f"diffusers loads {len(loaded)} tensors of it instead of {len(keys)}")


def _adapted(network: Any) -> list[str]:  # noqa: ANN401
    """The names of the parameters that a loaded adapter brought."""
    named = [] if network is None else [name for name, _ in network.named_parameters()]
    return [name.replace(".proof.", ".") for name in named if ".lora_" in name]


def loads_in_peft(product: Path, spec: Spec, base: Networks) -> None:
    """peft, which diffusers does not ask for a LoKr, takes every tensor of the file into an adapter of this recipe."""
    from peft import set_peft_model_state_dict

    from fluxtui.engine.family.flux1.targets import target_names
    from fluxtui.engine.trainer.adapter.lora import ADAPTER, add_lora
    from fluxtui.engine.trainer.checkpoint.state import from_safetensors

    names = target_names(base.transformer, spec.lora.targets)
    add_lora(base.transformer, names, spec.lora, seed=0)
    tensors = {key.removeprefix("transformer."): tensor for key, tensor in from_safetensors(product).items()}
    try:
        said = set_peft_model_state_dict(base.transformer, tensors, adapter_name=ADAPTER, low_cpu_mem_usage=True)
    except (ValueError, RuntimeError, KeyError) as error:
        raise NotProvenError(f"peft does not load it: {first_line(error)}") from error
    left = [name for name in said.missing_keys if ".lokr_" in name]
    demand(not left and not said.unexpected_keys, f"peft leaves {len(left)} tensors empty, {len(said.unexpected_keys)} unread")


def demand(holds: bool, otherwise: str) -> None:
    """Raises `NotProvenError` with the sentence where it does not hold."""
    if not holds:
        raise NotProvenError(otherwise)
