"""What a new session is made from: several folders, and what was set over a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxtui.persist import recipe
from fluxtui.persist.spec import Spec
from tests.cli.conftest import Lab


def spec_of(lab: Lab, name: str) -> Spec:
    return recipe.load_spec(lab.home.session(name).spec_file)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("one/a", "two/a", "two/in/b", "three/c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.png").touch()
        (tmp_path / f"{name}.txt").write_text("a thing")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_further_folders_are_given_as_the_first_is_and_written_absolute(lab: Lab, folders: Path) -> None:
    given = ("one", "two --repeats 5 --recursive", "three")
    asked = lab.call("new", "a", "--model", "pico", *(word for folder in given for word in ("--dataset", folder)))
    assert asked.code == 0, asked.err
    data = spec_of(lab, "a").dataset
    assert (data.path, data.folders) == (f"{folders}/one", [f"{folders}/two --repeats 5 --recursive", f"{folders}/three"])
    lab.call("edit", "a", "--set", "dataset.folders=three --trigger vexo")
    assert spec_of(lab, "a").dataset.folders == [f"{folders}/three --trigger vexo"]
    lab.call("new", "b", "--from", "a", "--set", "dataset.folders=two")
    assert spec_of(lab, "b").dataset.folders == [f"{folders}/two"]


def test_a_further_folder_that_is_wrong_is_refused_by_its_name(lab: Lab, folders: Path) -> None:
    make = ("new", "a", "--model", "pico", "--dataset", "one")
    assert "no data set folder" in lab.call(*make, "--dataset", "nowhere").sentence
    assert "stands twice" in lab.call(*make, "--dataset", "one --repeats 3").sentence
    assert "there is no --repeat:" in lab.call(*make, "--dataset", "two --repeat 3").sentence
    (folders / "two/a.txt").unlink()
    assert "two/a.png has no caption" in lab.call(*make, "--dataset", "two").sentence
    assert "by one of the two" in lab.call(*make, "--dataset", "three", "--set", "dataset.folders=two").sentence
    assert not lab.home.session("a").exists()
