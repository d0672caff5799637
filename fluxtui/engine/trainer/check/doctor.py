"""The doctor: everything in a data set that stops a training, or that its owner would want to know before. No torch.

Errors are exactly what a start would refuse; warnings are what it would do without being asked twice; notes are how a
picture is read. Pictures are read by the very code that trains on them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from fluxtui.engine.trainer.check.examine import Examined, Progress, examine_all
from fluxtui.engine.trainer.check.findings import BucketFacts, Finding, FolderFacts, Plan, Report
from fluxtui.engine.trainer.check.likeness import alike
from fluxtui.engine.trainer.check.tokens import TokenCounter, token_counter
from fluxtui.engine.trainer.data.buckets import Place, TooSmallError, places, table
from fluxtui.engine.trainer.data.caption import BOM, PLACEHOLDER, caption_lines, caption_text, has_trigger
from fluxtui.engine.trainer.data.dataset import (
    LONGEST_CAPTION,
    captions_of,
    check_mask,
    find_masks,
    orphaned_masks,
    regularises,
    trigger_for,
)
from fluxtui.engine.trainer.data.image import decode_mask, read_header, read_regular
from fluxtui.engine.trainer.refusal import DataError
from fluxtui.persist.datasets import folder as dataset_folder
from fluxtui.persist.datasets.facts import relative_name
from fluxtui.persist.datasets.folder import Pair, Pairs, not_read
from fluxtui.persist.datasets.parts import ALPHA, overlap_of, pairs_of, parts_of
from fluxtui.persist.files.text import clean
from fluxtui.persist.settings.spec import DatasetSpec, TrainSpec

_MUCH_CROPPED = 0.10        # share of an image
_STRIP = 4.0                # one side to the other
_HOW_TO_LOOK = "set dataset.recursive=true to take them, or give some in dataset.folders"


def check(
    spec: DatasetSpec, train: TrainSpec, model: Path | None, *, headers_only: bool, ranks: int = 1, processes: int = 0,
    progress: Progress = lambda done, total: None,
) -> Report:  # fmt: skip
    """Examines the whole folder. Raises NotFoundError, UsageError or StorageError where there is no folder to examine."""
    began = time.monotonic()
    folder = dataset_folder.resolve(spec.path)
    parts = parts_of(spec)
    held = [pairs_of(part) for part in parts]
    counter = token_counter(model)
    files = [(pair.image, _name(folder, pair.image)) for pairs in held for pair in pairs.items]
    rest = examined = examine_all(files, processes or os.cpu_count() or 1, headers_only, progress)
    uses: list[Place] = []
    findings = list(_of_parts(folder, parts, held))
    facts = []
    for part, pairs in zip(parts, held, strict=True):
        own, rest = rest[: len(pairs.items)], rest[len(pairs.items) :]
        used: list[Place] = []
        for one in own:
            findings += _of_image(one, part, used)
        findings += _of_masks(folder, pairs, part, own)
        findings += _of_captions(folder, pairs, part, counter)
        uses += used * part.repeats
        facts.append(_facts_of(part, pairs, len(used) * part.repeats))
    findings += _of_copies(examined, {_name(folder, pair.image): pair for pairs in held for pair in pairs.items})
    plan = plan_of(uses, train.batch_size * train.gradient_accumulation * ranks)
    findings += _of_plan(plan)
    order = {"error": 0, "warning": 1, "note": 2}
    findings.sort(key=lambda found: (order[found.level], found.file, found.kind))
    levels = [found.level for found in findings]
    return Report(
        ok="error" not in levels, folder=clean(str(folder), 300), folders=facts, images=len(files),
        captions=sum(one.captions for one in facts), plan=plan, errors=levels.count("error"),
        warnings=levels.count("warning"), findings=findings, decoded=not headers_only, tokens_exact=counter.is_exact,
        seconds=round(time.monotonic() - began, 3),
    )  # fmt: skip


def warned(spec: DatasetSpec, model: Path | None) -> list[Finding]:
    """What a start says without opening a picture: which files it passes over, and captions that are not what they look like."""
    folder = dataset_folder.resolve(spec.path)
    parts = parts_of(spec)
    held = [pairs_of(part) for part in parts]
    counter = token_counter(model)
    findings = list(_of_parts(folder, parts, held))
    for part, pairs in zip(parts, held, strict=True):
        findings += _of_captions(folder, pairs, part, counter)
    return [found for found in findings if found.level == "warning"]


def _facts_of(part: DatasetSpec, pairs: Pairs, uses: int) -> FolderFacts:
    return FolderFacts(
        folder=clean(part.path, 300), images=len(pairs.items), captions=len(pairs.items) - len(pairs.without_caption),
        repeats=part.repeats, uses=uses, trigger=part.trigger,
        regularisation=sum(regularises(pair.image, part) for pair in pairs.items),
    )  # fmt: skip


def plan_of(uses: Sequence[Place], global_batch: int) -> Plan:
    """How an epoch falls into buckets and steps."""
    buckets = [
        BucketFacts(
            width=row.bucket.width, height=row.bucket.height, uses=row.uses, steps=-(-row.uses // global_batch),
            mean_crop_loss=row.mean_crop_loss, largest_crop_loss=row.largest_crop_loss,
        )
        for row in table(uses)
    ]  # fmt: skip
    return Plan(
        global_batch=global_batch, uses=len(uses), steps=sum(bucket.steps for bucket in buckets),
        short_steps=sum(bucket.uses % global_batch > 0 for bucket in buckets), buckets=buckets,
    )  # fmt: skip


def _of_plan(plan: Plan) -> Iterator[Finding]:
    if plan.global_batch > 1 and plan.short_steps > plan.steps / 2:
        yield Finding("warning", "short-batches", "", (
            f"{plan.short_steps} of {plan.steps} steps of an epoch have fewer than {plan.global_batch} samples, because the "
            f"images fall into {len(plan.buckets)} buckets; set dataset.bucket_step = 64, or a smaller batch"
        ))  # fmt: skip


def _of_parts(folder: Path, parts: Sequence[DatasetSpec], held: Sequence[Pairs]) -> Iterator[Finding]:
    """What there is to say of the folders, by names; `folder` is the first, which names of files are relative to."""
    if overlap := overlap_of(parts):
        yield Finding("error", "folder-twice", "", overlap)
    known = {dataset_folder.resolve(part.path) for part in parts}
    for part, pairs in zip(parts, held, strict=True):
        yield from _of_folder(folder, pairs, part, known)
        yield from _of_files(folder, pairs)


def _of_files(folder: Path, pairs: Pairs) -> Iterator[Finding]:
    for path in pairs.irregular:
        name = _name(folder, path)
        yield Finding("error", "irregular", name, f"{name} is not a regular file; replace it or move it away")
    for path in pairs.orphans:
        name = _name(folder, path)
        yield Finding("error", "caption-orphan", name, f"{name} has no image of its name; add the image or move the caption away")
    for path in pairs.rivals:
        name = _name(folder, path)
        yield Finding("error", "caption-rival", name, f"{name} is a second caption of its image; keep one of the two")
    for first, other in pairs.sharing:
        name, caption = _name(folder, other.image), _name(folder, other.caption) if other.caption else "none"
        told = f"{name} and {_name(folder, first.image)} share the caption {caption}; rename one, if it is another picture"
        yield Finding("warning", "caption-shared", name, told)
    for pair in pairs.unread:
        name = _name(folder, pair.image)
        if pair.caption:
            yield Finding("error", "not-read", name, f"{not_read(name)}, or move it and its caption away")
        else:
            yield Finding("warning", "not-read", name, not_read(name))


def _of_folder(folder: Path, pairs: Pairs, part: DatasetSpec, known: Collection[Path]) -> Iterator[Finding]:
    own = dataset_folder.resolve(part.path)
    if not pairs.items:
        yield Finding("error", "no-images", "", f"{clean(str(own), 300)} holds no images")
    passed = {path: dataset_folder.pictures_below(path, known) for path in pairs.folders if path not in known}
    inside = [path for path, count in passed.items() if count or not any(one.is_relative_to(path) for one in known)]
    if inside:
        named = ", ".join(_name(folder, path) for path in inside[:3])
        count = sum(passed[path] for path in inside)
        told = "links are not followed; give them in dataset.folders" if part.recursive else _HOW_TO_LOOK
        told = f", with {count} pictures; {told}" if count else ""
        what = "a folder inside is" if len(inside) == 1 else f"{len(inside)} folders inside are"
        yield Finding("warning", "folder", "", f"{what} not looked into: {named}{told}")
    if part.trigger and pairs.items and not any(pair.caption for pair in pairs.items):
        what = "no image has a caption: all are trained with the trigger word alone"
        yield Finding("warning", "no-captions", "", what if len(known) == 1 else f"{clean(str(own), 300)}: {what}")


def _of_image(one: Examined, spec: DatasetSpec, uses: list[Place]) -> Iterator[Finding]:
    """What there is to say of a picture; its places are added to `uses`."""
    name, header = one.name, one.header
    if header is None:
        yield Finding("error", one.kind, name, one.error)
        return
    try:
        found = places(header.width, header.height, spec.resolution, spec.bucket_step)
    except TooSmallError as error:
        yield Finding("error", "too-small", name, f"{name} is too small: {error}; replace or remove it")
        return
    uses += found
    size = f"{header.width}x{header.height}"
    if header.width * header.height < min(spec.resolution) ** 2:
        sentence = f"{name} ({size}) is smaller than the smallest resolution; it is used as it is, not enlarged"
        yield Finding("warning", "small", name, sentence)
    if max(header.width, header.height) > _STRIP * min(header.width, header.height):
        yield Finding("warning", "strip", name, f"{name} ({size}) is a strip, which FLUX.1 was hardly trained on; crop it")
    worst = max(place.crop_loss for place in found)
    if worst > _MUCH_CROPPED:
        yield Finding("warning", "cropped", name, f"{name} ({size}) loses up to {worst:.0%} of its area to its buckets")
    if header.has_alpha and spec.masks != ALPHA:
        yield Finding("warning", "alpha", name, f"{name} is transparent in parts, which are laid on white")
    if header.orientation != 1:
        yield Finding("note", "rotated", name, f"{name} is turned upright as its EXIF says ({header.orientation})")
    if header.mode == "CMYK":
        how = "by its profile" if header.has_profile else "without a profile, so its colours are a guess"
        yield Finding("note" if header.has_profile else "warning", "cmyk", name, f"{name} is CMYK and is converted to RGB {how}")
    if header.bits > 8:
        yield Finding("note", "16-bit", name, f"{name} has {header.bits} bits a sample and is read with 8")


def _of_copies(examined: Sequence[Examined], pairs: Mapping[str, Pair]) -> Iterator[Finding]:
    first: dict[str, str] = {}
    distinct = {}
    for one in examined:
        if one.sha256 and one.sha256 in first:
            twin = first[one.sha256]
            told = f"{one.name} is the same file as {twin}, and counts twice"
            if _differ(pairs[one.name], pairs[twin]):
                told += ", each time with another caption: see which of the two is the picture's"
            yield Finding("warning", "duplicate", one.name, told)
        elif one.sha256 and one.look is not None:
            first[one.sha256] = one.name
            distinct[one.name] = one.look
    for before, name in alike(distinct):
        yield Finding("warning", "near-duplicate", name, f"{name} looks like {before}: twice the same picture counts twice")


def _differ(one: Pair, other: Pair) -> bool:
    """Whether two images have captions that say something else."""
    texts = []
    for pair in (one, other):
        if pair.caption is None:
            return False
        try:
            texts.append(caption_text(read_regular(pair.caption, LONGEST_CAPTION), pair.caption.name))
        except DataError:
            return False    # said of the caption itself
    return texts[0] != texts[1]


def _of_masks(
    folder: Path, pairs: Pairs, spec: DatasetSpec, examined: Sequence[Examined]
) -> Iterator[Finding]:
    """What there is to say of masks, decoded whole, where there are to be any."""
    try:
        masks, unused = find_masks(spec, pairs), orphaned_masks(spec, pairs)
    except DataError as error:
        yield Finding("error", error.kind, "", str(error))
        return
    for orphan in unused:
        name = _name(folder, orphan)
        yield Finding("warning", "mask-orphan", name, f"{name} has no image of its name, so nothing uses it; rename or remove it")
    for pair, one in zip(pairs.items, examined, strict=True):
        if not spec.masks or one.header is None:
            continue
        mask = masks.get(pair.image)
        if mask is None:
            if spec.masks != ALPHA or not one.header.has_alpha:
                yield Finding("warning", "mask-missing", one.name, f"{one.name} has no mask; all of it is trained on")
            continue
        name = _name(folder, mask)
        try:
            check_mask(name, read_header(mask), one.header.width, one.header.height)
            decode_mask(read_regular(mask), name, is_alpha=False)
        except DataError as error:
            yield Finding("error", error.kind, name, str(error))


def _of_captions(folder: Path, pairs: Pairs, part: DatasetSpec, counter: TokenCounter) -> Iterator[Finding]:
    for pair in pairs.items:
        yield from _of_caption(folder, pair, trigger_for(pair.image, part), part, counter)


def _of_caption(
    folder: Path, pair: dataset_folder.Pair, trigger: str, spec: DatasetSpec, counter: TokenCounter
) -> Iterator[Finding]:
    image = _name(folder, pair.image)
    if pair.caption is None:
        if trigger:
            sentence = f"{image} has no caption; it is trained with the trigger word alone"
            yield Finding("warning", "caption-missing", image, sentence)
        else:
            yield Finding("error", "caption-missing", image, f"{image} has no caption; write one, or set a trigger word")
        return
    name = _name(folder, pair.caption)
    try:
        data = read_regular(pair.caption, LONGEST_CAPTION)
        captions = captions_of(data, name, trigger, spec)
    except DataError as error:
        yield Finding("error", error.kind, name, str(error))
        return
    lines = caption_lines(data, name)
    texts = lines if spec.caption_lines else [" ".join(lines)]
    if data.startswith(BOM.encode()):
        yield Finding("note", "caption-bom", name, f"{name} begins with a byte order mark, which is left out")
    if not lines:
        yield Finding("warning", "caption-blank", name, f"{name} is blank; its image is trained with the trigger word alone")
    elif trigger and not all(PLACEHOLDER in text or has_trigger(text, trigger) for text in texts):
        yield Finding("warning", "caption-without-trigger", name, f"{name} lacks the trigger word, which is put before it")
    longest = max(map(counter.count, chain(*captions)))
    if longest > counter.limit:
        about = "" if counter.is_exact else "about "
        yield Finding("warning", "caption-too-long", name, (
            f"{name} has {about}{longest} tokens, and what is after the {counter.limit}th is not seen; shorten it"
        ))  # fmt: skip


def _name(folder: Path, path: Path) -> str:
    return clean(relative_name(folder, path), 300)
