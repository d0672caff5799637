"""Images and captions paired by names alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fluxtui.persist.datasets import folder as dataset_folder
from fluxtui.persist.datasets import parts as dataset_parts
from fluxtui.persist.datasets.folder import Pairs, pair
from fluxtui.persist.errors import NotFoundError, UsageError
from fluxtui.persist.settings.spec import DatasetSpec
from tests.persist.inert import is_inert


def check_cheaply(folder: Path, trigger: str = "") -> Pairs:
    return dataset_parts.check_cheaply(DatasetSpec(path=str(folder), trigger=trigger))[0]


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).touch()
    return folder


def test_each_image_gets_the_caption_of_its_own_stem(tmp_path: Path) -> None:
    pairs = pair(fill(tmp_path, "b.png", "a.JPG", "a.txt", "b.TXT", "c.webp", "notes.md", ".hidden.png", "d.tar.gz"))
    assert [(one.image.name, one.caption.name if one.caption else None) for one in pairs.items] == [
        ("a.JPG", "a.txt"),
        ("b.png", "b.TXT"),
        ("c.webp", None),
    ]
    assert [image.name for image in pairs.without_caption] == ["c.webp"]


def test_stems_with_dots_and_other_extensions(tmp_path: Path) -> None:
    pairs = pair(fill(tmp_path, "a.1.png", "a.1.caption", "a.caption"), ".caption")
    assert [one.caption.name for one in pairs.items if one.caption] == ["a.1.caption"]
    assert [orphan.name for orphan in pairs.orphans] == ["a.caption"]


def test_a_name_that_is_no_utf8_is_paired_and_shown_inert(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff\x1b[31m.png")).touch()
    with pytest.raises(UsageError) as caught:
        check_cheaply(tmp_path)
    assert is_inert(str(caught.value))


@pytest.mark.parametrize(
    ("names", "trigger", "words"),
    [
        ((), "", "holds no images"),
        (("a.txt",), "", "holds no images"),
        (("a.png", "a.txt", "b.txt"), "", "b.txt"),
        (("a.png", "b.png", "b.txt"), "", "a.png has no caption"),
        (("a.png", "b.png", "b.txt"), "vexo", ""),
        (("a.png", "a.txt"), "", ""),
    ],
)
def test_what_a_training_could_not_begin_with_is_one_sentence(
    tmp_path: Path, names: tuple[str, ...], trigger: str, words: str
) -> None:
    fill(tmp_path, *names)
    if words:
        with pytest.raises(UsageError, match=words.replace(".", r"\.")):
            check_cheaply(tmp_path, trigger=trigger)
    else:
        assert check_cheaply(tmp_path, trigger=trigger).items


def test_where_more_is_wrong_than_one_kind_of_thing_the_command_that_names_all_is_said(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "b.txt")
    with pytest.raises(UsageError, match=f"fluxtui check {tmp_path} names what else"):
        check_cheaply(tmp_path)
    with pytest.raises(UsageError) as one:
        check_cheaply(tmp_path, trigger="ohwx")
    assert "fluxtui check" not in str(one.value)


def test_a_fifo_a_folder_and_a_dead_link_among_the_images(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "a.txt")
    os.mkfifo(tmp_path / "b.png")
    with pytest.raises(UsageError, match="not a regular file"):
        check_cheaply(tmp_path)
    (tmp_path / "b.png").unlink()
    (tmp_path / "b.png").symlink_to("nowhere")
    with pytest.raises(UsageError, match="not a regular file"):
        check_cheaply(tmp_path)


def test_a_link_that_leads_in_a_circle_is_no_folder_and_no_image(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "a.txt")
    (tmp_path / "circle").symlink_to("circle")
    assert [one.image.name for one in pair(tmp_path).items] == ["a.png"]
    (tmp_path / "b.png").symlink_to("b.png")
    with pytest.raises(UsageError, match=r"b\.png is not a regular file"):
        check_cheaply(tmp_path)


def test_images_in_a_subfolder_are_pointed_at(tmp_path: Path) -> None:
    (tmp_path / "10_cat").mkdir()
    with pytest.raises(UsageError, match="10_cat"):
        check_cheaply(tmp_path)


def test_a_recursive_folder_pairs_within_each_folder_and_follows_no_link(tmp_path: Path) -> None:
    for name in ("one", "two/deep", ".hidden", "masks"):
        (tmp_path / name).mkdir(parents=True)
    fill(tmp_path, "a.png", "a.txt", "one/a.png", "one/a.txt", "two/deep/a.png", ".hidden/a.png", "masks/a.png", "two/b.txt")
    (tmp_path / "round").symlink_to(tmp_path)
    found = pair(tmp_path, is_recursive=True, without=tmp_path / "masks")
    shown = [(one.image.relative_to(tmp_path).as_posix(), one.caption and one.caption.parent.name) for one in found.items]
    assert shown == [("a.png", tmp_path.name), ("one/a.png", "one"), ("two/deep/a.png", None)]
    assert found.orphans == (tmp_path / "two/b.txt",)
    assert found.folders == (tmp_path / "round",)
    assert not found.sharing
    flat = pair(tmp_path)
    assert [one.image.name for one in flat.items] == ["a.png"]
    assert {folder.name: dataset_folder.pictures_below(folder) for folder in flat.folders if not folder.is_symlink()} == {
        "masks": 1, "one": 1, "two": 1,
    }  # fmt: skip


def test_no_folder_and_a_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        pair(tmp_path / "nowhere")
    with pytest.raises(UsageError):
        pair(fill(tmp_path, "file") / "file")


def test_demo_is_the_bundled_folder_and_all_else_is_written_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fluxtui.demo import IMAGES_DIR

    assert dataset_folder.resolve("demo") == IMAGES_DIR
    assert dataset_folder.written("demo") == "demo"
    monkeypatch.chdir(tmp_path)
    assert dataset_folder.written("pictures") == str(tmp_path / "pictures")
