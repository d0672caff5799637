"""The parts of a FLUX.1 pipeline in diffusers layout, each loaded alone so that each can be freed.

Encode first, free the encoders, then load the transformer: T5 and the transformer never share memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxtui.persist.errors import DamagedError, FluxTUIError, NotFoundError

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
    from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5Tokenizer

    from fluxtui.engine.memory.precision import Codec

LONGEST_TEXT = {True: 512, False: 256}  # T5 tokens, by guidance_embeds: dev and schnell as their authors run them
_JSON_LIMIT = 16 * 1024 * 1024
_HASH_WHOLE = 256 * 2**20  # bytes; a larger weight file is known by its header and samples of it
_HASH_SAMPLES, _HASH_SAMPLE = 64, 2**20

BytesRead = Callable[[int, int], None]  # (bytes read so far, bytes in all)


class NotAPipelineError(FluxTUIError):
    """The folder is not a FLUX.1 pipeline in diffusers layout."""


@dataclass(frozen=True, slots=True)
class TextEncoders:
    """Both encoders with their tokenizers, frozen and in evaluation mode."""

    tokenizer: CLIPTokenizer
    clip: CLIPTextModel
    tokenizer_2: T5Tokenizer
    t5: T5EncoderModel
    text_tokens: int  # T5 tokens a caption is padded or cut to


@dataclass(frozen=True)
class Components:
    """A pipeline folder. Nothing is loaded until it is asked for."""

    folder: Path
    commit: str = ""  # of the hub, where it came from there

    @cached_property
    def transformer_config(self) -> dict[str, Any]:
        """The transformer's configuration, without the keys that are diffusers' own."""
        return _config(self.folder / "transformer")

    @cached_property
    def vae_config(self) -> dict[str, Any]:
        return _config(self.folder / "vae")

    @cached_property
    def clip_config(self) -> dict[str, Any]:
        return _config(self.folder / "text_encoder")

    @property
    def guidance_embeds(self) -> bool:
        """True for guidance-distilled models (dev), which must be given a guidance; False for those that must not (schnell)."""
        return bool(self.transformer_config.get("guidance_embeds", False))

    @cached_property
    def text_tokens(self) -> int:
        """T5 tokens of a caption: what the tokenizer says, at most 512 (dev) or 256 (schnell)."""
        said = _read_json(self.folder / "tokenizer_2" / "tokenizer_config.json").get("model_max_length", 512)
        return min(int(said), LONGEST_TEXT[self.guidance_embeds])

    @cached_property
    def vae_key(self) -> str:
        """Identity of the VAE for caches: the same weights and configuration give the same key, wherever they lie."""
        return _folder_key(self.folder / "vae")

    @cached_property
    def text_key(self) -> str:
        """Identity of both encoders, tokenizers and the text length for caches."""
        parts = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
        return sha256(
            "\n".join([*(_folder_key(self.folder / part) for part in parts), str(self.text_tokens)]).encode()
        ).hexdigest()

    @cached_property
    def model_key(self) -> str:
        """Identity of all that is trained on or through: a resume is exact with the same one only."""
        return sha256("\n".join([self.vae_key, self.text_key, _folder_key(self.folder / "transformer")]).encode()).hexdigest()

    def load_text_encoders(self, dtype: torch.dtype, device: torch.device | str) -> TextEncoders:
        """CLIP and T5 with their tokenizers."""
        from transformers.models.clip.modeling_clip import CLIPTextModel
        from transformers.models.clip.tokenization_clip import CLIPTokenizer
        from transformers.models.t5.tokenization_t5 import T5Tokenizer

        from fluxtui.engine.family.flux1.stream import stream_t5

        return TextEncoders(
            tokenizer=CLIPTokenizer.from_pretrained(self.folder / "tokenizer"),
            clip=_frozen(_loaded(CLIPTextModel, self.folder / "text_encoder", dtype), device),
            tokenizer_2=T5Tokenizer.from_pretrained(self.folder / "tokenizer_2"),
            t5=_frozen(stream_t5(self.folder / "text_encoder_2", dtype, device), device),
            text_tokens=self.text_tokens,
        )

    def load_clip(self, dtype: torch.dtype, device: torch.device | str) -> tuple[CLIPTokenizer, CLIPTextModel]:
        """CLIP alone, for who trains it along."""
        from transformers.models.clip.modeling_clip import CLIPTextModel
        from transformers.models.clip.tokenization_clip import CLIPTokenizer

        clip = _loaded(CLIPTextModel, self.folder / "text_encoder", dtype)
        return CLIPTokenizer.from_pretrained(self.folder / "tokenizer"), _frozen(clip, device)

    def empty_clip(self) -> CLIPTextModel:
        """CLIP's modules on the meta device."""
        import torch
        from transformers.models.clip.configuration_clip import CLIPTextConfig
        from transformers.models.clip.modeling_clip import CLIPTextModel

        with torch.device("meta"):
            return CLIPTextModel(CLIPTextConfig.from_pretrained(self.folder / "text_encoder"))

    def load_vae(self, dtype: torch.dtype, device: torch.device | str) -> AutoencoderKL:
        """The autoencoder, both halves."""
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        return _frozen(_loaded(AutoencoderKL, self.folder / "vae", dtype), device)

    def load_scheduler(self) -> FlowMatchEulerDiscreteScheduler:
        """The flow-matching Euler scheduler of the pipeline's own settings."""
        from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

        return FlowMatchEulerDiscreteScheduler.from_pretrained(self.folder / "scheduler")

    def empty_transformer(self) -> FluxTransformer2DModel:
        """The transformer's modules on the meta device: names and shapes, no bytes."""
        import torch
        from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

        with torch.device("meta"):
            return FluxTransformer2DModel.from_config(self.transformer_config)

    def load_transformer(
        self,
        dtype: torch.dtype,
        device: torch.device | str,
        on_bytes: BytesRead = lambda done, total: None,
        codec: Codec | None = None,
        on_host: Collection[str] = (),
        on_weight: Callable[[str, torch.Tensor], None] = lambda name, weight: None,
    ) -> FluxTransformer2DModel:
        """The transformer, frozen; the linear layers of its blocks held as the codec has them.

        Weights of two or more dimensions of the modules named `on_host` stay in host memory. `on_weight` sees each as stored.

        Weights are streamed: read one, cast or encode on the device, place, drop; at no time are two copies held.
        """
        from fluxtui.engine.family.flux1.stream import stream_weights
        from fluxtui.engine.memory.precision import quantize_layers

        transformer = self.empty_transformer()
        if codec is not None:
            for blocks in (transformer.transformer_blocks, transformer.single_transformer_blocks):
                quantize_layers(blocks, codec)
        stream_weights(transformer, self.folder / "transformer", dtype, device, on_bytes, on_host, on_weight)
        transformer.requires_grad_(False)
        return transformer.eval()


def pipeline_at(folder: Path, commit: str = "") -> Components:
    """The pipeline in this folder; raises `NotAPipelineError` with what is missing, `NotFoundError` where there is no folder."""
    if not folder.is_dir():
        raise NotFoundError(f"There is no model folder {folder}.")
    index = folder / "model_index.json"
    if not index.is_file():
        raise NotAPipelineError(f"{folder} has no model_index.json: give the folder of a FLUX.1 pipeline in diffusers layout.")
    kind = _read_json(index).get("_class_name")
    if kind != "FluxPipeline":
        raise NotAPipelineError(f"{folder} holds a {kind}, not a FluxPipeline: only FLUX.1 can be trained here.")
    for part in ("transformer", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"):
        if not (folder / part).is_dir():
            raise NotAPipelineError(f"{folder} lacks its {part}/ folder: fetch the whole pipeline.")
    return Components(folder, commit)


def _loaded(kind: Any, folder: Path, dtype: torch.dtype) -> Any:  # noqa: ANN401  (a model class of the libraries, and one of it)
    """The part in this folder, on the CPU: by its library, or from the single file that the folder stands for."""
    from fluxtui.engine.family.flux1 import original

    single = original.weight_file(folder)
    if single is None:
        is_vae = folder.name == "vae"
        return kind.from_pretrained(folder, **{"torch_dtype" if is_vae else "dtype": dtype}, use_safetensors=True)
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):     # buffers are computed, and in no file
        module = kind.from_config(_config(folder)) if folder.name == "vae" else kind(kind.config_class.from_pretrained(folder))
    original.fill(module, original.tensors(single), single.path, single.part, dtype, "cpu")
    return module


def _frozen(module: Any, device: torch.device | str) -> Any:  # noqa: ANN401  (any module of the libraries)
    module.requires_grad_(False)
    return module.to(device).eval()


def _config(folder: Path) -> dict[str, Any]:
    return {key: value for key, value in _read_json(folder / "config.json").items() if not key.startswith("_")}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_JSON_LIMIT + 1)
        document = json.loads(data) if len(data) <= _JSON_LIMIT else None
    except FileNotFoundError:
        raise NotAPipelineError(f"{path} is missing: fetch the whole pipeline.") from None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise DamagedError(f"{path} is not the JSON object it should be: fetch the model again.")
    return document


def _folder_key(folder: Path) -> str:
    digest = sha256()
    for path in sorted(
        path for path in folder.iterdir() if path.is_file() and path.suffix in {".json", ".safetensors", ".model", ".txt"}
    ):
        digest.update(path.name.encode() + b"\0" + _content(path) + b"\0")
    return digest.hexdigest()


def _content(path: Path) -> bytes:
    """Digest of a file: all of it, or of a large one its size, its beginning and evenly spaced samples."""
    digest = sha256()
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= _HASH_WHOLE:
            while block := file.read(_HASH_SAMPLE):
                digest.update(block)
            return digest.digest()
        digest.update(str(size).encode())
        for number in range(_HASH_SAMPLES):
            file.seek(number * (size - _HASH_SAMPLE) // (_HASH_SAMPLES - 1))
            digest.update(file.read(_HASH_SAMPLE))
    return digest.digest()
