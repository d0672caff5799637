"""FluxTUI is upgraded in place while a session runs (fault 46): the run goes on, and no half package proves anything."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from keeper_lab import HERE, Keeper, Lab, Session, until

import fluxtui
from fluxtui.engine.keeper.installed import Installed, installed
from fluxtui.engine.keeper.proof import by_one_code
from fluxtui.persist.sessions.record import Proof


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package, to be replaced."""
    found = tmp_path / "site" / "fluxtui"
    shutil.copytree(Path(fluxtui.__file__).parent, found, ignore=shutil.ignore_patterns("__pycache__", "demo", "screens"))
    return found


def start(one: Session, package: Path, *arguments: str) -> Keeper:
    """A keeper that was started from the copy."""
    keeper = one.start(*arguments, PYTHONPATH=f"{package.parent}:{HERE}", PYTHONDONTWRITEBYTECODE="1")
    assert str(package.parent) in Path(f"/proc/{keeper.pid}/environ").read_bytes().decode()
    return keeper


def break_it(package: Path) -> None:
    """What a trainer or prover that is started now would fail with."""
    (package / "engine" / "life.py").write_text("raise ImportError('half a package')\n")


def make_whole(package: Path) -> None:
    """The next version."""
    shutil.copy(Path(fluxtui.__file__).parent / "engine" / "life.py", package / "engine" / "life.py")
    (package / "__init__.py").write_text('__version__ = "99"\n')


def test_46_a_proof_that_was_made_while_the_package_was_replaced_counts_for_nothing_and_is_made_again(lab: Lab, package: Path):
    reached = lab.path / "proving"
    lab.plan(prove_seconds=1, prover_reached=str(reached))
    one = lab.session(steps=5)
    keeper = start(one, package)
    until(reached.exists, 30)
    break_it(package)
    until(lambda: "proven once more" in one.log(), 30)
    assert one.record().status == "running"
    make_whole(package)
    keeper.wait()
    one.check()
    record = one.record()
    assert (record.status, record.attempt) == ("completed", 1)
    assert record.proof.checks[-1].startswith("proven by FluxTUI 99 (code ")
    assert f"installed while FluxTUI {fluxtui.__version__} (code " in record.proof.checks[-1]
    assert record.proof.checks[-1] in one.log()


def test_46_where_no_prover_of_the_new_package_comes_to_life_that_is_said_and_a_resume_only_proves(lab: Lab, package: Path):
    one = lab.session(steps=60)
    lab.plan(step_seconds=0.02)
    keeper = start(one, package)
    one.await_step(1)
    break_it(package)
    keeper.wait()
    record = one.record()
    assert record.status == "failed"
    assert "exit 0 without proof: the proving process gave no answer; the prover was FluxTUI" in record.reason
    assert one.log().count("proven once more") == 2
    make_whole(package)
    start(one, package, "--resume", "auto").wait()
    one.check()
    assert [(record.status, record.ranks == []) for record in one.records()] == [("failed", False), ("completed", True)]


def test_46_a_package_replaced_while_a_session_runs_does_not_disturb_it(lab: Lab, package: Path):
    """Every module of the keeper is replaced by one that cannot be imported; then the trainer crashes.

    Its retry, and the prover, are started from the new package by the old keeper.
    """
    lab.plan({"attempt": 1, "at": 50, "do": "segfault"}, step_seconds=0.05)
    one = lab.session(steps=60)
    keeper = start(one, package)
    one.await_step(5)
    for file in (package / "engine" / "keeper").rglob("*.py"):
        file.write_text("raise ImportError('this is another version')\n")
    shutil.rmtree(package / "gpu")
    (package / "__init__.py").write_text('__version__ = "99"\n')
    assert one.attempts == [1]
    keeper.wait()
    one.check()
    assert (one.record(1).signal, one.record().status, one.record().attempt) == ("SIGSEGV", "completed", 2)
    assert one.folder.card_file.exists()


def test_46_a_proof_during_which_the_code_changed_is_none_and_says_both():
    old, new, sound = Installed("1", "a" * 64), Installed("2", "b" * 64), Proof(ok=True, checks=["bytes"])
    torn = by_one_code(sound, old, old, new)
    assert not torn.ok
    assert "FluxTUI 1 (code aaaaaaaa), then FluxTUI 2 (code bbbbbbbb)" in torn.what
    assert by_one_code(sound, old, old, old) == sound
    assert by_one_code(sound, old, new, new).ok
    assert not by_one_code(Proof(ok=False, what="cut"), old, new, new).ok


def test_46_the_same_version_installed_once_more_is_the_same_code(package: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fluxtui.engine.keeper.installed.PACKAGE", package)
    before = installed()
    assert before.version == fluxtui.__version__
    for file in package.rglob("*.py"):
        data = file.read_bytes()
        file.unlink()
        file.write_bytes(data)
    assert installed() == before
    (package / "persist" / "files" / "toml.py").unlink()
    assert installed() != before


def test_records_of_a_later_version_are_read(lab: Lab):
    one = lab.session()
    one.run()
    path = one.folder.attempt_file(1)
    path.write_text("a_key_of_tomorrow = 7\n" + path.read_text())
    assert one.record().status == "completed"
