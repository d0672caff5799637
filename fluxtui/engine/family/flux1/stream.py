"""Weights from safetensors shards, or a user's single file, into a module on the meta device, one tensor at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fluxtui.engine.memory.heap import kept_small
from fluxtui.persist.errors import DamagedError

if TYPE_CHECKING:
    import torch
    from transformers import T5EncoderModel

OF_DIFFUSERS, OF_TRANSFORMERS = "diffusion_pytorch_model", "model"  # what the libraries name their weight files


def shards(folder: Path, stem: str = OF_DIFFUSERS) -> list[Path]:
    """The weight files of a library's model folder, in order. Only safetensors: a pickle is never opened."""
    index = folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DamagedError(f"{index} is not an index of weights: fetch the model again.") from None
        if any(not isinstance(name, str) or "/" in name for name in names):
            raise DamagedError(f"{index} names files outside its folder: fetch the model again.")
    else:
        names = [f"{stem}.safetensors"]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DamagedError(f"{folder / missing[0]} is missing: fetch the model again (only safetensors weights are read).")
    return [folder / name for name in names]


def weights_of(folder: Path) -> tuple[int, Iterator[tuple[str, torch.Tensor, int]]]:
    """(bytes in all, iterator of (name, tensor, bytes read so far)): from the shards of diffusers' layout, or from a user's
    single file under diffusers' names. Where weights come from ends here; how they are placed begins. Raises `DamagedError`.
    """
    from fluxtui.engine.family.flux1 import original

    if (single := original.weight_file(folder)) is not None:
        return single.origin.weight_bytes, original.tensors(single)
    files = shards(folder)
    return sum(path.stat().st_size for path in files), _read(files)


def _read(files: list[Path]) -> Iterator[tuple[str, torch.Tensor, int]]:
    from safetensors import SafetensorError, safe_open

    done = 0
    for path in files:
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                for name in file.keys():  # noqa: SIM118  (not a mapping)
                    read = file.get_tensor(name)
                    done += read.numel() * read.element_size()
                    yield name, read, done
        except SafetensorError as error:
            raise DamagedError(f"{path} is damaged ({error}): fetch the model again.") from None


def stream_weights(
    module: torch.nn.Module,
    folder: Path,
    dtype: torch.dtype,
    device: torch.device | str,
    on_bytes: Callable[[int, int], None],
    on_host: Collection[str] = (),
    on_weight: Callable[[str, torch.Tensor], None] = lambda name, weight: None,
) -> None:
    """Fills a module of the meta device; what lies in the modules named `on_host` and has two or more dimensions on the CPU.

    `on_weight` is shown each weight as it is stored, before it is placed.
    Raises `DamagedError` where a tensor is missing, unknown or of another shape.
    """
    import torch

    total, weights = weights_of(folder)
    hosts = tuple(f"{name}." for name in on_host)
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    for name, read, done in kept_small(weights):
        if wanted.pop(name, None) != tuple(read.shape):
            raise DamagedError(f"{folder} holds {name} {tuple(read.shape)}, which does not fit the transformer's config.json.")
        on_weight(name, read)
        is_hosted = name.startswith(hosts) and read.ndim >= 2
        _place(module, name, read, dtype, torch.device(device), torch.device("cpu" if is_hosted else device))
        on_bytes(done, total)
    if wanted:
        raise DamagedError(f"{folder} lacks {len(wanted)} tensors, {next(iter(wanted))} among them: fetch the model again.")
    assert not any(tensor.is_meta for tensor in module.state_dict().values())
    assert torch.device(device).type != "meta"


def stream_t5(folder: Path, dtype: torch.dtype, device: torch.device | str) -> T5EncoderModel:
    """T5 in a text encoder's folder, straight to where it computes: host memory holds a tensor of it at a time.

    Raises `DamagedError` where a tensor is missing or of another shape.
    """
    from accelerate import init_empty_weights
    from transformers.models.t5.configuration_t5 import T5Config
    from transformers.models.t5.modeling_t5 import T5EncoderModel

    from fluxtui.engine.family.flux1 import original

    with init_empty_weights():
        module = T5EncoderModel(T5Config.from_pretrained(folder))
    module.tie_weights()  # its embedding has two names; making it without bytes has parted them
    if (single := original.weight_file(folder)) is not None:
        original.fill(module, kept_small(original.tensors(single)), single.path, single.part, dtype, device)
        return module
    weights = (found for found in _read(shards(folder, OF_TRANSFORMERS)) if not original.NOT_WEIGHTS.search(found[0]))
    original.fill(module, kept_small(weights), folder, folder.name, dtype, device)
    return module


def _place(
    module: torch.nn.Module, name: str, read: torch.Tensor, dtype: torch.dtype, device: torch.device, home: torch.device
) -> None:
    """A weight that is held as codes is encoded on the device, from the dtype that it was stored in; then it goes home."""
    import torch

    from fluxtui.engine.memory.precision import QuantizedLinear

    owner, _, last = name.rpartition(".")
    target = module.get_submodule(owner)
    if isinstance(target, QuantizedLinear) and last == "weight":
        target.take(read.to(device=device, copy=True), home)
    elif last in target._parameters:
        target._parameters[last] = torch.nn.Parameter(read.to(device=home, dtype=dtype, copy=True), requires_grad=False)
    else:
        target._buffers[last] = read.to(device=home, dtype=dtype, copy=True)
