"""A mask says what of a picture is trained on: placed as its picture is, kept with the caches, felt by the loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fluxtui.engine.family.flux1.components import pipeline_at
from fluxtui.engine.trainer.check.doctor import check
from fluxtui.engine.trainer.data import fingerprint
from fluxtui.engine.trainer.data.buckets import place
from fluxtui.engine.trainer.data.dataset import Dataset, plan_epoch, read_dataset
from fluxtui.engine.trainer.data.encode import fill_caches
from fluxtui.engine.trainer.data.encoded import Encoded
from fluxtui.engine.trainer.data.image import crop_mask, decode_mask
from fluxtui.engine.trainer.objective import Samples, sample_losses
from fluxtui.engine.trainer.refusal import DataError
from fluxtui.engine.trainer.runtime import Runtime
from fluxtui.persist.settings.spec import DatasetSpec, TrainSpec
from tests.trainer.hostile import encoded, turned
from tests.trainer.job import small_spec
from tests.trainer.test_encode import Telling
from tests.trainer.tiny_flux import little_pictures

HERE = Runtime(torch.device("cpu"), torch.float32, 0, 1)


def left_half(size: tuple[int, int] = (64, 64)) -> Image.Image:
    """White on the left, black on the right."""
    mask = Image.new("L", size, 0)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    return mask


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = little_pictures(tmp_path / "data", count=3)
    (folder / "masks").mkdir()
    left_half().save(folder / "masks" / "00.png")
    left_half((128, 128)).save(folder / "masks" / "01.png")     # a mask may have another size
    return folder


def fill(folder: Path, model: Path, cache: Path, **sets: Any) -> tuple[Dataset, Encoded, Telling]:
    spec = small_spec(model, folder, **({"dataset__masks": "masks", "dataset__mask_outside": 0.25} | sets))
    dataset, told = read_dataset(spec.dataset), Telling()
    return dataset, fill_caches(dataset, spec, pipeline_at(model), told, HERE, cache), told


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUXTUI_RUNTIME", str(tmp_path / "runtime"))


def test_each_sample_has_its_pictures_mask_and_one_without_a_mask_counts_whole(
    data: Path, tiny_dev: Path, tmp_path: Path
) -> None:
    dataset, encoded, _ = fill(data, tiny_dev, tmp_path / "cache")
    half = torch.cat([torch.ones(8, 4), torch.full((8, 4), 0.25)], dim=1)
    for batch in plan_epoch(dataset, TrainSpec(batch_size=3), 0):
        found = encoded.load(batch.slots)
        assert found.weights is not None
        assert found.weights.shape == (len(batch.slots), 1, 8, 8)
        for row, slot in enumerate(batch.slots):
            expected = torch.ones(8, 8) if slot.item.name == "02.png" else half
            assert torch.equal(found.weights[row, 0], expected)


def test_without_masks_there_are_no_weights(data: Path, tiny_dev: Path, tmp_path: Path) -> None:
    dataset, encoded, _ = fill(data, tiny_dev, tmp_path / "cache", dataset__masks="")
    assert encoded.load(plan_epoch(dataset, TrainSpec(), 0)[0].slots).weights is None


def test_transparency_is_a_mask_and_the_picture_is_still_laid_on_white(tiny_dev: Path, tmp_path: Path) -> None:
    folder = little_pictures(tmp_path / "clear", count=2)
    picture = Image.open(folder / "00.png").convert("RGBA")
    picture.putalpha(left_half())
    picture.save(folder / "00.png")
    dataset, encoded, _ = fill(folder, tiny_dev, tmp_path / "cache", dataset__masks="alpha", dataset__mask_outside=0.0)
    slots = [slot for batch in plan_epoch(dataset, TrainSpec(), 0) for slot in batch.slots]
    weights = {slot.item.name: encoded.load([slot]).weights for slot in slots}
    assert torch.equal(weights["00.png"][0, 0], torch.cat([torch.ones(8, 4), torch.zeros(8, 4)], dim=1))
    assert torch.equal(weights["01.png"][0, 0], torch.ones(8, 8))


def test_a_mask_is_turned_cropped_and_mirrored_with_its_picture() -> None:
    stored, exif = turned(left_half((128, 96)).convert("RGB"), 6)
    mask = decode_mask(encoded(stored, "PNG", exif=exif), "mask", is_alpha=False)
    assert mask.size == (128, 96)
    where = place(128, 96, 64)
    assert (where.bucket.width, where.bucket.height) == (64, 48)
    part = crop_mask(mask, where, (128, 96), is_mirrored=False)
    assert part.size == (8, 6)
    assert [part.getpixel((column, 3)) for column in range(8)] == [255] * 4 + [0] * 4
    mirrored = crop_mask(mask, where, (128, 96), is_mirrored=True)
    assert [mirrored.getpixel((column, 3)) for column in range(8)] == [0] * 4 + [255] * 4


def test_changing_a_mask_makes_only_that_mask_again_and_is_a_changed_data_set(data: Path, tiny_dev: Path, tmp_path: Path) -> None:
    dataset, _, told = fill(data, tiny_dev, tmp_path / "cache")
    assert told.encoded() == {"captions": 3, "images": 3, "masks": 3}
    Image.new("L", (64, 64), 128).save(data / "masks" / "00.png")
    changed, _, told = fill(data, tiny_dev, tmp_path / "cache")
    assert told.encoded() == {"masks": 1}
    assert fingerprint.differences(dataset.fingerprint, changed.fingerprint) == ["masks/00.png changed"]


def test_the_loss_is_the_weighted_mean() -> None:
    torch.manual_seed(0)
    latents, noise = torch.randn(2, 4, 6, 6), torch.randn(2, 4, 6, 6)
    sigma, none = torch.tensor([0.3, 0.8]), torch.zeros(2, 1)

    def nothing(noisy: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(noisy)

    plain = sample_losses(nothing, Samples(latents, none, none), noise, sigma)
    whole = sample_losses(nothing, Samples(latents, none, none, torch.full((2, 1, 6, 6), 0.5)), noise, sigma)
    assert torch.allclose(whole, plain)
    corner = torch.zeros(2, 1, 6, 6)
    corner[:, :, :2, :3] = 1.0
    found = sample_losses(nothing, Samples(latents, none, none, corner), noise, sigma)
    assert torch.allclose(found, (noise - latents)[:, :, :2, :3].square().mean(dim=(1, 2, 3)))


def test_a_mask_that_cannot_be_used_is_named_before_anything_is_trained(data: Path, tiny_dev: Path, tmp_path: Path) -> None:
    spec = DatasetSpec(path=str(data), resolution=[64], masks="masks")
    left_half((64, 32)).save(data / "masks" / "02.png")
    with pytest.raises(DataError, match=r"masks/02\.png is 64x32"):
        read_dataset(spec)
    assert [found.kind for found in check(spec, TrainSpec(), None, headers_only=False, processes=1).findings] == ["mask-size"]
    Image.new("L", (64, 64), 0).save(data / "masks" / "02.png")
    with pytest.raises(DataError, match="leaves nothing to train on"):
        fill(data, tiny_dev, tmp_path / "cache", dataset__mask_outside=0.0)
    with pytest.raises(DataError, match="nowhere"):
        read_dataset(DatasetSpec(path=str(data), resolution=[64], masks="nowhere"))
    (data / "masks" / "02.png").unlink()
    report = check(spec, TrainSpec(), None, headers_only=False, processes=1)
    assert [(found.kind, found.file) for found in report.findings] == [("mask-missing", "02.png")]
    assert report.ok
    left_half().save(data / "masks" / "02-mask.png")  # meant for 02.png, and of no picture's name
    report = check(spec, TrainSpec(), None, headers_only=False, processes=1)
    assert ("mask-orphan", "masks/02-mask.png") in [(found.kind, found.file) for found in report.findings]
    assert report.ok


@pytest.mark.timeout(600)
def test_a_run_with_all_of_it_is_resumed_exactly_whatever_reads_the_data(
    new_bench: Callable[..., Any], tiny_dev: Path, data: Path
) -> None:
    """Masks, mirrored samples, several captions in several orders, dropout, weights, two resolutions; 0 and 2 workers."""
    for number in range(3):
        (data / f"0{number}.txt").write_text(f"a square, gray, number {number}, seen\nanother line, of tags, for it\n")
    sets = {
        "dataset__masks": "masks", "dataset__flip": True, "dataset__caption_lines": True, "dataset__shuffle_tags": 4,
        "dataset__keep_tags": 1, "dataset__caption_dropout": 0.3, "dataset__regularisation": "02*",
        "dataset__regularisation_weight": 0.5, "dataset__resolution": [32, 64], "checkpoint__every_steps": 3,
    }  # fmt: skip
    whole = new_bench("whole", data=data, **sets)
    assert whole.train().code == 0
    parts = new_bench("parts", data=data, hardware__workers=2, **sets)
    running = parts.start()
    running.until_step(4)
    running.signal(9)
    running.wait()
    assert parts.train().code == 0
    assert parts.result().tensors_sha256 == whole.result().tensors_sha256
    other = new_bench("other", data=data, **(sets | {"dataset__flip": False}))
    assert other.train().code == 0
    assert other.result().tensors_sha256 != whole.result().tensors_sha256
