"""A data set that changed since a session began is named before a resume, as its trainer would name it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fluxtui.control import changed as looked
from fluxtui.control import start
from fluxtui.demo import IMAGES_DIR
from fluxtui.engine.trainer.data.dataset import read_dataset
from fluxtui.engine.trainer.data.fingerprint import differences
from fluxtui.persist.errors import RefusedError
from fluxtui.persist.files import toml
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.settings.recipe import load_spec
from fluxtui.persist.settings.spec import Spec
from tests.ui.fabricate import make_record, make_session


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four pictures with captions, one of them with a mask."""
    data = tmp_path / "data"
    (data / "masks").mkdir(parents=True)
    for number in range(1, 5):
        for kind in ("png", "txt"):
            shutil.copy(Path(IMAGES_DIR) / f"heart-0{number}.{kind}", data)
    shutil.copy(data / "heart-01.png", data / "masks")
    return data


@pytest.fixture
def session(home_path: Path, data: Path) -> tuple[SessionFolder, Spec]:
    """Stopped, on those pictures."""
    sets = {"dataset__path": str(data), "dataset__masks": "masks", "dataset__regularisation": ""}
    folder = make_session(Home.open(home_path), "fox", **sets)
    spec = load_spec(folder.spec_file)
    toml.write(folder.dataset_file, read_dataset(spec.dataset).fingerprint)
    make_record(folder, status="stopped", step=10, exit_code=75, reason="stopped by the user")
    return folder, spec


def rewritten(path: Path) -> None:
    """Other words in as many bytes, at the same time of day but for a second."""
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, (1, 1))


CHANGES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "nothing": (lambda data: None, []),
    "a touch": (lambda data: os.utime(data / "heart-01.png", (1, 1)), []),
    "another caption": (lambda data: rewritten(data / "heart-02.txt"), ["heart-02.txt changed"]),
    "another picture": (lambda data: shutil.copy(data / "heart-01.png", data / "heart-03.png"), ["heart-03.png changed"]),
    "another mask": (lambda data: shutil.copy(data / "heart-02.png", data / "masks" / "heart-01.png"),
                     ["masks/heart-01.png changed"]),
    "a new picture": (lambda data: shutil.copy(data / "heart-01.png", data / "more.png"), ["more.png is new"]),
    "a lost caption": (lambda data: (data / "heart-04.txt").unlink(), ["heart-04.txt is gone"]),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_found_is_what_the_trainer_would_refuse(session: tuple[SessionFolder, Spec], data: Path, change: str) -> None:
    folder, spec = session
    before = read_dataset(spec.dataset).fingerprint
    make, named = CHANGES[change]
    make(data)
    assert list(looked.changed(folder, spec.dataset)) == named
    assert differences(before, read_dataset(spec.dataset, known=before).fingerprint) == named


def test_a_resume_is_refused_before_an_attempt_is_made(session: tuple[SessionFolder, Spec], data: Path) -> None:
    folder, _ = session
    rewritten(data / "heart-02.txt")
    with pytest.raises(RefusedError, match=r"heart-02\.txt changed.*resume fox --accept-changes"):
        start(Home.open(folder.path.parent.parent), "fox", resume="auto")
    assert folder.attempt_numbers() == [1]


def test_what_is_too_much_to_look_at_is_left_to_the_trainer(
    session: tuple[SessionFolder, Spec], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, spec = session
    rewritten(data / "heart-02.txt")
    monkeypatch.setattr(looked, "MOST_READ", 3)
    assert not looked.changed(folder, spec.dataset)
    monkeypatch.undo()
    assert looked.changed(folder, spec.dataset)
    monkeypatch.setattr(looked, "MOST_FACTS", 3)
    assert not looked.changed(folder, spec.dataset)
    monkeypatch.undo()
    folder.dataset_file.write_bytes(b"files = [")
    assert not looked.changed(folder, spec.dataset)
