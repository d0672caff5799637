"""Single files put together as a pipeline: a folder of links and small JSON in the home, in diffusers layout.

Nothing large is copied. What each part is and where it came from stands in `assembled.toml`; from there on the folder is a
model like any other, and stays the same one whatever else is put into the user's folders of models.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from fluxtui.persist.errors import DamagedError, NotFoundError, StorageError, UsageError
from fluxtui.persist.files import toml
from fluxtui.persist.files.durable import make_folder, remove_tree, temporary_name, write_file
from fluxtui.persist.files.tensorfile import TensorInfo, read_header
from fluxtui.persist.files.text import clean
from fluxtui.persist.home import Home
from fluxtui.persist.models.config import scheduler_config
from fluxtui.persist.models.file import ASIDE, PART_WORDS, PARTS, Part, PartFile, identify
from fluxtui.persist.models.search import PartFolder, find_part, find_tokenizer, tokenizer_files

ASSEMBLED = "assembled.toml"
LINK = "original.safetensors"  # in a part's folder: the user's file, under the names it has
_CLASSES = {
    "transformer": ["diffusers", "FluxTransformer2DModel"], "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"], "text_encoder_2": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"], "tokenizer_2": ["transformers", "T5Tokenizer"],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
}  # fmt: skip
WORDS: dict[str, str] = {str(part): words for part, words in PART_WORDS.items()}
_LONGEST_TEXT = 512  # T5 tokens that FLUX.1 was trained with


class Origin(Struct, frozen=True, omit_defaults=True):
    """Where a part came from."""

    file: str  # absolute path of the file, or of the part's folder in another pipeline
    size: int = 0  # bytes of the whole file; 0: a folder
    weight_bytes: int = 0  # of this part in it
    prefix: str = ""  # stands before its keys
    naming: str = ""  # "original", "diffusers"; "": a folder


class Assembled(Struct, frozen=True):
    """`assembled.toml`."""

    parts: dict[str, Origin] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Collection:
    """The four parts of a pipeline, found and checked against each other."""

    name: str  # of the transformer's file, for people
    parts: dict[Part, PartFile | PartFolder]
    transformer: PartFile


def collect(files: list[Path], home: Home) -> Collection:
    """The named files, and what they lack from the places of `model_search`.

    Raises `UsageError` where two are the same part, none is a transformer or some do not go together; `NotFoundError`.
    """
    named: dict[Part, PartFile] = {}
    for file in files:
        for found in identify(file):
            if found.part in named and len(files) > 1:
                raise UsageError(f"Both {_show(named[found.part].path)} and {_show(file)} are a {PART_WORDS[found.part]}.")
            named[found.part] = found
    transformer = named.get("transformer")
    if transformer is None:
        only = next(iter(named.values()))
        raise UsageError(f"{_show(only.path)} is a {PART_WORDS[only.part]}, not a transformer; name the transformer's file.")
    parts: dict[Part, PartFile | PartFolder] = {}
    for part in PARTS:
        if (given := named.get(part)) is not None:
            if not fits_together(part, given.config, transformer.config):
                raise UsageError(f"{_show(given.path)} does not go with {_show(transformer.path)}: it has another width.")
            parts[part] = given
        else:
            fits = _fitting(part, transformer.config)
            parts[part] = find_part(part, fits, files, home)
    return Collection(transformer.path.stem, parts, transformer)


def _fitting(part: Part, transformer: dict[str, Any]) -> Any:  # noqa: ANN401  (Fits)
    return lambda config: fits_together(part, config, transformer)


def fits_together(part: Part, config: dict[str, Any], transformer: dict[str, Any]) -> bool:
    """Does a part make what the transformer takes?"""
    match part:
        case "vae":
            return bool(4 * config.get("latent_channels", 0) == transformer["in_channels"])
        case "text_encoder":
            return bool(config.get("hidden_size", 768) == transformer["pooled_projection_dim"])
        case "text_encoder_2":
            return bool(config.get("d_model", 0) == transformer["joint_attention_dim"])
    return True


def assemble(collection: Collection, home: Home) -> Path:
    """The pipeline's folder in the home's `models/`, made where it is not there yet. Raises `StorageError`."""
    origins = {part: _origin(found) for part, found in collection.parts.items()}
    told = json.dumps([[part, origins[part].file, origins[part].prefix] for part in PARTS]).encode()
    stem = re.sub(r"[^a-z0-9._-]+", "-", collection.name.lower()).strip("-._")[:48] or "flux1"
    folder = home.models / f"{stem}-{hashlib.sha256(told).hexdigest()[:8]}"
    if (folder / ASSEMBLED).is_file():
        return folder
    make_folder(home.models)
    making = home.models / temporary_name()
    try:
        _fill(making, collection, origins, home)
        os.rename(making, folder)
    except OSError as error:
        remove_tree(making)
        if (folder / ASSEMBLED).is_file():  # another front was quicker
            return folder
        raise StorageError.of(error, "assemble", folder) from error
    return folder


def _fill(folder: Path, collection: Collection, origins: dict[Part, Origin], home: Home) -> None:
    make_folder(folder)
    for part, found in collection.parts.items():
        if isinstance(found, PartFolder):
            os.symlink(found.path.absolute(), folder / part)
        else:
            make_folder(folder / part)
            _write_json(folder / part / "config.json", found.config)
            os.symlink(found.path.absolute(), folder / part / LINK)
    beside = [found.path for found in collection.parts.values() if isinstance(found, PartFile)]
    for name in ("tokenizer", "tokenizer_2"):
        make_folder(folder / name)
        place_tokenizer(folder, name, find_tokenizer(name, home, beside))
    make_folder(folder / "scheduler")
    is_guided = bool(collection.transformer.config["guidance_embeds"])
    _write_json(folder / "scheduler" / "scheduler_config.json", scheduler_config(is_guided))
    toml.write(folder / ASSEMBLED, Assembled(parts={str(part): origin for part, origin in origins.items()}))
    _write_json(folder / "model_index.json", {"_class_name": "FluxPipeline"} | _CLASSES)


def place_tokenizer(folder: Path, name: str, source: Path | None) -> None:
    """A tokenizer's files, copied: they are small, and every later attempt must read the same ones.

    Without a source only the configuration is written; the trainer fetches the rest before it encodes.
    """
    told: dict[str, Any] = {}
    for file in tokenizer_files(name, source) if source is not None else []:
        if file.name == "tokenizer_config.json":
            told = _json_object(file)
        else:
            shutil.copyfile(file, folder / name / file.name)
    longest = told.get("model_max_length")
    if name == "tokenizer":
        tokens = int(_json_object(folder / "text_encoder" / "config.json").get("max_position_embeddings", 77))
    else:
        tokens = _LONGEST_TEXT
    tokens = min(tokens, longest) if isinstance(longest, int) and longest > 0 else tokens
    _write_json(
        folder / name / "tokenizer_config.json", told | {"model_max_length": tokens, "tokenizer_class": _CLASSES[name][1]}
    )


def missing_tokenizers(folder: Path) -> list[str]:
    """Tokenizers that an assembled pipeline still lacks."""
    if not (folder / ASSEMBLED).is_file():
        return []
    return [name for name in ("tokenizer", "tokenizer_2") if not tokenizer_files(name, folder / name)]


def origins_of(folder: Path) -> dict[str, Origin]:
    """What an assembled pipeline was made of; empty for any other folder. Raises `NotFoundError`, `DamagedError`.

    A file that is gone or of another size is an error here: what was trained on before would not be what is trained on now.
    """
    try:
        assembled = toml.read(folder / ASSEMBLED, Assembled)
    except NotFoundError:
        return {}
    for part, origin in assembled.parts.items():
        path = Path(origin.file)
        words = WORDS.get(part, "part")
        if not path.exists():
            raise NotFoundError(f"The {words} of {_show(folder.name)} was {_show(path)}, which is gone; put it back.")
        if origin.size and path.stat().st_size != origin.size:
            raise DamagedError(
                f"{_show(path)} is another file than the one that {_show(folder.name)} was made of; put that back."
            )
    return assembled.parts


def part_tensors(folder: Path) -> dict[str, TensorInfo]:
    """The weights of a part, by headers alone: of its shards, or of its share of a user's file. Raises `DamagedError`."""
    found: dict[str, TensorInfo] = {}
    origin = origins_of(folder.parent).get(folder.name)
    prefix = origin.prefix if origin is not None else ""
    for file in sorted(folder.glob("*.safetensors")):
        for name, info in read_header(file, follow_links=True).tensors.items():
            if name.startswith(prefix) and name.rpartition(".")[2] not in ASIDE and name != "scaled_fp8":
                found[name.removeprefix(prefix)] = info
    return found


def _origin(found: PartFile | PartFolder) -> Origin:
    path = found.path.absolute()
    if isinstance(found, PartFolder):
        return Origin(file=str(path))
    return Origin(file=str(path), size=path.stat().st_size, weight_bytes=found.size, prefix=found.prefix, naming=found.naming)


def _json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(toml.read_bytes(path, follow_links=True))
    except (NotFoundError, DamagedError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_file(path, json.dumps(value, indent=2, sort_keys=True).encode() + b"\n")


def _show(value: object) -> str:
    return clean(str(value), 300)
