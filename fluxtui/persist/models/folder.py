"""What kind of model a name, folder, file or hub id is, by names, JSON and headers: no torch, nothing fetched, no pickle."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fluxtui.persist.errors import DamagedError, NotFoundError, UsageError
from fluxtui.persist.files import toml
from fluxtui.persist.files.text import clean
from fluxtui.persist.files.tilde import expanded
from fluxtui.persist.models import assembly as model_assembly
from fluxtui.persist.models.assembly import Collection
from fluxtui.persist.models.config import other_inputs
from fluxtui.persist.models.file import PartFile, identify
from fluxtui.persist.models.search import SUFFIXES, PartFolder, named_file

if TYPE_CHECKING:
    from fluxtui.persist.home import Home

PICO = "pico"
TRANSFORMER = "FluxTransformer2DModel"
PICO_WIDTH = 512  # a transformer at most this wide is trained by the recipe of the pico model
_JSON_LIMIT = 1024 * 1024
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")

# Folder in the pipeline -> classes that may stand there, and whether it has weights.
_COMPONENTS: dict[str, tuple[frozenset[str], bool]] = {
    "transformer": (frozenset({TRANSFORMER}), True),
    "vae": (frozenset({"AutoencoderKL"}), True),
    "text_encoder": (frozenset({"CLIPTextModel"}), True),
    "text_encoder_2": (frozenset({"T5EncoderModel"}), True),
    "tokenizer": (frozenset({"CLIPTokenizer", "CLIPTokenizerFast"}), False),
    "tokenizer_2": (frozenset({"T5Tokenizer", "T5TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"}), False),
    "scheduler": (frozenset({"FlowMatchEulerDiscreteScheduler"}), False),
}


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A FLUX.1 pipeline, as far as names and JSON tell."""

    kind: Literal["pico", "flux1"]  # whose defaults fit
    written: str  # as a spec writes it down: "pico", a hub id, or an absolute path
    path: Path | None  # the folder, where it is on this machine
    hub_id: str  # "owner/name" where it is not; else ""
    is_guidance_distilled: bool | None  # the dev kind takes a guidance vector, schnell none; None: not yet known
    weight_bytes: int  # of all components on this disk; 0: not yet known
    collection: Collection | None = None  # single files that are still to be put together


def settle(source: str, home: Home) -> ModelSource:
    """As `recognise`; and single files are put together as a pipeline in the home's `models/`, which is what is given back."""
    seen = recognise(source, home)
    if seen.collection is None:
        return seen
    folder = model_assembly.assemble(seen.collection, home)
    return _from_folder(folder, str(folder))


def recognise(source: str, home: Home | None = None) -> ModelSource:
    """The pipeline that `model.source` means: `pico`, a folder, the name of a folder in the home's `models/`, a hub id, or
    FLUX.1 in single files: the transformer's, or several with commas between, each told by what it holds.

    Raises `NotFoundError` or `UsageError`, one sentence with the part that does not fit.
    """
    if source == PICO:
        from fluxtui.demo import PICO_DIR

        return _from_folder(Path(PICO_DIR), PICO)
    path = expanded(source)
    if home is not None and "/" not in source and not path.exists() and (home.models / source).is_dir():
        path = home.models / source
    if path.is_dir():
        return _from_folder(path.absolute(), str(path.absolute()))
    if (files := _files(source, home)) is not None:
        return _from_files(files, home)
    if _HUB_ID.fullmatch(source) and ".." not in source:
        distilled = False if "schnell" in source.lower() else None
        return ModelSource("flux1", source, None, source, distilled, 0)
    raise NotFoundError(
        f"There is no model {_show(source)}; give pico, a hub id (owner/name), a folder in diffusers layout, or a FLUX.1 file."
    )


def _files(source: str, home: Home | None) -> list[Path] | None:
    """The files that were named, by path or by a bare name in a folder of models; None where no files are meant."""
    found: list[Path] = []
    for written in source.split(","):
        path = expanded(written.strip())
        if not path.is_file() and home is not None and "/" not in written and path.suffix in SUFFIXES:
            path = named_file(written.strip(), home) or path
        if not path.is_file():
            if found or path.suffix in SUFFIXES:
                raise NotFoundError(f"There is no file {_show(written.strip())}, neither here nor in a folder of models.")
            return None
        found.append(path.absolute())
    return found


def _from_files(files: list[Path], home: Home | None) -> ModelSource:
    if home is None:
        for file in files:
            identify(file)
        raise UsageError(f"{_show(files[0])} is one file of a pipeline; give the folder that it was put together in.")
    collection = model_assembly.collect(files, home)
    config = collection.transformer.config
    return ModelSource(
        kind=_kind(config),
        written=",".join(str(file) for file in files),
        path=None,
        hub_id="",
        is_guidance_distilled=bool(config["guidance_embeds"]),
        weight_bytes=sum(_bytes(found) for found in collection.parts.values()),
        collection=collection,
    )


def _bytes(found: PartFile | PartFolder) -> int:
    return found.size if isinstance(found, PartFile) else _weight_bytes(found.path)


def _kind(transformer: dict[str, Any]) -> Literal["pico", "flux1"]:
    width = _whole(transformer, "num_attention_heads", 24) * _whole(transformer, "attention_head_dim", 128)
    return "pico" if width <= PICO_WIDTH else "flux1"


def _from_folder(path: Path, written: str) -> ModelSource:
    if is_transformer_alone(path):
        raise UsageError(
            f"{_show(path)} holds a FLUX.1 transformer alone, without encoders and VAE; put it in the place of transformer/ in "
            "the folder of a whole FLUX.1, or give its hub id: the rest is fetched then."
        )
    if other := other_pipeline(_json(path, "model_index.json")):
        raise UsageError(f"{_show(path)} is {other}; give FLUX.1 itself.")
    for component, (_, has_weights) in _COMPONENTS.items():
        _check_component(path, component, has_weights)
    transformer = _json(path, "transformer/config.json")
    if other := other_transformer(transformer):
        raise UsageError(f"{_show(path)} is {other}; give FLUX.1 itself.")
    origins = model_assembly.origins_of(path)
    return ModelSource(
        kind=_kind(transformer),
        written=written,
        path=path,
        hub_id="",
        is_guidance_distilled=bool(transformer.get("guidance_embeds", False)),
        weight_bytes=sum(
            (origins[component].weight_bytes if component in origins else 0) or _weight_bytes(path / component)
            for component, (_, has_weights) in _COMPONENTS.items()
            if has_weights
        ),
    )


def is_transformer_alone(path: Path) -> bool:
    """A transformer's configuration where a pipeline has its index."""
    if (path / "model_index.json").exists() or not (path / "config.json").is_file():
        return False
    return _json(path, "config.json").get("_class_name") == TRANSFORMER


def other_pipeline(index: dict[str, Any]) -> str:
    """What a pipeline is instead of FLUX.1, by its `model_index.json`; "" for FLUX.1 itself."""
    name = str(index.get("_class_name", ""))
    if name != "FluxPipeline":
        return f"a {_show(name or 'pipeline of no name')}, not a FLUX.1 pipeline that paints from text alone"
    for component, (classes, _) in _COMPONENTS.items():
        entry = index.get(component)
        class_name = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
        if class_name not in classes:
            wanted = " or ".join(sorted(classes))
            return f"not a FLUX.1 pipeline: its {component} is {_show(class_name or 'missing')}, not {wanted}"
    return ""


def other_transformer(config: dict[str, Any]) -> str:
    """What a transformer is instead of FLUX.1's, by its `config.json`; "" for FLUX.1 itself."""
    return other_inputs(_whole(config, "in_channels", 64))


def _check_component(path: Path, component: str, has_weights: bool) -> None:
    """Raises `UsageError` where a part of the pipeline is missing."""
    folder = path / component
    if not folder.is_dir():
        raise UsageError(f"{_show(path)} is not complete: the folder {component} is missing; fetch the model again.")
    if not has_weights:
        return
    _json(path, f"{component}/config.json")
    if not any(folder.glob("*.safetensors")):
        pickled = any(next(folder.glob(pattern), None) for pattern in _PICKLES)
        why = "only pickled weights, which are never opened" if pickled else "no weights"
        raise UsageError(f"{_show(folder)} holds {why}; fetch the model's safetensors files.")


def _weight_bytes(folder: Path) -> int:
    """Bytes of a component's weights: of one variant, where there are several."""
    plain = [file for file in folder.glob("*.safetensors") if file.name.count(".") == 1]
    return sum(file.stat().st_size for file in (plain or folder.glob("*.safetensors")))


def _json(path: Path, name: str) -> dict[str, Any]:
    """A JSON object of the folder, bounded. Raises `UsageError`, which names it."""
    try:
        value = json.loads(toml.read_bytes(path / name, _JSON_LIMIT, follow_links=True))  # the hub's cache is made of links
    except NotFoundError:
        raise UsageError(f"{_show(path)} is not a FLUX.1 pipeline in diffusers layout: there is no {name}.") from None
    except (DamagedError, ValueError, RecursionError):
        raise UsageError(f"{_show(path)} is damaged: {name} is not JSON that can be read; fetch the model again.") from None
    if not isinstance(value, dict):
        raise UsageError(f"{_show(path)} is damaged: {name} is not a JSON object; fetch the model again.")
    return value


def _whole(config: dict[str, Any], key: str, default: int) -> int:
    value = config.get(key, default)
    return value if isinstance(value, int) and value > 0 else default


def _show(value: str | Path) -> str:
    return clean(str(value), 300)
