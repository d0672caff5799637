"""Configurations of other trainers as keys of ours: FluxGym's ui_state.json, kohya's TOML or JSON, ai-toolkit's YAML.

Every key is either carried over or named with the reason why not; nothing is dropped in silence. Nothing is executed, and
no path is opened but the configuration's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fluxtui.persist import keys, toml
from fluxtui.persist.errors import UsageError
from fluxtui.persist.text import clean

LIMIT = 4 * 1024 * 1024     # bytes of a configuration
LEAVES = 10_000             # values; YAML's aliases can make a small file into a huge document
DEPTH = 30

Convert = Callable[[Any], object]


@dataclass(slots=True)
class Imported:
    """What a configuration says in our words."""

    source: str                                                # whose it is: "kohya"
    sets: dict[str, object] = field(default_factory=dict)      # "train.steps" -> 1500
    dataset: str = ""
    model: str = ""
    left: list[str] = field(default_factory=list)              # "network_module: not carried over, …"


class _Cannot(Exception):
    """Why a value cannot be carried over."""


def read(path: Path) -> Imported:
    """The configuration in our words. Raises `NotFoundError`, `DamagedError`, or `UsageError` where it is none of the three."""
    document = _parse(path)
    flat = dict(_flatten(document))
    source = _source_of(document, flat)
    found = Imported(source, sets=dict(_UNSAID[source]))
    for name, value in flat.items():
        _carry(found, name, value, _TABLES[source])
    return found


def _parse(path: Path) -> Mapping[str, Any]:
    data = toml.read_bytes(path, LIMIT, follow_links=True)
    suffix = path.suffix.lower()
    try:
        if suffix == ".toml":
            document: object = toml.parse(data, path)
        elif suffix == ".json":
            document = json.loads(data)
        elif suffix in (".yaml", ".yml"):
            import yaml  # type: ignore[import-untyped,unused-ignore]  # accelerate needs it, so it is there

            try:
                document = yaml.safe_load(data)
            except yaml.YAMLError as error:
                raise UsageError(f"{path} is not YAML: {clean(str(error), 200)}.") from error
        else:
            raise UsageError(f"{path} is of no known kind; give a .json, .toml or .yaml configuration.")
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read: {clean(str(error), 200)}.") from error
    if not isinstance(document, Mapping):
        raise UsageError(f"{path} holds no configuration: its outermost part is no table.")
    return document


def _flatten(value: object, prefix: str = "", depth: int = 0, spent: list[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Leaves by dotted name. A list of tables counts by its first one; a list of plain values is a leaf."""
    spent = spent if spent is not None else [0]
    spent[0] += 1
    if spent[0] > LEAVES or depth > DEPTH:
        raise UsageError("The configuration is too large or too deep to be one of a training.")
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flatten(inner, f"{prefix}.{name}" if prefix else str(name), depth + 1, spent)
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        yield from _flatten(value[0], prefix, depth + 1, spent)
        for number in range(1, len(value)):
            yield f"{prefix}[{number + 1}]", _ONLY_FIRST
    else:
        yield prefix, value


_ONLY_FIRST = object()


def _source_of(document: Mapping[str, Any], flat: Mapping[str, Any]) -> str:
    """Whose configuration it is, by keys that only that one has."""
    if any(name.startswith("config.process.") for name in flat):
        return "ai-toolkit"
    last = {name.rpartition(".")[2] for name in flat}
    if last & {"concept_sentence", "lora_name", "max_train_epochs_ui", "train_script", "train_config"}:
        return "FluxGym"
    if last & {"network_dim", "pretrained_model_name_or_path", "train_data_dir", "image_dir", "network_module"}:
        return "kohya"
    raise UsageError("The configuration is none of FluxGym's, kohya's or ai-toolkit's; fluxtui keys lists what is taken here.")


def _carry(found: Imported, name: str, value: object, table: Mapping[str, tuple[str, Convert]]) -> None:
    """Take one key over, or say why not."""
    shown = clean(name, 100)
    entry = table.get(name) or table.get(name.rpartition(".")[2])
    if value is _ONLY_FIRST:
        found.left.append(f"{shown}: only the first of several is carried over")
    elif entry is None:
        found.left.append(f"{shown} = {keys.show(value)}: there is no such key here")
    elif value is None or value == "":
        return
    else:
        target, convert = entry
        try:
            _take(found, target, convert(value))
        except (_Cannot, UsageError, ValueError, TypeError) as error:
            found.left.append(f"{shown} = {keys.show(value)}: {clean(str(error), 300)}")


def _take(found: Imported, target: str, value: object) -> None:
    if target == "dataset":
        found.dataset = str(value)
    elif target == "model":
        found.model = str(value)
    else:
        found.sets[target] = keys.check(target, value)


def _whole(value: Any) -> int:  # noqa: ANN401
    number = float(value)
    if not number.is_integer():
        raise _Cannot("it is no whole number")
    return int(number)


def _number(value: Any) -> float:  # noqa: ANN401
    return float(value)


def _same(value: Any) -> object:  # noqa: ANN401
    return value


def _sides(value: Any) -> list[int]:  # noqa: ANN401
    """512, "512", "512,512", [512, 768]: the distinct sides."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    return sorted({_whole(part) for part in parts})


def _lines(value: Any) -> list[str]:  # noqa: ANN401
    """Prompts, one a line; kohya's options behind `--` are cut off."""
    texts = value.splitlines() if isinstance(value, str) else [str(item) for item in value]
    return [text.partition(" --")[0].strip() for text in texts if text.strip() and not text.lstrip().startswith("#")]


def _prompts(value: Any) -> list[str]:  # noqa: ANN401
    if isinstance(value, str) and "\n" not in value and value.endswith((".txt", ".toml", ".json")):
        raise _Cannot("the prompts stand in a file of their own; give them with --set sample.prompts=[…]")
    return _lines(value)


def _model(value: Any) -> str:  # noqa: ANN401
    text = str(value)
    low = text.lower()
    if text.endswith((".safetensors", ".sft")) and Path(text).expanduser().is_file():
        return text
    if text.endswith((".safetensors", ".sft")) or "/" not in text:
        for kind in ("dev", "schnell"):
            if f"flux1-{kind}" in low or f"flux-{kind}" in low or low == f"flux.1-{kind}":
                return f"black-forest-labs/FLUX.1-{kind}"
        raise _Cannot("there is no such file here; give --model the file, a folder in diffusers layout, or a hub id")
    return text


def _scheduler(value: Any) -> str:  # noqa: ANN401
    return {"constant": "constant", "adafactor": "constant"}.get(str(value), str(value))


# 8 bits: the state of a LoRA is small, the whole precision costs little and needs no extra.
_OPTIMIZERS = {name: name for name in ("adamw", "adafactor", "lion", "prodigy")} | {
    "adamw8bit": "adamw", "adamwschedulefree": "schedule_free",
}  # fmt: skip


def _optimizer(value: Any) -> str:  # noqa: ANN401
    name = str(value).lower()
    if name not in _OPTIMIZERS:
        raise _Cannot("there is no such optimizer here; see fluxtui keys optimizer, and its learning rate may need another value")
    return _OPTIMIZERS[name]


def _vram(value: Any) -> str:  # noqa: ANN401
    names = {"12G": "12GB", "16G": "16GB", "20G": "16GB"}  # 20G: cards of 20 GB and more, the least of which 16GB fits
    if str(value) not in names:
        raise _Cannot("FluxGym knows 12G, 16G and 20G; see hardware.preset")
    return names[str(value)]


def _timesteps(value: Any) -> str:  # noqa: ANN401
    names = {"sigma": "uniform", "uniform": "uniform", "sigmoid": "sigmoid", "shift": "shift", "flux_shift": "flux_shift"}
    if str(value) not in names:
        raise _Cannot("there is no such distribution here; see fluxtui keys timestep")
    return names[str(value)]


_KOHYA: dict[str, tuple[str, Convert]] = {
    "pretrained_model_name_or_path": ("model", _model),
    "train_data_dir": ("dataset", _same),
    "image_dir": ("dataset", _same),
    "class_tokens": ("dataset.trigger", _same),
    "num_repeats": ("dataset.repeats", _whole),
    "resolution": ("dataset.resolution", _sides),
    "caption_extension": ("dataset.caption_extension", _same),
    "caption_dropout_rate": ("dataset.caption_dropout", _number),
    "network_dim": ("lora.rank", _whole),
    "network_alpha": ("lora.alpha", _number),
    "network_dropout": ("lora.dropout", _number),
    "learning_rate": ("train.learning_rate", _number),
    "unet_lr": ("train.learning_rate", _number),
    "max_train_epochs": ("train.epochs", _whole),
    "max_train_steps": ("train.steps", _whole),
    "train_batch_size": ("train.batch_size", _whole),
    "batch_size": ("train.batch_size", _whole),
    "gradient_accumulation_steps": ("train.gradient_accumulation", _whole),
    "gradient_checkpointing": ("train.gradient_checkpointing", _same),
    "optimizer_type": ("train.optimizer", _optimizer),
    "lr_scheduler": ("train.scheduler", _scheduler),
    "lr_warmup_steps": ("train.warmup_steps", _whole),
    "max_grad_norm": ("train.max_grad_norm", _number),
    "timestep_sampling": ("train.timestep_sampling", _timesteps),
    "discrete_flow_shift": ("train.timestep_shift", _number),
    "guidance_scale": ("train.guidance", _number),
    "seed": ("train.seed", _whole),
    "save_every_n_epochs": ("checkpoint.every_epochs", _whole),
    "save_every_n_steps": ("checkpoint.every_steps", _whole),
    "sample_prompts": ("sample.prompts", _prompts),
    "sample_every_n_epochs": ("sample.every_epochs", _whole),
    "sample_at_first": ("sample.at_start", _same),
    "max_data_loader_n_workers": ("hardware.workers", _whole),
}
_FLUXGYM: dict[str, tuple[str, Convert]] = {
    **_KOHYA,
    "lora_name": ("title", _same),
    "concept_sentence": ("dataset.trigger", _same),
    "base_model": ("model", _model),
    "dataset_folder": ("dataset", _same),
    "rank": ("lora.rank", _whole),
    "workers": ("hardware.workers", _whole),
    "vram": ("hardware.preset", _vram),
}
_AI_TOOLKIT: dict[str, tuple[str, Convert]] = {
    f"config.process.{name}": entry
    for name, entry in {
        "trigger_word": ("dataset.trigger", _same),
        "network.linear": ("lora.rank", _whole),
        "network.linear_alpha": ("lora.alpha", _number),
        "save.save_every": ("checkpoint.every_steps", _whole),
        "save.max_step_saves_to_keep": ("checkpoint.keep", lambda value: max(2, _whole(value))),
        "datasets.folder_path": ("dataset", _same),
        "datasets.caption_ext": ("dataset.caption_extension", lambda value: "." + str(value).lstrip(".")),
        "datasets.caption_dropout_rate": ("dataset.caption_dropout", _number),
        "datasets.resolution": ("dataset.resolution", _sides),
        "datasets.num_repeats": ("dataset.repeats", _whole),
        "train.batch_size": ("train.batch_size", _whole),
        "train.steps": ("train.steps", _whole),
        "train.gradient_accumulation_steps": ("train.gradient_accumulation", _whole),
        "train.gradient_checkpointing": ("train.gradient_checkpointing", _same),
        "train.optimizer": ("train.optimizer", _optimizer),
        "train.lr": ("train.learning_rate", _number),
        "train.timestep_type": ("train.timestep_sampling", _timesteps),
        "train.max_grad_norm": ("train.max_grad_norm", _number),
        "model.name_or_path": ("model", _model),
        "sample.width": ("sample.width", _whole),
        "sample.height": ("sample.height", _whole),
        "sample.prompts": ("sample.prompts", _lines),
        "sample.seed": ("sample.seed", _whole),
        "sample.guidance_scale": ("sample.guidance", _number),
        "sample.sample_steps": ("sample.steps", _whole),
    }.items()
}
_AI_TOOLKIT["config.name"] = ("title", _same)
# What those trainers do where nothing is said, and ours would do otherwise.
_UNSAID_KOHYA: dict[str, object] = {
    "lora.alpha": 1.0,
    "train.scheduler": "constant",
    "train.warmup_steps": 0,
    "train.timestep_sampling": "uniform",
    "dataset.caption_dropout": 0.0,
}
_UNSAID: dict[str, dict[str, object]] = {
    "kohya": _UNSAID_KOHYA,
    "FluxGym": {**_UNSAID_KOHYA, "train.timestep_sampling": "shift", "train.timestep_shift": 3.1582, "lora.rank": 4},
    "ai-toolkit": {"train.scheduler": "constant", "train.warmup_steps": 0, "train.timestep_sampling": "sigmoid"},
}
_TABLES = {"kohya": _KOHYA, "FluxGym": _FLUXGYM, "ai-toolkit": _AI_TOOLKIT}
