"""Rank and alpha of single layers: the entries of `lora.layers`, "PATTERN=RANK" or "PATTERN=RANK/ALPHA". No torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from fluxtui.persist.settings.spec import LoraSpec

_ENTRY = re.compile(r"(?P<pattern>.+)=\s*(?P<rank>\d{1,4})\s*(?:/\s*(?P<alpha>\d+(?:\.\d+)?))?\s*")


@dataclass(frozen=True, slots=True)
class LayerSize:
    """How large the update of a layer may be, and how strong it is."""

    rank: int
    alpha: float

    def scale(self, is_rslora: bool) -> float:
        """alpha / rank, or alpha / sqrt(rank) (rsLoRA, arXiv:2312.03732), under which a higher rank is not a weaker update."""
        return self.alpha / (math.sqrt(self.rank) if is_rslora else self.rank)


def problem_of(entry: str) -> str:
    """What is wrong with an entry, as the end of a sentence; empty where nothing is."""
    match = _ENTRY.fullmatch(entry)
    if match is None:
        return "write each as PATTERN=RANK or PATTERN=RANK/ALPHA, like single_transformer_blocks.*=8"
    try:
        re.compile(match["pattern"])
    except re.error as error:
        return f"the pattern of {entry!a} is no regular expression ({error})"
    if not 1 <= int(match["rank"]) <= 1024 or (match["alpha"] and not 0.0 < float(match["alpha"]) <= 4096.0):
        return f"{entry!a} must have a rank from 1 to 1024 and an alpha above 0 and up to 4096"
    return ""


def sizes_of(spec: LoraSpec, names: Iterable[str]) -> dict[str, LayerSize]:
    """Rank and alpha of each named layer. A pattern matches a whole name; one without an alpha keeps alpha / rank as it is."""
    rules = [(re.compile(match["pattern"]), _size(match, spec)) for match in map(_ENTRY.fullmatch, spec.layers) if match]
    common = LayerSize(spec.rank, spec.alpha)
    return {name: next((size for pattern, size in rules if pattern.fullmatch(name)), common) for name in names}


def largest_rank(spec: LoraSpec) -> int:
    """The largest rank that any layer can have: what disk and memory are estimated with."""
    return max([spec.rank, *(int(match["rank"]) for match in map(_ENTRY.fullmatch, spec.layers) if match)])


def _size(match: re.Match[str], spec: LoraSpec) -> LayerSize:
    rank = int(match["rank"])
    return LayerSize(rank, float(match["alpha"]) if match["alpha"] else spec.alpha * rank / spec.rank)
