"""metrics.jsonl: torn lines ignored, of one step the newest attempt counts."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fluxtui.persist import metrics
from fluxtui.persist.errors import NotFoundError, StorageError
from fluxtui.persist.metrics import StepMetric


def metric(step: int, attempt: int = 1, loss: float | None = 0.5) -> StepMetric:
    now = datetime.now(UTC)
    return StepMetric(attempt=attempt, step=step, epoch=1, loss=loss, learning_rate=1e-4, gradient_norm=1.0, seconds=0.1, at=now)


def write(path: Path, *found: StepMetric) -> None:
    descriptor = metrics.open_append(path)
    for one in found:
        metrics.append(descriptor, one)
    os.close(descriptor)


def test_what_was_appended_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    found = [metric(step) for step in range(1, 200)]
    write(path, *found)
    assert metrics.read_all(path) == found
    assert metrics.read_tail(path, 7) == found[-7:]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "torn", [b'{"attempt":1,"st', b"\x00" * 300, b"[1,2]\n", b'{"attempt":"x"}\n', b"\xff\xfe\n", b"x" * 10_000 + b"\n"]
)
def test_a_torn_or_foreign_line_is_ignored_and_spoils_nothing_after_it(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, metric(1), metric(2))
    with open(path, "ab") as file:
        file.write(torn)
    assert [one.step for one in metrics.read_all(path)] == [1, 2]
    write(path, metric(3))
    assert [one.step for one in metrics.read_all(path)] == [1, 2, 3]


def test_a_resumed_attempt_undoes_what_the_one_before_did_after_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, *[metric(step) for step in range(1, 11)], *[metric(step, 2) for step in range(6, 9)])
    assert [(one.step, one.attempt) for one in metrics.read_all(path)] == [(s, 1) for s in range(1, 6)] + [
        (s, 2) for s in (6, 7, 8)
    ]


def test_a_loss_that_is_not_finite_is_null(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, metric(1, loss=float("nan")))
    assert metrics.read_all(path)[0].loss is None


def test_only_the_end_of_a_huge_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, metric(1))
    with open(path, "r+b") as file:
        file.truncate(3 * 2**30)
    write(path, *[metric(step) for step in range(2, 300)])
    assert [one.step for one in metrics.read_tail(path, 3)] == [297, 298, 299]


def test_none_yet_and_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        metrics.read_all(tmp_path / "metrics.jsonl")
    descriptor = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(StorageError, match="disk is full"):
        metrics.append(descriptor, metric(1))
    os.close(descriptor)
