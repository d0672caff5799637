"""How strong a LoRA is where its file says so beside the tensors: the metadata that diffusers and peft write.

`FluxPipeline.save_lora_weights` writes no `.alpha`; alpha and what goes with it lie in one metadata key, as JSON of peft's
configuration with the model's part before each name. A reader that leaves it out begins at the wrong scale.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fluxtui.persist.errors import DamagedError

KEY = "lora_adapter_metadata"
# what changes an update, and is not alpha over rank
_OTHERWISE = ("use_dora", "use_qalora", "lora_bias", "layer_replication", "alora_invocation_tokens", "use_bdlora", "arrow_config")


@dataclass(frozen=True, slots=True)
class Declared:
    """Of one part of the model ("transformer", "text_encoder")."""

    alpha: float
    alphas: Mapping[str, float]  # by peft's pattern: the end of a module's name, or a regular expression of it
    is_rslora: bool

    def scale(self, module: str, rank: int) -> float:
        """What B of this module is multiplied with; the module's name within its part."""
        alpha = next((one for pattern, one in self.alphas.items() if re.fullmatch(rf"(.*\.)?({pattern})", module)), self.alpha)
        return alpha / (math.sqrt(rank) if self.is_rslora else rank)


def declared_by(metadata: Mapping[str, str]) -> dict[str, Declared]:
    """Part of the model -> what the file says of it; empty where it says nothing. Raises `DamagedError`."""
    if KEY not in metadata:
        return {}
    try:
        said = json.loads(metadata[KEY])
    except ValueError:
        raise _unread("it is no JSON") from None
    if not isinstance(said, dict):
        raise _unread("it is no table")
    parts: dict[str, dict[str, Any]] = {}
    for full, value in said.items():
        part, _, name = full.partition(".")
        parts.setdefault(part, {})[name] = value
    return {part: _declared(part, values) for part, values in parts.items()}


def _declared(part: str, values: Mapping[str, Any]) -> Declared:
    for name in _OTHERWISE:
        if values.get(name):
            raise _unread(f"{part}.{name} is set")
    patterns, is_rslora = values.get("alpha_pattern") or {}, values.get("use_rslora") or False
    if not isinstance(patterns, dict) or not isinstance(is_rslora, bool):
        raise _unread(f"{part}.alpha_pattern or {part}.use_rslora is of another type")
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error:
            raise _unread(f"{pattern!a} is no pattern") from None
    alphas = {pattern: _alpha(part, value) for pattern, value in patterns.items()}
    return Declared(_alpha(part, values.get("lora_alpha")), alphas, is_rslora)


def _alpha(part: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value < math.inf:
        raise _unread(f"{part} has no alpha that is a number above 0")
    return float(value)


def _unread(why: str) -> DamagedError:
    return DamagedError(f"The LoRA file's {KEY} cannot be read ({why}); fold alpha / rank into its B factors and take it out.")
