"""Configurations of other trainers: every key carried over, or named with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fluxtui.persist.errors import FluxTUIError, UsageError
from fluxtui.persist.imports import configuration as importers
from fluxtui.persist.imports.tables import SOURCES
from tests.persist.imported import imported, read_text
from tests.persist.inert import is_inert

KOHYA = """
pretrained_model_name_or_path = "/models/flux1-dev.sft"
network_module = "networks.lora_flux"
network_dim = 8
learning_rate = "8e-4"
max_train_epochs = 16
optimizer_type = "adamw8bit"
timestep_sampling = "shift"
discrete_flow_shift = 3.1582
sample_prompts = "/x/prompts.txt"
[[datasets]]
resolution = 512
[[datasets.subsets]]
image_dir = "/pictures"
class_tokens = "ohwx"
num_repeats = 10
[[datasets.subsets]]
image_dir = "/more"
"""
AI_TOOLKIT = """
job: extension
config:
  name: my lora
  process:
    - type: sd_trainer
      trigger_word: p3r5on
      network: {type: lora, linear: 16, linear_alpha: 16}
      save: {save_every: 250, max_step_saves_to_keep: 1}
      datasets:
        - folder_path: /pictures
          caption_ext: txt
          caption_dropout_rate: 0.05
          resolution: [512, 768, 1024]
      train: {batch_size: 1, steps: 2000, lr: 1e-4, optimizer: adamw8bit, noise_scheduler: flowmatch,
              ema_config: {use_ema: true, ema_decay: 0.99}}
      model: {name_or_path: black-forest-labs/FLUX.1-dev, quantize: true}
      sample: {prompts: ["a", "b"], guidance_scale: 4}
"""


def test_kohya_is_carried_over_and_the_rest_named(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(KOHYA)
    found = importers.read(path)
    assert (found.source, found.dataset, found.model) == ("kohya", "/pictures", "black-forest-labs/FLUX.1-dev")
    assert found.sets == {
        "lora.rank": 8,
        "lora.alpha": 1.0,
        "lora.targets": "all",
        "train.learning_rate": 8e-4,
        "train.epochs": 16,
        "train.optimizer": "adamw",
        "train.scheduler": "constant",
        "train.scheduler_cycles": 1,
        "train.warmup_steps": 0,
        "train.timestep_sampling": "shift",
        "train.timestep_shift": 3.1582,
        "train.guidance": 3.5,
        "dataset.resolution": [512],
        "dataset.trigger": "ohwx",
        "dataset.repeats": 10,
        "dataset.caption_dropout": 0.0,
        "dataset.folders": ["/more --repeats 1 --trigger ''"],
    }
    assert [sentence.split(":")[0].split(" ")[0] for sentence in found.left] == [
        "pretrained_model_name_or_path",  # no such file here, so the hub's
        "optimizer_type",  # adamw, and why
        "sample_prompts",
        "model_prediction_type,",
    ]


def test_fluxgym_is_carried_over(tmp_path: Path) -> None:
    path = tmp_path / "ui_state.json"
    state = {
        "settings": {
            "lora_name": "My LoRA",
            "concept_sentence": "ohwx man",
            "network_dim": 4,
            "vram": "20G",
            "resolution": "512,512",
        }
    }
    path.write_text(json.dumps({**state, "status": "completed"}))
    found = importers.read(path)
    assert found.source == "FluxGym"
    assert (found.sets["title"], found.sets["dataset.trigger"], found.sets["lora.alpha"]) == ("My LoRA", "ohwx man", 1.0)
    assert (found.sets["train.timestep_shift"], found.sets["dataset.resolution"]) == (3.1582, [512])
    assert found.left == []  # a status is no setting
    assert found.sets["hardware.preset"] == "16GB"


def test_what_fluxgym_keeps_beside_its_outputs_is_found_there(tmp_path: Path) -> None:
    for folder in ("outputs/my-lora", "datasets/my-lora", "models/unet"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "models/unet/flux1-dev.sft").touch()
    path = tmp_path / "outputs/my-lora/ui_state.json"
    state = {"lora_name": "My LoRA", "concept_sentence": "ohwx", "base_model": "flux-dev", "enable_monitoring": True}
    path.write_text(json.dumps({**state, "resume_from_checkpoint": "outputs/my-lora/my-lora-8-state"}))
    found = importers.read(path)
    assert found.near == [found.dataset, found.model]
    assert found.near == [str(tmp_path / "datasets/my-lora"), str(tmp_path / "models/unet/flux1-dev.sft")]
    assert [sentence.partition(" ")[0] for sentence in found.left] == ["resume_from_checkpoint"]
    path.write_text(json.dumps({**state, "dataset_folder": "/mine", "base_model": "flux-schnell"}))
    found = importers.read(path)
    assert (found.near, found.dataset, found.model) == ([], "/mine", "black-forest-labs/FLUX.1-schnell")


def test_kohyas_files_of_the_encoders_go_with_the_model_where_they_are_here(tmp_path: Path) -> None:
    for name in ("flux1-dev.safetensors", "clip_l.safetensors", "ae.safetensors"):
        (tmp_path / name).touch()
    path = tmp_path / "config.toml"
    parts = {"pretrained_model_name_or_path": "flux1-dev", "clip_l": "clip_l", "t5xxl": "t5xxl", "ae": "ae"}
    path.write_text("".join(f'{key} = "{tmp_path / name}.safetensors"\n' for key, name in parts.items()))
    found = importers.read(path)
    assert found.model == ",".join(str(tmp_path / f"{name}.safetensors") for name in ("flux1-dev", "clip_l", "ae"))
    assert [sentence.partition(" ")[0] for sentence in found.left] == ["t5xxl", "model_prediction_type,"]

def test_samples_by_steps_are_by_steps_alone_and_by_epochs_where_kohya_takes_those(tmp_path: Path) -> None:
    sets = imported(tmp_path, "kohya", sample_every_n_steps=250).sets
    assert (sets["sample.every_steps"], sets["sample.every_epochs"]) == (250, 0)
    found = imported(tmp_path, "kohya", sample_every_n_steps=250, sample_every_n_epochs=2)
    assert found.sets["sample.every_epochs"] == 2
    assert "sample.every_steps" not in found.sets
    assert any("sample_every_n_epochs wins over it" in sentence for sentence in found.left)
    sets = imported(tmp_path, "ai", config={"name": "a", "process": [{"sample": {"sample_every": 500}}]}).sets
    assert (sets["sample.every_steps"], sets["sample.every_epochs"]) == (500, 0)


@pytest.mark.parametrize(("theirs", "ours"), [("12G", "12GB"), ("16G", "16GB"), ("20G", "16GB")])
def test_fluxgyms_names_of_cards_are_presets_of_ours(tmp_path: Path, theirs: str, ours: str) -> None:
    path = tmp_path / "ui_state.json"
    path.write_text(json.dumps({"settings": {"lora_name": "a", "concept_sentence": "b", "vram": theirs}}))
    assert importers.read(path).sets["hardware.preset"] == ours


def test_ai_toolkit_is_carried_over(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(AI_TOOLKIT)
    found = importers.read(path)
    assert (found.source, found.dataset, found.model) == ("ai-toolkit", "/pictures", "black-forest-labs/FLUX.1-dev")
    assert (found.sets["train.steps"], found.sets["train.learning_rate"], found.sets["lora.rank"]) == (2000, 1e-4, 16)
    assert (found.sets["dataset.caption_extension"], found.sets["checkpoint.keep"], found.sets["sample.prompts"]) == (
        ".txt",
        2,
        ["a", "b"],
    )
    assert found.sets["model.precision"] == "int8"
    assert {sentence.partition(" ")[0].rpartition(".")[2] for sentence in found.left} == {"optimizer", "quantize", "use_ema"}
    assert found.sets["train.ema_decay"] == 0.99
    assert "export --ema" in next(sentence for sentence in found.left if "use_ema" in sentence)  # there it is the product


def test_what_sd_scripts_does_where_nothing_is_said_is_said_here(tmp_path: Path) -> None:
    """Its `sigma`: an even draw from sigmas shifted by 3; guidance 3.5; rank 4, alpha 1."""
    sets = imported(tmp_path, "kohya").sets
    assert (sets["train.timestep_sampling"], sets["train.timestep_shift"], sets["train.guidance"]) == ("uniform_shift", 3.0, 3.5)
    assert (sets["lora.rank"], sets["lora.alpha"]) == (4, 1.0)


@pytest.mark.parametrize(
    ("source", "said", "wanted"),
    [
        ("kohya", {}, lambda name: True),
        ("kohya", {"network_args": ["train_blocks=single"]}, lambda name: name.startswith("single")),
        ("kohya", {"network_args": ["train_blocks=double"]}, lambda name: name.startswith("transformer_blocks")),
        ("ai", {}, lambda name: True),
        (
            "ai", {"only_if_contains": ["transformer.transformer_blocks.1.attn.to_q", "proj_out"]},
            lambda name: name.startswith("transformer_blocks.1.attn.to_q") or "proj_out" in name,
        ),
    ],
)  # fmt: skip
def test_the_layers_that_are_adapted_there_are_adapted_here(
    tmp_path: Path, source: str, said: dict[str, Any], wanted: Callable[[str], bool]
) -> None:
    """sd-scripts' `create_modules` and ai-toolkit's `lora_special.py` take every linear layer of the blocks, modulation too."""
    import torch

    from fluxtui.engine.family.flux1.targets import target_names
    from tests.trainer.tiny_flux import new_transformer

    kwargs = {"config": {"process": [{"type": "sd_trainer", "network": {"type": "lora", "network_kwargs": said}}]}}
    found = imported(tmp_path, source, **(said if source == "kohya" else kwargs))
    assert not [line for line in found.left if "no such key" in line], found.left
    model = new_transformer()
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    blocks = {name for name in linear if "transformer_blocks." in name}
    assert set(target_names(model, str(found.sets["lora.targets"]))) == {name for name in blocks if wanted(name)}


def test_what_wins_there_wins_here_and_the_loser_is_named(tmp_path: Path) -> None:
    found = imported(tmp_path, "kohya", max_train_steps=1000, max_train_epochs=8, unet_lr=4e-4, learning_rate=1e-5,
                     network_train_unet_only=True, text_encoder_lr=1e-5)  # fmt: skip
    assert (found.sets["train.epochs"], found.sets["train.learning_rate"]) == (8, 4e-4)
    assert not found.sets.keys() & {"train.steps", "train.clip_learning_rate"}
    assert {line.partition(" ")[0] for line in found.left} >= {"max_train_steps", "learning_rate", "text_encoder_lr"}


def test_keys_that_have_a_counterpart_are_carried_over(tmp_path: Path) -> None:
    found = imported(
        tmp_path, "kohya", flip_aug=True, keep_tokens=2, shuffle_caption=True, loss_type="huber", huber_c=0.2, alpha_mask=True,
        network_weights="/l.safetensors", fp8_base=True, blocks_to_swap=18, bucket_reso_steps=64, prior_loss_weight=0.5,
        output_name="mine", optimizer_args=["weight_decay=0.1", "betas=0.9,0.99"], text_encoder_lr=[2e-5],
        network_args=["loraplus_unet_lr_ratio=4"], min_timestep=100, max_timestep=900, lr_scheduler="cosine_with_restarts",
        lr_scheduler_num_cycles=4, huber_schedule="constant", network_dropout=0.1, caption_tag_dropout_rate=0.2,
        scale_weight_norms=1.0,
    ).sets  # fmt: skip
    assert found | {
        "dataset.flip": True, "dataset.keep_tags": 2, "dataset.shuffle_tags": 16, "train.loss": "pseudo_huber",
        "train.loss_delta": 0.2, "dataset.masks": "alpha", "lora.weights": "/l.safetensors", "model.precision": "fp8",
        "hardware.stream_blocks": 27, "dataset.bucket_step": 64, "dataset.regularisation_weight": 0.5, "title": "mine",
        "train.weight_decay": 0.1, "train.clip_learning_rate": 2e-5, "train.betas": [0.9, 0.99], "train.lora_plus": 4.0,
        "train.timestep_min": 0.1, "train.timestep_max": 0.9, "train.scheduler": "cosine_with_restarts",
        "train.scheduler_cycles": 4, "lora.dropout": 0.1, "dataset.tag_dropout": 0.2,
        "lora.max_norm": 1.0,
    } == found  # fmt: skip


def test_prompts_keep_what_can_stand_behind_them_here(tmp_path: Path) -> None:
    found = imported(tmp_path, "kohya", sample_prompts="a cat --w 512 --n ugly --l 4 --d 7\nan owl")
    assert found.sets["sample.prompts"] == ["a cat --w 512 --d 7", "an owl"]
    assert any(line.startswith("sample_prompts") for line in found.left)


@pytest.mark.parametrize(
    ("name", "optimizer", "eps", "decay"),
    [("ai", "adamw8bit", 1e-6, None), ("ai", "prodigy", 1e-6, 0.0), ("ai", "lion", None, 0.0), ("kohya", "AdamW", None, None),
     ("kohya", "Prodigy", None, 0.0), ("kohya", "Adafactor", None, 0.0)],
)  # fmt: skip
def test_what_an_optimizer_does_there_unless_it_is_told_comes_over(
    tmp_path: Path, name: str, optimizer: str, eps: float | None, decay: float | None
) -> None:
    """ai-toolkit gives its Adams an eps of 1e-6; Lion, Prodigy and Adafactor decay nothing by themselves. None: as here."""
    key, arguments = ("optimizer_type", {"optimizer_args": ["eps=1e-9", "weight_decay=0.2"]})
    said: dict[str, object] = {key: optimizer}
    if name == "ai":
        given = {"eps": 1e-9, "weight_decay": 0.2}
        said = {"config": {"process": [{"train": {"optimizer": optimizer}}]}}
        arguments = {"config": {"process": [{"train": {"optimizer": optimizer, "optimizer_params": given}}]}}
    sets = imported(tmp_path, name, **said).sets
    assert (sets.get("train.eps"), sets.get("train.weight_decay")) == (eps, decay)
    sets = imported(tmp_path, name, **(said | arguments)).sets
    assert (sets["train.eps"], sets["train.weight_decay"]) == (1e-9, 0.2)


@pytest.mark.parametrize(("alpha", "is_named"), [("", False), (", linear_alpha: 32", False), (", linear_alpha: 1", True)])
def test_ai_toolkits_alpha_is_the_rank_whatever_is_said(tmp_path: Path, alpha: str, is_named: bool) -> None:
    """It trains FLUX.1's LoRAs in peft's form, without alpha: taken at its word, a rank of 32 would be 32 times as weak here."""
    path = tmp_path / "config.yaml"
    train = "{timestep_type: flux_shift, skip_first_sample: true}"
    path.write_text(f"config: {{process: [{{network: {{linear: 32{alpha}}}, train: {train}}}]}}")
    found = importers.read(path)
    sets = found.sets
    assert (sets["lora.rank"], sets["lora.alpha"], sets["dataset.caption_dropout"]) == (32, 32.0, 0.0)
    assert (sets["train.timestep_sampling"], sets["sample.at_start"]) == ("uniform_flux_shift", False)
    assert any(line.startswith("lora.alpha = 1.0") for line in found.left) == is_named


def test_a_value_that_does_not_fit_is_named_and_left(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"network_dim": 0, "train_batch_size": "many", "optimizer_type": "prodigy\x1b[31m", "seed": 1.5}))
    found = importers.read(path)
    assert set(found.sets) == set(SOURCES["kohya"].unsaid)
    assert len(found.left) == 5
    assert all(is_inert(sentence) for sentence in found.left)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", "{}"),
        ("a.json", "[1]"),
        ("a.json", "{"),
        ("a.json", '{"a":' * 20_000),
        ("a.toml", "x ="),
        ("a.yaml", "a: [1"),
        ("a.yaml", "!!python/object/apply:os.system ['touch /tmp/evil']"),
        ("a.yaml", "a: &a {b: *a}"),
        ("a.json", '{"network_dim": 4, "x": ' + "[" * 400 + "]" * 400 + "}"),
        ("a.yaml", "network_dim: 4\nx: " + "[" * 400 + "]" * 400),
        ("a.yaml", "l0: &l0 [x]\n" + "".join(f"l{n + 1}: &l{n + 1} [{', '.join([f'*l{n}'] * 10)}]\n" for n in range(12))),
        ("a.yaml", "m0: &m0 {x: 1}\n" + "".join(f"m{n + 1}: &m{n + 1} {{<<: [{','.join([f'*m{n}'] * 9)}]}}\n" for n in range(9))),
        ("a.txt", "x"),
        (
            "a.yaml",
            "a: &a [x, x]\n"
            + "".join(f"{chr(98 + n)}: &{chr(98 + n)} {{p: *{chr(97 + n)}, q: *{chr(97 + n)}}}\n" for n in range(20)),
        ),
    ],
)
def test_what_is_no_configuration_is_one_sentence(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(FluxTUIError) as caught:
        importers.read(path)
    assert is_inert(str(caught.value))
    assert "\N{REPLACEMENT CHARACTER}" not in str(caught.value), "a line's end is shown as a fault"
    assert len(str(caught.value)) < 700


def test_a_file_of_ours_without_a_known_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "session.toml"
    path.write_text("name = 'x'\n")
    with pytest.raises(UsageError, match="none of"):
        importers.read(path)


@pytest.mark.parametrize(
    ("named", "ours"), [("AdamW8bit", "adamw"), ("Prodigy", "prodigy"), ("AdamWScheduleFree", "schedule_free"), ("Lion", "lion")]
)
def test_optimizers_are_carried_over_by_their_names(tmp_path: Path, named: str, ours: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"train_data_dir": "/pictures", "optimizer_type": named}))
    assert importers.read(path).sets["train.optimizer"] == ours


@pytest.mark.parametrize(("said", "sampling", "weighting", "told"), [
    ({"timestep_type": "weighted"}, "uniform", "bell", "table of weights"),
    ({"linear_timesteps": True}, "uniform", "bell", ""), ({"linear_timesteps": False}, "sigmoid", None, ""),
    ({"linear_timesteps2": True}, "uniform", None, "half of a bell"),
    ({"content_or_style": "content"}, "sigmoid", None, "above 1 draws more"),
    ({"content_or_style": "style"}, "sigmoid", None, "below 1 draws less"),
    ({"content_or_style": "balanced"}, "sigmoid", None, ""),
    ({"timestep_type": "lognorm_blend"}, "sigmoid", None, "no such distribution"),
])  # fmt: skip
def test_ai_toolkits_noise_levels_have_an_equal_or_a_reason(
    tmp_path: Path, said: dict[str, object], sampling: str, weighting: str | None, told: str
) -> None:
    found = read_text(tmp_path, "a.json", json.dumps({"config": {"process": [{"train": said}]}}))
    assert (found.sets["train.timestep_sampling"], found.sets.get("train.loss_weighting")) == (sampling, weighting)
    assert len(found.left) == bool(told)
    assert all(told in line for line in found.left)


def test_dropout_of_ranks_and_modules_is_carried_over(tmp_path: Path) -> None:
    found = imported(tmp_path, "kohya", network_args=["rank_dropout=0.1", "module_dropout=0.2"])
    assert (found.sets["lora.rank_dropout"], found.sets["lora.module_dropout"]) == (0.1, 0.2)
