"""LoRA files of FLUX.1 in the three namings that programs read, and back.

`Factors`: module of the diffusers transformer -> (A `(rank, in)`, B `(out, rank)`), the scale folded into B. The original
code of FLUX.1 (and with it kohya's and ComfyUI's names) keeps q, k and v in one layer: three factors of rank r become one of
rank 3r, A stacked and B in blocks, so that no number changes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from fluxtui.engine.family.flux1.keys import CLIP, PREFIX, diffusers_keys
from fluxtui.engine.family.flux1.lora_scale import Declared
from fluxtui.engine.family.flux1.original_names import DOUBLE, SINGLE, TOP
from fluxtui.persist.errors import DamagedError, UsageError

Factors = dict[str, tuple[torch.Tensor, torch.Tensor]]
Shapes = Mapping[str, tuple[int, int]]  # module -> (out, in)

_KOHYA_CLIP = "lora_te1_"
_T5 = ("lora_te2_", "lora_te3_", "text_encoder_2.")
_BLOCK = re.compile(r"(single_)?transformer_blocks\.(\d+)\.(.+)")


def original_layers(modules: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    """Layer of the original code -> the diffusers modules that it holds, in order; for the layers that these modules touch."""
    found: dict[str, tuple[str, ...]] = {}
    for module in modules:
        name, parts = _original_of(module)
        found[name] = parts
    return found


def _original_of(module: str) -> tuple[str, tuple[str, ...]]:
    match = _BLOCK.fullmatch(module)
    if match is None:
        for name, theirs in TOP.items():
            if theirs == module:
                return name, (module,)
        raise UsageError(f"{module} has no name in this format; export it as diffusers.")
    single, number, rest = match.groups()
    table, kind = (SINGLE, "single") if single else (DOUBLE, "double")
    for name, parts in table.items():
        if rest in parts:
            prefix = module.removesuffix(rest)
            return f"{kind}_blocks.{number}.{name}", tuple(prefix + part for part in parts)
    raise UsageError(f"{module} has no name in this format; export it as diffusers.")


def to_diffusers(factors: Factors) -> dict[str, torch.Tensor]:
    """Keys of diffusers, which ComfyUI reads too."""
    tensors = {}
    for module, (a, b) in factors.items():
        key_a, key_b = diffusers_keys(module)
        tensors[key_a], tensors[key_b] = a, b
    return tensors


def to_kohya(factors: Factors, shapes: Shapes) -> dict[str, torch.Tensor]:
    """Keys of kohya's sd-scripts. `.alpha` is the rank: the scale is in the up factor already."""
    tensors = {}
    fused = {"lora_unet_" + layer: pair for layer, pair in fuse(_of(factors, clip=False), shapes).items()}
    fused |= {_KOHYA_CLIP + module.removeprefix(CLIP): pair for module, pair in _of(factors, clip=True).items()}
    for layer, (a, b) in fused.items():
        key = layer.replace(".", "_")
        tensors[f"{key}.lora_down.weight"], tensors[f"{key}.lora_up.weight"] = a, b
        tensors[f"{key}.alpha"] = torch.tensor(float(a.shape[0]))  # float32: bf16 has no 387
    return tensors


def to_comfyui(factors: Factors, shapes: Shapes) -> dict[str, torch.Tensor]:
    """ComfyUI's own keys: its model's names; CLIP's as diffusers has them."""
    tensors = to_diffusers(_of(factors, clip=True))
    for layer, (a, b) in fuse(_of(factors, clip=False), shapes).items():
        tensors[f"diffusion_model.{layer}.lora_A.weight"], tensors[f"diffusion_model.{layer}.lora_B.weight"] = a, b
    return tensors


def _of(factors: Factors, clip: bool) -> Factors:
    """The factors of CLIP's layers, or those of the transformer's."""
    return {module: pair for module, pair in factors.items() if module.startswith(CLIP) == clip}


def fuse(factors: Factors, shapes: Shapes) -> Factors:
    """Factors of the original code's layers. `shapes` gives (out, in) of every module of a layer that is only partly adapted."""
    fused: Factors = {}
    for layer, parts in original_layers(factors).items():
        if len(parts) == 1:
            fused[layer] = factors[parts[0]]
            continue
        a_like, b_like = next(factors[part] for part in parts if part in factors)
        rank = a_like.shape[0]
        rows = [factors[part] if part in factors else _nothing(rank, shapes[part], a_like, b_like) for part in parts]
        fused[layer] = torch.cat([a for a, _ in rows]), torch.block_diag(*(b for _, b in rows))
    return fused


def _nothing(rank: int, shape: tuple[int, int], a_like: torch.Tensor, b_like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return a_like.new_zeros(rank, shape[1]), b_like.new_zeros(shape[0], rank)


def read_factors(
    tensors: Mapping[str, torch.Tensor], shapes: Shapes, declared: Mapping[str, Declared] | None = None
) -> Factors:
    """Factors of a file in any of the three namings, or in other programs' kin of them, float32.

    `shapes` gives (out, in) of every linear layer of the transformer, and of CLIP where it may be in the file. `declared`: what
    the file's metadata says of its scale; an `.alpha` beside the factors goes before it. Raises `DamagedError` for a key that
    is not of this model.
    """
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        name, letter = _taken_apart(key)
        pairs.setdefault(name, {})[letter] = tensor.float()
    factors: Factors = {}
    names = _names_of(shapes)
    for name, found in pairs.items():
        if name not in names or not {"A", "B"} <= found.keys():
            raise DamagedError(f"{name!r} of the LoRA file is not a layer of this FLUX.1 model, or lacks a factor.")
        a, b = found["A"], found["B"]
        part, _, module = name.partition(".")
        if "alpha" in found:
            b = b * (found["alpha"].item() / a.shape[0])
        elif declared and part in declared:
            b = b * declared[part].scale(module, a.shape[0])
        factors |= _split(names[name], a, b, shapes)
    return factors


def text_encoder_of(key: str) -> str:
    """Which text encoder a key of a LoRA file is of, "CLIP" or "T5"; empty for the transformer's."""
    if key.startswith((_KOHYA_CLIP, CLIP)):
        return "CLIP"
    return "T5" if key.startswith(_T5) else ""


def _taken_apart(key: str) -> tuple[str, str]:
    for ending, letter in (
        (".lora_A.weight", "A"),
        (".lora_B.weight", "B"),
        (".lora_down.weight", "A"),
        (".lora_up.weight", "B"),
        (".alpha", "alpha"),
    ):
        if key.endswith(ending):
            return key.removesuffix(ending), letter
    raise DamagedError(f"{key!r} is not the key of a LoRA of FLUX.1's transformer.")


def _names_of(shapes: Shapes) -> dict[str, tuple[str, ...]]:
    """Every name that a file may give a layer of this model -> the diffusers modules it means."""
    names: dict[str, tuple[str, ...]] = {}
    for module in shapes:
        names[module if module.startswith(CLIP) else PREFIX + module] = (module,)
        if module.startswith(CLIP):
            names[(_KOHYA_CLIP + module.removeprefix(CLIP)).replace(".", "_")] = (module,)
            continue
        names[module] = (module,)  # DiffSynth's, and OneTrainer's older one
        names["lora_transformer_" + module.replace(".", "_")] = (module,)
        try:
            layer, parts = _original_of(module)
        except UsageError:
            continue
        names[f"diffusion_model.{layer}"] = names[layer] = parts  # without the prefix: Black Forest Labs' own, OneTrainer's
        names["lora_unet_" + layer.replace(".", "_")] = parts
    return names


def _split(parts: tuple[str, ...], a: torch.Tensor, b: torch.Tensor, shapes: Shapes) -> Factors:
    """One layer's factors as those of its modules: by blocks where B is in blocks, else A for each."""
    rows = b.split([shapes[part][0] for part in parts])
    rank, rest = divmod(a.shape[0], len(parts))
    blocks = [slice(index * rank, (index + 1) * rank) for index in range(len(parts))]
    is_blocks = rest == 0 and all(
        not row[:, : block.start].any() and not row[:, block.stop :].any() for row, block in zip(rows, blocks, strict=True)
    )
    if len(parts) > 1 and is_blocks:
        return {
            part: (a[block].contiguous(), row[:, block].contiguous())
            for part, row, block in zip(parts, rows, blocks, strict=True)
        }
    return {part: (a, row.contiguous()) for part, row in zip(parts, rows, strict=True)}
