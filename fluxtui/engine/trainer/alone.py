"""A transformer that stands alone on the hub, as Flux-Dev2Pro's does, with the other parts of a FLUX.1 that is a whole pipeline.

What it is made of lies in a folder of links in the home's `models/`, which later attempts find again: the same parts, whatever
the hub has by then.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from fluxtui.engine.family.flux1.components import Components
from fluxtui.engine.family.flux1.stream import OF_DIFFUSERS, shards
from fluxtui.engine.hub.refusals import DownloadError
from fluxtui.persist.errors import FluxTUIError, NotFoundError, StorageError
from fluxtui.persist.files import toml
from fluxtui.persist.files.durable import make_folder, remove_tree, temporary_name
from fluxtui.persist.home import Home
from fluxtui.persist.models.assembly import ASSEMBLED, Assembled, fits_together
from fluxtui.persist.models.file import PART_WORDS, PARTS
from fluxtui.persist.models.folder import TRANSFORMER, is_transformer_alone, other_transformer
from fluxtui.persist.models.search import is_whole, tokenizer_files

WANTED_OF_TRANSFORMER = ["config.json", f"{OF_DIFFUSERS}*.safetensors", f"{OF_DIFFUSERS}.safetensors.index.json"]
BASES = {True: "black-forest-labs/FLUX.1-dev", False: "black-forest-labs/FLUX.1-schnell"}  # by guidance_embeds
_REST = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")


def config_of(folder: Path) -> dict[str, Any]:
    """The configuration of a transformer whose files lie in this folder by themselves; empty where none do, or not all."""
    try:
        is_one = is_transformer_alone(folder) and is_whole(folder)
        return _json_of(folder / "config.json") if is_one else {}
    except FluxTUIError:
        return {}


def other_than_transformer(config: dict[str, Any]) -> str:
    """What a `config.json` at the top of a repository is of instead of FLUX.1's transformer; "" for that."""
    name = str(config.get("_class_name", ""))
    if name != TRANSFORMER:
        return f"a {name or 'model of no name'}, not FLUX.1's transformer"
    return other_transformer(config)


def has_rest(folder: Path) -> bool:
    """A pipeline's parts beside the transformer, all of them whole."""
    weights = all(is_whole(folder / part) for part in ("vae", "text_encoder", "text_encoder_2"))
    tokenizers = all(tokenizer_files(name, folder / name) for name in ("tokenizer", "tokenizer_2"))
    return weights and tokenizers and all((folder / name).exists() for name in ("scheduler", "model_index.json"))


def place_of(hub_id: str, commit: str, base: str, home: Home) -> Path:
    """Where a transformer of the hub is put together with the parts of `base`, as the spec names it."""
    told = json.dumps([hub_id, commit, base]).encode()
    stem = re.sub(r"[^a-z0-9._-]+", "-", hub_id.partition("/")[2].lower()).strip("-._")[:48] or "flux1"
    return home.models / f"{stem}-{hashlib.sha256(told).hexdigest()[:8]}"


def put_together(transformer: Path, base: Path, place: Path) -> Path:
    """A pipeline at `place`: links to the transformer's files and to the base's other parts. Raises `DownloadError` where they do
    not go together, `StorageError`."""
    _must_fit(transformer, base)
    making = place.with_name(temporary_name())
    try:
        make_folder(place.parent)
        make_folder(making)
        make_folder(making / "transformer")
        index = transformer / f"{OF_DIFFUSERS}.safetensors.index.json"
        for file in (transformer / "config.json", *shards(transformer), *([index] if index.exists() else [])):
            os.symlink(file.absolute(), making / "transformer" / file.name)
        for part in _REST:
            os.symlink((base / part).absolute(), making / part)
        _keep_origins(base, making)
        shutil.copyfile(base / "model_index.json", making / "model_index.json")
        os.rename(making, place)
    except OSError as error:
        remove_tree(making)
        if (place / "model_index.json").is_file():  # another rank was quicker
            return place
        raise StorageError.of(error, "assemble", place) from error
    return place


def _keep_origins(base: Path, making: Path) -> None:
    """A base out of single files says in `assembled.toml` how each is to be read."""
    try:
        parts = toml.read(base / ASSEMBLED, Assembled).parts
    except NotFoundError:
        return
    toml.write(making / ASSEMBLED, Assembled(parts={part: origin for part, origin in parts.items() if part != "transformer"}))


def _must_fit(transformer: Path, base: Path) -> None:
    wanted = config_of(transformer)
    configs = {"vae": Components(base).vae_config, "text_encoder": Components(base).clip_config}
    configs["text_encoder_2"] = _json_of(base / "text_encoder_2" / "config.json")
    for part in PARTS:
        if part in configs and not fits_together(part, configs[part], wanted):
            words = PART_WORDS[part].partition(" (")[0]
            why = f"the {words} of {base.name} does not go with this transformer"
            raise DownloadError(why, "set model.base to the FLUX.1 that it comes from")


def _json_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(toml.read_bytes(path, follow_links=True))
    return found
