"""What the keeper makes of a claim and of a prover's answer: neither is believed further than it reaches."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from fluxtui.engine.keeper import startup
from fluxtui.engine.keeper.proof import check_claim, judge_answer
from fluxtui.persist.checkpoints.commit import commit_checkpoint, step_name
from fluxtui.persist.errors import StorageError
from fluxtui.persist.files import tensorfile, toml
from fluxtui.persist.home import SessionFolder
from fluxtui.persist.sessions.record import Proof, Record, Result

MAKER = Record(
    session_id="s", attempt=2, nonce="n", status="running", recipe_sha256="r",
    queued_at=datetime.now(UTC), host="h", boot_id="b", run_id="run",
)  # fmt: skip
RESULT = Result(
    nonce="n", attempt=2, session_id="s", recipe_sha256="r", step=20, file="one.safetensors", size=7, sha256="bytes",
    tensors_sha256="tensors",
)  # fmt: skip
ANSWER = Proof(ok=True, size=7, sha256="bytes", tensors_sha256="tensors")


def change(**values: object) -> Callable[[Result], Result]:
    return lambda result: msgspec.structs.replace(result, **values)


def claimed(path: Path, metadata: dict[str, object], changed: Callable[[Result], Result]) -> SessionFolder:
    """A session with a product that says this of itself, and the trainer's claim of it."""
    path.mkdir()
    folder = SessionFolder(path)
    whole = b"".join(tensorfile.serialize({"x": ("F32", (1,), b"\0" * 4)}, {"fluxtui": json.dumps(metadata)}))
    folder.product.write_bytes(whole)
    result = msgspec.structs.replace(RESULT, size=len(whole), sha256=hashlib.sha256(whole).hexdigest())
    toml.write(folder.result_file, changed(result))
    return folder


SAYS = {"session_id": "s", "recipe_sha256": "r", "step": 20}


def test_a_claim_that_holds_has_no_problem(tmp_path: Path) -> None:
    claim = check_claim(claimed(tmp_path / "one", SAYS, lambda result: result), MAKER, 20, lambda: None)
    assert (claim.problem, claim.result is not None) == ("", True)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (change(nonce="other"), "of another attempt"),
        (change(attempt=1), "of another attempt"),
        (change(session_id="other"), "of another attempt"),
        (change(recipe_sha256="other"), "of another recipe"),
        (change(step=19), "its last step is 19, and 20 were planned"),
        (change(file="../two.safetensors"), "names another product"),
        (change(size=1), "bytes, the result file says 1"),
        (change(sha256="0" * 64), "the product's bytes are not those of the result file"),
    ],
)
def test_a_claim_that_is_wrong_in_one_thing_is_refused_for_it(
    tmp_path: Path, changed: Callable[[Result], Result], problem: str
) -> None:
    claim = check_claim(claimed(tmp_path / "one", SAYS, changed), MAKER, 20, lambda: None)
    assert problem in claim.problem


@pytest.mark.parametrize("key", list(SAYS))
def test_a_product_that_says_it_is_another_ones_is_refused(tmp_path: Path, key: str) -> None:
    """As one that was copied from another session, with the claim that lay beside it."""
    claim = check_claim(claimed(tmp_path / "one", SAYS | {key: 7}, lambda result: result), MAKER, 20, lambda: None)
    assert claim.problem == f"the product's metadata names another {key.replace('_', ' ')}"


@pytest.mark.parametrize(
    ("answer", "code", "problem"),
    [
        (ANSWER, 0, ""),
        (None, 0, "gave no answer"),
        (ANSWER, None, "gave no answer"),  # ended by a signal
        (ANSWER, 1, "left with code 1"),  # something failed after it had answered
        (Proof(ok=False, what="a tensor is not finite"), 0, "a tensor is not finite"),
        (msgspec.structs.replace(ANSWER, sha256="other"), 0, "changed while it was being proven"),
        (msgspec.structs.replace(ANSWER, size=8), 0, "changed while it was being proven"),
        (msgspec.structs.replace(ANSWER, tensors_sha256="other"), 0, "not those that the trainer claimed"),
    ],
)
def test_an_answer_proves_only_what_was_claimed(answer: Proof | None, code: int | None, problem: str) -> None:
    found = judge_answer(answer, code, RESULT)
    assert found.ok is (problem == "")
    assert problem in found.what


def test_a_start_wants_room_for_two_more_checkpoints_of_the_largest_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is written before the oldest is deleted, and a disk that is full to the byte is of no use to the rest."""
    folder = SessionFolder(tmp_path)
    for step, size in ((1, 3_000_000), (2, 1_000_000)):
        commit_checkpoint(folder.checkpoints, step_name(step), {"state": b"x" * size}, {"step": step})
    real = os.statvfs(tmp_path)

    def free(count: int) -> None:
        found = type("Space", (), {"f_bavail": count, "f_frsize": 1, "f_blocks": real.f_blocks})
        monkeypatch.setattr(startup.os, "statvfs", lambda path: found)

    free(2 * 3_001_000 + startup.LEAST_FREE)
    startup.must_have_room(folder)
    free(2 * 2_999_000 + startup.LEAST_FREE)
    with pytest.raises(StorageError, match="are needed at least"):
        startup.must_have_room(folder)
