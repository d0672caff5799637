"""Fault 44: the network dies in a download. Only the hub is made up: a real server, the real client, the trainer's own code."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.hub import COMMIT, MODEL, Hub, serving

TOKEN = "hf_aTokenThatMustAppearNowhere"
FETCH = """
import sys
from pathlib import Path
from fluxtui.engine import quiet
quiet.hush()
from fluxtui.engine.trainer import source
from fluxtui.engine.trainer.endings import ending_of
from fluxtui.engine.trainer.reporter import Reporter
try:
    print(source._fetch(sys.argv[1], "", Path(sys.argv[2]), Reporter(None), False)[0])
except Exception as error:
    ending = ending_of(error)
    print(ending.error)
    sys.exit(ending.code)
"""
LARGE = "transformer/weights.safetensors"


@pytest.fixture
def hub() -> Iterator[Hub]:
    large = os.urandom(1 << 20) * 40
    with serving(
        Hub({"model_index.json": b'{"_class_name": "FluxPipeline"}', "transformer/config.json": b"{}", LARGE: large})
    ) as at:
        yield at


def fetch(hub: Hub, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(cache / "hf")}
    command = [sys.executable, "-c", FETCH, MODEL, str(cache)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def snapshot(cache: Path) -> Path:
    return cache / f"models--{MODEL.replace('/', '--')}" / "snapshots" / COMMIT


def test_44_a_line_that_drops_is_taken_up_where_it_was_and_the_bytes_are_right(hub: Hub, tmp_path: Path) -> None:
    hub.cut_after = 15 << 20
    done = fetch(hub, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    ranges = hub.ranges(LARGE)
    assert ranges[0] == ""
    assert any(one.startswith("bytes=") and one != "bytes=0-" for one in ranges), "it was never taken up: the line did not drop"
    assert (snapshot(tmp_path) / LARGE).read_bytes() == hub.files[LARGE]


def test_44_a_line_that_stays_dead_fails_in_a_sentence_and_no_part_of_a_file_is_used(hub: Hub, tmp_path: Path) -> None:
    hub.cut_after = 1000
    done = fetch(hub, tmp_path)
    assert done.returncode == 78, done.stdout + done.stderr
    assert done.stdout.startswith(f"{MODEL} could not be fetched: ")
    assert TOKEN not in done.stdout + done.stderr
    assert len(hub.ranges(LARGE)) > 1, "it was not tried again"
    assert not (snapshot(tmp_path) / LARGE).exists()
    assert json.loads((snapshot(tmp_path) / "model_index.json").read_bytes())
    hub.cut_after = None
    done = fetch(hub, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (snapshot(tmp_path) / LARGE).read_bytes() == hub.files[LARGE]
    assert len([path for _, path, _, _ in hub.asked if path.endswith("config.json")]) <= 4, "what came whole was fetched again"


@pytest.mark.parametrize("damage", ["short", "flipped"])
def test_44_bytes_that_are_not_the_hubs_are_never_used_and_fetched_again(hub: Hub, tmp_path: Path, damage: str) -> None:
    if damage == "short":
        hub.cut_after, hub.says_whole = 11 << 20, False
    else:
        hub.flips = True
    done = fetch(hub, tmp_path)
    assert done.returncode == 78, done.stdout + done.stderr
    assert "came damaged" in done.stdout or "could not be fetched" in done.stdout
    assert not (snapshot(tmp_path) / LARGE).exists()
    hub.cut_after, hub.says_whole, hub.flips = None, True, False
    done = fetch(hub, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    digest = hashlib.sha256((snapshot(tmp_path) / LARGE).read_bytes()).hexdigest()
    assert (tmp_path / ".checked" / digest).exists()
