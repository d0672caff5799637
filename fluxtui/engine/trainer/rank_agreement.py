"""What must be the same on all ranks, wherever they run: the pictures, the model, the libraries. Rank 0's counts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from fluxtui.engine.trainer.data import fingerprint
from fluxtui.engine.trainer.refusal import DataError, Refusal
from fluxtui.engine.trainer.runtime import Runtime
from fluxtui.persist.datasets import facts as dataset_facts
from fluxtui.persist.datasets.facts import Fingerprint
from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.files.text import clean

_NAMED = 5  # files named in the sentence


def must_agree_with_rank_0(runtime: Runtime, dataset: tuple[str, Fingerprint], written: Path, others: Mapping[str, str]) -> None:
    """Compare with rank 0. `dataset` is digest and fingerprint here, `written` what rank 0 wrote of its own in `dataset.toml`.

    Raises `DataError` or `Refusal` on the rank that differs; the keeper then ends the others.
    """
    if runtime.ranks == 1:
        return
    digest, here = dataset
    first = json.loads(runtime.agree(json.dumps({"data set": digest, **others})) or "{}")
    if first["data set"] != digest:
        raise DataError(
            f"the data set here is not the one of rank 0{_differences(written, here)}",
            "give all machines the same files at dataset.path, then fluxtui resume {name}",
        )
    there = {what: first.get(what, "unknown") for what in others}
    unlike = [
        f"{what} is {clean(mine, 80)}, there {clean(there[what], 80)}" for what, mine in others.items() if there[what] != mine
    ]
    if unlike:
        raise Refusal(f"this rank is not as rank 0: {'; '.join(unlike)}", "make all machines alike, then fluxtui resume {name}")


def _differences(written: Path, here: Fingerprint) -> str:
    try:
        first = dataset_facts.load(written)
    except FluxTUIError:
        return ""
    found = fingerprint.differences(first, here) if first else []
    rest = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return f": {', '.join(found[:_NAMED])}{rest}" if found else ""
