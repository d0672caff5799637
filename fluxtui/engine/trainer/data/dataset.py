"""The data set as the loop sees it: items with their captions and places, and the global batches of an epoch. No torch.

An image is used as often as its folder's `repeats` say an epoch, at each listed resolution that it is large enough for. A
global batch (batch_size x gradient_accumulation x ranks slots) is formed inside one bucket and then split, so that neither
the split nor the number of ranks changes which samples an optimizer step sees. Everything here is a function of the files,
the spec and the seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from hashlib import blake2b, sha256
from itertools import chain
from pathlib import Path

import msgspec

from fluxtui.engine.trainer import draws
from fluxtui.engine.trainer.data import fingerprint
from fluxtui.engine.trainer.data.buckets import Bucket, Place, TooSmallError, places
from fluxtui.engine.trainer.data.caption import PLACEHOLDER, caption_lines, shuffles, with_trigger, with_word
from fluxtui.engine.trainer.data.image import Header, read_header, read_regular
from fluxtui.engine.trainer.refusal import DataError
from fluxtui.persist.datasets import folder as dataset_folder
from fluxtui.persist.datasets import parts as dataset_parts
from fluxtui.persist.datasets.facts import FileFact, Fingerprint, relative_name
from fluxtui.persist.datasets.parts import ALPHA, parts_of
from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.files.text import clean
from fluxtui.persist.settings.spec import DatasetSpec, TrainSpec

LONGEST_CAPTION = 1 << 20      # bytes read of a caption file before it is refused


@dataclass(frozen=True, slots=True)
class Item:
    """An image of the data set with all that is trained with it."""

    name: str                       # relative to the folder, made safe to print
    image: Path
    image_sha256: str
    width: int                      # pixels, upright
    height: int
    captions: tuple[str, ...]       # at least one; a sample takes one of them
    places: tuple[Place, ...]       # one for each resolution it is used at, smallest first
    weight: float = 1.0             # of its loss
    is_regularisation: bool = False     # keeps what the model knows: no trigger word, never held out
    mask: Path | None = None            # a file; without one the whole picture counts, or what `has_alpha_mask` says
    mask_sha256: str = ""
    has_alpha_mask: bool = False        # the mask is the picture's own transparency
    part: int = 0                       # which folder of the data set it is of: 0 is dataset.path
    orders: tuple[int, ...] = ()        # how many of `captions`, from the first on, are orders of one; (): each is one by itself

    @property
    def caption(self) -> str:
        """The caption that validation uses."""
        return self.captions[0]


@dataclass(frozen=True, slots=True)
class Slot:
    """One sample of a global batch: what is loaded, and the number that its random draws are keyed by."""

    index: int                      # in the global batch; with the step, the key of every draw
    item: Item
    place: Place
    caption: str                    # as chosen for this sample; "" where it was dropped
    is_mirrored: bool = False       # left and right exchanged
    class_caption: str | None = None    # with the class word for the trigger: what it draws is preserved; None: nothing is


@dataclass(frozen=True, slots=True)
class Batch:
    """The samples of one optimizer step, all of one bucket."""

    step: int                       # optimizer steps done before it, over all attempts
    bucket: Bucket
    slots: tuple[Slot, ...]

    def micro_batches(self, batch_size: int, ranks: int = 1, rank: int = 0) -> tuple[tuple[Slot, ...], ...]:
        """This rank's share, one tuple a micro-step.

        Every rank gets as many micro-steps; the last ones of a partial batch may be shorter, and empty for some ranks.
        """
        share = batch_size * ranks
        parts = (self.slots[start : start + share] for start in range(0, len(self.slots), share))
        return tuple(part[rank::ranks] for part in parts)


@dataclass(frozen=True, slots=True)
class Dataset:
    """What is trained on, what is held out, and the facts of the files."""

    folder: Path                            # dataset.path's
    spec: DatasetSpec
    items: tuple[Item, ...]                 # trained on, in the order of folders and of their names
    held_out: tuple[Item, ...]              # only validated on
    fingerprint: Fingerprint = field(repr=False)
    parts: tuple[DatasetSpec, ...] = field(init=False, repr=False)      # each folder, with what holds for it

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", parts_of(self.spec))

    def of(self, item: Item) -> DatasetSpec:
        """What holds for an image: [dataset], and over it what its folder says of itself."""
        return self.parts[item.part]

    def uses(self) -> Iterator[tuple[Item, Place]]:
        """Every use of an image in an epoch, in a fixed order."""
        for item in self.items:
            for _ in range(self.of(item).repeats):
                for place in item.places:
                    yield item, place

    def validation_slots(self) -> tuple[Slot, ...]:
        """Each held-out image once, at the largest resolution it is used at."""
        return tuple(Slot(index, item, item.places[-1], item.caption) for index, item in enumerate(self.held_out))


def read_dataset(
    spec: DatasetSpec,
    *,
    hold_out: int = 0,
    known: Fingerprint | None = None,
    progress: fingerprint.Progress = lambda done, total: None,
) -> Dataset:
    """Reads, hashes and decodes what is not already in `known`, and pairs images with captions.

    `hold_out` images are kept from training. Raises DataError, naming the file, or the errors of `dataset_folder`.
    """
    folder = dataset_folder.resolve(spec.path)
    held = list(zip(parts_of(spec), dataset_parts.check_cheaply(spec), strict=True))
    masks = [find_masks(part, pairs) for part, pairs in held]
    images = [pair.image for _, pairs in held for pair in pairs.items]
    others = [pair.caption for _, pairs in held for pair in pairs.items if pair.caption is not None]
    others += [mask for found in masks for mask in found.values()]
    found = fingerprint.take(folder, images, others, known, progress)
    facts = {fact.path: fact for fact in found.files}
    items = tuple(
        _item(folder, pair, facts, part, masks[number].get(pair.image), number)
        for number, (part, pairs) in enumerate(held)
        for pair in pairs.items
    )
    trained, held_out = hold_out_of(items, hold_out)
    return Dataset(folder, spec, trained, held_out, msgspec.structs.replace(found, files=list(facts.values())))


def steps_per_epoch(dataset: Dataset, train: TrainSpec, ranks: int = 1) -> int:
    """Optimizer steps of an epoch: each bucket's uses by the size of the global batch, rounded up."""
    size = train.batch_size * train.gradient_accumulation * ranks
    return sum(-(-len(uses) // size) for uses in _by_bucket(dataset).values())


def plan_epoch(
    dataset: Dataset, train: TrainSpec, epoch: int, ranks: int = 1, first_step: int | None = None
) -> tuple[Batch, ...]:
    """The global batches of an epoch (counted from 0) in order, a function of the seed and the epoch.

    `first_step` is the number of optimizer steps done before it; by default every epoch before had as many as this one.
    """
    size = train.batch_size * train.gradient_accumulation * ranks
    parts: list[tuple[Bucket, Sequence[tuple[Item, Place]]]] = []
    for bucket, uses in _by_bucket(dataset).items():
        order = draws.permutation(train.seed, "epoch_order", epoch, len(uses), extra=str(bucket))
        parts += [(bucket, [uses[place] for place in order[start : start + size]]) for start in range(0, len(uses), size)]
    first = len(parts) * epoch if first_step is None else first_step
    order = draws.permutation(train.seed, "batch_order", epoch, len(parts))
    return tuple(_batch(first + number, *parts[place], train.seed, dataset) for number, place in enumerate(order))


def _batch(step: int, bucket: Bucket, uses: Sequence[tuple[Item, Place]], seed: int, dataset: Dataset) -> Batch:
    slots = []
    for index, (item, place) in enumerate(uses):
        spec = dataset.of(item)
        is_mirrored = spec.flip and draws.happens(seed, "flip", step, index, 0.5)
        chosen = _caption(item, seed, step, index)
        is_dropped = spec.caption_dropout and draws.happens(seed, "caption_dropout", step, index, spec.caption_dropout)
        slots.append(Slot(index, item, place, "" if is_dropped else chosen, is_mirrored, class_caption(item, chosen, spec)))
    return Batch(step, bucket, tuple(slots))


def class_caption(item: Item, caption: str, spec: DatasetSpec) -> str | None:
    """The caption with the class word in place of the trigger; None where no class word is given, or no trigger taught."""
    if not spec.class_word or not spec.trigger or item.is_regularisation:
        return None
    return with_word(caption, spec.trigger, spec.class_word)


def _caption(item: Item, seed: int, step: int, slot: int) -> str:
    """One of its captions, each as likely however many orders it has; then one of those."""
    if len(item.captions) == 1:
        return item.captions[0]
    orders = item.orders or (1,) * len(item.captions)
    chosen = draws.choice(seed, "caption", step, slot, len(orders))
    return item.captions[sum(orders[:chosen]) + draws.choice(seed, "caption_order", step, slot, orders[chosen])]


def _by_bucket(dataset: Dataset) -> dict[Bucket, list[tuple[Item, Place]]]:
    grouped: dict[Bucket, list[tuple[Item, Place]]] = {}
    for item, place in dataset.uses():
        grouped.setdefault(place.bucket, []).append((item, place))
    return dict(sorted(grouped.items(), key=lambda entry: entry[0]))


def find_masks(spec: DatasetSpec, pairs: dataset_folder.Pairs) -> dict[Path, Path]:
    """The mask file of each image of a folder that has one: of its stem, in the folder of masks, and in the same folder there.

    DataError where there is no folder of masks.
    """
    folder = dataset_folder.resolve(spec.path)
    named = {pair.image: pair.image.relative_to(folder).with_suffix("") for pair in pairs.items}
    found = _mask_files(spec)
    return {image: found[name] for image, name in named.items() if name in found}


def orphaned_masks(spec: DatasetSpec, pairs: dataset_folder.Pairs) -> list[Path]:
    """The mask files that no image of the folder has the name of. DataError as `find_masks`."""
    used = set(find_masks(spec, pairs).values())
    return [mask for mask in _mask_files(spec).values() if mask not in used]


def _mask_files(spec: DatasetSpec) -> dict[Path, Path]:
    """Each mask file by its place and stem in the folder of masks; none where there is to be no such folder."""
    if spec.masks in ("", ALPHA):
        return {}
    where = dataset_folder.resolve(spec.path) / spec.masks
    try:
        held = dataset_folder.pair(where, spec.caption_extension, is_recursive=spec.recursive).items
    except FluxTUIError as error:
        raise DataError(f"dataset.masks: {error}", kind="no-masks") from error
    return {pair.image.relative_to(where).with_suffix(""): pair.image for pair in held}


def check_mask(name: str, mask: Header, width: int, height: int) -> None:
    """Raises DataError where a mask has not the proportions of its image (by more than a pixel in a hundred)."""
    if abs(mask.width * height - mask.height * width) > 0.01 * mask.width * height:
        what = f"{name} is {mask.width}x{mask.height} and its image {width}x{height}: a mask must have the same proportions"
        raise DataError(what, kind="mask-size")


def _item(
    folder: Path, pair: dataset_folder.Pair, facts: dict[str, FileFact], spec: DatasetSpec, mask: Path | None, part: int
) -> Item:
    """One image with its captions; the fact of the caption's file becomes that of the bytes that are used."""
    fact = facts[relative_name(folder, pair.image)]
    name = clean(fact.path, 300)
    try:
        found = places(fact.width, fact.height, spec.resolution, spec.bucket_step)
    except TooSmallError as error:
        raise DataError(f"{name} is too small: {error}; replace or remove it", kind="too-small") from None
    trigger = trigger_for(pair.image, spec)
    captions = _captions(folder, pair, trigger, spec, facts)
    weight, keeps = (spec.regularisation_weight, True) if regularises(pair.image, spec) else (1.0, False)
    hashed = ""
    if mask is not None:
        hashed = facts[relative_name(folder, mask)].sha256
        check_mask(clean(relative_name(folder, mask), 300), read_header(mask), fact.width, fact.height)
    return Item(
        name, pair.image, fact.sha256, fact.width, fact.height, tuple(chain(*captions)), found, weight, keeps, mask, hashed,
        has_alpha_mask=spec.masks == ALPHA, part=part, orders=tuple(map(len, captions)),
    )  # fmt: skip


def regularises(image: Path, spec: DatasetSpec) -> bool:
    """Whether an image keeps what the model knows, going by its name; by its path in the folder where the pattern has a "/"."""
    if "/" not in spec.regularisation:
        return bool(spec.regularisation) and fnmatchcase(image.name, spec.regularisation)
    folder = dataset_folder.resolve(spec.path)
    return fnmatchcase((image.relative_to(folder) if image.is_relative_to(folder) else image).as_posix(), spec.regularisation)


def trigger_for(image: Path, spec: DatasetSpec) -> str:
    """The trigger word for the caption of this image; "" where it keeps what the model knows."""
    return "" if regularises(image, spec) else spec.trigger


def _captions(
    folder: Path, pair: dataset_folder.Pair, trigger: str, spec: DatasetSpec, facts: dict[str, FileFact]
) -> tuple[tuple[str, ...], ...]:
    if pair.caption is None:
        if not trigger:
            name = clean(relative_name(folder, pair.image), 300)
            raise DataError(f"{name} has no caption and no trigger word; write a caption", kind="caption-missing")
        return ((trigger,),)
    key = relative_name(folder, pair.caption)
    data = read_regular(pair.caption, LONGEST_CAPTION)
    # another text of the same size and time (rsync, touch -r) is a change too, and so is one since the fact was taken
    facts[key] = msgspec.structs.replace(facts[key], size=len(data), sha256=sha256(data).hexdigest())
    return captions_of(data, clean(key, 300), trigger, spec)


def captions_of(data: bytes, name: str, trigger: str, spec: DatasetSpec) -> tuple[tuple[str, ...], ...]:
    """The captions that a file gives, each in its orders, trigger in place (DataError, naming the file, where it gives none)."""
    lines = caption_lines(data, name)
    text = " ".join(lines)
    if PLACEHOLDER in text and not trigger:
        what = f"{name} says {PLACEHOLDER}, but there is no trigger word for it; set dataset.trigger"
        raise DataError(what, kind="caption-placeholder")
    if not text and not trigger:
        raise DataError(f"{name} is blank and has no trigger word; write a caption, or set dataset.trigger", kind="caption-blank")
    texts = (with_trigger(line, trigger) for line in (lines if spec.caption_lines and lines else [text]))
    return tuple(
        tuple(shuffles(line, trigger, spec.shuffle_tags, spec.keep_tags, spec.tag_dropout)) for line in dict.fromkeys(texts)
    )


def hold_out_of(items: tuple[Item, ...], hold_out: int) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """Which images are held out: those whose content hashes lowest, so that every seed holds out the same."""
    eligible = [item for item in items if not item.is_regularisation]
    if not eligible:
        raise DataError("every image keeps what the model knows, and none is learned; set dataset.regularisation for some alone")
    if hold_out >= len(eligible):
        raise DataError(
            f"validate.images = {hold_out} would hold out all {len(eligible)} images; hold out fewer, or add images"
        )
    by_hash = sorted(eligible, key=lambda item: (blake2b(f"held out {item.image_sha256}".encode()).digest(), item.name))
    held_out = set(by_hash[:hold_out])
    return tuple(item for item in items if item not in held_out), tuple(item for item in items if item in held_out)
