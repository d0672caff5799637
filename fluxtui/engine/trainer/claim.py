"""The product's bytes on the disk, and then the claim of what they are. No torch.

In this order: a claim without its file, or with another's, is one that the proof rejects.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fluxtui.engine.wire import TrainJob
from fluxtui.persist.files import tensorfile, toml
from fluxtui.persist.files.durable import Buffer, write_file
from fluxtui.persist.home import SessionFolder
from fluxtui.persist.sessions.record import Result


@dataclass(frozen=True, slots=True)
class Made:
    """A file that was written."""

    size: int  # bytes
    sha256: str
    tensors_sha256: str  # of the tensors' bytes, names sorted: what two runs of one recipe have in common


def write_pieces(path: Path, pieces: Sequence[Buffer]) -> Made:
    """Writes a safetensors file durably. Raises `StorageError`, and then leaves no temporary file behind."""
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
