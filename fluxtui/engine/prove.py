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
from fluxtui.engine.contents import (
    Networks,
    NotProvenError,
    demand,
    empty_networks,
    expected_shapes,
    loads_in_diffusers,
    loads_in_peft,
    update_norm,
)  # fmt: skip
from fluxtui.engine.trainer.exit_reason import first_line
from fluxtui.engine.trainer.reporter import Reporter
from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.files import tensorfile, toml
from fluxtui.persist.files.durable import fsync_folder
from fluxtui.persist.files.regular import blocks, open_regular
from fluxtui.persist.files.tensorfile import Header
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.sessions.record import Phase, Proof, Record, Result
from fluxtui.persist.settings import recipe
from fluxtui.persist.settings.spec import Spec


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
    facts, sha256 = check_bytes(case)
    header = tensorfile.read_header(case.folder.product)
    check_metadata(case, header)
    base = empty_networks(case.spec, case.home, case.record.model_commit)
    case.breathe()
    check_keys(case, header, expected_shapes(case.spec, base))
    check_values(case, header)
    check_loads(case, header, base)
    tensors_sha256 = tensorfile.tensors_sha256(case.folder.product)
    demand(tensors_sha256 == case.result.tensors_sha256, "the tensors are not those of the result file")
    sync(case)
    return Proof(
        ok=True,
        file=case.result.file,
        size=facts.st_size,
        sha256=sha256,
        tensors_sha256=tensors_sha256,
        mtime_ns=facts.st_mtime_ns,
        ctime_ns=facts.st_ctime_ns,
        checks=case.checks,
        at=datetime.now(UTC),
    )


def check_claim(case: Case) -> None:
    """The result is of this attempt, this recipe, and the planned last step."""
    from fluxtui.engine.trainer.plan_steps import planned_steps, world_size_of

    result, record = case.result, case.record
    demand(result.nonce == record.nonce and result.attempt == record.attempt, "the result file is of another attempt")
    demand(result.session_id == case.spec.id, "the result file is of another session")
    wanted = recipe.recipe_sha256(case.spec)
    demand(result.recipe_sha256 == wanted == record.recipe_sha256, "the recipe is not the one that was trained")
    steps = planned_steps(case.spec, case.folder, world_size_of(case.spec, record))
    demand(result.step == steps, f"its last step is {result.step}, and {steps} were planned")
    case.checks.append(f"result of attempt {record.attempt}, its recipe and step {result.step} of {steps}")


def check_bytes(case: Case) -> tuple[os.stat_result, str]:
    """A regular file of the size and SHA-256 that were claimed; what the system said of it before it was read, and the hash."""
    path = case.folder.product
    demand(case.result.file == path.name, f"the result names another file, {case.result.file!a}")
    try:
        descriptor = open_regular(path)
    except FileNotFoundError:
        raise NotProvenError(f"{path.name} is missing") from None
    digest, facts = hashlib.sha256(), os.fstat(descriptor)
    try:
        for block in blocks(descriptor):
            digest.update(block)
            case.breathe(unit="bytes")
    finally:
        os.close(descriptor)
    demand(facts.st_size == case.result.size, f"{path.name} has {facts.st_size} bytes instead of {case.result.size}")
    demand(digest.hexdigest() == case.result.sha256, f"{path.name} was changed: its SHA-256 is not the one of the result")
    case.checks.append(f"{facts.st_size} bytes, SHA-256 {digest.hexdigest()[:16]}…")
    return facts, digest.hexdigest()


def check_metadata(case: Case, header: Header) -> None:
    """The file itself names this session, recipe and step."""
    try:
        said = msgspec.json.decode(header.metadata.get("fluxtui", "null"))
    except msgspec.DecodeError:
        said = None
    demand(isinstance(said, dict), "the file's metadata do not say who made it")
    for key, wanted in (("session_id", case.spec.id), ("recipe_sha256", case.result.recipe_sha256), ("step", case.result.step)):
        demand(said.get(key) == wanted, f"the file's metadata name another {key}")
    case.checks.append("metadata name this session, recipe and step")


def check_keys(case: Case, header: Header, shapes: dict[str, tuple[int, ...]]) -> None:
    """Every expected tensor with its shape, and no other."""
    found = {name: info.shape for name, info in header.tensors.items()}
    for name in sorted(shapes.keys() ^ found.keys()):
        raise NotProvenError(f"{name} is {'missing' if name in shapes else 'not part of this LoRA'}")
    for name, shape in shapes.items():
        demand(found[name] == shape, f"{name} has shape {found[name]} instead of {shape}")
    case.checks.append(f"{len(shapes)} tensors under the expected keys, with the expected shapes")


def check_values(case: Case, header: Header) -> None:
    """Every number finite, and no module whose update is zero."""
    from fluxtui.engine.family.flux1.keys import taken_apart
    from fluxtui.engine.trainer.checkpoint.state import from_safetensors

    parts: dict[str, dict[str, Any]] = {}
    for name, tensor in from_safetensors(case.folder.product).items():
        demand(bool(tensor.isfinite().all()), f"{name} holds numbers that are not finite")
        module, part = taken_apart(name) or (name, "")
        parts.setdefault(module, {})[part] = tensor
    for number, (module, of) in enumerate(parts.items(), start=1):
        demand(update_norm(of) > 0.0, f"the update of {module} is zero: training changed nothing there")
        case.breathe(item=number, items=len(parts), unit="modules")
    case.checks.append(f"every number finite, the update of each of {len(parts)} modules non-zero")


def check_loads(case: Case, header: Header, base: Networks) -> None:
    """The library that is to use the file takes it, and leaves out nothing of it."""
    if case.spec.lora.kind == "lokr":
        loads_in_peft(case.folder.product, case.spec, base)
        case.checks.append("peft loads it")
    else:
        loads_in_diffusers(case.folder.product, set(header.tensors), base)
        case.checks.append("diffusers loads it")
    case.breathe()


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
