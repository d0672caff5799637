"""Which image is trained with which caption, where, how often and in what order; and that nobody changes it unseen."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxtui.engine.trainer.data import fingerprint
from fluxtui.engine.trainer.data.buckets import places
from fluxtui.engine.trainer.data.caption import has_trigger, shuffles, with_trigger
from fluxtui.engine.trainer.data.dataset import Batch, Dataset, Item, Slot, plan_epoch, read_dataset, steps_per_epoch
from fluxtui.engine.trainer.refusal import ChangedDataError, DataError
from fluxtui.persist.datasets import facts as dataset_facts
from fluxtui.persist.settings.spec import DatasetSpec, TrainSpec
from tests.trainer.hostile import encoded, hostile_images, quarters, turned


def spec_of(folder: Path, **changes: object) -> DatasetSpec:
    return DatasetSpec(path=str(folder), **({"resolution": [64]} | changes))  # type: ignore[arg-type]


def put(folder: Path, name: str, caption: str | None = "a thing", size: tuple[int, int] = (64, 64)) -> None:
    picture = quarters(*size)
    picture.putpixel((0, 0), tuple(crc32(name.encode()).to_bytes(4, "big")[:3]))     # no two alike
    (folder / name).write_bytes(encoded(picture))
    if caption is not None:
        (folder / name).with_suffix(".txt").write_text(caption)


def made_up(sizes: list[tuple[int, int]], **changes: object) -> Dataset:
    """A data set of no files."""
    spec = spec_of(Path("nowhere"), **changes)
    items = tuple(
        Item(f"{n}.png", Path(f"{n}.png"), f"{n:064x}", *size, (f"caption {n}",), places(*size, spec.resolution))
        for n, size in enumerate(sizes)
    )
    return Dataset(Path("nowhere"), spec, items, (), dataset_facts.Fingerprint(folder="nowhere"))


# ---- reading


def test_captions_belong_to_the_image_of_their_name_also_among_other_files(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "d.png"):
        put(tmp_path, name, f"caption of {name}")
    (tmp_path / "0-notes.md").write_text("not a caption")
    (tmp_path / ".hidden.txt").write_text("not a caption")
    put(tmp_path, "c.png", None)
    found = read_dataset(spec_of(tmp_path, trigger="zorp"))
    assert {item.name: item.caption for item in found.items} == {
        "a.jpg": "zorp, caption of a.jpg", "b.png": "zorp, caption of b.png", "c.png": "zorp", "d.png": "zorp, caption of d.png",
    }  # fmt: skip


@pytest.mark.parametrize(("text", "trained"), [
    ("a ring", "zorp, a ring"),
    ("a [trigger] on a table", "a zorp on a table"),
    ("a zorp on a table", "a zorp on a table"),
    ("Zorp, on a table", "Zorp, on a table"),
    ("a zorpling", "zorp, a zorpling"),     # not the word itself
    ("", "zorp"),
    ("[trigger]", "zorp"),
])  # fmt: skip
def test_the_trigger_word_is_put_in(text: str, trained: str) -> None:
    assert with_trigger(text, "zorp") == trained
    assert has_trigger(trained, "zorp")


def test_a_trigger_of_odd_characters_is_taken_as_it_is() -> None:
    assert with_trigger("a c++ (v2) toy", "c++ (v2)") == "a c++ (v2) toy"
    assert with_trigger("a toy", "c++ (v2)") == "c++ (v2), a toy"


def test_each_line_is_a_caption_where_that_is_asked_for(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "a ring\n\n  the [trigger] on a table \r\na ring\n")
    found = read_dataset(spec_of(tmp_path, trigger="zorp", caption_lines=True))
    assert found.items[0].captions == ("zorp, a ring", "the zorp on a table")
    plan = [slot.caption for epoch in range(400) for batch in plan_epoch(found, TrainSpec(), epoch) for slot in batch.slots]
    assert 150 < plan.count("zorp, a ring") < 250
    assert set(plan) == set(found.items[0].captions)
    (tmp_path / "a.txt").write_text("\n \n")
    assert read_dataset(spec_of(tmp_path, trigger="zorp", caption_lines=True)).items[0].captions == ("zorp",)


def test_tags_are_shuffled_behind_those_that_stay(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "ring, gold, shiny, on a table, indoors")
    found = read_dataset(spec_of(tmp_path, trigger="zorp", shuffle_tags=12, keep_tags=1)).items[0].captions
    assert found[0] == "zorp, ring, gold, shiny, on a table, indoors"
    assert 8 < len(found) <= 13
    assert len(set(found)) == len(found)
    for caption in found:
        tags = caption.split(", ")
        assert tags[:2] == ["zorp", "ring"]
        assert sorted(tags) == sorted(found[0].split(", "))
    again = read_dataset(spec_of(tmp_path, trigger="zorp", shuffle_tags=12, keep_tags=1)).items[0].captions
    assert again == found
    assert set(read_dataset(spec_of(tmp_path, trigger="zorp", shuffle_tags=3, keep_tags=1)).items[0].captions) <= set(found)


@pytest.mark.parametrize("text", ["a ring", "one, ", "", "one, one, one"])
def test_a_caption_without_tags_has_one_order(text: str) -> None:
    assert shuffles(text, "", 8, 0) == [text]


@pytest.mark.parametrize("orders", [0, 64])
def test_tags_are_left_out_at_their_rate_and_those_that_stay_never(orders: int) -> None:
    text = "zorp, ring, " + ", ".join(f"tag {number}" for number in range(40))
    found = shuffles(text, "zorp", orders, 1, 0.3)
    assert found[0] == text
    assert len(found) == (orders or 16) + 1
    shown = [order.split(", ")[2:] for order in found[1:]]
    assert all(order.startswith("zorp, ring, ") for order in found)
    assert sum(map(len, shown)) / (40 * len(shown)) == pytest.approx(0.7, abs=0.05)
    assert all((tags == sorted(tags, key=text.split(", ").index)) == (orders == 0) for tags in shown)
    assert shuffles("one, two", "", orders, 0, 0.999) == ["one, two"]  # none is left without a word
    assert set(shuffles("one, my zorp, two", "Zorp", orders, 0, 0.999)) == {"one, my zorp, two", "my zorp"}


def test_a_line_of_many_tags_counts_as_much_as_a_line_of_words(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "a ring on a table\nring, gold, shiny, indoors, photo\n")
    found = read_dataset(spec_of(tmp_path, caption_lines=True, shuffle_tags=12))
    plan = [slot.caption for epoch in range(400) for batch in plan_epoch(found, TrainSpec(), epoch) for slot in batch.slots]
    assert 150 < plan.count("a ring on a table") < 250
    assert set(plan) == set(found.items[0].captions)
    assert len(found.items[0].captions) > 10


def test_every_tag_comes_to_every_place() -> None:
    places = Counter(order.split(", ").index("a") for order in shuffles("a, b, c, d", "", 64, 0))
    assert set(places) == {0, 1, 2, 3}


def test_white_space_and_a_byte_order_mark_do_not_reach_the_encoders(tmp_path: Path) -> None:
    put(tmp_path, "a.png", None)
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf  a\tring\r\n on  a table \r\n\n")
    assert read_dataset(spec_of(tmp_path)).items[0].caption == "a ring on a table"


@pytest.mark.parametrize(("data", "why"), [
    (b"caf\xe9", "not UTF-8"), (b"a\0b", "NUL"), (b"x" * 70_000, "64 KiB"), (b"x" * 2_000_000, "1 MiB"), (b"  \n", "blank"),
    (b"a [trigger]", "no trigger word"),
])  # fmt: skip
def test_a_caption_that_cannot_be_used_is_named(tmp_path: Path, data: bytes, why: str) -> None:
    put(tmp_path, "a.png")
    put(tmp_path, "b.png", None)
    (tmp_path / "b.txt").write_bytes(data)
    with pytest.raises(DataError, match=r"b\.txt") as caught:
        read_dataset(spec_of(tmp_path))
    assert why in str(caught.value)


def test_an_image_that_cannot_be_used_is_named_before_anything_is_trained(tmp_path: Path) -> None:
    kinds = hostile_images(tmp_path)
    for name in kinds:
        (tmp_path / name).with_suffix(".txt").write_text("a thing")
    for name, kind in kinds.items():
        alone = tmp_path / kind
        alone.mkdir(exist_ok=True)
        put(alone, "fine.png")
        (alone / name).write_bytes((tmp_path / name).read_bytes())
        (alone / name).with_suffix(".txt").write_text("a thing")
        with pytest.raises(DataError, match=name) as caught:
            read_dataset(spec_of(alone))
        assert caught.value.kind == kind
        (alone / name).unlink()
        (alone / name).with_suffix(".txt").unlink()


def test_sizes_are_those_of_the_upright_picture(tmp_path: Path) -> None:
    stored, exif = turned(quarters(128, 64), 6)
    (tmp_path / "a.jpg").write_bytes(encoded(stored, "JPEG", exif=exif))
    (tmp_path / "a.txt").write_text("a thing")
    item = read_dataset(spec_of(tmp_path)).items[0]
    assert (item.width, item.height) == (128, 64)
    assert (item.places[0].bucket.width, item.places[0].bucket.height) == (80, 48)


def test_regularisation_images_keep_their_captions_and_are_never_held_out(tmp_path: Path) -> None:
    for number in range(4):
        put(tmp_path, f"new-{number}.png", "a ring")
        put(tmp_path, f"old-{number}.png", "a circle")
    found = read_dataset(spec_of(tmp_path, trigger="zorp", regularisation="old-*", regularisation_weight=0.5), hold_out=2)
    assert {(item.caption, item.weight) for item in found.items} == {("zorp, a ring", 1.0), ("a circle", 0.5)}
    assert all(not item.is_regularisation for item in found.held_out)
    put(tmp_path, "old-4.png", None)
    with pytest.raises(DataError, match=r"old-4\.png"):
        read_dataset(spec_of(tmp_path, trigger="zorp", regularisation="old-*"))


def test_the_held_out_are_the_same_for_every_seed_order_and_name(tmp_path: Path) -> None:
    for number in range(9):
        put(tmp_path, f"{number}.png")
    found = read_dataset(spec_of(tmp_path), hold_out=3)
    assert len(found.held_out) == 3
    assert len(found.items) == 6
    hashes = {item.image_sha256 for item in found.held_out}
    for number in range(9):
        os.rename(tmp_path / f"{number}.png", tmp_path / f"x{8 - number}.png")
        os.rename(tmp_path / f"{number}.txt", tmp_path / f"x{8 - number}.txt")
    assert {item.image_sha256 for item in read_dataset(spec_of(tmp_path), hold_out=3).held_out} == hashes
    assert [slot.item for slot in found.validation_slots()] == list(found.held_out)
    with pytest.raises(DataError, match="hold out all"):
        read_dataset(spec_of(tmp_path), hold_out=9)


def test_names_that_are_not_text_are_read_too(tmp_path: Path) -> None:
    os.rename(_one(tmp_path, "a.png"), os.fsencode(tmp_path) + b"/\xff\x1b[31m\n.png")
    os.rename(tmp_path / "a.txt", os.fsencode(tmp_path) + b"/\xff\x1b[31m\n.txt")
    found = read_dataset(spec_of(tmp_path))
    assert found.items[0].name.isprintable()
    assert not fingerprint.differences(found.fingerprint, read_dataset(spec_of(tmp_path)).fingerprint)


def _one(folder: Path, name: str) -> Path:
    put(folder, name)
    return folder / name


# ---- the plan of an epoch

SIZES = st.lists(st.tuples(st.integers(16, 300), st.integers(16, 300)), min_size=1, max_size=25)


@settings(deadline=None, max_examples=60)
@given(SIZES, st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 5))
def test_every_use_of_every_image_is_in_the_epoch_once_and_batches_keep_to_a_bucket(
    sizes: list[tuple[int, int]], repeats: int, batch: int, accumulation: int, ranks: int, epoch: int
) -> None:
    data = made_up(sizes, repeats=repeats, resolution=[32, 64, 128])
    train = TrainSpec(batch_size=batch, gradient_accumulation=accumulation)
    plan = plan_epoch(data, train, epoch, ranks)
    assert len(plan) == steps_per_epoch(data, train, ranks)
    assert [found.step for found in plan] == list(range(len(plan) * epoch, len(plan) * (epoch + 1)))
    for found in plan:
        assert 1 <= len(found.slots) <= batch * accumulation * ranks
        assert all(slot.place.bucket == found.bucket for slot in found.slots)
        assert [slot.index for slot in found.slots] == list(range(len(found.slots)))
    uses = Counter((slot.item.name, slot.place) for found in plan for slot in found.slots)
    assert uses == Counter({(item.name, place): repeats for item in data.items for place in item.places})


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 24), st.integers(1, 4), st.integers(1, 4))
def test_the_split_over_micro_steps_and_ranks_loses_and_doubles_nothing(count: int, batch: int, ranks: int) -> None:
    data = made_up([(64, 64)] * count)
    slots = tuple(Slot(n, item, item.places[0], item.caption) for n, item in enumerate(data.items))
    whole = Batch(0, slots[0].place.bucket, slots)
    shares = [whole.micro_batches(batch, ranks, rank) for rank in range(ranks)]
    assert len({len(share) for share in shares}) == 1       # every rank takes part in every micro-step
    assert all(len(micro) <= batch for share in shares for micro in share)
    found = sorted(slot.index for share in shares for micro in share for slot in micro)
    assert found == list(range(count))


@pytest.mark.parametrize(("batch", "accumulation", "ranks"), [(4, 1, 1), (1, 4, 1), (2, 2, 1), (1, 2, 2), (2, 1, 2), (1, 1, 4)])
def test_a_global_batch_is_the_same_however_it_is_split(batch: int, accumulation: int, ranks: int) -> None:
    data = made_up([(64 + 8 * n, 64) for n in range(14)], caption_dropout=0.3)
    whole = plan_epoch(data, TrainSpec(batch_size=4), 3)
    split = plan_epoch(data, TrainSpec(batch_size=batch, gradient_accumulation=accumulation), 3, ranks)
    assert split == whole


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    data = made_up([(64, 64)] * 30)
    order = [slot.item.name for found in plan_epoch(data, TrainSpec(seed=1), 0) for slot in found.slots]
    assert order == [slot.item.name for found in plan_epoch(data, TrainSpec(seed=1), 0) for slot in found.slots]
    assert order != [slot.item.name for found in plan_epoch(data, TrainSpec(seed=1), 1) for slot in found.slots]
    assert order != [slot.item.name for found in plan_epoch(data, TrainSpec(seed=2), 0) for slot in found.slots]
    assert order != sorted(order)


def test_caption_dropout_drops_its_share_by_step_and_slot() -> None:
    data = made_up([(64, 64)] * 50, caption_dropout=0.2)
    drops = [slot.caption == "" for epoch in range(20) for found in plan_epoch(data, TrainSpec(), epoch) for slot in found.slots]
    assert 150 < sum(drops) < 250
    shifted = [slot.caption == "" for found in plan_epoch(data, TrainSpec(), 0, first_step=1000) for slot in found.slots]
    assert shifted != drops[:50]
    assert not any(slot.caption == "" for found in plan_epoch(made_up([(64, 64)] * 50), TrainSpec(), 0) for slot in found.slots)


def test_ten_thousand_images_are_planned_in_a_moment() -> None:
    import time

    data = made_up([(300 + n % 40, 300) for n in range(10_000)])
    began = time.process_time()
    assert sum(len(found.slots) for found in plan_epoch(data, TrainSpec(batch_size=4), 0)) == 10_000
    assert time.process_time() - began < 3


# ---- the fingerprint


def test_only_what_differs_in_size_or_time_is_read_again(tmp_path: Path) -> None:
    for number in range(4):
        put(tmp_path, f"{number}.png")
    first = read_dataset(spec_of(tmp_path))
    hidden = (tmp_path / "1.png").stat()
    (tmp_path / "1.png").write_bytes(b"x" * hidden.st_size)
    os.utime(tmp_path / "1.png", ns=(hidden.st_atime_ns, hidden.st_mtime_ns))
    assert read_dataset(spec_of(tmp_path), known=first.fingerprint).fingerprint == first.fingerprint      # it was not read
    os.utime(tmp_path / "1.png")
    with pytest.raises(DataError, match=r"1\.png"):
        read_dataset(spec_of(tmp_path), known=first.fingerprint)


def test_a_touched_file_is_no_change_and_an_edited_one_is_named(tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path, f"{number}.png")
    first = read_dataset(spec_of(tmp_path)).fingerprint
    os.utime(tmp_path / "0.png")
    os.utime(tmp_path / "0.txt")
    fingerprint.hold_against(first, read_dataset(spec_of(tmp_path), known=first).fingerprint, "s")
    (tmp_path / "0.txt").write_text("another thing")
    put(tmp_path, "9.png")
    (tmp_path / "2.png").unlink()
    (tmp_path / "2.txt").unlink()
    with pytest.raises(ChangedDataError) as caught:
        fingerprint.hold_against(first, read_dataset(spec_of(tmp_path), known=first).fingerprint, "s")
    for clause in ("0.txt changed", "9.png is new", "2.png is gone"):
        assert clause in str(caught.value)
    assert caught.value.remedy.endswith("fluxtui resume s --accept-changes")


def test_a_fingerprint_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    from fluxtui.persist.files import toml

    data = tmp_path / "data"
    data.mkdir()
    put(data, "a b 'c' é.png")
    first = read_dataset(spec_of(data)).fingerprint
    toml.write(tmp_path / "dataset.toml", first)
    assert dataset_facts.load(tmp_path / "dataset.toml") == first
    assert dataset_facts.load(tmp_path / "none.toml") is None


def test_another_caption_of_the_same_size_and_time_is_a_change_too(tmp_path: Path) -> None:
    put(tmp_path, "1.png", "a cat")
    before = read_dataset(spec_of(tmp_path)).fingerprint
    caption = tmp_path / "1.txt"
    hidden = caption.stat()
    caption.write_text("a dog")
    os.utime(caption, ns=(hidden.st_atime_ns, hidden.st_mtime_ns))
    now = read_dataset(spec_of(tmp_path), known=before)
    assert now.items[0].caption == "a dog"
    with pytest.raises(ChangedDataError, match=r"1\.txt changed"):
        fingerprint.hold_against(before, now.fingerprint, "s")
    assert fingerprint.differences(before, read_dataset(spec_of(tmp_path)).fingerprint) == ["1.txt changed"]


def test_the_fingerprint_is_of_the_caption_that_is_trained_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "1.png", "a cat")
    take = fingerprint.take

    def and_then_changed(*arguments: object) -> dataset_facts.Fingerprint:
        found = take(*arguments)  # type: ignore[arg-type]
        (tmp_path / "1.txt").write_text("a dog and more")
        return found

    monkeypatch.setattr(fingerprint, "take", and_then_changed)
    trained = read_dataset(spec_of(tmp_path))
    monkeypatch.undo()
    assert trained.items[0].caption == "a dog and more"
    assert fingerprint.differences(trained.fingerprint, read_dataset(spec_of(tmp_path)).fingerprint) == []
