"""What the panel of the selected session says comes next, in states that the fabricated home does not have."""

from __future__ import annotations

from pathlib import Path

from fluxtui.persist.files.lock import Lock
from fluxtui.persist.home import Home
from fluxtui.persist.sessions.record import Phase
from tests.ui.conftest import opened, seen, text_of
from tests.ui.fabricate import make_record, make_session


async def test_a_stop_after_the_epoch_is_seen_by_whoever_opens_the_panel(home_path: Path) -> None:
    home = Home.open(home_path)
    folder = make_session(home, "ring-lora")
    make_record(
        folder, status="running", phase=Phase.TRAIN, step=30, epoch=2, epoch_end=50, step_seconds=1.0, stops_after_epoch=True
    )
    lock = Lock.take(folder.lock_file)
    assert lock is not None
    async with opened(home, (120, 36)) as (app, pilot):
        await seen(pilot, lambda: "stops after epoch 2, in about 20 s" in text_of(app), "that it stops")
        assert "x stops it now, with a checkpoint" in text_of(app)
        assert "20s left" in text_of(app)  # to the end of the epoch, not of the training
        await pilot.press("enter")
        await seen(pilot, lambda: "after epoch 2, in about 20 s" in text_of(app), "that it stops")
    lock.release()
