"""What can be refused is refused before torch is imported, with one sentence and the right exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from fluxtui.engine.trainer import preflight, room
from fluxtui.engine.trainer.data import fingerprint
from fluxtui.engine.trainer.refusal import ChangedDataError, DataError, NoRoomError
from fluxtui.engine.trainer.reporter import Reporter
from fluxtui.engine.wire import TrainerExit
from fluxtui.persist.datasets import facts as dataset_facts
from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.models.folder import recognise
from tests.trainer.job import Bench
from tests.trainer.tiny_flux import little_pictures

Space = namedtuple("Space", "total used free")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return little_pictures(tmp_path / "data", count=3)


@pytest.fixture
def bench(new_bench: Callable[..., Bench], data: Path) -> Bench:
    return new_bench(data=data)


def run(bench: Bench, rank: int = 0, **job: object) -> object:
    return preflight.run(bench.new_job(**job), bench.folder, Reporter(None, rank))


def test_the_first_attempt_writes_the_fingerprint_and_the_next_reads_no_picture(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(bench)
    assert dataset_facts.load(bench.folder.dataset_file) is not None

    def reads(*_: object) -> None:
        raise AssertionError("a picture was read again")

    monkeypatch.setattr(fingerprint, "decode", reads)
    assert run(bench) == first


def test_a_changed_data_set_is_refused_until_the_change_is_accepted(bench: Bench, data: Path) -> None:
    run(bench)
    (data / "01.txt").write_text("something else")
    with pytest.raises(ChangedDataError, match=r"01\.txt changed"):
        run(bench)
    run(bench, accept_changes=True)
    run(bench)      # the accepted one is the data set from here on


def test_a_damaged_fingerprint_is_refused_naming_the_command_that_takes_it_anew(bench: Bench) -> None:
    run(bench)
    good = bench.folder.dataset_file.read_bytes()
    bench.folder.dataset_file.write_bytes(good[: len(good) // 2])
    with pytest.raises(ChangedDataError, match=r"cannot be known: .*dataset\.toml") as caught:
        run(bench)
    assert f"fluxtui resume {bench.folder.name} --accept-changes" in caught.value.remedy
    run(bench, rank=1, accept_changes=True)
    assert bench.folder.dataset_file.read_bytes() == good[: len(good) // 2], "only the first rank writes"
    run(bench, accept_changes=True)
    assert bench.folder.dataset_file.read_bytes() == good
    assert (bench.folder.path / ".corrupt-dataset.toml-1").read_bytes() == good[: len(good) // 2]
    run(bench)


def test_only_the_first_rank_writes(bench: Bench) -> None:
    run(bench, rank=1)
    assert not bench.folder.dataset_file.exists()


@pytest.mark.parametrize("spoil", ["empty", "orphan", "gone", "pipe"])
def test_a_data_set_that_cannot_be_trained_on_ends_with_the_code_for_data(bench: Bench, data: Path, spoil: str) -> None:
    for path in list(data.iterdir()):
        if spoil in ("empty", "gone") or (spoil == "orphan" and path.name == "01.png"):
            path.unlink()
    if spoil == "gone":
        data.rmdir()
    if spoil == "pipe":
        (data / "01.png").unlink()
        os.mkfifo(data / "01.png")
    with pytest.raises(DataError) as caught:
        run(bench)
    assert caught.value.exit == TrainerExit.DATA
    assert str(data) in str(caught.value)
    assert not bench.folder.dataset_file.exists()


def test_a_model_folder_that_lacks_a_part_is_refused(bench: Bench, tmp_path: Path, new_bench: Callable[..., Bench]) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(FluxTUIError, match=r"model_index\.json"):
        run(new_bench("other", model=tmp_path / "model"))


def test_a_disk_without_room_is_refused_with_what_is_needed_for_what(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: Space(1 << 30, 1 << 30, 5000))
    with pytest.raises(NoRoomError, match="for checkpoints") as caught:
        run(bench)
    assert caught.value.exit == TrainerExit.STORAGE
    assert "4.9 KiB free" in str(caught.value)


def test_checkpoints_on_a_disk_of_their_own_take_no_room_of_the_homes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = room.shape_of(recognise(bench.spec.model.source, bench.home))
    need = room.estimate(bench.spec, shape)
    free = {bench.folder.checkpoints: need.checkpoints, bench.folder.path: need.total - need.checkpoints}
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda place: Space(1 << 40, 0, free[place]))
    monkeypatch.setattr(preflight.room, "of_caches", lambda *_: 0)
    with pytest.raises(NoRoomError):
        run(bench)
    monkeypatch.setattr(preflight.room, "is_apart", lambda *_: True)
    run(bench)
    free[bench.folder.checkpoints] -= 1
    with pytest.raises(NoRoomError, match="for checkpoints"):
        run(bench)


def test_what_was_set_aside_makes_no_room_for_checkpoints(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    need = room.of_session(bench.spec, room.shape_of(recognise(bench.spec.model.source, bench.home)), 0)
    aside = bench.folder.checkpoints / ".corrupt-step-000000008-1"
    aside.mkdir(parents=True)
    os.truncate(os.open(aside / "adapter", os.O_CREAT | os.O_WRONLY), 2 * need)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: Space(need, 0, need - 1))
    with pytest.raises(NoRoomError):
        run(bench)


def test_a_folder_that_takes_no_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FluxTUIError, match="in the way"):
        preflight.try_writing([tmp_path / "file"])
    preflight.try_writing([tmp_path / "fine"])
    assert list((tmp_path / "fine").iterdir()) == []


def test_the_room_for_flux_dev_is_reckoned_from_its_shape() -> None:
    """19 + 38 blocks of width 3072: attention and MLPs at rank 16 are about 65 million weights."""
    assert room.lora_weights(room.Shape(), 16) == 65_372_160


def test_a_resume_needs_room_for_one_checkpoint_beside_those_there(bench: Bench) -> None:
    shape = room.Shape()
    one = room.lora_weights(shape, bench.spec.lora.rank) * 12
    fresh, resumed = room.of_session(bench.spec, shape), room.of_session(bench.spec, shape, held=100 * one)
    assert fresh - resumed == (bench.spec.checkpoint.keep + 1 - 1) * one


def test_preflight_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, fluxtui.engine.trainer.preflight; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.timeout(240)
def test_a_trainer_ends_with_the_code_and_the_sentence_and_trains_nothing(bench: Bench, data: Path) -> None:
    (data / "01.png").write_bytes(b"this is no picture")
    ended = bench.train()
    assert ended.code == TrainerExit.DATA
    assert "01.png" in ended.error
    assert not bench.checkpoints()
    assert "Traceback" not in ended.log


class Noting(Reporter):
    """Keeps what is for the record."""

    def __init__(self) -> None:
        super().__init__(None)
        self.notes: list[str] = []

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


def test_files_that_are_passed_over_are_said_at_the_start_and_not_only_by_the_doctor(
    bench: Bench, data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (data / "moving.gif").write_bytes(b"GIF89a")
    (data / "more").mkdir()
    reporter = Noting()
    preflight.run(bench.new_job(), bench.folder, reporter)
    assert reporter.notes == ["a folder inside is not looked into: more, and 1 more like it"]
    said = capfd.readouterr().out
    assert ", 1 bucket, at most" in said
    assert "warning: moving.gif is not used: .gif is not read; save it as PNG or JPEG" in said
    preflight.run(bench.new_job(), bench.folder, reporter)
    assert "moving.gif" not in capfd.readouterr().out, "once is enough"
