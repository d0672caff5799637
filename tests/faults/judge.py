"""What must hold in a session folder after any fault: the judges of the sweeps, one a scenario."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fluxtui.control.create import create as create_session
from fluxtui.engine.keeper import proof, startup
from fluxtui.engine.trainer.claim import claim, write_pieces
from fluxtui.persist.checkpoints.commit import (
    MANIFEST,
    commit_checkpoint,
    committed,
    newest_verified,
    step_name,
    step_of,
    verify_checkpoint,
)
from fluxtui.persist.errors import DamagedError, RefusedError
from fluxtui.persist.files import toml
from fluxtui.persist.files.durable import write_file
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.sessions import overview
from fluxtui.persist.sessions.record import Record, Result
from fluxtui.persist.sessions.requests import take_requests
from fluxtui.persist.settings import recipe
from tests.faults.program import LAST_STEP, SCENARIOS, content, job, product
from tests.faults.sweep import CHANGING, Outcome

OLD, NEW = b"old" * 100, b"new" * 2000
NOW = datetime(2026, 11, 26, tzinfo=UTC)
DEAD = ".tmp-step-000000003-dead"


def prepare(scenario: str, folder: Path) -> Path:
    """The folder as the scenario finds it. Played once beside it, so that no module is first imported between the marks."""
    SCENARIOS[scenario](_prepared(scenario, folder.with_suffix(".warm")), lambda line: None)
    return _prepared(scenario, folder)


def _prepared(scenario: str, folder: Path) -> Path:
    folder.mkdir()
    checkpoints = folder / "checkpoints"
    if scenario in ("commit", "resume"):
        for step in (1, 2) if scenario == "commit" else (1, 2, 3):
            commit_checkpoint(checkpoints, step_name(step), content(step), {"step": step})
        (checkpoints / DEAD).mkdir()
        (checkpoints / DEAD / "adapter.safetensors").write_bytes(b"half")
    if scenario == "resume":
        (checkpoints / step_name(3) / "state.json").write_bytes(b"damaged")
    if scenario == "record":
        write_file(folder / "record.toml", OLD)
    if scenario == "export":
        session = SessionFolder(folder / "dog")
        session.create()
        claim(job(1), session, LAST_STEP, write_pieces(session.product, product(1)))
    return folder


def judge(scenario: str, folder: Path, outcome: Outcome, call: str, fault: str) -> None:
    """Raises AssertionError where a promise is broken: right after the fault, and after a run that goes on from there."""
    assert "Traceback" not in outcome.errors, outcome.errors
    if fault == "SIGKILL":
        assert outcome.code == -9
    elif fault == "SIGTERM":
        assert outcome.code == 75, outcome
    elif call in CHANGING and scenario != "create" and not (scenario == "resume" and call == "openat"):
        assert outcome.code == 80, f"an error of the disk was swallowed: {outcome}"
    else:
        assert outcome.code in (0, 80, 1), outcome  # what cannot be read may be set aside, and said, and done without
    JUDGES[scenario](folder, outcome, call, fault)


def judge_commit(folder: Path, outcome: Outcome, call: str, fault: str) -> None:
    checkpoints = folder / "checkpoints"
    _visible_ones_are_whole(checkpoints)
    steps = [step_of(name) for name in committed(checkpoints)]
    if "committed 3" in outcome.report:
        assert 3 in steps, "what was said to be committed is gone"
    elif fault not in ("SIGKILL", "EIO for good"):
        assert _temporaries(checkpoints) <= {DEAD}, "a failed commit left its temporary folder"
    assert 2 in steps, "a committed checkpoint was lost"
    assert 1 in steps or 3 in steps, "retention came before the commit"
    assert not _set_aside(checkpoints), "a sound checkpoint was set aside"
    _runs_through("commit", folder)
    assert committed(checkpoints) == [step_name(2), step_name(3)]
    _visible_ones_are_whole(checkpoints)
    assert not _temporaries(checkpoints), "left-overs were not swept"


def judge_resume(folder: Path, outcome: Outcome, call: str, fault: str) -> None:
    checkpoints = folder / "checkpoints"
    damaged = {path.parent for path in checkpoints.glob("*/state.json") if path.read_bytes() == b"damaged"}
    assert damaged in ({checkpoints / step_name(3)}, {checkpoints / ".corrupt-step-000000003-1"}), "evidence was deleted"
    if call in CHANGING and call != "openat":
        assert {step_name(1), step_name(2)} <= set(committed(checkpoints)), "a committed checkpoint was lost"
    for step in (1, 2):  # one that the disk could not read may be set aside; its bytes are all there
        places = [checkpoints / step_name(step), checkpoints / f".corrupt-{step_name(step)}-1"]
        assert [place for place in places if _holds(place, step)], f"step {step} was lost"
    _runs_through("resume", folder)
    assert newest_verified(checkpoints, _nothing_more) == step_name(3)
    _visible_ones_are_whole(checkpoints)
    assert (checkpoints / ".corrupt-step-000000003-1" / "state.json").read_bytes() == b"damaged"
    assert not _temporaries(checkpoints), "left-overs were not swept"


def judge_record(folder: Path, outcome: Outcome, call: str, fault: str) -> None:
    found = (folder / "record.toml").read_bytes()
    assert found in ((NEW,) if "written" in outcome.report else (OLD, NEW)), "a torn file"
    others = set(os.listdir(folder)) - {"record.toml"}
    assert all(name.startswith(".tmp-") for name in others)
    assert not others or fault in ("SIGKILL", "EIO for good"), f"litter: {others}"
    _runs_through("record", folder)
    assert (folder / "record.toml").read_bytes() == NEW


def judge_create(folder: Path, outcome: Outcome, call: str, fault: str) -> None:
    home = Home.open(folder / "home")
    if outcome.code == 0:
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o700 for path in home.root.rglob("*") if path.is_dir())
    if "created" not in outcome.report and fault not in ("SIGKILL", "EIO for good"):
        assert not _half_made(home), "a session that could not be made was left behind"
    seen = overview.look_all(home)
    assert [(one.name, one.state) for one in seen] in ([], [("dog", "new")]), "half a session is listed"
    if "created" in outcome.report:
        _requests_are_kept(home, outcome, call)
    if seen:
        assert recipe.load_spec(home.session("dog").spec_file).model.source == "pico", "a session without its spec"
        with pytest.raises(RefusedError, match="exists already"):
            _runs_through("create", folder)
    else:
        assert "created" not in outcome.report, "what was said to be made is not there"
        _runs_through("create", folder)  # the name is free
    for left in _half_made(home):
        os.utime(left, (0, 0))
    create_session(home, "cat", dataset="demo", model="pico")
    assert sorted(os.listdir(home.sessions)) == ["cat", "dog"], "what was half made was never cleaned up"


def judge_export(folder: Path, outcome: Outcome, call: str, fault: str) -> None:
    session = SessionFolder(folder / "dog")
    found, claimed = session.product.read_bytes(), toml.read(session.result_file, Result).attempt
    assert found in (_joined(1), _joined(2)), "a torn product"
    assert found == _joined(2) or not {"product written", "claimed"} & set(outcome.report), "what was said to be written is not"
    assert claimed == 2 or "claimed" not in outcome.report, "what was said to be claimed is not"
    assert claimed == 1 or found == _joined(2), "a claim came before its product"
    for attempt in (1, 2):
        is_true = claimed == attempt and found == _joined(attempt)
        assert _claim_holds(session, attempt) == is_true, f"attempt {attempt} would be called completed: {not is_true}"
    left = {path.name for path in session.path.iterdir() if path.is_file()} - {session.product.name, session.result_file.name}
    assert all(name.startswith(".tmp-") for name in left)
    assert not left or fault in ("SIGKILL", "EIO for good"), f"litter: {left}"
    startup.sweep(session)  # as the keeper of the next attempt does
    assert not _temporaries(session.path), "left-overs were not swept"
    _runs_through("export", folder)
    assert _claim_holds(session, 2)


def _claim_holds(session: SessionFolder, attempt: int) -> bool:
    """The keeper's own look, without which no prover is asked."""
    told = job(attempt)
    maker = Record(
        session_id=told.spec.id, attempt=attempt, nonce=told.nonce, status="running", queued_at=NOW, host="", boot_id="",
        run_id="", recipe_sha256=told.recipe_sha256,
    )  # fmt: skip
    return proof.check_claim(session, maker, LAST_STEP, lambda: None).problem == ""


def _joined(attempt: int) -> bytes:
    return b"".join(bytes(piece) for piece in product(attempt))


def _half_made(home: Home) -> list[Path]:
    return [path for path in home.sessions.iterdir() if path.name.startswith(".")]


def _requests_are_kept(home: Home, outcome: Outcome, call: str) -> None:
    taken, rejected = take_requests(home.session("dog"))
    assert rejected == [], "a torn request was seen"
    if outcome.report[-1] == "dropped" and call in ("mkdir", "fsync", "rename"):
        assert len(taken) == 1, "a request that was dropped is gone, and nobody took it"


JUDGES = {
    "commit": judge_commit, "resume": judge_resume, "record": judge_record, "create": judge_create, "export": judge_export,
}  # fmt: skip


def _runs_through(scenario: str, folder: Path) -> None:
    SCENARIOS[scenario](folder, lambda line: None)


def _visible_ones_are_whole(checkpoints: Path) -> None:
    for name in committed(checkpoints):
        verify_checkpoint(checkpoints / name)
        assert _holds(checkpoints / name, step_of(name)), f"{name} is not what was committed"


def _holds(path: Path, step: int) -> bool:
    files = content(step)
    if not path.is_dir() or set(os.listdir(path)) != {*files, MANIFEST}:
        return False
    return all((path / file).read_bytes() == files[file] for file in files)


def _temporaries(folder: Path) -> set[str]:
    return {name for name in os.listdir(folder) if name.startswith(".tmp-")}


def _set_aside(checkpoints: Path) -> list[str]:
    return [name for name in os.listdir(checkpoints) if name.startswith(".corrupt-")]


def _nothing_more(name: str, sentence: str) -> None:
    raise DamagedError(f"{name} was set aside once more: {sentence}")
