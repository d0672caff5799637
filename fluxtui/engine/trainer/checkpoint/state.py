"""All that a run is between two steps, explicitly, and its way to disk and back.

A checkpoint holds the adapter (float32), the optimizer (every tensor and scalar of it) and the counters, as safetensors
and JSON, committed by `persist.checkpoints.commit`. No pickle, and no generator: every random number follows from seed and step.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
from torch import nn

from fluxtui.engine.trainer.adapter.ema import Ema
from fluxtui.engine.trainer.exit_reason import NonFiniteError
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.checkpoints.manifest import Manifest
from fluxtui.persist.errors import DamagedError
from fluxtui.persist.files import tensorfile
from fluxtui.persist.files.durable import Buffer

ADAPTER_FILE = "adapter.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
COUNTERS_FILE = "counters.json"
EMA_FILE = "ema.safetensors"  # averaged weights, where the recipe keeps them
EVALUATED_FILE = "evaluated.safetensors"  # what a schedule-free optimizer is evaluated at; the adapter is what it trains

_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int64: "I64", torch.int32: "I32",
           torch.uint8: "U8", torch.bool: "BOOL", torch.float64: "F64", torch.int8: "I8"}  # fmt: skip
# What optimizers find out and keep in their groups: prodigy's distance, schedule-free's average. All else there are
# settings, and those are the recipe's: another session's checkpoint, or an accepted change, must not bring back old ones.
_LEARNT = frozenset({"d", "d0", "d_max", "d_hat", "d_numerator", "d_denom", "k", "weight_sum", "lr_max", "scheduled_lr"})
_TORCH_DTYPES = {name: dtype for dtype, name in _DTYPES.items()}


@dataclass(slots=True)
class LoopState:
    """Where the loop is. Everything else that changes is in the adapter and the optimizer."""

    step: int = 0  # optimizer steps done, over all attempts
    epoch: int = 0  # epochs completed
    position: int = 0  # optimizer steps done of the epoch that is under way
    inexact_since: int | None = None  # the step from which on a changed recipe, library or data was accepted, or kernels let go


class Counters(msgspec.Struct, frozen=True):
    """What `counters.json` says."""

    step: Annotated[int, msgspec.Meta(ge=0, lt=10**9)]
    epoch: Annotated[int, msgspec.Meta(ge=0)]
    position: Annotated[int, msgspec.Meta(ge=0)]
    inexact_since: int | None
    optimizer: str  # name of its class
    groups: Annotated[list[dict[str, Any]], msgspec.Meta(min_length=1)]
    scalars: dict[str, dict[str, Any]]  # of the optimizer's state, by parameter


@dataclass(frozen=True, slots=True)
class Captured:
    """The content of a checkpoint in memory: copies that no later step changes."""

    tensors: dict[str, dict[str, torch.Tensor]]  # by file and name, on the CPU
    counters: dict[str, Any]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensors in self.tensors.values() for tensor in tensors.values())

    def files(self) -> dict[str, list[Buffer]]:
        """The files, as buffers over the copies."""
        counters = json.dumps(self.counters, sort_keys=True, indent=1, allow_nan=True).encode()
        return {file: _encoded(tensors, None) for file, tensors in self.tensors.items()} | {COUNTERS_FILE: [counters]}


def capture(
    state: LoopState,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    beside: Mapping[str, Mapping[str, torch.Tensor]],
    memory: Captured | None = None,
) -> Captured:
    """What a checkpoint will hold, copied. Raises `NonFiniteError` rather than hand out NaN.

    `beside`: further files of tensors, by name. `memory`: an earlier capture that nobody reads any more; its tensors are
    overwritten where they fit, since pages that are new to a process take longer to get than to fill.
    """
    if (name := not_finite(parameters)) is not None:
        raise NonFiniteError(f"the weights of {name} are not finite at step {state.step}; nothing of it is kept")
    tensors, scalars = _split_optimizer(optimizer, list(parameters))
    counters = {
        "step": state.step, "epoch": state.epoch, "position": state.position, "inexact_since": state.inexact_since,
        "optimizer": type(optimizer).__name__, "groups": scalars["groups"], "scalars": scalars["state"],
    }  # fmt: skip
    files = {ADAPTER_FILE: parameters, OPTIMIZER_FILE: tensors, **beside}
    held = memory.tensors if memory is not None else {}
    return Captured({file: _copied(tensors, held.get(file, {})) for file, tensors in files.items()}, counters)


def not_finite(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """The name of one that holds a NaN or an infinity; None where all are finite.

    A finite sum has finite terms only, and is ten times faster to ask for, with one wait for the device. Sums of finite
    numbers can overflow: then that tensor is looked through.
    """
    if not tensors:
        return None
    sums = torch.stack([tensor.detach().sum(dtype=torch.float32) for tensor in tensors.values()])
    doubtful = [name for name, is_sound in zip(tensors, sums.isfinite().tolist(), strict=True) if not is_sound]
    return next((name for name in doubtful if not torch.isfinite(tensors[name]).all()), None)


def restore(folder: Path, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> LoopState:
    """Puts a verified checkpoint into adapter and optimizer. Raises `DamagedError` where it is not one of this adapter."""
    counters = _read_counters(folder)
    saved = from_safetensors(folder / ADAPTER_FILE)
    if {name: tuple(tensor.shape) for name, tensor in saved.items()} != {n: tuple(p.shape) for n, p in parameters.items()}:
        raise DamagedError(f"{folder / ADAPTER_FILE} holds another adapter than this recipe makes.")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(saved[name])
    if counters.optimizer != type(optimizer).__name__:
        raise DamagedError(f"{folder / COUNTERS_FILE} is of optimizer {counters.optimizer}, not {type(optimizer).__name__}.")
    moments = from_safetensors(folder / OPTIMIZER_FILE)
    if strangers := ({name.rpartition("/")[0] for name in moments} | counters.scalars.keys()) - parameters.keys():
        raise DamagedError(f"{folder / OPTIMIZER_FILE} is of another adapter: {min(strangers)[:80]!a} is none of its weights.")
    _join_optimizer(optimizer, list(parameters), moments, counters)
    return LoopState(counters.step, counters.epoch, counters.position, counters.inexact_since)


def verify(folder: Path) -> Manifest:
    """Every byte of a checkpoint, and that a trainer can read what they say. Raises as `verify_checkpoint` does."""
    manifest = commit.verify_checkpoint(folder)
    if missing := {ADAPTER_FILE, OPTIMIZER_FILE, COUNTERS_FILE} - manifest.files.keys():
        raise DamagedError(f"{folder} has no {min(missing)}")
    _read_counters(folder)
    for file in manifest.files:
        if file.endswith(".safetensors"):
            tensorfile.read_header(folder / file)
    return manifest


def _read_counters(folder: Path) -> Counters:
    path = folder / COUNTERS_FILE
    try:
        counters = msgspec.convert(json.loads(path.read_bytes()), Counters)  # Python's JSON, for its NaN and Infinity
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise DamagedError(f"{path} does not say where a run is") from error
    if commit.step_name(counters.step) != folder.name:
        raise DamagedError(f"{path} is that of step {counters.step}, whatever the folder is called")
    return counters


def restore_ema(folder: Path, ema: Ema) -> None:
    """The averaged weights of a verified checkpoint; from the weights as they are, where it has none."""
    if ema.decay and (folder / EMA_FILE).exists():
        saved = from_safetensors(folder / EMA_FILE)
        ema.shadow = {name: saved[name].to(parameter.device) for name, parameter in ema.parameters.items()}
    else:
        ema.restart()


def find(parent: Path, wanted: str, on_damaged: Callable[[str, str], None]) -> str | None:
    """The checkpoint to go on from: the newest that verifies ("auto"), none (""), or a named one, which must verify.

    What a dead trainer left half written or half removed goes: one that resumes at its last step commits nothing that would.
    """
    commit.sweep(parent)
    if wanted == "auto":
        return commit.newest_verified(parent, on_damaged, verify)
    if wanted:
        verify(parent / wanted)
    for name in commit.committed(parent):  # of another course than the one that begins now: never to be taken for its own
        if not wanted or commit.step_of(name) > commit.step_of(wanted):
            commit.set_aside(parent, name, "newer")
    return wanted or None


def to_safetensors(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> list[Buffer]:
    """The bytes of a safetensors file with copies of these tensors, stable: the same tensors give the same bytes."""
    return _encoded(_copied(tensors, {}), metadata)


def _copied(tensors: Mapping[str, torch.Tensor], memory: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: _copy(tensor.detach(), memory.get(name)) for name, tensor in tensors.items()}


def _copy(tensor: torch.Tensor, held: torch.Tensor | None) -> torch.Tensor:
    if held is not None and held.shape == tensor.shape and held.dtype == tensor.dtype:
        return held.copy_(tensor)
    return tensor.to("cpu", copy=True).contiguous()


def _encoded(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None) -> list[Buffer]:
    return list(tensorfile.serialize({n: (_DTYPES[t.dtype], tuple(t.shape), _bytes_of(t)) for n, t in tensors.items()}, metadata))


def from_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a file of ours, on the CPU. Raises `DamagedError`."""
    header = tensorfile.read_header(path)
    data = bytearray(path.read_bytes())  # writable, so that torch can share it
    found = {}
    for name, info in header.tensors.items():
        dtype = _TORCH_DTYPES.get(info.dtype)
        if dtype is None:
            raise DamagedError(f"{path}: {name} is of dtype {info.dtype}, which FluxTUI does not write.")
        count = (info.end - info.start) // dtype.itemsize
        start = header.data_offset + info.start
        flat = torch.frombuffer(data, dtype=dtype, count=count, offset=start) if count else torch.empty(0, dtype=dtype)
        found[name] = flat.reshape(info.shape).clone()
    return found


def _bytes_of(tensor: torch.Tensor) -> Buffer:
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy()) if tensor.numel() else b""  # type: ignore[arg-type]


def _split_optimizer(optimizer: torch.optim.Optimizer, names: list[str]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """An optimizer's state as tensors by "parameter/key" and scalars; exact for any optimizer that keeps to `state_dict`."""
    # torch's own: bitsandbytes wraps its tensors in a dict, so that FSDP does not gather them, and reads them back either way
    saved = torch.optim.Optimizer.state_dict(optimizer)
    tensors: dict[str, torch.Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for index, values in saved["state"].items():
        for key, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{names[index]}/{key}"] = value
            else:
                scalars.setdefault(names[index], {})[key] = _to_plain(value)
    groups = [{key: _to_plain(value) for key, value in group.items()} for group in saved["param_groups"]]
    return tensors, {"state": scalars, "groups": groups}


def _join_optimizer(
    optimizer: torch.optim.Optimizer, names: list[str], tensors: Mapping[str, torch.Tensor], counters: Counters
) -> None:
    number = {name: index for index, name in enumerate(names)}
    state: dict[int, dict[str, Any]] = {}
    for full, tensor in tensors.items():
        name, _, key = full.rpartition("/")
        state.setdefault(number[name], {})[key] = tensor
    for name, values in counters.scalars.items():
        state.setdefault(number[name], {}).update({key: _from_plain(value) for key, value in values.items()})
    learnt = [{key: _from_plain(value) for key, value in group.items() if key in _LEARNT} for group in counters.groups]
    fresh = torch.optim.Optimizer.state_dict(optimizer)["param_groups"]
    groups = [group | learnt[min(index, len(learnt) - 1)] for index, group in enumerate(fresh)]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _to_plain(value: Any) -> Any:  # noqa: ANN401  (an optimizer's scalar, of any kind that JSON can say)
    if isinstance(value, torch.Tensor):
        return {"tensor": value.tolist(), "dtype": _DTYPES[value.dtype]}
    if isinstance(value, tuple):
        return {"tuple": [_to_plain(item) for item in value]}
    if isinstance(value, list):
        return [_to_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"an optimizer keeps a {type(value).__name__}, which a checkpoint cannot hold")


def _from_plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict) and "tensor" in value:
        return torch.tensor(value["tensor"], dtype=_TORCH_DTYPES[value["dtype"]])
    if isinstance(value, dict) and "tuple" in value:
        return tuple(_from_plain(item) for item in value["tuple"])
    if isinstance(value, list):
        return [_from_plain(item) for item in value]
    return value
