"""FluxTUI is upgraded in place while a real trainer runs (fault 46): nothing that runs loads a line of the new package."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

import fluxtui
from fluxtui import control
from fluxtui.persist import process
from fluxtui.persist.home import Home
from tests.faults.test_real_trainer import home, make, pictures  # noqa: F401  (fixtures)
from tests.journeys.terminal import until
from tests.keeper.pace import SLOW


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package, from which all that is started now is loaded."""
    found = tmp_path / "site" / "fluxtui"
    shutil.copytree(Path(fluxtui.__file__).parent, found, ignore=shutil.ignore_patterns("__pycache__", "screens"))
    monkeypatch.setenv("PYTHONPATH", str(found.parent))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    return found


def upgrade(package: Path, witness: Path) -> None:
    """Another version in its place, each module of which notes which process loaded it."""
    package.rename(package.with_name("old"))
    shutil.copytree(package.with_name("old"), package)
    for module in package.rglob("*.py"):
        note = f"with open({str(witness)!r}, 'a') as _file: _file.write(f\"{{__import__('os').getpid()}} {{__name__}}\\n\")"
        module.write_text(f"{module.read_text()}\n{note}\n")
    version = package / "__init__.py"
    version.write_text(version.read_text().replace(f'__version__ = "{fluxtui.__version__}"', '__version__ = "99"'))
    shutil.rmtree(package.with_name("old"))


def test_46_a_run_goes_on_with_the_code_it_began_with_and_its_proof_names_the_one_that_proved(
    home: Home, pictures: Path, package: Path, tmp_path: Path  # noqa: F811
) -> None:
    """What a trainer does late comes after the swap: validation, samples, checkpoints, the product."""
    late = {"validate__images": 1, "validate__every_epochs": 1, "sample__every_epochs": 1}
    look = make(home, "one", pictures, **late, sample__prompts=["a"], sample__steps=1, train__steps=30)
    control.start(home, "one")
    record = until(lambda: (seen := look()).step >= 1 and seen.record, 90 * SLOW, lambda: str(look()))
    trainer = record.ranks[0]
    assert process.send(trainer, signal.SIGSTOP)
    assert str(package.parent) in Path(f"/proc/{trainer.pid}/environ").read_bytes().decode()
    at = look().step
    upgrade(package, tmp_path / "witness")
    process.send(trainer, signal.SIGCONT)
    until(lambda: not look().is_active, 120 * SLOW, lambda: str(look()))
    seen = look()
    assert (seen.state, seen.attempt, at < seen.step) == ("completed", 1, True), seen
    loaded = [line.split() for line in (tmp_path / "witness").read_text().splitlines()]
    assert {int(pid) for pid, _ in loaded} == {seen.record.prover.pid}, "a process that ran loaded modules of the new package"
    assert "fluxtui.engine.prove" in {name for _, name in loaded}
    assert seen.record.proof.checks[-1].startswith("proven by FluxTUI 99 (code ")
