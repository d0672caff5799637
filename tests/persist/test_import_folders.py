"""The data sets and prompts that other trainers' configurations name: folders, repeats, subsets, files beside the file."""

from __future__ import annotations

import json
from pathlib import Path

from tests.persist.imported import imported, read_text


def test_every_subset_of_kohyas_keeps_what_is_its_own(tmp_path: Path) -> None:
    found = read_text(tmp_path, "a.toml", """
network_dim = 8
[general]
caption_extension = ".caption"
[[datasets]]
resolution = 512
flip_aug = true
  [[datasets.subsets]]
  image_dir = "/one"
  num_repeats = 10
  class_tokens = "ohwx"
  [[datasets.subsets]]
  image_dir = "/two"
  num_repeats = 3
  class_tokens = "vexo"
[[datasets]]
resolution = 768
  [[datasets.subsets]]
  image_dir = "/old"
  is_reg = true
  color_aug = true
  [[datasets.subsets]]
  num_repeats = 2
""")
    assert found.dataset == "/one"
    assert found.sets["dataset.folders"] == [
        "/two --repeats 3 --trigger vexo", "/old --repeats 1 --trigger '' --regularisation * --flip false",
    ]  # fmt: skip
    assert (found.sets["dataset.repeats"], found.sets["dataset.trigger"], found.sets["dataset.flip"]) == (10, "ohwx", True)
    assert (found.sets["dataset.caption_extension"], found.sets["dataset.resolution"]) == (".caption", [512, 768])
    assert "dataset.regularisation" not in found.sets
    told = [sentence.partition(":")[0] for sentence in found.left if sentence.startswith("datasets")]
    assert told == [
        "datasets.subsets[3].color_aug = true", "datasets.subsets[3] resolution = [768]", "datasets.subsets[4]",
    ]  # fmt: skip


def test_the_data_sets_of_a_file_that_kohyas_configuration_names_come_over(tmp_path: Path) -> None:
    (tmp_path / "sets").mkdir()
    dataset = tmp_path / "sets" / "dataset.toml"
    dataset.write_text("""
[general]
keep_tokens = 1
shuffle_caption = true
[[datasets]]
resolution = 768
  [[datasets.subsets]]
  image_dir = "/one"
  num_repeats = 10
  [[datasets.subsets]]
  image_dir = "/two"
  num_repeats = 3
""")
    text = """
[network_arguments]
network_dim = 8
[dataset_arguments]
dataset_config = "sets/dataset.toml"
train_data_dir = "/elsewhere"
resolution = "512,512"
"""
    found = read_text(tmp_path, "a.toml", text)
    assert (found.dataset, found.sets["dataset.folders"]) == ("/one", ["/two --repeats 3"])
    assert (found.sets["dataset.repeats"], found.sets["dataset.keep_tags"], found.sets["dataset.resolution"]) == (10, 1, [768])
    assert found.left[0] == "train_data_dir: dataset_config wins over it"
    assert not [sentence for sentence in found.left if "dataset_config =" in sentence]

    dataset.write_text("[[datasets")
    for gone in ("sets/none.toml", "sets/dataset.toml"):
        found = read_text(tmp_path, "a.toml", text.replace("sets/dataset.toml", gone))
        assert found.left[0].startswith(f'dataset_arguments.dataset_config = "{gone}": ')
        assert found.left[0].endswith("; give the folders with --dataset")


def test_ai_toolkits_data_sets_are_folders_and_one_at_several_resolutions_is_one(tmp_path: Path) -> None:
    one = {"folder_path": "/one", "caption_ext": "txt", "num_repeats": 2}
    two = {"folder_path": "/two", "resolution": [512, 768], "is_reg": True, "mask_path": "masks"}
    entries = [{**one, "resolution": 512}, {**one, "resolution": 768}, two, {**one, "resolution": 512}]
    entries += [{**two, "folder_path": "/three", "resolution": side} for side in (512, 768, 1024)]
    document = {"config": {"name": "a", "process": [{"trigger_word": "p3r5on", "datasets": entries}]}}
    found = read_text(tmp_path, "a.json", json.dumps(document))
    assert (found.dataset, found.sets["dataset.resolution"], found.sets["dataset.repeats"]) == ("/one", [512, 768, 1024], 2)
    own = "--repeats 1 --regularisation * --masks masks"
    assert found.sets["dataset.folders"] == [f"/two {own}", f"/three {own}"]
    assert found.sets["dataset.trigger"] == "p3r5on"
    assert found.left == [
        "config.process.datasets[4] /one: it stands twice; give it once, with dataset.repeats",
        "config.process.datasets[7] resolution = [1024]: all folders have one list here, which is now [512, 768, 1024]",
    ]


def test_kohyas_numbered_folders_are_folders_with_repeats(tmp_path: Path) -> None:
    for name in ("img/10_vexo/a", "img/5_other man/b", "img/notes/c", "reg/1_man/d"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / f"{name}.png").touch()
    (tmp_path / "img/5_other man/b.txt").write_text("another man")
    sets = f'network_dim = 4\ntrain_data_dir = "{tmp_path}/img"\nreg_data_dir = "{tmp_path}/reg"\n'
    found = read_text(tmp_path, "a.toml", sets)
    assert found.dataset == f"{tmp_path}/img/10_vexo"
    assert (found.sets["dataset.repeats"], found.sets["dataset.trigger"]) == (10, "vexo")
    assert found.sets["dataset.folders"] == [
        f"{tmp_path}/img/5_other man --repeats 5 --trigger ''", f"{tmp_path}/reg/1_man --repeats 1 --regularisation *",
    ]  # fmt: skip
    assert [line for line in found.left if "_dir" in line] == [
        "train_data_dir: notes has no number before its name, and is not used there either",
        "train_data_dir: pictures of 10_vexo have no caption, so its words are the trigger of all of it",
    ]
    assert read_text(tmp_path, "b.toml", 'network_dim = 4\ntrain_data_dir = "/nowhere"').dataset == "/nowhere"


def test_a_file_of_prompts_is_read_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("# two\na cat --w 512 --l 4 --n ugly\n\nan owl --d 7\n")
    (tmp_path / "prompts.json").write_text(json.dumps([{"prompt": "a fox", "width": 512, "seed": 3, "scale": 4.5}, "a hen"]))
    subsets = '[[prompt.subset]]\nprompt = "a bat"\n[[prompt.subset]]\nprompt = "b"\n'
    (tmp_path / "prompts.toml").write_text(f"[prompt]\nwidth = 640\n{subsets}")
    for name, prompts in (
        ("txt", ["a cat --w 512", "an owl --d 7"]), ("json", ["a fox --w 512 --d 3 --g 4.5", "a hen"]),
        ("toml", ["a bat --w 640", "b --w 640"]),
    ):  # fmt: skip
        assert imported(tmp_path, "kohya", sample_prompts=f"prompts.{name}").sets["sample.prompts"] == prompts
    gone = imported(tmp_path, "kohya", sample_prompts="none.txt")
    assert any("--prompts FILE" in line for line in gone.left)
    sample = {"samples": [{"prompt": "a", "width": 512, "neg": ""}, {"prompt": "b", "seed": 9}]}
    found = read_text(tmp_path, "c.json", json.dumps({"config": {"process": [{"sample": sample}]}}))
    assert found.sets["sample.prompts"] == ["a --w 512", "b --d 9"]
