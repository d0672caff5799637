"""From `model.source` to a pipeline on this disk; a hub id is resolved to a commit and fetched, once."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fluxtui.engine.family.flux1.components import Components, pipeline_at
from fluxtui.engine.hub import repository
from fluxtui.engine.hub.refusals import DownloadError
from fluxtui.engine.trainer import alone
from fluxtui.engine.trainer.reporter import Reporter
from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.files.durable import remove_tree
from fluxtui.persist.files.text import clean
from fluxtui.persist.home import Home
from fluxtui.persist.models.assembly import missing_tokenizers, place_tokenizer
from fluxtui.persist.models.folder import other_pipeline, other_transformer, recognise, settle
from fluxtui.persist.models.search import TOKENIZER_REPOSITORIES, hub_caches, is_whole, tokenizer_files
from fluxtui.persist.sessions.record import Phase
from fluxtui.persist.settings.spec import ModelSpec

# no single-file weights of the whole model, no pickles, no pictures: what a pipeline folder needs, and nothing else
_WANTED = ["model_index.json", *(f"{part}/*.{ending}" for part in ("transformer", "vae", "text_encoder", "text_encoder_2")
           for ending in ("json", "safetensors")), "tokenizer/*", "tokenizer_2/*", "scheduler/*"]  # fmt: skip
_WANTED_OF_TOKENIZERS = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt",
                         "spiece.model"]  # fmt: skip


def open_model(model: ModelSpec, home: Path, commit: str, reporter: Reporter, is_offline: bool = False) -> Components:
    """The pipeline that the spec means. `commit` is what the hub id resolved to in an earlier attempt; "" in the first.

    Where `is_offline`, nothing is fetched. Raises `DownloadError` or a subclass, and as `persist.models.folder.recognise` does.
    """
    found = settle(model.source, Home(home))
    if found.path is not None:
        _bring_tokenizers(found.path, Home(home), reporter, is_offline)
        return pipeline_at(found.path)
    snapshot = _snapshot(found.hub_id, commit or model.revision, Home(home), reporter, is_offline)
    reporter.progress(Phase.DOWNLOAD, model_commit=snapshot.name)
    if config := alone.config_of(snapshot):
        return pipeline_at(_completed(model, snapshot, config, Home(home), reporter, is_offline), snapshot.name)
    return pipeline_at(snapshot, snapshot.name)


def _snapshot(hub_id: str, revision: str, home: Home, reporter: Reporter, is_offline: bool) -> Path:
    """A whole pipeline of the hub, or a whole transformer alone: from a cache of this machine, ours or the shared one, else
    fetched into ours."""
    for cache in hub_caches(home):
        kept = repository.here(cache, hub_id, revision)
        if kept is not None and (_is_pipeline(kept) or alone.config_of(kept)):
            return kept
    _must_be_allowed(hub_id, is_offline)
    listing = _listing(hub_id, revision, [*_WANTED, *alone.WANTED_OF_TRANSFORMER, "*.safetensors"], reporter)
    folder = _bring(_what_is_needed(listing), revision, home, reporter, partial(_refuse_others, hub_id))
    if not _is_pipeline(folder) and not alone.config_of(folder):
        raise DownloadError(f"{hub_id} is not a FLUX.1 pipeline in diffusers layout", "give another id, or FLUX.1 in files")
    return folder


def _must_be_allowed(hub_id: str, is_offline: bool) -> None:
    if is_offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        raise DownloadError(
            f"{hub_id} is not on this machine, and nothing may be fetched", "unset HF_HUB_OFFLINE, or give a folder or files"
        )


def _what_is_needed(listing: repository.Listing) -> repository.Listing:
    """Of a pipeline its parts; of a repository of nothing but a transformer that. Raises `DownloadError` for all else."""
    names = {file.name for file in listing.files}
    if "model_index.json" in names:
        return listing.only(_WANTED)
    own = replace(listing, files=tuple(file for file in listing.files if "/" not in file.name)).only(alone.WANTED_OF_TRANSFORMER)
    if {"json", "safetensors"} <= {file.name.rpartition(".")[2] for file in own.files}:
        return own
    single = sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)
    if single:
        some = ", ".join(single[:3]) + (f" and {len(single) - 3} more" if len(single) > 3 else "")
        command = f"hf download {listing.repository} {shlex.quote(clean(single[0], 200))}"
        raise DownloadError(
            f"{listing.repository} holds single files ({clean(some, 300)}), not a pipeline in diffusers layout",
            f"fetch the one that is meant, {command}, and give its path",
        )
    raise DownloadError(
        f"{listing.repository} has no model_index.json: it is not a whole pipeline in diffusers layout",
        "give another id; of a FLUX.1 in one safetensors file fetch that file, and give its path",
    )


def _refuse_others(hub_id: str, telling: Mapping[str, bytes]) -> None:
    """What is no FLUX.1 is known by two small files, and refused before the gigabytes. Raises `DownloadError`."""
    tests = {
        "model_index.json": other_pipeline, "transformer/config.json": other_transformer,
        "config.json": alone.other_than_transformer,
    }  # fmt: skip
    for name, content in telling.items():
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            document = None
        if other := tests[name](document) if isinstance(document, dict) else f"damaged: its {name} is not a JSON object":
            raise DownloadError(f"{hub_id} is {other}", "give another id, or FLUX.1 in files")


def _completed(
    model: ModelSpec, snapshot: Path, config: dict[str, Any], home: Home, reporter: Reporter, is_offline: bool
) -> Path:
    """The transformer with encoders, VAE, tokenizers and scheduler of `model.base`; as an earlier attempt left it."""
    base = model.base or alone.BASES[bool(config.get("guidance_embeds", False))]
    place = alone.place_of(model.source, snapshot.name, base, home)
    if not _is_pipeline(place):
        remove_tree(place)  # links to what is gone since
        reporter.say(f"{model.source} is a transformer alone: text encoders, VAE and scheduler are those of {base} (model.base)")
        alone.put_together(snapshot, _rest(base, home, reporter, is_offline), place)
    return place


def _rest(base: str, home: Home, reporter: Reporter, is_offline: bool) -> Path:
    """A FLUX.1 whose parts beside the transformer are here; of one on the hub only those are fetched."""
    found = settle(base, home)
    if found.path is not None:
        _bring_tokenizers(found.path, home, reporter, is_offline)
        return found.path
    for cache in hub_caches(home):
        kept = repository.here(cache, base, "")
        if kept is not None and alone.has_rest(kept):
            return kept
    _must_be_allowed(base, is_offline)
    wanted = [pattern for pattern in _WANTED if pattern != "transformer/*.safetensors"]
    folder = _bring(_listing(base, "", wanted, reporter), "", home, reporter, partial(_refuse_others, base))
    if not alone.has_rest(folder):
        raise DownloadError(f"{base} has not all of FLUX.1's text encoders, VAE and tokenizers", "set model.base to one that has")
    return folder


def _listing(hub_id: str, revision: str, wanted: list[str], reporter: Reporter) -> repository.Listing:
    reporter.progress(Phase.DOWNLOAD)
    return repository.ask(hub_id, revision, wanted)


def _bring(
    listing: repository.Listing, revision: str, home: Home, reporter: Reporter, judge: repository.Judge | None = None
) -> Path:
    reporter.say(
        f"fetching {listing.repository} at {listing.commit}: {len(listing.files)} files, {listing.size / 2**30:.1f} GiB"
    )

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
        source = _bring(_listing(TOKENIZER_REPOSITORIES[name], "", _WANTED_OF_TOKENIZERS, reporter), "", home, reporter)
        place_tokenizer(folder, name, source)
        if name in missing_tokenizers(folder):
            raise DownloadError(f"{TOKENIZER_REPOSITORIES[name]} holds no {name} that FLUX.1 can use")
