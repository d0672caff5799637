"""How many optimizer steps a recipe plans, from its data set's fingerprint alone: for whoever checks a trainer. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fluxtui.engine.trainer.data.buckets import places
from fluxtui.engine.trainer.data.dataset import Dataset, Item, hold_out_of, regularises, steps_per_epoch
from fluxtui.persist.datasets import facts as dataset_facts
from fluxtui.persist.datasets.parts import part_of, parts_of
from fluxtui.persist.errors import NotFoundError
from fluxtui.persist.home import SessionFolder
from fluxtui.persist.sessions.record import Record
from fluxtui.persist.settings import recipe
from fluxtui.persist.settings.spec import DatasetSpec, Spec


def planned_steps(spec: Spec, folder: SessionFolder, ranks: int) -> int:
    """The last step of the plan: `train.steps`, or `train.epochs` times the steps of an epoch."""
    if spec.train.steps:
        return spec.train.steps
    found = dataset_facts.load(folder.dataset_file)
    if found is None:
        raise NotFoundError(f"{folder.dataset_file} is missing, so the number of steps is not known")
    parts = parts_of(spec.dataset)
    items = tuple(_item(Path(found.folder), fact, parts) for fact in found.files if fact.width)
    trained, held_out = hold_out_of(items, spec.validate.images)
    dataset = Dataset(Path(found.folder), spec.dataset, trained, held_out, found)
    return spec.train.epochs * steps_per_epoch(dataset, spec.train, ranks)


def world_size_of(spec: Spec, record: Record) -> int:
    """How many ranks trained in an attempt. Older records do not say: then by its GPUs, else by the spec as it was overridden."""
    if record.world_size:
        return record.world_size
    return len(record.gpus) or recipe.apply(spec, record.overrides).hardware.ranks


def _item(folder: Path, fact: dataset_facts.FileFact, parts: Sequence[DatasetSpec]) -> Item:
    image = folder / fact.path
    number = part_of(image, parts)
    part = parts[number]
    where = places(fact.width, fact.height, part.resolution, part.bucket_step)
    keeps = regularises(image, part)
    return Item(fact.path, image, fact.sha256, fact.width, fact.height, ("",), where, is_regularisation=keeps, part=number)
