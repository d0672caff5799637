"""Where the parts of FLUX.1 lie on this machine: beside the file that was named, in the user's folders of models, in caches.

`config.toml`:

    [models]
    folders = ["/data/ComfyUI/models", "~/stable-diffusion-webui-forge/models"]

A folder of models is one like ComfyUI's, Forge's or FluxGym's, with `unet`, `clip`, `vae`… in it, or a plain folder of files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fluxtui.persist.errors import FluxTUIError, NotFoundError, UsageError
from fluxtui.persist.files import toml
from fluxtui.persist.files.tilde import expanded
from fluxtui.persist.home import Home
from fluxtui.persist.models.file import PART_WORDS, Part, PartFile, identify

SUFFIXES = (".safetensors", ".sft")
LAYOUT = (
    "unet", "diffusion_models", "checkpoints", "Stable-diffusion", "clip", "text_encoders", "text_encoder", "vae", "VAE",
)  # fmt: skip
_DEEP = 2  # folders below one of these that are looked into
_MOST = 2000  # files looked at in one folder of models
_TOKENIZER_FILES = {"tokenizer": (("vocab.json", "merges.txt"), ("tokenizer.json",)),
                    "tokenizer_2": (("spiece.model",), ("tokenizer.json",))}  # fmt: skip
# Where programs that people have keep FLUX.1's two tokenizers, from their folder of models.
_TOKENIZER_PLACES = {
    "tokenizer": ("tokenizer", "../comfy/sd1_tokenizer", "../backend/huggingface/black-forest-labs/FLUX.1-dev/tokenizer"),
    "tokenizer_2": (
        "tokenizer_2", "../comfy/text_encoders/t5_tokenizer", "../backend/huggingface/black-forest-labs/FLUX.1-dev/tokenizer_2",
    ),
}  # fmt: skip
TOKENIZER_REPOSITORIES = {"tokenizer": "openai/clip-vit-large-patch14", "tokenizer_2": "google/t5-v1_1-xxl"}

Fits = Callable[[dict[str, Any]], bool]  # does a part of this configuration go with the rest?


@dataclass(frozen=True, slots=True)
class PartFolder:
    """A part in diffusers layout: a folder of a pipeline."""

    part: Part
    path: Path


def model_folders(home: Home) -> list[Path]:
    """The user's own, from config.toml, then the home's. Raises `UsageError` where the entry is no list of folders."""
    try:
        document = toml.read(home.config, dict[str, Any])
    except NotFoundError:
        document = {}
    table = document.get("models", {})
    folders = table.get("folders", []) if isinstance(table, dict) else None
    if not isinstance(folders, list) or not all(isinstance(folder, str) for folder in folders):
        raise UsageError('In config.toml [models] folders is a list of folders: folders = ["~/ComfyUI/models"].')
    return [*(expanded(folder) for folder in folders), home.models]


def hub_caches(home: Home) -> list[Path]:
    """Folders in the hub's own form: ours, and the one that other programs share."""
    shared = os.environ.get("HF_HUB_CACHE") or os.path.join(
        os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"), "hub"
    )
    return [home.models / "hub", expanded(shared)]


def snapshots(cache: Path, repository: str = "") -> list[Path]:
    """The snapshots of a hub cache, newest first, of one repository or of all."""
    pattern = f"models--{repository.replace('/', '--')}" if repository else "models--*"
    found = [path for path in cache.glob(f"{pattern}/snapshots/*") if path.is_dir()]
    return sorted(found, key=lambda path: (-path.stat().st_mtime, path.name))


def named_file(name: str, home: Home) -> Path | None:
    """A file called so in the folders of models, where a bare name was given; None where there is none."""
    for root in model_folders(home):
        for path in _files(root):
            if path.name == name:
                return path
    return None


def transformer_files(home: Home, begins: str = "") -> list[Path]:
    """FLUX.1 transformers and whole checkpoints in the folders of models whose name begins so. Raises as `model_folders`."""
    found = [path for root in model_folders(home) for path in _files(root) if path.name.startswith(begins)]
    return [path for path in found if any(one.part == "transformer" for one in _parts(path))]


def find_part(part: Part, fits: Fits, beside: list[Path], home: Home) -> PartFile | PartFolder:
    """The first part that goes with the rest: beside the named files, in the folders of models, in the hub's caches.

    In one place 16-bit weights come before 8-bit ones, then by name. Raises `NotFoundError` with the places looked at.
    """
    roots = list(dict.fromkeys([*(_root(path.parent) for path in beside), *model_folders(home)]))
    for root in roots:
        candidates = [found for path in _files(root) for found in _parts(path) if found.part == part and fits(found.config)]
        if candidates:
            return min(candidates, key=lambda found: (found.is_float8, found.path.name))
    for cache in hub_caches(home):
        for snapshot in snapshots(cache):
            if (folder := _pipeline_part(snapshot, part, fits)) is not None:
                return folder
            for path in sorted(snapshot.glob("*.safetensors")):
                for found in _parts(path):
                    if found.part == part and fits(found.config):
                        return found
    places = ", ".join(str(root) for root in roots[:4])
    raise NotFoundError(
        f"No {PART_WORDS[part]} that goes with it was found in {places}; put one there, name it too "
        "(--model TRANSFORMER,T5,CLIP,VAE), or list your folders in config.toml under [models] folders."
    )


def find_tokenizer(name: str, home: Home, beside: list[Path]) -> Path | None:
    """The folder of a tokenizer's files, where one lies on this machine; `name` is `tokenizer` or `tokenizer_2`."""
    roots = dict.fromkeys([*(_root(path.parent) for path in beside), *model_folders(home)])
    places = [root / place for root in roots for place in _TOKENIZER_PLACES[name]]
    for cache in hub_caches(home):
        places += [snapshot / name for snapshot in snapshots(cache) if (snapshot / "model_index.json").is_file()]
        places += snapshots(cache, TOKENIZER_REPOSITORIES[name])
    return next((place for place in places if tokenizer_files(name, place)), None)


def tokenizer_files(name: str, folder: Path) -> list[Path]:
    """All of a tokenizer's files that lie in the folder; none where what it needs is not there."""
    for needed in _TOKENIZER_FILES[name]:
        if all((folder / file).is_file() for file in needed):
            more = ("tokenizer.json", "special_tokens_map.json", "added_tokens.json", "tokenizer_config.json")
            return [folder / file for file in dict.fromkeys([*needed, *more]) if (folder / file).is_file()]
    return []


def _root(folder: Path) -> Path:
    """The folder of models that a file's own folder belongs to: `models` of `models/unet`."""
    for parent in (folder, *folder.parents[:_DEEP]):
        if parent.name in LAYOUT:
            return parent.parent
    return folder


def _files(root: Path) -> Iterator[Path]:
    """Model files of a folder of models, in order: its own, then those of the folders that ComfyUI and Forge have."""
    count = 0
    for folder, depth in ((root, 0), *((root / name, _DEEP) for name in LAYOUT)):
        for where, below, names in os.walk(folder):
            below[:] = sorted(below) if len(Path(where).relative_to(folder).parts) < depth else []
            for name in sorted(names):
                if name.endswith(SUFFIXES):
                    yield Path(where) / name
                    count += 1
                    if count >= _MOST:
                        return


def _parts(path: Path) -> tuple[PartFile, ...]:
    """What a file that merely lies there holds; a stranger holds nothing."""
    try:
        status = path.stat()
        return _identified(path, status.st_size, status.st_mtime_ns)
    except (FluxTUIError, OSError):
        return ()


@lru_cache(maxsize=512)
def _identified(path: Path, size: int, changed: int) -> tuple[PartFile, ...]:
    """Read again only when the file is another one: a form looks at every key."""
    try:
        return identify(path)
    except (FluxTUIError, OSError):
        return ()


def _pipeline_part(snapshot: Path, part: Part, fits: Fits) -> PartFolder | None:
    """That part of a FLUX.1 pipeline in a hub's cache, where it is whole and goes with the rest."""
    import json

    folder = snapshot / part
    try:
        index = json.loads(toml.read_bytes(snapshot / "model_index.json", follow_links=True))
        config = json.loads(toml.read_bytes(folder / "config.json", follow_links=True))
    except (FluxTUIError, ValueError):
        return None
    is_flux = isinstance(index, dict) and str(index.get("_class_name", "")).startswith("Flux") and isinstance(config, dict)
    return PartFolder(part, folder) if is_flux and is_whole(folder) and fits(config) else None


def is_whole(folder: Path) -> bool:
    """Every safetensors file that a part's index names is there; without an index, one file."""
    import json

    for index in folder.glob("*.safetensors.index.json"):
        try:
            names = set(json.loads(toml.read_bytes(index, 16 << 20, follow_links=True))["weight_map"].values())
        except (FluxTUIError, ValueError, KeyError, TypeError, AttributeError):
            return False
        return all((folder / str(name)).is_file() for name in names)
    return any(path.is_file() for path in folder.glob("*.safetensors"))
