"""A data set of several folders: each with keys of its own, none taken twice, none passed over unsaid, an exact resume."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fluxtui.engine import check as check_verb
from fluxtui.engine.trainer.check.doctor import check, warned
from fluxtui.engine.trainer.check.findings import Report
from fluxtui.engine.trainer.data import fingerprint
from fluxtui.engine.trainer.data.dataset import plan_epoch, read_dataset, steps_per_epoch
from fluxtui.engine.trainer.data.views import views_of
from fluxtui.engine.trainer.plan_steps import planned_steps
from fluxtui.engine.trainer.refusal import DataError
from fluxtui.persist.datasets import facts as dataset_facts
from fluxtui.persist.errors import FluxTUIError, UsageError
from fluxtui.persist.files import toml
from fluxtui.persist.settings import keys
from fluxtui.persist.settings.spec import DatasetSpec, TrainSpec
from tests.trainer.job import Bench
from tests.trainer.killed import __file__ as KILLED
from tests.trainer.test_dataset import put, spec_of
from tests.trainer.tiny_flux import little_pictures


def filled(folder: Path, *names: str, caption: str = "a thing") -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        put(folder, name, f"{caption} {name}")
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Three folders whose pictures have the same names, and are others."""
    return tuple(filled(tmp_path / which, "a.png", "b.png", caption=which) for which in ("one", "two", "three"))  # type: ignore[return-value]


def report_of(spec: DatasetSpec) -> Report:
    return check(spec, TrainSpec(), None, headers_only=False, processes=1)


def test_each_folder_has_its_own_keys_and_else_what_the_data_set_says(folders: tuple[Path, Path, Path]) -> None:
    one, two, three = folders
    spec = spec_of(one, trigger="zorp", repeats=2, flip=True, caption_dropout=0.0, folders=[
        f"{two} --repeats 5 --trigger vexo --flip false --caption_dropout 1",
        f"{three} --regularisation --regularisation_weight 0.5",
    ])  # fmt: skip
    found = read_dataset(spec)
    assert [(item.image, item.caption, item.weight, item.is_regularisation) for item in found.items] == [
        (one / "a.png", "zorp, one a.png", 1.0, False), (one / "b.png", "zorp, one b.png", 1.0, False),
        (two / "a.png", "vexo, two a.png", 1.0, False), (two / "b.png", "vexo, two b.png", 1.0, False),
        (three / "a.png", "three a.png", 0.5, True), (three / "b.png", "three b.png", 0.5, True),
    ]  # fmt: skip
    assert Counter(item.image.parent for item, _ in found.uses()) == {one: 4, two: 10, three: 4}
    assert {(view.item.image.parent, view.is_mirrored) for view in views_of(found)} == {
        (one, False), (one, True), (two, False), (three, False), (three, True),
    }  # fmt: skip
    slots = [slot for epoch in range(20) for batch in plan_epoch(found, TrainSpec(), epoch) for slot in batch.slots]
    assert {slot.item.image.parent for slot in slots if slot.is_mirrored} == {one, three}
    assert {slot.item.image.parent for slot in slots if not slot.caption} == {two}
    held = read_dataset(spec, hold_out=3)
    assert not any(item.is_regularisation for item in held.held_out)


def test_a_class_word_is_put_where_the_folders_own_trigger_stands(folders: tuple[Path, Path, Path]) -> None:
    one, two, three = folders
    spec = spec_of(one, trigger="zorp", class_word="dog", folders=[f"{two} --trigger vexo", f"{three} --trigger ''"])
    slots = [slot for batch in plan_epoch(read_dataset(spec), TrainSpec(), 0) for slot in batch.slots]
    assert {(slot.item.image.parent, slot.item.name[-5:], slot.class_caption) for slot in slots} == {
        (folder, name, caption)
        for name in ("a.png", "b.png")
        for folder, caption in ((one, f"dog, one {name}"), (two, f"dog, two {name}"), (three, None))
    }


def test_masks_of_folders_inside_are_those_of_the_same_folder(tmp_path: Path) -> None:
    data = filled(tmp_path / "data", "x/a.png", "y/a.png")
    filled(data / "masks", "x/a.png")
    for text in (data / "masks").rglob("*.txt"):
        text.unlink()
    found = read_dataset(spec_of(data, recursive=True, masks="masks"))
    assert {item.name: item.mask for item in found.items} == {"x/a.png": data / "masks/x/a.png", "y/a.png": None}
    spec = spec_of(data, recursive=True, masks="masks", regularisation="y/*")
    assert {item.name: item.is_regularisation for item in read_dataset(spec).items} == {"x/a.png": False, "y/a.png": True}


@pytest.mark.parametrize(("one", "further", "words"), [
    ("data", ["data"], "stands twice"), ("data", ["data/../data/"], "stands twice"), ("data", ["link"], "stands twice"),
    ("data --recursive", ["data/in"], "count twice"), ("data/in", ["data --recursive"], "count twice"),
    ("data", ["data/in"], ""), ("data", ["other"], ""),
])  # fmt: skip
def test_no_picture_is_taken_twice_unsaid(tmp_path: Path, one: str, further: list[str], words: str) -> None:
    filled(tmp_path, "data/a.png", "data/in/a.png", "other/b.png")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    path, *options = one.split(" --")
    spec = spec_of(tmp_path / path, recursive=options == ["recursive"], folders=[
        f"{tmp_path / line}" if "--" in line else f"{tmp_path / line} --recursive false" for line in further
    ])  # fmt: skip
    report = report_of(spec)
    assert report.ok == (not words)
    if words:
        assert any(words in found.sentence for found in report.findings if found.level == "error")
        with pytest.raises(UsageError, match=words):
            read_dataset(spec)
    else:
        assert len({item.image for item in read_dataset(spec).items}) == 2


def test_pictures_in_folders_that_are_not_looked_into_are_counted(tmp_path: Path) -> None:
    filled(tmp_path / "data", "a.png", "in/b.png", "in/deep/c.png", "known/d.png")
    spec = spec_of(tmp_path / "data", folders=[f"{tmp_path / 'data/known'}"])
    said = [found.sentence for found in warned(spec, None)]
    assert said == [
        "a folder inside is not looked into: in, with 2 pictures; "
        "set dataset.recursive=true to take them, or give some in dataset.folders"
    ]
    assert not warned(spec_of(tmp_path / "data", recursive=True), None)
    assert len(read_dataset(spec_of(tmp_path / "data", recursive=True)).items) == 4


def test_one_picture_with_two_captions_is_told_across_folders(folders: tuple[Path, Path, Path]) -> None:
    one, two, _ = folders
    (two / "c.png").write_bytes((one / "a.png").read_bytes())
    (two / "c.txt").write_text("something else")
    report = report_of(spec_of(one, folders=[str(two)]))
    told = [found for found in report.findings if found.kind == "duplicate" and found.file == str(two / "c.png")]
    assert ["another caption" in found.sentence for found in told] == [True]
    (two / "c.txt").write_text((one / "a.txt").read_text())
    again = report_of(spec_of(one, folders=[str(two)]))
    assert ["another caption" in found.sentence for found in again.findings if found.file == str(two / "c.png")] == [False]


@pytest.mark.parametrize(("line", "words"), [
    ("", "give a folder"), ("--repeats 3", "give a folder"), ("/a --resolution 512", "there is no --resolution"),
    ("/a --repeats", "says nothing"), ("/a --repeats many", "whole number from 1 to 1000"), ("/a --repeats 0", "from 1 to 1000"),
    ("/a --repeats 2 --repeats 3", "stands twice"), ("/a --flip perhaps", "true or false"),
    ("/a --caption_dropout 2", "from 0 to 1"),
])  # fmt: skip
def test_a_folder_that_is_wrong_is_one_sentence(line: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        keys.check("dataset.folders", [line])


def test_the_report_the_plan_and_the_trainer_count_alike(
    folders: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, three = folders
    lines = [f"{two} --repeats 3 --trigger vexo", f"{three} --regularisation"]
    spec = spec_of(one, trigger="zorp", folders=lines)
    report = report_of(spec)
    dataset = read_dataset(spec)
    shown_of = [(part.folder, part.repeats, part.uses, part.trigger, part.regularisation) for part in report.folders]
    assert shown_of == [
        (str(one), 1, 2, "zorp", 0), (str(two), 3, 6, "vexo", 0), (str(three), 1, 2, "zorp", 2),
    ]  # fmt: skip
    assert report.plan.uses == len(list(dataset.uses())) == 10
    assert report.plan.steps == steps_per_epoch(dataset, TrainSpec())
    words = [str(one), *lines, "--trigger", "zorp", "--resolution", "64", "--processes", "1"]
    assert check_verb.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plan"]["uses"] == 10
    assert check_verb.main(words) == 0
    shown = capsys.readouterr().out
    assert f"{two}, trigger vexo" in shown
    assert "6 captions in 3 folders" in shown


def test_a_further_folder_is_part_of_the_fingerprint(folders: tuple[Path, Path, Path]) -> None:
    one, two, _ = folders
    spec = spec_of(one, folders=[f"{two} --repeats 2"])
    first = read_dataset(spec).fingerprint
    assert {fact.path for fact in first.files} == {"a.png", "a.txt", "b.png", "b.txt"} | {
        str(two / name) for name in ("a.png", "a.txt", "b.png", "b.txt")
    }
    (two / "a.txt").write_text("another")
    now = read_dataset(spec, known=first).fingerprint
    assert fingerprint.differences(first, now) == [f"{two / 'a.txt'} changed"]
    (two / "a.png").unlink()
    with pytest.raises((UsageError, DataError), match="no image of its name"):
        read_dataset(spec)


def test_killed_and_resumed_with_two_folders_is_never_interrupted(new_bench: Callable[..., Bench], tmp_path: Path) -> None:
    data, more = little_pictures(tmp_path / "data", count=4), filled(tmp_path / "more/deep", "x.png", "y.png").parent
    sets: dict[str, Any] = {
        "dataset__folders": [f"{more} --repeats 2 --trigger vexo --recursive --flip"], "train__steps": 0, "train__epochs": 2,
        "train__batch_size": 1, "train__gradient_accumulation": 2, "lora__dropout": 0.2, "checkpoint__every_steps": 1,
    }  # fmt: skip
    whole, killed = new_bench("whole", data=data, **sets), new_bench("killed", data=data, **sets)
    run = whole.run_here()
    ended = killed.train(arguments=(KILLED,), environment={"KILL_AT": "3:1"})
    assert ended.code == -signal.SIGKILL, ended.log
    killed.run_here()
    assert killed.result().tensors_sha256 == whole.result().tensors_sha256
    assert planned_steps(whole.spec, whole.folder, 1) == run.state.step == 8
    assert toml.read(whole.folder.dataset_file, dataset_facts.Fingerprint).folder == str(data)


def test_every_picture_for_keeping_leaves_nothing_to_learn(folders: tuple[Path, Path, Path]) -> None:
    with pytest.raises(FluxTUIError, match="none is learned"):
        read_dataset(spec_of(folders[0], regularisation="*"))
