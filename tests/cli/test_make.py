"""What a new session is made from: several folders, and what was set over a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxtui import control
from fluxtui.persist.settings import recipe
from fluxtui.persist.settings.spec import Spec
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


def test_what_stands_behind_the_only_folder_is_set_and_behind_the_first_of_several_is_refused(lab: Lab, folders: Path) -> None:
    asked = lab.call("new", "a", "--model", "pico", "--dataset", "one --repeats 40 --flip")
    assert asked.code == 0, asked.err
    data = spec_of(lab, "a").dataset
    assert (data.path, data.repeats, data.flip) == (f"{folders}/one", 40, True)
    assert "there is no --repeat:" in lab.call("new", "b", "--model", "pico", "--dataset", "one --repeat 3").sentence
    refused = lab.call("new", "b", "--model", "pico", "--dataset", "one --repeats 3", "--dataset", "two")
    assert "give --set dataset.repeats=3, and behind the others" in refused.sentence
    assert not lab.home.session("b").exists()


@pytest.mark.parametrize(("kind", "told"), [("lora", ""), ("dora", "diffusers alone reads"), ("lokr", "ComfyUI alone reads")])
def test_which_programs_read_the_adapter_is_told_before_it_is_trained(lab: Lab, folders: Path, kind: str, told: str) -> None:
    make = ("--model", "pico", "--dataset", "one", "--set", f"lora.kind={kind}")
    (folders / "kohya.toml").write_text('network_module = "networks.lora_flux"\n')
    for asked in (lab.call("new", "a", *make), lab.call("import", "b", "kohya.toml", *make)):
        assert asked.code == 0, asked.err
        assert ("alone reads" in asked.err) == bool(told)
        assert told in asked.err


def test_a_further_folder_that_is_wrong_is_refused_by_its_name(lab: Lab, folders: Path) -> None:
    make = ("new", "a", "--model", "pico", "--dataset", "one")
    assert "no data set folder" in lab.call(*make, "--dataset", "nowhere").sentence
    assert "stands twice" in lab.call(*make, "--dataset", "one --repeats 3").sentence
    assert "there is no --repeat:" in lab.call(*make, "--dataset", "two --repeat 3").sentence
    (folders / "two/a.txt").unlink()
    assert "two/a.png has no caption" in lab.call(*make, "--dataset", "two").sentence
    assert "by one of the two" in lab.call(*make, "--dataset", "three", "--set", "dataset.folders=two").sentence
    assert not lab.home.session("a").exists()


@pytest.mark.parametrize(
    ("optimizer", "preset", "rate", "scheduler"),
    [
        ("prodigy", "fast", 1.0, None), ("schedule_free", "fluxgym", 2.4e-3, "constant"), ("lion", "fast", 1.2e-4, None),
        ("adamw", "fast", 4e-4, None),
    ],
)  # fmt: skip
def test_a_recipes_rate_gives_way_to_the_optimizers(
    lab: Lab, folders: Path, optimizer: str, preset: str, rate: float, scheduler: str | None
) -> None:
    """On a new session, on a clone, in an edit; with the optimizer chosen now, or by the session that is cloned."""
    chosen = ("--set", f"train.optimizer={optimizer}")
    make = ("--model", "pico", "--dataset", "one")
    calls = [
        ("new", "plain", *make), ("new", "set", *make, *chosen),
        ("new", "fresh", *make, "--recipe", preset, *chosen), ("new", "clone", "--from", "plain", "--recipe", preset, *chosen),
        ("new", "heir", "--from", "set", "--recipe", preset),
    ]  # fmt: skip
    for call in calls:
        asked = lab.call(*call)
        assert asked.code == 0, (call, asked.err)
    control.edit(lab.home, "set", {}, preset)
    control.edit(lab.home, "plain", {"train.optimizer": optimizer}, preset)
    for name in ("fresh", "clone", "heir", "set", "plain"):
        train = spec_of(lab, name).train
        assert (train.optimizer, train.learning_rate) == (optimizer, rate), name
        assert scheduler in (None, train.scheduler)
    lab.call("new", "own", "--from", "plain", "--recipe", preset, *chosen, "--set", "train.learning_rate=2")
    assert spec_of(lab, "own").train.learning_rate == 2.0


def test_prompts_come_from_a_file_and_a_wrong_one_is_named_by_its_line(lab: Lab, folders: Path) -> None:
    make = ("--model", "pico", "--dataset", "one", "--prompts", "p.txt")
    (folders / "p.txt").write_text("\ufeff# mine\na cat --w 128 --d 3\n\nan owl, at night --l 4 --n day --s 9\n")
    asked = lab.call("new", "a", *make)
    assert asked.code == 0
    assert 'not carried over as it stands: p.txt, line 4: it is "an owl, at night --s 9" here' in asked.err
    assert spec_of(lab, "a").sample.prompts == ["a cat --w 128 --d 3", "an owl, at night --s 9"]
    (folders / "p.txt").write_text("a cat\nan owl --w 13\n")
    assert "p.txt, line 2" in lab.call("new", "b", *make).sentence
    (folders / "p.txt").write_text("# none\n")
    assert "holds no prompt" in lab.call("new", "b", *make).sentence
    (folders / "p.txt").unlink()
    assert "p.txt" in lab.call("new", "b", *make).sentence
