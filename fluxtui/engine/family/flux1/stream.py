"""Weights from safetensors shards into a module on the meta device, one tensor at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fluxtui.persist.errors import DamagedError

if TYPE_CHECKING:
    import torch

INDEX = "diffusion_pytorch_model.safetensors.index.json"
SINGLE = "diffusion_pytorch_model.safetensors"


def shards(folder: Path) -> list[Path]:
    """The weight files of a diffusers model folder, in order. Only safetensors: a pickle is never opened."""
    if (folder / INDEX).is_file():
        try:
            names = sorted(set(json.loads((folder / INDEX).read_bytes())["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DamagedError(f"{folder / INDEX} is not an index of weights: fetch the model again.") from None
        if any(not isinstance(name, str) or "/" in name for name in names):
            raise DamagedError(f"{folder / INDEX} names files outside its folder: fetch the model again.")
    else:
        names = [SINGLE]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DamagedError(f"{folder / missing[0]} is missing: fetch the model again (only safetensors weights are read).")
    return [folder / name for name in names]


def stream_weights(
    module: torch.nn.Module, folder: Path, dtype: torch.dtype, device: torch.device | str, on_bytes: Callable[[int, int], None]
) -> None:
    """Fills a module of the meta device. Raises `DamagedError` where a tensor is missing, unknown or of another shape."""
    import torch
    from safetensors import SafetensorError, safe_open

    files = shards(folder)
    total = sum(path.stat().st_size for path in files)
    done = 0
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    for path in files:
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                for name in file.keys():  # noqa: SIM118  (not a mapping)
                    read = file.get_tensor(name)
                    if wanted.pop(name, None) != tuple(read.shape):
                        raise DamagedError(
                            f"{path} holds {name} {tuple(read.shape)}, which does not fit the transformer's config.json."
                        )
                    _place(module, name, read.to(device=device, dtype=dtype, copy=True))
                    done += read.numel() * read.element_size()
                    on_bytes(done, total)
        except SafetensorError as error:
            raise DamagedError(f"{path} is damaged ({error}): fetch the model again.") from None
    if wanted:
        raise DamagedError(f"{folder} lacks {len(wanted)} tensors, {next(iter(wanted))} among them: fetch the model again.")
    assert not any(tensor.is_meta for tensor in module.state_dict().values())
    assert torch.device(device).type != "meta"


def _place(module: torch.nn.Module, name: str, value: torch.Tensor) -> None:
    import torch

    owner, _, last = name.rpartition(".")
    target = module.get_submodule(owner)
    if last in target._parameters:
        target._parameters[last] = torch.nn.Parameter(value, requires_grad=False)
    else:
        target._buffers[last] = value
