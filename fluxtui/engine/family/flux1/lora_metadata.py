"""What a LoRA file says of itself, for the programs that look: ours, the model spec of Stability AI, and kohya's sd-scripts.

Deterministic: no time and no path, so that a resumed run writes the same bytes. Keys are sorted where they are written.
Sources: the ModelSpec standard, version 1.0.0; `train_util.py` of sd-scripts for `ss_*`, and its `addnet_hash_safetensors`
for `sshs_model_hash`: the SHA-256 of everything behind the header.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch

from fluxtui import __version__
from fluxtui.engine.trainer.checkpoint.state import to_safetensors
from fluxtui.persist.settings import recipe
from fluxtui.persist.settings.spec import Spec

METADATA_KEY = "fluxtui"  # ours: what the proof asks for


def describe(
    spec: Spec, tensors: Mapping[str, torch.Tensor], step: int, *, form: str, has_guidance: bool, base: str = ""
) -> dict[str, str]:
    """All metadata of a file that holds these tensors. `form`: whose names they are under; `base`: the model, where known."""
    digest = data_sha256(tensors)
    ours = {
        "session_id": spec.id, "session": spec.name, "recipe_sha256": recipe.recipe_sha256(spec), "step": step,
        "trigger": spec.dataset.trigger, "rank": spec.lora.rank, "alpha": spec.lora.alpha, "targets": spec.lora.targets,
        "kind": spec.lora.kind, "format": form, "base_model": base, "fluxtui": __version__,
    }  # fmt: skip
    found = {
        METADATA_KEY: json.dumps(ours, sort_keys=True, ensure_ascii=False),
        **_model_spec(spec, has_guidance, digest),
        **_sd_scripts(spec, step),
        "sshs_model_hash": digest,
    }
    return {key: value for key, value in found.items() if value}


def data_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of the bytes behind the header of a file that holds these tensors."""
    digest = hashlib.sha256()
    for number, piece in enumerate(to_safetensors(tensors)):
        if number:  # the first is the header
            digest.update(piece)
    return digest.hexdigest()


def _model_spec(spec: Spec, has_guidance: bool, digest: str) -> dict[str, str]:
    side = max(spec.dataset.resolution)
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{'flux-1-dev' if has_guidance else 'flux-1-schnell'}/lora",
        "modelspec.implementation": "https://github.com/black-forest-labs/flux",
        "modelspec.title": spec.title or spec.name,
        "modelspec.trigger_phrase": spec.dataset.trigger,
        "modelspec.prediction_type": "flow",
        "modelspec.resolution": f"{side}x{side}",
        "modelspec.hash_sha256": f"0x{digest}",
    }


def _sd_scripts(spec: Spec, step: int) -> dict[str, str]:
    train, trigger = spec.train, spec.dataset.trigger
    return {
        # of a plain LoRA only: what sd-scripts would make of the others is something else
        "ss_network_module": "networks.lora_flux" if spec.lora.kind == "lora" else "",
        "ss_base_model_version": "flux1",
        "ss_output_name": spec.name,
        "ss_network_dim": str(spec.lora.rank),
        "ss_network_alpha": str(spec.lora.alpha),
        "ss_network_args": json.dumps({"kind": spec.lora.kind, "layers": spec.lora.layers}),
        "ss_seed": str(train.seed),
        "ss_learning_rate": str(train.learning_rate),
        "ss_steps": str(step),
        "ss_optimizer": train.optimizer,
        "ss_lr_scheduler": train.scheduler,
        "ss_batch_size_per_device": str(train.batch_size),
        "ss_gradient_accumulation_steps": str(train.gradient_accumulation),
        "ss_training_comment": "the scale alpha / rank is folded into the up factors",
        "ss_tag_frequency": json.dumps({spec.name: {trigger: 1}}, ensure_ascii=False) if trigger else "",
    }
