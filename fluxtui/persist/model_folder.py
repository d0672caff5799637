"""What kind of model a name, folder or hub id is, by its names and JSON alone: no torch, nothing fetched, no pickle opened."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fluxtui.persist import toml
from fluxtui.persist.errors import DamagedError, NotFoundError, UsageError
from fluxtui.persist.text import clean

if TYPE_CHECKING:
    from fluxtui.persist.home import Home

PICO = "pico"
PICO_WIDTH = 512         # a transformer at most this wide is trained by the recipe of the pico model
_JSON_LIMIT = 1024 * 1024
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")

# Folder in the pipeline -> classes that may stand there, and whether it has weights.
_COMPONENTS: dict[str, tuple[frozenset[str], bool]] = {
    "transformer": (frozenset({"FluxTransformer2DModel"}), True),
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

    kind: Literal["pico", "flux1"]             # whose defaults fit
    written: str                               # as a spec writes it down: "pico", a hub id, or an absolute path
    path: Path | None                          # the folder, where it is on this machine
    hub_id: str                                # "owner/name" where it is not; else ""
    is_guidance_distilled: bool | None         # the dev kind takes a guidance vector, schnell none; None: not yet known
    weight_bytes: int                          # of all components on this disk; 0: not yet known


def recognise(source: str, home: Home | None = None) -> ModelSource:
    """The pipeline that `model.source` means: `pico`, a folder, the name of a folder in the home's `models/`, or a hub id.

    Raises `NotFoundError` or `UsageError`, one sentence with the part that does not fit.
    """
    if source == PICO:
        from fluxtui.demo import PICO_DIR

        return _from_folder(Path(PICO_DIR), PICO)
    path = Path(source).expanduser()
    if home is not None and "/" not in source and not path.exists() and (home.models / source).is_dir():
        path = home.models / source
    if path.is_dir():
        return _from_folder(path.absolute(), str(path.absolute()))
    if path.exists():
        raise UsageError(_single_file(path))
    if _HUB_ID.fullmatch(source) and ".." not in source:
        distilled = False if "schnell" in source.lower() else None
        return ModelSource("flux1", source, None, source, distilled, 0)
    raise NotFoundError(f"There is no model {_show(source)}; give pico, a hub id (owner/name), or a folder in diffusers layout.")


def _single_file(path: Path) -> str:
    if path.suffix in (".ckpt", ".pt", ".pth", ".bin"):
        return f"{_show(path)} may be a pickle, which is never opened; give a folder in diffusers layout with safetensors files."
    return f"{_show(path)} is a single file, which cannot be trained from yet; give a folder in diffusers layout, or a hub id."


def _from_folder(path: Path, written: str) -> ModelSource:
    index = _json(path, "model_index.json")
    name = str(index.get("_class_name", ""))
    if not name.startswith("Flux") or name.startswith(("Flux2", "Flux3")):
        raise UsageError(f"{_show(path)} is a {_show(name or 'pipeline of no name')}, not a FLUX.1 pipeline; give one of those.")
    for component, (classes, has_weights) in _COMPONENTS.items():
        _check_component(path, component, index.get(component), classes, has_weights)
    transformer = _json(path, "transformer/config.json")
    width = _whole(transformer, "num_attention_heads", 24) * _whole(transformer, "attention_head_dim", 128)
    return ModelSource(
        kind="pico" if width <= PICO_WIDTH else "flux1",
        written=written,
        path=path,
        hub_id="",
        is_guidance_distilled=bool(transformer.get("guidance_embeds", False)),
        weight_bytes=sum(_weight_bytes(path / component) for component, (_, has_weights) in _COMPONENTS.items() if has_weights),
    )


def _check_component(path: Path, component: str, entry: object, classes: frozenset[str], has_weights: bool) -> None:
    """Raises `UsageError` where a part of the pipeline is missing or another one than FLUX.1 has."""
    class_name = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
    if class_name not in classes:
        wanted = " or ".join(sorted(classes))
        raise UsageError(
            f"{_show(path)} is not a FLUX.1 pipeline: its {component} is {_show(class_name or 'missing')}, not {wanted}."
        )
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
