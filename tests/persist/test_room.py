"""The one sum of what a session writes."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from fluxtui import control
from fluxtui.control import room as front
from fluxtui.engine.trainer import room as trainer
from fluxtui.persist import room
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.errors import StorageError
from fluxtui.persist.home import Home
from fluxtui.persist.models.folder import recognise
from fluxtui.persist.settings.recipe import load_spec
from fluxtui.persist.settings.spec import CheckpointSpec, DatasetSpec, LoraSpec, ModelSpec, Spec


def spec_of(**lora: object) -> Spec:
    return Spec(
        name="a", id="i", model=ModelSpec(source="owner/flux"), dataset=DatasetSpec(path="demo", resolution=[512]),
        lora=LoraSpec(**lora), checkpoint=CheckpointSpec(keep=4),
    )  # fmt: skip


def test_five_checkpoints_of_flux_dev_at_rank_16_are_0_8_gb_each() -> None:
    need = room.estimate(spec_of(rank=16), room.Shape())
    assert need.checkpoints == 5 * 65_372_160 * 12
    assert need.product == 65_372_160 * 2
    assert need.total == need.checkpoints + need.product + need.other
    assert need.parts(4) == "4 + 1 checkpoints 3.7 GiB, the product 124.7 MiB, the rest 64.0 MiB"


def test_attention_alone_takes_less_and_a_layer_of_its_own_rank_more() -> None:
    common = room.estimate(spec_of(rank=16), room.Shape()).total
    assert room.estimate(spec_of(rank=16, targets="attention"), room.Shape()).total < common / 2
    assert room.estimate(spec_of(rank=16, layers=["single.*=32"]), room.Shape()).checkpoints == 2 * 5 * 65_372_160 * 12


def test_what_is_held_is_not_needed_again_but_one_more_always_is() -> None:
    one = 65_372_160 * 12
    assert room.estimate(spec_of(rank=16), room.Shape(), held=4 * one).checkpoints == one
    assert room.estimate(spec_of(rank=16), room.Shape(), held=100 * one).checkpoints == one


def test_caches_grow_with_images_resolutions_and_mirrored_ones() -> None:
    shape = room.Shape()
    plain = room.caches_at_most(DatasetSpec(path="demo", resolution=[512]), 10, shape, 2)
    assert plain == 10 * 512 * 512 + 10 * 512 * 4096 * 2
    both = room.caches_at_most(DatasetSpec(path="demo", resolution=[512, 1024], flip=True), 10, shape, 2)
    assert both - plain == 10 * 512 * 512 + 2 * 10 * 1024 * 1024


def test_front_and_trainer_come_to_the_same_sum(home_path: Path) -> None:
    home, spec = Home.open(home_path), spec_of(rank=16)
    assert front.estimate(spec, recognise("owner/flux", home)).total == trainer.of_session(spec, trainer.Shape())


def test_a_start_without_room_for_the_caches_is_refused_and_a_resume_needs_no_room_for_what_it_has(
    home_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home.open(home_path)
    folder = control.create(home, "a", dataset="demo", model="pico")
    spec, source = load_spec(folder.spec_file), recognise("pico", home)
    need = front.estimate(spec, source, images=40)
    assert need.caches > 0

    def free(count: int) -> None:
        monkeypatch.setattr(front.os, "statvfs", lambda path: msgspec.defstruct("S", ["f_bavail", "f_frsize"])(count, 1))

    free(need.total)
    front.check(home, spec, source, images=40)
    free(need.total - 1)
    with pytest.raises(StorageError, match=r"caches .* make room"):
        front.check(home, spec, source, images=40)
    commit.commit_checkpoint(folder.checkpoints, commit.step_name(1), {"x": bytes(5000)}, {"step": 1})
    front.check(home, spec, source, images=40)
