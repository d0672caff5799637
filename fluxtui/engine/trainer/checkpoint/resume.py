"""Where a run begins: at a checkpoint of its own, at another session's, at a LoRA file, or from nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from fluxtui.engine.family.flux1.lora_file import read_factors, text_encoder_of
from fluxtui.engine.family.flux1.lora_scale import declared_by
from fluxtui.engine.trainer.adapter.lora import Adapter, begin_with
from fluxtui.engine.trainer.checkpoint import state as states
from fluxtui.engine.trainer.checkpoint.committer import Committer, changes, facts
from fluxtui.engine.trainer.checkpoint.state import LoopState
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.errors import NotFoundError, RefusedError
from fluxtui.persist.files import tensorfile
from fluxtui.persist.files.tilde import expanded
from fluxtui.persist.sessions.record import Phase

if TYPE_CHECKING:
    from fluxtui.engine.trainer.reporter import Reporter


def resume(committer: Committer, adapters: Sequence[Adapter]) -> LoopState:
    """The state to go on from, put into adapter, optimizer and averages.

    Raises `RefusedError` with the difference where recipe, data, libraries or ranks changed and that was not accepted.
    """
    job, runtime = committer.job, committer.runtime
    found = states.find(committer.folder.checkpoints, job.resume, committer.damaged) if runtime.is_first else None
    name = runtime.agree(found)  # rank 0 alone sets aside what is damaged
    if name:
        return _go_on(committer, committer.folder.checkpoints / name)
    if job.start_from:
        return _follow(committer, Path(job.start_from))
    if job.spec.lora.weights:
        _begin_with_file(adapters, expanded(job.spec.lora.weights), committer.reporter)
        committer.ema.restart()
    return LoopState()


def _go_on(committer: Committer, path: Path) -> LoopState:
    before = commit.verify_checkpoint(path).facts
    changed = _changed(committer, path.name, before)
    state = _restore(committer, path)
    if changed:
        if state.inexact_since is None:
            state.inexact_since = state.step
        committer.reporter.note(f"not exact since step {state.inexact_since}: {'; '.join(changed)}")
    if state.inexact_since is not None:
        committer.reporter.progress(inexact_since=state.inexact_since)
    committer.last_step = state.step
    committer.reporter.say(f"goes on from {path.name}")
    committer.reporter.progress(Phase.LOAD, resumed_from=path.name, step=state.step)
    return state


def _follow(committer: Committer, other: Path) -> LoopState:
    """More of another session: its weights, optimizer and counters."""
    states.verify(other)
    state = _restore(committer, other)
    committer.reporter.note(f"begins with {other.parent.parent.name}/{other.name}")
    return state


def _restore(committer: Committer, path: Path) -> LoopState:
    state = states.restore(path, committer.parameters, committer.optimizer)
    states.restore_ema(path, committer.ema)
    return state


def _changed(committer: Committer, name: str, before: Mapping[str, str | int]) -> list[str]:
    """What is not as it was, accepted; raises `RefusedError` where it was not."""
    job = committer.job
    changed = changes(before, facts(job, committer.runtime, committer.dataset, committer.model, committer.weights, LoopState()))
    if before.get("session_id") != job.spec.id:
        changed.insert(0, f"{name} is another session's checkpoint")
    if changed and not job.accept_changes:
        raise RefusedError(
            f"A resume would not be exact: {'; '.join(changed)}. "
            f"Undo the change, or go on with `fluxtui resume {job.spec.name} --accept-changes`."
        )
    return changed


def _begin_with_file(adapters: Sequence[Adapter], path: Path, reporter: Reporter) -> None:
    if not path.is_file():
        raise NotFoundError(f"There is no LoRA file {path}; lora.weights names it.")
    shapes = {
        name.removesuffix(".base_layer"): (module.out_features, module.in_features)
        for name, module in adapters[0].model.named_modules()
        if isinstance(module, torch.nn.Linear) and ".lora_" not in name
    }
    for adapter in adapters[1:]:
        shapes |= {name: (layer.out_features, layer.in_features) for name, layer in adapter.layers.items()}
    tensors = states.from_safetensors(path)
    trained = {"", "CLIP"} if len(adapters) > 1 else {""}
    left = sorted({text_encoder_of(key) for key in tensors} - trained)
    tensors = {key: tensor for key, tensor in tensors.items() if text_encoder_of(key) in trained}
    begin_with(adapters, read_factors(tensors, shapes, declared_by(tensorfile.read_header(path).metadata)), path.name)
    reporter.note(f"begins with the LoRA in {path.name}")
    if "CLIP" in left:
        reporter.note(f"{path.name} holds a LoRA of CLIP too, which is left out; set train.clip_learning_rate to go on with it")
    if "T5" in left:
        reporter.note(f"{path.name} holds a LoRA of T5 too, which is left out: FluxTUI trains none")
