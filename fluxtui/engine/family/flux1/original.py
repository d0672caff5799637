"""Weights out of single files, under the names that diffusers and transformers have for them, one tensor at a time.

FLUX.1's own code keeps q, k and v (and a single block's MLP) in one layer and the output norm's shift before its scale; its VAE
counts the decoder's blocks from the other end. fp8 weights that carry a scale are multiplied out here: `weight · scale`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxtui.engine.family.flux1.original_names import DOUBLE, SINGLE, TOP
from fluxtui.persist.errors import DamagedError
from fluxtui.persist.files.tensorfile import Header, read_header
from fluxtui.persist.models.assembly import LINK, Origin, origins_of
from fluxtui.persist.models.file import ASIDE, SCALES

if TYPE_CHECKING:
    import torch

_BLOCK = re.compile(r"(double|single)_blocks\.(\d+)\.(.+)")
_NORM = {
    "img_attn.norm.query_norm": "attn.norm_q", "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q", "txt_attn.norm.key_norm": "attn.norm_added_k",
    "norm.query_norm": "attn.norm_q", "norm.key_norm": "attn.norm_k",
}  # fmt: skip
_VAE_LAYERS = (
    (r"(encoder|decoder)\.mid\.block_1\.(.+)", r"\1.mid_block.resnets.0.\2"),
    (r"(encoder|decoder)\.mid\.block_2\.(.+)", r"\1.mid_block.resnets.1.\2"),
    (r"(encoder|decoder)\.mid\.attn_1\.norm\.(.+)", r"\1.mid_block.attentions.0.group_norm.\2"),
    (r"(encoder|decoder)\.mid\.attn_1\.([qkv])\.(.+)", r"\1.mid_block.attentions.0.to_\2.\3"),
    (r"(encoder|decoder)\.mid\.attn_1\.proj_out\.(.+)", r"\1.mid_block.attentions.0.to_out.0.\2"),
    (r"encoder\.down\.(\d+)\.block\.(\d+)\.(.+)", r"encoder.down_blocks.\1.resnets.\2.\3"),
    (r"encoder\.down\.(\d+)\.downsample\.(.+)", r"encoder.down_blocks.\1.downsamplers.0.\2"),
    (r"decoder\.up\.(\d+)\.block\.(\d+)\.(.+)", r"decoder.up_blocks.\1.resnets.\2.\3"),
    (r"decoder\.up\.(\d+)\.upsample\.(.+)", r"decoder.up_blocks.\1.upsamplers.0.\2"),
    (r"(encoder|decoder)\.norm_out\.(.+)", r"\1.conv_norm_out.\2"),
)
NOT_WEIGHTS = re.compile(r"(^|\.)(position_ids|logit_scale|text_projection\.\w+)$|^text_projection$|^decoder\.|^lm_head\.")


@dataclass(frozen=True, slots=True)
class Piece:
    """A tensor of diffusers as rows `start` to `stop` of a stored one (None: all of it)."""

    name: str
    start: int | None = None
    stop: int | None = None
    is_swapped: bool = False  # its two halves stand in the other order
    is_flat: bool = False  # stored as a 1×1 convolution, used as a linear layer


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A part's weights in a user's single file."""

    part: str  # "transformer", "vae", "text_encoder", "text_encoder_2"
    path: Path
    origin: Origin


def weight_file(folder: Path) -> WeightFile | None:
    """The single file behind a part's folder, or None where the part lies there in diffusers layout.

    Raises `NotFoundError`, `DamagedError` where the file is gone or another one.
    """
    if not (folder / LINK).is_symlink():
        return None
    origin = origins_of(folder.parent).get(folder.name)
    if origin is None:
        raise DamagedError(f"{folder} does not say where its weights came from; put the model together again.")
    return WeightFile(folder.name, Path(origin.file), origin)


def tensors(file: WeightFile) -> Iterator[tuple[str, torch.Tensor, int]]:
    """(name as diffusers has it, tensor, bytes read from the file so far), in the order they lie in the file.

    Tensors have the dtype they are stored in; those that carried a scale are float32. Raises `DamagedError`.
    """
    from safetensors import SafetensorError, safe_open

    header = read_header(file.path, follow_links=True)
    rename = _renaming(file, header)
    prefix, done = file.origin.prefix, 0
    try:
        with safe_open(file.path, framework="pt", device="cpu") as opened:
            for key in sorted(header.tensors, key=lambda name: header.tensors[name].start):
                name = key.removeprefix(prefix)
                if not key.startswith(prefix) or name.rpartition(".")[2] in ASIDE or name == "scaled_fp8":
                    continue
                pieces = rename(name)
                if not pieces:
                    continue
                stored = _scaled(opened, header, key)
                done += header.tensors[key].end - header.tensors[key].start
                for piece in pieces:
                    yield piece.name, _cut(stored, piece), done
    except SafetensorError as error:
        raise DamagedError(f"{file.path} is damaged ({error}); download it again.") from None


def _scaled(opened: Any, header: Header, key: str) -> torch.Tensor:  # noqa: ANN401  (safetensors' handle)
    """A stored tensor, multiplied by its scale where it has one."""
    stored: torch.Tensor = opened.get_tensor(key)
    for scale in SCALES:
        name = key.removesuffix("weight") + scale
        if key.endswith("weight") and name in header.tensors:
            factor: torch.Tensor = opened.get_tensor(name).float()
            return stored.float() * (factor.reshape(-1, *[1] * (stored.dim() - 1)) if factor.numel() > 1 else factor.reshape(()))
    return stored


def _cut(stored: torch.Tensor, piece: Piece) -> torch.Tensor:
    import torch

    cut = stored[piece.start : piece.stop] if piece.stop is not None else stored
    if piece.is_swapped:
        shift, scale = cut.chunk(2, dim=0)
        cut = torch.cat([scale, shift], dim=0)
    return cut.reshape(cut.shape[:2]) if piece.is_flat else cut


def _renaming(file: WeightFile, header: Header) -> Callable[[str], list[Piece]]:
    """What becomes of a stored tensor; nothing for what is no weight of this part."""
    shapes = {name.removeprefix(file.origin.prefix): info.shape for name, info in header.tensors.items()}
    if file.part == "transformer" and file.origin.naming == "original":
        width = shapes["img_in.weight"][0]
        return lambda name: transformer_pieces(name, shapes[name], width)
    if file.part == "vae" and file.origin.naming == "original":
        ups = len({name.split(".")[2] for name in shapes if name.startswith("decoder.up.")})
        return lambda name: vae_pieces(name, shapes[name], ups)
    if file.part == "text_encoder_2" and "shared.weight" not in shapes:
        return lambda name: [Piece("shared.weight" if name == "encoder.embed_tokens.weight" else name)]
    if file.part == "text_encoder_2":
        return lambda name: [] if NOT_WEIGHTS.search(name) or name == "encoder.embed_tokens.weight" else [Piece(name)]
    if file.part == "text_encoder":
        return lambda name: [] if NOT_WEIGHTS.search(name) else [Piece(name)]
    return lambda name: [Piece(name)]


def transformer_pieces(name: str, shape: tuple[int, ...], width: int) -> list[Piece]:
    """The modules of diffusers in a tensor of the authors' transformer; `width` is the model's."""
    layer, _, kind = name.rpartition(".")
    if layer == "final_layer.adaLN_modulation.1":
        return [Piece(f"norm_out.linear.{kind}", is_swapped=True)]
    match = _BLOCK.fullmatch(layer)
    if match is None:
        return [Piece(f"{TOP.get(layer, layer)}.{kind}")]
    block, number, rest = match.groups()
    prefix = f"{'single_' if block == 'single' else ''}transformer_blocks.{number}."
    if rest in _NORM:
        return [Piece(f"{prefix}{_NORM[rest]}.weight")]
    parts = (SINGLE if block == "single" else DOUBLE).get(rest)
    if parts is None or len(parts) == 1:
        return [Piece(f"{prefix}{parts[0] if parts else rest}.{kind}")]
    ends = [width * (index + 1) for index in range(len(parts) - 1)] + [shape[0]]
    return [Piece(f"{prefix}{part}.{kind}", ends[i - 1] if i else 0, ends[i]) for i, part in enumerate(parts)]


def vae_pieces(name: str, shape: tuple[int, ...], ups: int) -> list[Piece]:
    """The module of diffusers for a tensor of the authors' VAE, whose decoder has `ups` blocks."""
    for pattern, theirs in _VAE_LAYERS:
        if re.fullmatch(pattern, name):
            name = re.sub(pattern, theirs, name)
            break
    name = re.sub(r"decoder\.up_blocks\.(\d+)", lambda match: f"decoder.up_blocks.{ups - 1 - int(match[1])}", name)
    name = name.replace("nin_shortcut", "conv_shortcut")
    return [Piece(name, is_flat=".attentions.0.to_" in name and len(shape) == 4)]


def fill(
    module: torch.nn.Module,
    weights: Iterable[tuple[str, torch.Tensor, int]],
    where: Path,
    part: str,
    dtype: torch.dtype,
    device: torch.device | str,
) -> None:
    """Fills a module whose parameters are on the meta device, one tensor at a time; tied weights stay tied.

    `weights`: as `tensors` gives them; they come from the file or folder `where`.
    Raises `DamagedError` where a tensor is missing, unknown, or of another shape.
    """
    import torch

    places: dict[int, list[str]] = {}  # a weight with two names is one weight
    for name, parameter in module.named_parameters(remove_duplicate=False):
        places.setdefault(id(parameter), []).append(name)
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters(remove_duplicate=False)}
    names_of = {name: names for names in places.values() for name in names}
    missing = set(shapes)
    for name, value, _ in weights:
        if shapes.get(name) != tuple(value.shape):
            raise DamagedError(f"{where} holds {name} {tuple(value.shape)}, which is no weight of FLUX.1's {part}.")
        placed = torch.nn.Parameter(value.to(device=device, dtype=dtype, copy=True), requires_grad=False)
        for alias in names_of[name]:
            owner, _, last = alias.rpartition(".")
            module.get_submodule(owner)._parameters[last] = placed
        missing.difference_update(names_of[name])
    if missing:
        raise DamagedError(f"{where} lacks {len(missing)} weights, {min(missing)} among them; download it again.")
