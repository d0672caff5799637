"""Everything that can be refused before torch is imported and a GPU is touched: the data set, the model's folder, the disk."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from fluxtui.engine.memory.settings import check_settings
from fluxtui.engine.trainer import room
from fluxtui.engine.trainer.check import doctor
from fluxtui.engine.trainer.data import fingerprint
from fluxtui.engine.trainer.data.dataset import Dataset, read_dataset
from fluxtui.engine.trainer.refusal import ChangedDataError, DataError, NoRoomError
from fluxtui.engine.trainer.reporter import Reporter
from fluxtui.engine.wire import TrainJob
from fluxtui.persist import cache_folder
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.datasets import facts as dataset_facts
from fluxtui.persist.errors import DamagedError, NotFoundError, StorageError, UsageError
from fluxtui.persist.files import toml
from fluxtui.persist.files.durable import make_folder, write_file
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.models.folder import ModelSource, recognise
from fluxtui.persist.sessions.record import Phase
from fluxtui.persist.settings import compatibility

_PROBE = ".preflight"
_WARNINGS = 20  # lines in the log; the rest is counted


def run(job: TrainJob, folder: SessionFolder, reporter: Reporter) -> Dataset:
    """The data set, where this job can train; else the reason, with exit code, as an error.

    Rank 0 writes `dataset.toml` in the first attempt and where changes are accepted. Raises DataError, ChangedDataError,
    NoRoomError, StorageError, UsageError, NotFoundError, DamagedError.
    """
    check_settings(job.spec)
    compatibility.check(job.spec)
    home = Home(Path(job.home))
    writes = reporter.rank == 0
    if writes:
        try_writing([folder.path, folder.checkpoints, folder.samples, home.cache])
    model = recognise(job.spec.model.source, home)
    before = _known(job, folder, reporter)
    dataset = _read(job, before, reporter)
    _hold_against(job, folder, before, dataset, reporter)
    if writes:
        _check_room(job, folder, home, model, dataset)
    _say_what_was_found(dataset, reporter)
    if before is None and writes:
        _say_what_is_doubtful(job, model, reporter)
    return dataset


def try_writing(folders: Iterable[Path]) -> None:
    """A real write, fsync, rename and removal in each folder, made where it is missing. Raises StorageError."""
    for folder in folders:
        make_folder(folder)
        probe = folder / _PROBE
        write_file(probe, os.urandom(512))
        try:
            probe.unlink()
        except OSError as error:
            raise StorageError.of(error, "remove", probe) from error


def _known(job: TrainJob, folder: SessionFolder, reporter: Reporter) -> dataset_facts.Fingerprint | None:
    """The data set as the first attempt found it. One that cannot be read is set aside where changes are accepted."""
    try:
        return dataset_facts.load(folder.dataset_file)
    except DamagedError as error:
        if not job.accept_changes:
            raise ChangedDataError(
                f"what the data set was when this session began cannot be known: {str(error).rstrip('.')}",
                f"put {folder.dataset_file.name} back, or take the data set as it is now: "
                f"fluxtui resume {job.spec.name} --accept-changes",
            ) from error
        if reporter.rank == 0:
            aside = commit.set_aside(folder.path, folder.dataset_file.name)
            reporter.note(f"{folder.dataset_file.name} was damaged; it is kept as {aside.name}, and recorded again")
        return None


def _read(job: TrainJob, before: dataset_facts.Fingerprint | None, reporter: Reporter) -> Dataset:
    def progress(done: int, total: int) -> None:
        reporter.progress(Phase.PREFLIGHT, item=done, items=total, unit="files")

    try:
        return read_dataset(job.spec.dataset, hold_out=job.spec.validate.images, known=before, progress=progress)
    except (UsageError, NotFoundError) as error:
        raise DataError(str(error)) from error


def _hold_against(
    job: TrainJob, folder: SessionFolder, before: dataset_facts.Fingerprint | None, dataset: Dataset, reporter: Reporter
) -> None:
    if reporter.rank != 0:  # held against rank 0's, which may have just written the file: `alike.py`
        return
    changed = before is not None and bool(fingerprint.differences(before, dataset.fingerprint))
    if before is not None and changed and not job.accept_changes:
        fingerprint.hold_against(before, dataset.fingerprint, job.spec.name)
    if changed:
        reporter.note("the data set is not the one that this session began with; that was accepted")
    if before is None or changed:
        toml.write(folder.dataset_file, dataset.fingerprint)


def _check_room(job: TrainJob, folder: SessionFolder, home: Home, model: ModelSource, dataset: Dataset) -> None:
    """Raises NoRoomError where what this run writes will not fit."""
    shape = room.shape_of(model)
    cached = cache_folder.usage(home.cache).bytes
    bytes_of_base = 4 if job.spec.model.precision == "fp32" or not job.devices else 2
    held = commit.held_bytes(folder.checkpoints)
    need = room.estimate(job.spec, shape, held)
    if room.is_apart(folder.checkpoints, folder.path):
        _must_fit(folder.checkpoints, {"checkpoints": need.checkpoints})
        need = replace(need, checkpoints=0)
    needs = {
        "checkpoints and the LoRA file": need.total,
        "caches": max(0, room.of_caches(dataset, shape, bytes_of_base) - cached),
        "the model": room.of_download(model, home),
    }
    _must_fit(folder.path, needs)


def _must_fit(place: Path, needs: Mapping[str, int]) -> None:
    total, free = sum(needs.values()), shutil.disk_usage(place).free
    if total > free:
        parts = ", ".join(f"{room.words(size)} for {what}" for what, size in needs.items() if size)
        raise NoRoomError(f"the disk has {room.words(free)} free, and this run needs {room.words(total)}: {parts}")


def _say_what_was_found(dataset: Dataset, reporter: Reporter) -> None:
    if reporter.rank != 0:
        return
    held = f", {len(dataset.held_out)} held out" if dataset.held_out else ""
    places = [place for item in dataset.items for place in item.places]
    count = len({place.bucket for place in places})
    images, buckets = _counted(len(dataset.items), "image"), _counted(count, "bucket")
    worst = max(place.crop_loss for place in places)
    reporter.say(f"data set: {images}{held}, {buckets}, at most {worst:.1%} of an image cropped away")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _check_command(job: TrainJob) -> str:
    data = job.spec.dataset
    return shlex.join(["fluxtui", "check", data.path, *data.folders])


def _say_what_is_doubtful(job: TrainJob, model: ModelSource, reporter: Reporter) -> None:
    """The doctor's warnings, in the log of the first attempt; files that are passed over stand in the record too."""
    found = doctor.warned(job.spec.dataset, model.path if model.path and model.path.is_dir() else None)
    passed_over = [one for one in found if one.kind in ("not-read", "folder")]
    for one in found[:_WARNINGS]:
        reporter.say(f"warning: {one.sentence}")
    if len(found) > _WARNINGS:
        reporter.say(f"warning: and {len(found) - _WARNINGS} more; {_check_command(job)} lists them all")
    if passed_over:
        more = f", and {len(passed_over) - 1} more like it" if len(passed_over) > 1 else ""
        reporter.note(f"{passed_over[0].sentence}{more}")
