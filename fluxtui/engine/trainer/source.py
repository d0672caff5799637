"""From `model.source` to a pipeline on this disk; a hub id is resolved to a commit and fetched, once."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from fluxtui.engine.family.flux1.components import Components, pipeline_at
from fluxtui.engine.hub import repository
from fluxtui.engine.hub.refusals import DownloadError
from fluxtui.engine.trainer.reporter import Reporter
from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.home import Home
from fluxtui.persist.model_assembly import missing_tokenizers, place_tokenizer
from fluxtui.persist.model_folder import other_pipeline, other_transformer, recognise, settle
from fluxtui.persist.model_search import TOKENIZER_REPOSITORIES, hub_caches, is_whole, tokenizer_files
from fluxtui.persist.record import Phase
from fluxtui.persist.spec import ModelSpec

# no single-file weights of the whole model, no pickles, no pictures: what a pipeline folder needs, and nothing else
_WANTED = ["model_index.json", *(f"{part}/*.{ending}" for part in ("transformer", "vae", "text_encoder", "text_encoder_2")
           for ending in ("json", "safetensors")), "tokenizer/*", "tokenizer_2/*", "scheduler/*"]  # fmt: skip
_WANTED_OF_TOKENIZERS = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt",
                         "spiece.model"]  # fmt: skip


def open_model(model: ModelSpec, home: Path, commit: str, reporter: Reporter, is_offline: bool = False) -> Components:
    """The pipeline that the spec means. `commit` is what the hub id resolved to in an earlier attempt; "" in the first.

    Where `is_offline`, nothing is fetched. Raises `DownloadError` or a subclass, and as `model_folder.recognise` does.
    """
    found = settle(model.source, Home(home))
    if found.path is not None:
        _bring_tokenizers(found.path, Home(home), reporter, is_offline)
        return pipeline_at(found.path)
    folder = _snapshot(found.hub_id, commit or model.revision, Home(home), reporter, is_offline)
    reporter.progress(Phase.DOWNLOAD, model_commit=folder.name)
    return pipeline_at(folder, folder.name)


def _snapshot(hub_id: str, revision: str, home: Home, reporter: Reporter, is_offline: bool) -> Path:
    """A whole pipeline of the hub: from a cache of this machine, ours or the shared one, else fetched into ours."""
    for cache in hub_caches(home):
        kept = repository.here(cache, hub_id, revision)
        if kept is not None and _is_pipeline(kept):
            return kept
    if is_offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        raise DownloadError(
            f"{hub_id} is not on this machine, and nothing may be fetched", "unset HF_HUB_OFFLINE, or give a folder or files"
        )
    folder = _bring(hub_id, revision, _WANTED, home, reporter, partial(_refuse_others, hub_id))
    if not _is_pipeline(folder):
        raise DownloadError(f"{hub_id} is not a FLUX.1 pipeline in diffusers layout", "give another id, or FLUX.1 in files")
    return folder


def _refuse_others(hub_id: str, telling: Mapping[str, bytes]) -> None:
    """What is no FLUX.1 is known by two small files, and refused before the gigabytes. Raises `DownloadError`."""
    if "model_index.json" not in telling:
        raise DownloadError(
            f"{hub_id} has no model_index.json: it is not a whole pipeline in diffusers layout",
            "give another id; of a FLUX.1 in one safetensors file fetch that file, and give its path",
        )
    tests = {"model_index.json": other_pipeline, "transformer/config.json": other_transformer}
    for name, content in telling.items():
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            document = None
        if other := tests[name](document) if isinstance(document, dict) else f"damaged: its {name} is not a JSON object":
            raise DownloadError(f"{hub_id} is {other}", "give another id, or FLUX.1 in files")


def _bring(
    hub_id: str, revision: str, wanted: list[str], home: Home, reporter: Reporter, judge: repository.Judge | None = None
) -> Path:
    reporter.progress(Phase.DOWNLOAD)
    listing = repository.ask(hub_id, revision, wanted)
    reporter.say(f"fetching {hub_id} at {listing.commit}: {len(listing.files)} files, {listing.size / 2**30:.1f} GiB")

    said = -1

    def tell(done: int, total: int) -> None:
        nonlocal said
        if done != said:  # only bytes are progress: a silent line must look like one
            said = done
            reporter.progress(Phase.DOWNLOAD, item=done, items=total, unit="bytes")
        elif reporter.leave_early is not None:
            reporter.leave_early()

    return repository.bring(listing, home.models / "hub", tell, revision, judge)


def _is_pipeline(folder: Path) -> bool:
    """Recognised, every shard there, and both tokenizers."""
    try:
        recognise(str(folder))
    except FluxTUIError:
        return False
    parts = ("transformer", "vae", "text_encoder", "text_encoder_2")
    return all(is_whole(folder / part) for part in parts) and all(
        tokenizer_files(name, folder / name) for name in ("tokenizer", "tokenizer_2")
    )


def _bring_tokenizers(folder: Path, home: Home, reporter: Reporter, is_offline: bool) -> None:
    """Single files hold no tokenizers: where none lay on this machine they come from the hub, open and small."""
    if is_offline:
        return
    for name in missing_tokenizers(folder):
        source = _bring(TOKENIZER_REPOSITORIES[name], "", _WANTED_OF_TOKENIZERS, home, reporter)
        place_tokenizer(folder, name, source)
        if name in missing_tokenizers(folder):
            raise DownloadError(f"{TOKENIZER_REPOSITORIES[name]} holds no {name} that FLUX.1 can use")
