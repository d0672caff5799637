"""Is the claimed product the product of this session? First what the keeper can check itself, without torch; then the prover.

`completed` is said only after both: the trainer's word counts for nothing.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from fluxtui.engine.keeper.installed import Installed
from fluxtui.persist.errors import FluxTUIError, NotFoundError
from fluxtui.persist.files import toml
from fluxtui.persist.files.regular import read_at
from fluxtui.persist.files.tensorfile import read_header
from fluxtui.persist.files.text import clean
from fluxtui.persist.home import SessionFolder
from fluxtui.persist.sessions.record import Proof, Record, Result

_BLOCK = 4 * 2**20
_ANSWER = 64 * 1024  # bytes of the prover's answer that are looked at


@dataclass(frozen=True, slots=True)
class Claim:
    """A result whose file is there, whole, and names this session. `problem` is a sentence where it does not hold."""

    result: Result | None = None
    problem: str = ""


def check_claim(folder: SessionFolder, maker: Record, steps: int, breathe: Callable[[], None]) -> Claim:
    """What needs no torch: nonce, recipe, last step, file, size, SHA-256, metadata.

    `maker` is the record of the attempt that trained; `steps` the plan's last step, 0 where only the prover can compute it;
    `breathe` is called between blocks of the file, so that the keeper's beat goes on.
    """
    try:
        result = toml.read(folder.result_file, Result)
    except NotFoundError:
        return Claim(problem="there is no result file")
    except FluxTUIError as error:
        return Claim(problem=f"the result file cannot be read: {error}")
    problem = _wrong_claim(folder, result, maker, steps)
    if problem:
        return Claim(result, problem)
    try:
        return Claim(result, _wrong_file(folder, result, breathe))
    except (OSError, FluxTUIError) as error:
        return Claim(result, f"the product cannot be read: {error}")


def _wrong_claim(folder: SessionFolder, result: Result, maker: Record, steps: int) -> str:
    if result.nonce != maker.nonce or result.session_id != maker.session_id or result.attempt != maker.attempt:
        return "the result file is of another attempt"
    if result.recipe_sha256 != maker.recipe_sha256:
        return "the result file is of another recipe"
    if steps and result.step != steps:
        return f"its last step is {result.step}, and {steps} were planned"
    if result.file != folder.product.name:
        return f"the result file names another product, {clean(result.file, 80)}"
    return ""


def _wrong_file(folder: SessionFolder, result: Result, breathe: Callable[[], None]) -> str:
    path = folder.product
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return "the product is missing"
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return "the product is not a regular file"
        if found.st_size != result.size:
            return f"the product has {found.st_size} bytes, the result file says {result.size}"
        if _sha256(fd, breathe) != result.sha256:
            return "the product's bytes are not those of the result file"
    finally:
        os.close(fd)
    return _wrong_metadata(folder, result)


def _sha256(fd: int, breathe: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    while data := os.read(fd, _BLOCK):
        digest.update(data)
        breathe()
    return digest.hexdigest()


def _wrong_metadata(folder: SessionFolder, result: Result) -> str:
    try:
        metadata = msgspec.json.decode(read_header(folder.product).metadata.get("fluxtui", "{}"), type=dict[str, object])
    except msgspec.DecodeError:
        return "the product's metadata cannot be read"
    for key, wanted in (("session_id", result.session_id), ("recipe_sha256", result.recipe_sha256), ("step", result.step)):
        if str(metadata.get(key)) != str(wanted):
            return f"the product's metadata names another {key.replace('_', ' ')}"
    return ""


def read_answer(fd: int) -> Proof | None:
    """The last line that a prover left on its standard output; None where it is none."""
    size = os.fstat(fd).st_size
    lines = read_at(fd, _ANSWER, max(0, size - _ANSWER)).splitlines()
    try:
        return msgspec.json.decode(lines[-1], type=Proof) if lines else None
    except msgspec.DecodeError:
        return None


def judge_answer(answer: Proof | None, exit_code: int | None, result: Result) -> Proof:
    """The prover's answer held against the claim: it must be about the very bytes that were claimed."""
    if answer is None or exit_code is None:
        return Proof(ok=False, what="the proving process gave no answer")
    if not answer.ok or exit_code != 0:
        return msgspec.structs.replace(
            answer, ok=False, what=clean(answer.what, 500) or f"the proving process left with code {exit_code}"
        )
    if (answer.sha256, answer.size) != (result.sha256, result.size):
        return msgspec.structs.replace(answer, ok=False, what="the product changed while it was being proven")
    if answer.tensors_sha256 != result.tensors_sha256:
        return msgspec.structs.replace(answer, ok=False, what="the tensors are not those that the trainer claimed")
    return answer


def by_one_code(found: Proof, kept: Installed, before: Installed, after: Installed) -> Proof:
    """A proof counts only where the prover's code stayed the same meanwhile; and says so where it is not the keeper's."""
    if before != after:
        what = f"FluxTUI was being replaced while the product was proven ({before.words()}, then {after.words()})"
        return msgspec.structs.replace(found, ok=False, what=what)
    if after == kept:
        return found
    replaced = f"{after.words()}, installed while {kept.words()} kept this session"
    if not found.ok:
        return msgspec.structs.replace(found, what=f"{found.what}; the prover was {replaced}")
    return msgspec.structs.replace(found, checks=[*found.checks, f"proven by {replaced}"])
