"""What a model file is, by its first bytes and its header: no torch, no pickle opened, and never by its name.

FLUX.1 is passed around as files of one part each (the transformer, `clip_l`, `t5xxl`, `ae`) or as one checkpoint that holds
all of them; in the names of the authors' own code or in those of diffusers.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fluxtui.persist.errors import DamagedError, UsageError
from fluxtui.persist.files.regular import open_regular, read_at
from fluxtui.persist.files.tensorfile import Header, TensorInfo, read_header
from fluxtui.persist.files.text import clean
from fluxtui.persist.models.config import CONFIG_OF

Part = Literal["transformer", "vae", "text_encoder", "text_encoder_2"]
Naming = Literal["original", "diffusers"]

PARTS: tuple[Part, ...] = ("transformer", "vae", "text_encoder", "text_encoder_2")
PART_WORDS: dict[Part, str] = {
    "transformer": "FLUX.1 transformer",
    "vae": "VAE (ae.safetensors)",
    "text_encoder": "CLIP encoder (clip_l.safetensors)",
    "text_encoder_2": "T5 encoder (t5xxl_fp16.safetensors)",
}
FLOAT8 = ("F8_E4M3", "F8_E5M2")
_READ = ("BF16", "F16", "F32", *FLOAT8)  # what weights may be stored as
# Beside an fp8 weight: how much it is to be multiplied by, and what only other programs' kernels need.
SCALES = ("scale_weight", "weight_scale")
ASIDE = (*SCALES, "scale_input", "input_scale", "comfy_quant")

# Part -> (naming, a key that only this part has in that naming, what may stand before all its keys).
_SIGNS: dict[Part, tuple[tuple[Naming, str, tuple[str, ...]], ...]] = {
    "transformer": (
        ("original", "double_blocks.0.img_attn.qkv.weight", ("", "model.diffusion_model.", "diffusion_model.")),
        ("diffusers", "transformer_blocks.0.attn.add_q_proj.weight", ("", "transformer.", "model.diffusion_model.")),
    ),
    "vae": (
        ("original", "encoder.down.0.block.0.norm1.weight", ("", "vae.", "first_stage_model.")),
        ("diffusers", "encoder.down_blocks.0.resnets.0.norm1.weight", ("", "vae.")),
    ),
    "text_encoder": (
        (
            "diffusers",
            "embeddings.token_embedding.weight",
            ("text_model.", "", "text_encoders.clip_l.transformer.text_model.", "clip_l.transformer.text_model."),
        ),
    ),
    "text_encoder_2": (
        (
            "diffusers",
            "encoder.block.0.layer.0.SelfAttention.q.weight",
            ("", "text_encoders.t5xxl.transformer.", "t5xxl.transformer."),
        ),
    ),
}

# What else people have in their folders: a sign in the keys, and what it is.
_STRANGERS: tuple[tuple[str, str], ...] = (
    (r"(^|\.)lora_(A|B|up|down|unet)|\.lokr_|\.hada_", "a LoRA, not a model; a training begins with it by lora.weights"),
    (r"bitsandbytes__(nf4|fp4)", "stored in 4 bits (bitsandbytes), from which nothing can be trained exactly"),
    (r"double_stream_modulation_img", "a FLUX.2 model; FLUX.1 is what can be trained here"),
    (r"distilled_guidance_layer", "a Chroma model; FLUX.1 is what can be trained here"),
    (r"controlnet|input_hint_block", "a ControlNet; FLUX.1 itself is what can be trained here"),
    (r"joint_blocks\.0\.", "a Stable Diffusion 3 model; FLUX.1 is what can be trained here"),
    (r"conditioner\.embedders|label_emb\.0", "an SDXL model; FLUX.1 is what can be trained here"),
    (r"(^|\.)(input_blocks|down_blocks)\.0\.", "a Stable Diffusion model or a part of one; FLUX.1 is what can be trained here"),
    (r"img_in\.proj|redux_", "a Redux adapter; FLUX.1 itself is what can be trained here"),
)


@dataclass(frozen=True, slots=True)
class PartFile:
    """One part of FLUX.1 in a file."""

    part: Part
    path: Path
    prefix: str  # stands before each of its keys
    naming: Naming
    size: int  # bytes of its weights
    is_float8: bool  # some of it is stored in 8 bits
    config: dict[str, Any]  # as the diffusers class wants it


def identify(path: Path) -> tuple[PartFile, ...]:
    """The parts that a file holds, one or (a whole checkpoint) several.

    Raises `UsageError` with what the file is instead, `DamagedError`, `NotFoundError`, `StorageError`.
    """
    _refuse_by_first_bytes(path)
    header = read_header(path, follow_links=True)
    if not _has(header, "transformer") and any(name.startswith("model.diffusion_model.") for name in header.tensors):
        raise UsageError(f"{_show(path)} is {_stranger(header)}.")  # before its VAE is taken for the matter
    told = _told_config(header)
    found = [part for kind in PARTS if (part := _part(path, header, kind, told)) is not None]
    if not found:
        raise UsageError(f"{_show(path)} is {_stranger(header)}.")
    return tuple(found)


def _refuse_by_first_bytes(path: Path) -> None:
    """GGUF and pickles are known by how they begin, whatever they are called."""
    descriptor = open_regular(path, follow_links=True)
    try:
        begins = read_at(descriptor, 8, 0)
    finally:
        os.close(descriptor)
    if begins.startswith(b"GGUF"):
        raise UsageError(
            f"{_show(path)} is a GGUF file, whose packed weights cannot be trained from; "
            "get the same model as bf16 or fp8 safetensors (model.precision makes it small again in memory)."
        )
    if begins.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")) or path.suffix in (
        ".ckpt", ".pt", ".pth", ".bin",
    ):  # fmt: skip
        raise UsageError(f"{_show(path)} may be a pickle, which is never opened; get the same model as a safetensors file.")


def _has(header: Header, part: Part) -> bool:
    return any(prefix + sign in header.tensors for _, sign, prefixes in _SIGNS[part] for prefix in prefixes)


def _part(path: Path, header: Header, part: Part, told: dict[str, Any]) -> PartFile | None:
    """This part, where the file has it."""
    for naming, sign, prefixes in _SIGNS[part]:
        for prefix in prefixes:
            if prefix + sign in header.tensors:
                own = {name.removeprefix(prefix): info for name, info in header.tensors.items() if name.startswith(prefix)}
                if not prefix and part != "transformer":
                    own = {name: info for name, info in own.items() if not name.startswith("model.diffusion_model.")}
                return _read(path, part, prefix, naming, own, told.get(part, {}))
    return None


def _read(path: Path, part: Part, prefix: str, naming: Naming, own: dict[str, TensorInfo], told: dict[str, Any]) -> PartFile:
    """The part with its configuration, from the shapes of its weights and from what the file itself says."""
    _check_storage(path, part, own)
    shapes = {name: info.shape for name, info in own.items()}
    try:
        config = CONFIG_OF[part, naming](shapes, told if isinstance(told, dict) else {})
    except KeyError as error:
        missing = clean(str(error.args[0]), 100)
        raise DamagedError(f"{_show(path)} is not complete: {missing} is missing; download it again.") from None
    except (ValueError, IndexError) as error:
        raise UsageError(f"{_show(path)} is {clean(str(error), 200)}.") from None
    size = sum(info.end - info.start for info in own.values())
    return PartFile(part, path, prefix, naming, size, any(info.dtype in FLOAT8 for info in own.values()), config)


def _check_storage(path: Path, part: Part, own: dict[str, TensorInfo]) -> None:
    """Raises `UsageError` for weights in a form that cannot be read exactly: 4 bits, integers, blocks of scales."""
    if any("bitsandbytes__" in name for name in own):
        raise UsageError(_packed(path, part, "4 bits (bitsandbytes)"))
    for name, info in own.items():
        last = name.rpartition(".")[2]
        if last in SCALES:
            weight = own.get(name.removesuffix(last) + "weight")
            if weight is None or info.dtype not in ("F32", "F16", "BF16") or not _fits_scale(info.shape, weight.shape):
                raise UsageError(_packed(path, part, "blocks with scales of their own"))
        elif last == "weight" and info.dtype not in _READ:
            raise UsageError(_packed(path, part, info.dtype))


def _fits_scale(scale: tuple[int, ...], weight: tuple[int, ...]) -> bool:
    """One number for the whole weight, or one a row."""
    return all(size == 1 for size in scale) or scale == weight[:1] or scale == (*weight[:1], 1)


def _packed(path: Path, part: Part, form: str) -> str:
    words = PART_WORDS[part].partition(" (")[0]
    return f"{_show(path)} is a {words} stored as {form}, which cannot be trained from; get it as bf16, fp16 or fp8 safetensors."


def _told_config(header: Header) -> dict[str, Any]:
    """What the file says of itself in its metadata: `config`, a JSON object of part -> diffusers configuration."""
    try:
        told = json.loads(header.metadata.get("config", "{}"))
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _stranger(header: Header) -> str:
    for pattern, what in _STRANGERS:
        if _any(re.compile(pattern), header.tensors):
            return what
    some = clean(next(iter(header.tensors), "nothing at all"), 60)
    return f"no part of FLUX.1 (it holds {some}, for one); give a FLUX.1 transformer, a folder in diffusers layout, or a hub id"


def _any(pattern: re.Pattern[str], names: Iterable[str]) -> bool:
    return any(pattern.search(name) for name in names)


def _show(value: object) -> str:
    return clean(str(value), 300)
