"""The proof: is the product of this attempt whole, ours, finite, changed by training, and does diffusers load it?

    python -m fluxtui.engine prove --home ROOT --session NAME [--attempt N]

Run by the keeper when a trainer left with code 0, and by `fluxtui verify` any time later. The last line on standard output
is a `record.Proof`; exit code 0 where it is ok. Nothing that the trainer says of itself is believed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from fluxtui.engine import life, quiet, wire
from fluxtui.engine.trainer.endings import first_line
from fluxtui.engine.trainer.reporter import Reporter
from fluxtui.persist import recipe, tensorfile, toml
from fluxtui.persist.durable import fsync_folder
from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.record import Phase, Proof, Record, Result
from fluxtui.persist.regular import blocks, open_regular
from fluxtui.persist.spec import Spec
from fluxtui.persist.tensorfile import Header


class NotProvenError(FluxTUIError):
    """What is missing, in one sentence."""


@dataclass(slots=True)
class Case:
    """What is to be proven, and what was found so far."""

    home: Path
    folder: SessionFolder
    spec: Spec
    record: Record  # of the attempt that trained
    result: Result
    breathe: Callable[..., None]
    checks: list[str] = field(default_factory=list)


def main(argv: list[str]) -> int:
    """Prints the proof as one JSON line; 0 where it holds."""
    if wire.KEEPER_PID in os.environ:
        life.enter()
    quiet.hush()
    parser = argparse.ArgumentParser(prog="fluxtui.engine prove")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--session", required=True)
    parser.add_argument("--attempt", type=int, default=0)
    options = parser.parse_args(argv)
    reporter = Reporter.from_environment()
    reporter.progress(Phase.PROVE)
    reporter.start_ticking()
    proof = prove(options.home, options.session, options.attempt, lambda **what: reporter.progress(Phase.PROVE, **what))
    sys.stdout.buffer.write(msgspec.json.encode(proof) + b"\n")
    sys.stdout.flush()
    return 0 if proof.ok else 1


def prove(home: Path, session: str, attempt: int, breathe: Callable[..., None]) -> Proof:
    """The proof of an attempt, of the one that the result names where `attempt` is 0. Never raises."""
    checks: list[str] = []
    try:
        case = open_case(home, session, attempt, breathe)
        checks = case.checks
        return _prove(case)
    except (FluxTUIError, FileNotFoundError) as error:
        what = str(error)
    except Exception as error:  # noqa: BLE001  (the edge of the process: whatever fails here, nothing is proven)
        traceback.print_exc()
        what = f"the proof itself failed: {type(error).__name__}: {first_line(error)}"
    return Proof(ok=False, what=what, checks=checks, at=datetime.now(UTC))


def open_case(home: Path, session: str, attempt: int, breathe: Callable[..., None]) -> Case:
    """Spec, record and result, as they are on disk."""
    folder = Home(home).session(session)
    spec = recipe.load_spec(folder.spec_file)
    result = toml.read(folder.result_file, Result)
    record = toml.read(folder.attempt_file(attempt or result.attempt), Record)
    if record.status == "completed" and result.attempt < record.attempt:
        record = toml.read(folder.attempt_file(result.attempt), Record)  # that one trained; this one only had it proven
    return Case(home, folder, spec, record, result, breathe)


def _prove(case: Case) -> Proof:
    check_claim(case)
    size, sha256 = check_bytes(case)
    header = tensorfile.read_header(case.folder.product)
    check_metadata(case, header)
    transformer = empty_transformer(case)
    check_keys(case, header, expected_shapes(case.spec, transformer))
    check_values(case, header)
    check_loads(case, header, transformer)
    tensors_sha256 = tensorfile.tensors_sha256(case.folder.product)
    _demand(tensors_sha256 == case.result.tensors_sha256, "the tensors are not those of the result file")
    sync(case)
    return Proof(
        ok=True,
        file=case.result.file,
        size=size,
        sha256=sha256,
        tensors_sha256=tensors_sha256,
        checks=case.checks,
        at=datetime.now(UTC),
    )


def check_claim(case: Case) -> None:
    """The result is of this attempt, this recipe, and the planned last step."""
    from fluxtui.engine.trainer.plan_steps import planned_steps

    result, record = case.result, case.record
    _demand(result.nonce == record.nonce and result.attempt == record.attempt, "the result file is of another attempt")
    _demand(result.session_id == case.spec.id, "the result file is of another session")
    wanted = recipe.recipe_sha256(case.spec)
    _demand(result.recipe_sha256 == wanted == record.recipe_sha256, "the recipe is not the one that was trained")
    steps = planned_steps(case.spec, case.folder, max(1, len(record.ranks)))
    _demand(result.step == steps, f"its last step is {result.step}, and {steps} were planned")
    case.checks.append(f"result of attempt {record.attempt}, its recipe and step {result.step} of {steps}")


def check_bytes(case: Case) -> tuple[int, str]:
    """A regular file of the size and SHA-256 that were claimed."""
    path = case.folder.product
    _demand(case.result.file == path.name, f"the result names another file, {case.result.file!a}")
    try:
        descriptor = open_regular(path)
    except FileNotFoundError:
        raise NotProvenError(f"{path.name} is missing") from None
    digest, size = hashlib.sha256(), os.fstat(descriptor).st_size
    try:
        for block in blocks(descriptor):
            digest.update(block)
            case.breathe(unit="bytes")
    finally:
        os.close(descriptor)
    _demand(size == case.result.size, f"{path.name} has {size} bytes instead of {case.result.size}")
    _demand(digest.hexdigest() == case.result.sha256, f"{path.name} was changed: its SHA-256 is not the one of the result")
    case.checks.append(f"{size} bytes, SHA-256 {digest.hexdigest()[:16]}…")
    return size, digest.hexdigest()


def check_metadata(case: Case, header: Header) -> None:
    """The file itself names this session, recipe and step."""
    try:
        said = msgspec.json.decode(header.metadata.get("fluxtui", "null"))
    except msgspec.DecodeError:
        said = None
    _demand(isinstance(said, dict), "the file's metadata do not say who made it")
    for key, wanted in (("session_id", case.spec.id), ("recipe_sha256", case.result.recipe_sha256), ("step", case.result.step)):
        _demand(said.get(key) == wanted, f"the file's metadata name another {key}")
    case.checks.append("metadata name this session, recipe and step")


def empty_transformer(case: Case) -> Any:  # noqa: ANN401  (FluxTransformer2DModel; imported late)
    """The base's transformer on the meta device: its modules, names and shapes, without their bytes."""
    from fluxtui.engine.trainer.source import open_model

    components = open_model(case.spec.model, case.home, case.record.model_commit, Reporter(None), is_offline=True)
    transformer = components.empty_transformer()
    case.breathe()
    return transformer


def expected_shapes(spec: Spec, transformer: Any) -> dict[str, tuple[int, ...]]:  # noqa: ANN401
    """Key -> shape of every tensor that this transformer and the recipe's targets make."""
    from fluxtui.engine.family.flux1.keys import diffusers_keys
    from fluxtui.engine.family.flux1.targets import target_names

    rank = spec.lora.rank
    shapes: dict[str, tuple[int, ...]] = {}
    for name in target_names(transformer, spec.lora.targets):
        out_features, in_features = transformer.get_submodule(name).weight.shape
        key_a, key_b = diffusers_keys(name)
        shapes[key_a], shapes[key_b] = (rank, in_features), (out_features, rank)
    return shapes


def check_keys(case: Case, header: Header, shapes: dict[str, tuple[int, ...]]) -> None:
    """Every expected tensor with its shape, and no other."""
    found = {name: info.shape for name, info in header.tensors.items()}
    for name in sorted(shapes.keys() ^ found.keys()):
        raise NotProvenError(f"{name} is {'missing' if name in shapes else 'not part of this LoRA'}")
    for name, shape in shapes.items():
        _demand(found[name] == shape, f"{name} has shape {found[name]} instead of {shape}")
    case.checks.append(f"{len(shapes)} tensors under the expected keys, with the expected shapes")


def check_values(case: Case, header: Header) -> None:
    """Every number finite, and no module whose update B·A is zero."""
    from fluxtui.engine.family.flux1.keys import diffusers_keys, module_of
    from fluxtui.engine.trainer.state import from_safetensors

    tensors = from_safetensors(case.folder.product)
    for name, tensor in tensors.items():
        _demand(bool(tensor.isfinite().all()), f"{name} holds numbers that are not finite")
    modules = dict.fromkeys(module for key in header.tensors if (module := module_of(key)) is not None)
    for number, module in enumerate(modules, start=1):
        key_a, key_b = diffusers_keys(module)
        _demand(
            update_norm(tensors[key_a], tensors[key_b]) > 0.0, f"the update of {module} is zero: training changed nothing there"
        )
        case.breathe(item=number, items=len(modules), unit="modules")
    case.checks.append(f"every number finite, the update of each of {len(modules)} modules non-zero")


def update_norm(a: Any, b: Any) -> float:  # noqa: ANN401  (torch.Tensor; torch is imported late)
    """The Frobenius norm of B·A from two rank x rank products: `|B A|^2 = tr(B'B A A')`."""
    a, b = a.double(), b.double()
    return float(((b.T @ b) * (a @ a.T)).sum().clamp(min=0.0).sqrt())


def check_loads(case: Case, header: Header, transformer: Any) -> None:  # noqa: ANN401
    """`FluxPipeline.load_lora_weights` takes the file, and leaves out nothing of it."""
    from diffusers.pipelines.flux.pipeline_flux import FluxPipeline

    pipeline = FluxPipeline(None, None, None, None, None, None, transformer)
    try:
        pipeline.load_lora_weights(str(case.folder.product), adapter_name="proof")
    except (ValueError, RuntimeError, KeyError) as error:
        raise NotProvenError(f"diffusers does not load it: {first_line(error)}") from error
    case.breathe()
    loaded = {name.replace(".proof.", ".") for name, _ in transformer.named_parameters() if ".lora_" in name}
    wanted = {name.removeprefix("transformer.") for name in header.tensors}
    _demand(loaded == wanted, f"diffusers loads {len(loaded)} tensors of it instead of {len(wanted)}")
    case.checks.append("diffusers loads it")


def sync(case: Case) -> None:
    """Product, result and their names are on the disk, not only in its cache."""
    for path in (case.folder.product, case.folder.result_file):
        descriptor = open_regular(path)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    fsync_folder(case.folder.path)
    case.checks.append("synced to disk")


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise NotProvenError(otherwise)
