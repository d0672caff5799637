"""When a checkpoint is due, how it is committed, and what must be as it was for a resume to be exact."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from typing import Any

import msgspec
import torch
from torch import nn

from fluxtui import __version__
from fluxtui.engine.memory.precision import CODECS
from fluxtui.engine.memory.presets import held_on
from fluxtui.engine.trainer import room
from fluxtui.engine.trainer.adapter.ema import Ema
from fluxtui.engine.trainer.checkpoint import state as states
from fluxtui.engine.trainer.checkpoint.state import LoopState
from fluxtui.engine.trainer.checkpoint.write_behind import WriteBehind, Written
from fluxtui.engine.trainer.optim import LIBRARY_OF, evaluated
from fluxtui.engine.trainer.refusal import NoRoomError
from fluxtui.engine.trainer.reporter import Reporter
from fluxtui.engine.trainer.runtime import Runtime
from fluxtui.engine.wire import TrainJob
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.datasets.facts import Fingerprint
from fluxtui.persist.files.durable import Buffer
from fluxtui.persist.home import SessionFolder
from fluxtui.persist.sessions.record import Phase
from fluxtui.persist.settings import keys
from fluxtui.persist.settings.spec import RECIPE_TABLES, Spec

LIBRARIES = ("torch", "diffusers", "transformers", "peft", "accelerate", "tokenizers", "numpy", "pillow")
_PIECE = 4 << 20  # bytes written at once


@cache
def versions() -> dict[str, str]:
    """Versions of the libraries that a number can depend on."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def facts(job: TrainJob, runtime: Runtime, dataset: str, model: str, weights: str, state: LoopState) -> dict[str, str | int]:
    """What a MANIFEST says of a checkpoint: what it is of, and what must be the same for an exact resume."""
    return {
        "session_id": job.spec.id, "attempt": job.attempt, "step": state.step, "epoch": state.epoch,
        "recipe_sha256": job.recipe_sha256, "dataset": dataset, "model": model, "weights": weights,
        "recipe": json.dumps(_recipe(job.spec), sort_keys=True),
        "versions": json.dumps(versions() | _optimizer_version(job.spec), sort_keys=True),
        "ranks": runtime.ranks, "threads": job.threads, "device": device_name(runtime.device),
        "precision": held_in(job.spec, runtime), "compiled": "yes" if job.spec.hardware.compile else "no",
        "fluxtui": __version__,
    }  # fmt: skip


def held_in(spec: Spec, runtime: Runtime) -> str:
    """What the frozen base is held in here: a codec's name, or the dtype. A preset or another card may change it unasked."""
    precision = held_on(spec, runtime.card).precision
    return precision if precision in CODECS else str(runtime.dtype).removeprefix("torch.")


def _optimizer_version(spec: Spec) -> dict[str, str]:
    library = LIBRARY_OF.get(spec.train.optimizer)
    return {library: importlib.metadata.version(library)} if library else {}


def dataset_digest(fingerprint: Fingerprint) -> str:
    """One hash of which files the data set has and of what is in them."""
    lines = sorted(f"{fact.path}\0{fact.sha256}" for fact in fingerprint.files)
    return sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def device_name(device: torch.device) -> str:
    """The GPU's model, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def changes(before: Mapping[str, str | int], now: Mapping[str, str | int]) -> list[str]:
    """What is not as it was when a checkpoint was committed, a phrase each; empty where a resume is exact."""
    found = []
    if before.get("recipe_sha256") != now["recipe_sha256"]:
        old, new = (_said(side, "recipe") for side in (before, now))
        values = [phrase for table in RECIPE_TABLES for phrase in _changed_values(table, old, new)]
        found.append(f"the recipe changed ({', '.join(values) or 'in what this version reads otherwise'})")
    old, new = (_said(side, "versions") for side in (before, now))
    if before.get("dataset") != now["dataset"]:
        found.append("the data set changed")
    if before.get("model", now["model"]) != now["model"]:
        found.append("the model's files changed")
    elif before.get("weights", now["weights"]) != now["weights"]:
        found.append("bytes of the model's weights changed on the disk, or were read wrong: compare the files with their source")
    found += [f"{name} was {old.get(name, 'absent')}, is {new.get(name, 'absent')}" for name in _unequal(old, new)]
    found += [
        f"{key} was {before.get(key)}, is {now[key]}" for key in ("ranks", "threads", "device") if before.get(key) != now[key]
    ]
    found += [
        f"{words} was {before[key]}, is {now[key]}"
        for key, words in (("precision", "the base's precision"), ("compiled", "hardware.compile"), ("fluxtui", "FluxTUI"))
        if before.get(key, now[key]) != now[key]  # checkpoints from before these were noted still go on
    ]
    return found


def _said(facts: Mapping[str, str | int], name: str) -> dict[str, Any]:
    """A fact that is a JSON object; empty, and so unlike any, where a MANIFEST has something else there."""
    try:
        value = json.loads(str(facts.get(name, "{}")))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _changed_values(table: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """For each key of the table that is not as it was: "train.steps was 20, is 40"."""
    before, after = (side[table] if isinstance(side.get(table), dict) else {} for side in (old, new))
    was, now = ({key: keys.show(value) for key, value in side.items()} for side in (before, after))
    return [f"{table}.{key} was {was.get(key, 'absent')}, is {now.get(key, 'absent')}" for key in _unequal(before, after)]


def _unequal(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    return sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))


def _recipe(spec: Spec) -> dict[str, object]:
    return {table: msgspec.to_builtins(getattr(spec, table)) for table in RECIPE_TABLES}


@dataclass(slots=True)
class Committer:
    """Rank 0's: has the state of the run committed, and knows when it is time to."""

    job: TrainJob
    folder: SessionFolder
    reporter: Reporter
    runtime: Runtime
    dataset: str  # digest of the files that are trained on
    model: str  # digest of the pipeline that is adapted: large files by samples
    weights: str  # digest of its transformer's weights, every byte
    parameters: Mapping[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    ema: Ema
    last_step: int = -1  # of the newest commit, begun or done
    last_at: float = field(default_factory=time.monotonic)
    _writing: WriteBehind = field(default_factory=WriteBehind)
    _memory: states.Captured | None = None  # of the last commit: the next is copied into it, and waits less for that

    def is_due(self, state: LoopState, epoch_ended: bool) -> bool:
        """By epochs, steps or minutes, whichever comes first."""
        spec = self.job.spec.checkpoint
        by_epochs = epoch_ended and spec.every_epochs > 0 and state.epoch % spec.every_epochs == 0
        by_steps = spec.every_steps > 0 and state.step % spec.every_steps == 0
        by_minutes = spec.every_minutes > 0 and time.monotonic() - self.last_at >= 60.0 * spec.every_minutes
        return by_epochs or by_steps or by_minutes

    def commit(self, state: LoopState) -> None:
        """Copy the state to memory and have it written while training goes on; waits first for the write before it.

        Durable once `settle` has returned. Raises `NonFiniteError`, `NoRoomError` (nothing written), `StorageError`.
        """
        self.settle()
        name = commit.step_name(state.step)
        if self.last_step == state.step and os.path.isdir(self.folder.checkpoints / name):  # it may have been taken away since
            return
        self.reporter.progress(Phase.CHECKPOINT, step=state.step)
        self._memory = captured = states.capture(state, self.parameters, self.optimizer, self._beside(), self._memory)
        self._must_have_room(name, captured.nbytes)
        described = facts(self.job, self.runtime, self.dataset, self.model, self.weights, state)
        self._writing.begin(name, captured.nbytes, lambda count: self._write(name, captured, described, count))
        self.last_step, self.last_at = state.step, time.monotonic()
        self.reporter.progress(Phase.TRAIN, step=state.step)

    def settle(self) -> None:
        """Wait until the checkpoint that is being written is durable. Raises what its write raised."""
        self._announce(self._writing.settle(self._tell))

    def look(self) -> None:
        """At each step: tell of a checkpoint that has become durable meanwhile. Raises what its write raised."""
        self._announce(self._writing.poll())

    def _write(
        self, name: str, captured: states.Captured, described: Mapping[str, str | int], count: Callable[[int], None]
    ) -> None:
        """In the writer's thread: the protocol, then what it lets go."""
        commit.commit_checkpoint(
            self.folder.checkpoints, name, {file: _counted(pieces, count) for file, pieces in captured.files().items()},
            described, self.damaged,
        )  # fmt: skip
        self.reporter.say(f"checkpoint {name} committed")
        commit.retain(self.folder.checkpoints, self.job.spec.checkpoint.keep, self.damaged, self.job.spec.id)

    def _must_have_room(self, name: str, total: int) -> None:
        """Looked at again before each: what preflight found free may have been used by others."""
        free = shutil.disk_usage(self.folder.checkpoints).free
        if free < total and not (self.folder.checkpoints / name).exists():
            raise NoRoomError(f"the disk has {room.words(free)} free, and checkpoint {name} takes {room.words(total)}")

    def _tell(self, done: int, total: int) -> None:
        self.reporter.progress(Phase.CHECKPOINT, item=done, items=total, unit="bytes")

    def _announce(self, written: Written | None) -> None:
        if written is not None:
            self.reporter.progress(checkpoint=written.name, checkpoint_seconds=written.seconds)

    def _beside(self) -> dict[str, dict[str, torch.Tensor]]:
        """Weights that are not trained but looked at: averaged ones, and those of a schedule-free optimizer."""
        beside = {states.EMA_FILE: self.ema.shadow} if self.ema.shadow else {}
        if hasattr(self.optimizer, "eval"):
            with evaluated(self.optimizer, list(self.parameters.values())):
                beside[states.EVALUATED_FILE] = {name: value.detach().clone() for name, value in self.parameters.items()}
        return beside

    def damaged(self, name: str, why: str) -> None:
        """A checkpoint that does not verify was set aside."""
        self.reporter.note(f"checkpoint {name} is damaged and was set aside: {why}")


def _counted(pieces: list[Buffer], count: Callable[[int], None]) -> Iterator[Buffer]:
    """The same bytes in pieces of at most 4 MiB, each counted once it was taken."""
    for piece in pieces:
        view = memoryview(piece).cast("B")
        for start in range(0, len(view), _PIECE):
            yield view[start : start + _PIECE]
            count(min(_PIECE, len(view) - start))
