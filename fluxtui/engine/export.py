"""A LoRA for another program, or from a checkpoint, or in another precision; read back before it is called done.

python -m fluxtui.engine export --home ROOT --session NAME --format F [--checkpoint C] [--dtype T] --output FILE
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxtui.engine import quiet
from fluxtui.engine.trainer.exit_reason import ending_of
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.errors import ExitCode, FluxTUIError, NotFoundError, RefusedError, StorageError, UsageError
from fluxtui.persist.files import tensorfile
from fluxtui.persist.files.durable import write_file
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.settings import recipe
from fluxtui.persist.settings.compatibility import READ_BY
from fluxtui.persist.settings.layers import sizes_of
from fluxtui.persist.settings.spec import Spec

if TYPE_CHECKING:
    import torch

FORMATS = READ_BY["lora"]
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
MOST_LOST_OF_A_TENSOR = 0.01  # bf16 takes 0.2 % of numbers of all sizes
MOST_LOST = {"bf16": 0.02, "fp16": 0.02, "fp32": 1e-6}  # of a module's update, by rounding; more means that numbers vanished


def main(argv: list[str]) -> int:
    """One sentence on standard output of what was written; an error on standard error, with its exit code."""
    quiet.hush()
    parser = argparse.ArgumentParser(prog="fluxtui.engine export")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--session", required=True)
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--checkpoint", default="")
    parser.add_argument("--ema", action="store_true")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="bf16")
    options = parser.parse_args(argv)
    try:
        print(
            export(options.home, options.session, options.format, options.output, options.checkpoint, options.dtype, options.ema)
        )
    except FluxTUIError as error:
        quiet.refuse(str(error))
        return int(error.exit_code)
    except OSError as error:
        quiet.refuse(ending_of(error).error)
        return int(ExitCode.FAILED)
    return int(ExitCode.DONE)


def export(home: Path, session: str, form: str, output: Path, checkpoint: str, dtype: str, ema: bool) -> str:
    """Writes the file durably, reads it back, and gives the sentence that says so. Raises a `FluxTUIError`."""
    import torch

    from fluxtui.engine.family.flux1 import lora_file
    from fluxtui.engine.family.flux1.lora_metadata import describe
    from fluxtui.engine.trainer.checkpoint.state import to_safetensors
    from fluxtui.engine.trainer.product import tensors_of

    folder = Home(home).session(session)
    spec = recipe.load_spec(folder.spec_file)
    _must_be_writable(output)
    _must_not_be_lost(output, folder, spec)
    must_carry(form, spec)
    kind: torch.dtype = getattr(torch, DTYPES[dtype])
    parts, step = source_parts(folder, spec, checkpoint, ema)
    if spec.lora.kind != "lora":
        return _export_as_it_is(spec, parts, step, form, kind, output, guidance_embeds(home, spec, folder))
    exact = {module: (of["lora_A"], of["lora_B"]) for module, of in parts.items()}
    factors = {module: (a.to(kind), b.to(kind)) for module, (a, b) in exact.items()}
    shapes = linear_shapes(home, spec, folder)
    match form:
        case "kohya":
            tensors = lora_file.to_kohya(factors, shapes)
        case "comfyui":
            tensors = lora_file.to_comfyui(factors, shapes)
        case _:
            tensors = tensors_of({module: {"lora_A": a, "lora_B": b} for module, (a, b) in factors.items()}, kind)
    described = describe(spec, tensors, step, form=form, has_guidance=guidance_embeds(home, spec, folder))
    write_file(output, to_safetensors(tensors, described), _mode(output))
    try:
        lost = read_back(output, exact, factors, shapes, dtype)
    except FluxTUIError:
        output.unlink(missing_ok=True)
        raise
    size = output.stat().st_size
    what = f"{form}, {dtype}, {len(tensors)} tensors of step {step}, {size:,} bytes"
    return f"{output} written: {what}; read back, {lost:.2%} lost to rounding"


def _mode(output: Path) -> int:
    """As any program would write it, unlike the files of a session: the one that reads it may be another user's."""
    if output.exists():
        return stat.S_IMODE(output.stat().st_mode)
    umask = os.umask(0o077)
    os.umask(umask)
    return 0o666 & ~umask


def must_carry(form: str, spec: Spec) -> None:
    """Raises `RefusedError` where a format has no way to say what was trained."""
    if form not in READ_BY[spec.lora.kind]:
        why = {
            "dora": "each program reads the rows' lengths of a DoRA in its own way there, and none as it was trained",
            "lokr": "it has factors of a LoRA only, and a Kronecker product is none",
        }[spec.lora.kind]
        raise RefusedError(f"{form} cannot carry a {spec.lora.kind}: {why}. Give --format {READ_BY[spec.lora.kind][0]}.")


def _export_as_it_is(
    spec: Spec, parts: dict[str, dict[str, Any]], step: int, form: str, dtype: torch.dtype, output: Path, has_guidance: bool
) -> str:  # fmt: skip
    """A DoRA or LoKr under the only names it has; read back bit for bit."""
    import torch

    from fluxtui.engine.family.flux1.lora_metadata import describe
    from fluxtui.engine.trainer.checkpoint.state import from_safetensors, to_safetensors
    from fluxtui.engine.trainer.product import tensors_of

    tensors = tensors_of(parts, dtype)
    _must_hold(tensors, tensors_of(parts, torch.float32), str(dtype).removeprefix("torch."))
    described = describe(spec, tensors, step, form=form, has_guidance=has_guidance)
    write_file(output, to_safetensors(tensors, described), _mode(output))
    found = from_safetensors(output)
    if found.keys() != tensors.keys() or not all(torch.equal(found[key], tensors[key]) for key in tensors):
        output.unlink()
        raise FluxTUIError(f"{output.name} does not hold what was to be written: nothing was exported.")
    size = output.stat().st_size
    return f"{output} written: {form}, {spec.lora.kind}, {len(tensors)} tensors of step {step}, {size:,} bytes; read back"


def _must_hold(rounded: dict[str, Any], exact: dict[str, Any], dtype: str) -> None:
    """Raises `FluxTUIError` where a precision has no numbers so large, or so small, as a tensor's."""
    for key, tensor in exact.items():
        lost = float((rounded[key].double() - tensor.double()).norm())
        if not lost <= MOST_LOST_OF_A_TENSOR * float(tensor.double().norm()):
            raise FluxTUIError(f"{dtype} cannot hold the numbers of {key}: export with --dtype fp32 or bf16.")


def source_parts(folder: SessionFolder, spec: Spec, checkpoint: str, ema: bool) -> tuple[dict[str, dict[str, Any]], int]:
    """Module -> parameter -> float32 with the scale folded in, and the step: of a checkpoint, or the finished file."""
    from fluxtui.engine.family.flux1.keys import taken_apart
    from fluxtui.engine.trainer.checkpoint import state

    names = commit.committed(folder.checkpoints)
    if not checkpoint and folder.product.exists():
        checkpoint = _checkpoint_of_product(folder, names)
    if checkpoint == "newest" and names:
        checkpoint = names[-1]
    if checkpoint:
        if checkpoint not in names:
            raise NotFoundError(f"{folder.name} has no checkpoint {checkpoint}; `fluxtui checkpoints {folder.name}` lists them.")
        files = commit.verify_checkpoint(folder.checkpoints / checkpoint).files
        if ema and state.EMA_FILE not in files:
            raise UsageError(f"{folder.name} keeps no averaged weights; train with train.ema_decay set to have them.")
        trained = state.EVALUATED_FILE if state.EVALUATED_FILE in files else state.ADAPTER_FILE
        saved = state.from_safetensors(folder.checkpoints / checkpoint / (state.EMA_FILE if ema else trained))
        return _scaled(saved, spec), commit.step_of(checkpoint)
    if ema:
        raise RefusedError(f"{folder.name} has no checkpoint left, and averaged weights are only there.")
    if not folder.product.exists():
        verb = "resume" if folder.attempt_numbers() else "start"
        after = f"give --checkpoint, one of: {', '.join(names)}" if names else f"fluxtui {verb} {folder.name} trains it"
        raise RefusedError(f"{folder.name} has no finished file yet; {after}.")
    parts: dict[str, dict[str, Any]] = {}
    for key, tensor in state.from_safetensors(folder.product).items():
        if (found := taken_apart(key)) is not None:
            parts.setdefault(found[0], {})[found[1]] = tensor.float()
    said = json.loads(tensorfile.read_header(folder.product).metadata.get("fluxtui", "{}"))
    return parts, int(said.get("step", 0))


def _checkpoint_of_product(folder: SessionFolder, names: list[str]) -> str:
    """The checkpoint of the finished file's own step, whose numbers are float32; empty where it is gone or there is another."""
    try:
        said = json.loads(tensorfile.read_header(folder.product).metadata.get("fluxtui", "{}"))
        name = commit.step_name(int(said["step"]))
    except (FluxTUIError, ValueError, TypeError, KeyError):
        return ""  # a damaged product is refused where it is read
    return name if name in names else ""


def _scaled(saved: dict[str, Any], spec: Spec) -> dict[str, dict[str, Any]]:
    """The parameters of a checkpoint by module, each module's scale where the product has it."""
    from fluxtui.engine.trainer.product import SCALED

    parts: dict[str, dict[str, Any]] = {}
    for full, tensor in saved.items():
        module, _, part = full.rpartition(".")
        parts.setdefault(module, {})[part] = tensor
    for module, size in sizes_of(spec.lora, parts).items():
        scale = size.scale(spec.lora.rslora)
        parts[module] = {part: tensor * scale if part in SCALED else tensor for part, tensor in parts[module].items()}
    return parts


def linear_shapes(home: Path, spec: Spec, folder: SessionFolder) -> dict[str, tuple[int, int]]:
    """(out, in) of every linear layer of the base's transformer, and of CLIP where it was trained along."""
    import torch

    from fluxtui.engine.family.flux1.targets import clip_names

    base = _base(home, spec, folder)
    linear = {name: module for name, module in base.empty_transformer().named_modules() if isinstance(module, torch.nn.Linear)}
    if spec.train.clip_learning_rate:
        clip = base.empty_clip()
        linear |= {known: clip.get_submodule(name) for name, known in clip_names(clip).items()}
    return {name: (module.out_features, module.in_features) for name, module in linear.items()}


def guidance_embeds(home: Path, spec: Spec, folder: SessionFolder) -> bool:
    """Whether the base is of the dev kind."""
    return bool(_base(home, spec, folder).guidance_embeds)


def _base(home: Path, spec: Spec, folder: SessionFolder) -> Any:  # noqa: ANN401  (Components; imported late)
    from fluxtui.engine.trainer.reporter import Reporter
    from fluxtui.engine.trainer.source import open_model
    from fluxtui.persist.files import toml
    from fluxtui.persist.sessions.record import Record

    numbers = folder.attempt_numbers()
    commit_of_hub = toml.read(folder.attempt_file(numbers[-1]), Record).model_commit if numbers else ""
    return open_model(spec.model, home, commit_of_hub, Reporter(None), is_offline=True)


def read_back(path: Path, exact: Any, rounded: Any, shapes: Any, dtype: str) -> float:  # noqa: ANN401  (lora_file.Factors)
    """Compares each module's update B·A in the file with what was meant; the largest part of one that rounding took.

    Raises `FluxTUIError` where a module is missing, other, or lost more than the precision explains.
    """
    import torch

    from fluxtui.engine.family.flux1.lora_file import read_factors
    from fluxtui.engine.trainer.checkpoint.state import from_safetensors

    found = read_factors(from_safetensors(path), shapes)
    worst = 0.0
    for module, pair in exact.items():
        if module not in found:
            raise FluxTUIError(f"{path.name} does not hold {module}: nothing was exported.")
        if not all(torch.isfinite(factor).all() for factor in found[module]):
            raise FluxTUIError(f"{module} has numbers too large for {dtype}: export with --dtype bf16 or fp32.")
        if update_distance(found[module], rounded[module]) > 1e-6:
            raise FluxTUIError(f"{path.name} holds another update of {module} than was trained: nothing was exported.")
        lost = update_distance(found[module], pair)
        if lost > MOST_LOST[dtype]:
            raise FluxTUIError(f"{dtype} would lose {lost:.0%} of the update of {module}: export with --dtype fp32 or bf16.")
        worst = max(worst, lost)
    for module in found.keys() - exact.keys():
        if found[module][1].any():
            raise FluxTUIError(f"{path.name} holds an update of {module}, which was not trained: nothing was exported.")
    return worst


def update_distance(one: Any, other: Any) -> float:  # noqa: ANN401  ((A, B) pairs of torch.Tensor; torch is imported late)
    """`|B A - B' A'| / |B' A'|` (Frobenius), without forming either product of the full size."""
    import torch

    a, b = (torch.cat([one[0].double(), other[0].double()]), torch.cat([one[1].double(), -other[1].double()], dim=1))
    full_a, full_b = other[0].double(), other[1].double()
    difference = ((b.T @ b) * (a @ a.T)).sum().clamp(min=0.0).sqrt()
    whole = ((full_b.T @ full_b) * (full_a @ full_a.T)).sum().clamp(min=0.0).sqrt()
    return float(difference / whole) if whole > 0 else float(difference)


def _must_be_writable(output: Path) -> None:
    parent = output.parent
    try:
        if output.is_dir():
            raise UsageError(f"{output} is a folder; give the name of the file to write.")
        if not parent.is_dir():
            raise NotFoundError(f"There is no folder {parent}; make it first.")
        may_write = os.access(parent, os.W_OK | os.X_OK)
    except PermissionError:  # of a folder above
        may_write = False
    if not may_write:  # said before anything is read, and not as of our own files: FLUXTUI_HOME has no part in it
        raise StorageError(f"You may not write in {parent}; give -o a file in a folder of yours.", errno.EACCES)


def _must_not_be_lost(output: Path, folder: SessionFolder, spec: Spec) -> None:
    """Raises `RefusedError` where what lies there cannot be made again: all but an earlier export of this session."""
    from fluxtui.engine.family.flux1.lora_metadata import METADATA_KEY

    if not output.exists() or not output.stat().st_size:
        return
    try:
        described = json.loads(tensorfile.read_header(output, follow_links=True).metadata.get(METADATA_KEY, "{}"))
    except (FluxTUIError, ValueError, RecursionError):
        described = {}
    is_own = isinstance(described, dict) and described.get("session_id") == spec.id
    if not is_own or (folder.product.exists() and output.samefile(folder.product)):
        raise RefusedError(f"{output} is there already and is no export of {spec.name}; give another name, or move it away.")
