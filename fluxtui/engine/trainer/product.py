"""The product: one LoRA file that loads in diffusers and ComfyUI, and the claim of what it is.

Keys are diffusers'; the scale alpha / rank is folded into B, because a reader that does not know the metadata would use 1;
bf16, as the base is distributed. One metadata key with sorted JSON: the library writes several in random order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from fluxtui import __version__
from fluxtui.engine.family.flux1.keys import diffusers_keys
from fluxtui.engine.trainer.endings import NonFiniteError
from fluxtui.engine.trainer.lora import Adapter
from fluxtui.engine.trainer.state import to_safetensors
from fluxtui.engine.wire import TrainJob
from fluxtui.persist import tensorfile, toml
from fluxtui.persist.durable import write_file
from fluxtui.persist.home import SessionFolder
from fluxtui.persist.record import Result

METADATA_KEY = "fluxtui"


def folded(adapter: Adapter, dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
    """The tensors of the file: A, and B times alpha / rank, under diffusers' names. Raises `NonFiniteError`."""
    tensors: dict[str, torch.Tensor] = {}
    factors = {name: parameter.detach().float() for name, parameter in adapter.named_parameters()}
    for module in adapter.modules:
        key_a, key_b = diffusers_keys(module)
        tensors[key_a] = factors[f"{module}.lora_A"].to(dtype)
        tensors[key_b] = (factors[f"{module}.lora_B"] * adapter.scale).to(dtype)
        if not (torch.isfinite(tensors[key_a]).all() and torch.isfinite(tensors[key_b]).all()):
            raise NonFiniteError(f"the LoRA of {module} is not finite; no file is written")
    return tensors


def metadata(job: TrainJob, step: int, base: str) -> dict[str, str]:
    """The one metadata key: who made this of what. Nothing of one attempt, so that a resumed run writes the same bytes."""
    spec = job.spec
    facts = {
        "session_id": spec.id, "session": spec.name, "recipe_sha256": job.recipe_sha256, "step": step, "base_model": base,
        "trigger": spec.dataset.trigger, "rank": spec.lora.rank, "alpha": spec.lora.alpha, "targets": spec.lora.targets,
        "fluxtui": __version__,
    }  # fmt: skip
    return {METADATA_KEY: json.dumps(facts, sort_keys=True, ensure_ascii=False)}


@dataclass(frozen=True, slots=True)
class Made:
    """A file that was written."""

    size: int  # bytes
    sha256: str
    tensors_sha256: str  # of the tensors' bytes, names sorted: what two runs of one recipe have in common


def write_product(path: Path, tensors: Mapping[str, torch.Tensor], described: Mapping[str, str]) -> Made:
    """Writes the file durably."""
    pieces = to_safetensors(tensors, described)
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        size += memoryview(piece).nbytes
    write_file(path, pieces)
    return Made(size, digest.hexdigest(), tensorfile.tensors_sha256(path))


def claim(job: TrainJob, folder: SessionFolder, step: int, made: Made) -> None:
    """Writes `result.toml`: this attempt says what it made. It is proven by another process."""
    toml.write(folder.result_file, Result(
        nonce=job.nonce, attempt=job.attempt, session_id=job.spec.id, recipe_sha256=job.recipe_sha256, step=step,
        file=folder.product.name, size=made.size, sha256=made.sha256, tensors_sha256=made.tensors_sha256,
    ))  # fmt: skip
