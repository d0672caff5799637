"""A download that stalls, seen by its keeper: ended, tried again, gone on with where it was, and the training completes."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxtui import control
from fluxtui.engine.hub.repository import cache_folder
from fluxtui.persist.files import toml
from fluxtui.persist.home import Home
from fluxtui.persist.sessions import overview
from fluxtui.persist.sessions.record import Record
from tests.models.hub import COMMIT, Hub, Repository, until
from tests.models.test_download import NAME
from tests.trainer.job import SMALL
from tests.trainer.tiny_flux import little_pictures


def test_a_stalled_download_is_ended_and_gone_on_with(
    tiny: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = little_pictures(tmp_path / "data")
    cache_folder(home.models / "hub", NAME).mkdir(parents=True)  # begun: the hub's sizes decide about room, not FLUX.1's
    sets = SMALL | {"train.steps": 2, "guard.download": 4.0, "guard.retry_delay": 0.1, "guard.grace": 1.0, "hardware.gpus": []}
    sets |= {"sample.prompts": []}  # of 1024 pixels, by default
    with Hub({NAME: Repository(tiny)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        hub.faults.hang_at = 40_000
        folder = control.create(home, "mine", dataset=str(data), model=NAME, sets=sets)
        control.start(home, "mine")
        until(lambda: hub.faults.happened.get("hang"), 60)
        until(lambda: 2 in folder.attempt_numbers(), 60)
        first = toml.read(folder.attempt_file(1), Record)
        assert first.status == "failed"
        assert "download" in first.reason
        assert " of " in first.inner, first
        hub.faults.hang_at = -1
        control.wait(home, "mine", 120)
        seen = overview.look(home, "mine")
        assert seen.state == "completed", seen
        assert any(int(headers["Range"].strip("bytes=-")) >= 40_000 for _, headers in hub.bodies() if "Range" in headers)
    last = toml.read(folder.attempt_file(max(folder.attempt_numbers())), Record)
    assert last.model_commit == COMMIT
    assert last.proof is not None
    assert last.proof.ok
