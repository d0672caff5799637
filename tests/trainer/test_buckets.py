"""Bucket invariants over any size and limit; crop loss is bounded; nothing is upscaled."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxtui.engine.trainer.data.buckets import SIDE_MULTIPLE, Bucket, TooSmallError, place, places, resolutions_for, table

SIDES = st.integers(min_value=16, max_value=12_000)
RESOLUTIONS = st.sampled_from([16, 32, 64, 256, 512, 768, 1024, 2048])
STEPS = st.sampled_from([16, 32, 48, 64, 128])
UNHURRIED = settings(deadline=None)     # a machine that is busy elsewhere fails no test


@UNHURRIED
@given(SIDES, SIDES, RESOLUTIONS, STEPS)
def test_a_bucket_has_sides_of_16_an_area_within_the_resolution_and_fits_the_image(
    width: int, height: int, resolution: int, step: int
) -> None:
    found = place(width, height, resolution, step)
    assert found.bucket.width % SIDE_MULTIPLE == found.bucket.height % SIDE_MULTIPLE == 0
    assert SIDE_MULTIPLE <= found.bucket.width <= width
    assert SIDE_MULTIPLE <= found.bucket.height <= height
    assert found.bucket.width * found.bucket.height <= resolution**2


@UNHURRIED
@given(SIDES, SIDES, RESOLUTIONS, STEPS)
def test_the_box_lies_in_the_image_in_its_middle_and_has_the_buckets_proportions(
    width: int, height: int, resolution: int, step: int
) -> None:
    found = place(width, height, resolution, step)
    left, top, right, bottom = found.box
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert left == pytest.approx(width - right)
    assert top == pytest.approx(height - bottom)
    assert (right - left) * found.bucket.height == pytest.approx((bottom - top) * found.bucket.width)
    assert right - left >= found.bucket.width - 1e-6        # never upscaled
    assert found.crop_loss == pytest.approx(1 - (right - left) * (bottom - top) / (width * height))
    assert (left, right) == (0, width) or (top, bottom) == (0, height)


@UNHURRIED
@given(SIDES, SIDES, RESOLUTIONS, STEPS)
def test_crop_loss_is_bounded_by_a_step_of_the_shorter_side(width: int, height: int, resolution: int, step: int) -> None:
    scale = min(1.0, resolution / (width * height) ** 0.5)
    if min(width, height) * scale < step:
        return      # a strip, or an image smaller than a step
    found = place(width, height, resolution, step)
    shortest = min(found.bucket.width, found.bucket.height)
    assert found.crop_loss < step / (min(width, height) * scale)
    assert found.crop_loss < 0.5
    assert shortest >= step


@UNHURRIED
@given(SIDES, SIDES, RESOLUTIONS)
def test_an_image_that_is_turned_goes_into_the_turned_bucket(width: int, height: int, resolution: int) -> None:
    upright, turned = place(width, height, resolution), place(height, width, resolution)
    if width != height:
        assert (turned.bucket.height, turned.bucket.width) == (upright.bucket.width, upright.bucket.height)


@UNHURRIED
@given(SIDES, SIDES, st.lists(RESOLUTIONS, min_size=1, max_size=8))
def test_every_image_is_used_once_at_each_resolution_it_is_large_enough_for(width: int, height: int, listed: list[int]) -> None:
    used = resolutions_for(width, height, listed)
    assert used == tuple(sorted(set(used)))
    enough = {resolution for resolution in listed if resolution**2 <= width * height}
    assert set(used) == (enough or {min(listed)})
    assert [found.resolution for found in places(width, height, listed)] == list(used)


@UNHURRIED
@given(SIDES, SIDES)
def test_an_image_too_small_for_all_is_used_at_its_own_size(width: int, height: int) -> None:
    if width * height >= 2048**2:
        return
    found = place(width, height, 2048)
    assert found.bucket == Bucket(width // 16 * 16, height // 16 * 16)


@pytest.mark.parametrize(("size", "resolution", "bucket"), [
    ((1024, 1024), 1024, (1024, 1024)),
    ((3000, 2000), 512, (624, 416)),        # 3:2 exactly
    ((4000, 3000), 512, (576, 432)),        # 4:3 exactly
    ((1920, 1080), 1024, (1360, 768)),
    ((64, 64), 64, (64, 64)),
    ((1000, 1000), 1024, (992, 992)),
])  # fmt: skip
def test_usual_sizes(size: tuple[int, int], resolution: int, bucket: tuple[int, int]) -> None:
    assert place(*size, resolution).bucket == Bucket(*bucket)


def test_larger_steps_make_fewer_buckets() -> None:
    sizes = [(900 + 7 * n, 1300 - 5 * n) for n in range(60)]
    fine = {place(*size, 512, 16).bucket for size in sizes}
    coarse = {place(*size, 512, 64).bucket for size in sizes}
    assert len(coarse) < len(fine) / 2


@pytest.mark.parametrize("size", [(15, 400), (400, 15), (1, 1)])
def test_an_image_narrower_than_16_pixels_has_no_place(size: tuple[int, int]) -> None:
    with pytest.raises(TooSmallError, match="at least 16"):
        place(*size, 512)


def test_the_table_counts_uses_and_losses() -> None:
    uses = [place(1024, 1024, 512), place(1000, 1010, 512), place(3000, 2000, 512)]
    rows = table(uses)
    assert [(str(row.bucket), row.uses) for row in rows] == [("512x512", 2), ("624x416", 1)]
    assert rows[0].largest_crop_loss == pytest.approx(1 - 1000 / 1010)
    assert rows[0].mean_crop_loss == pytest.approx((1 - 1000 / 1010) / 2)
