"""A model from the hub, over a network that does what networks do."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
import urllib.error
from collections import namedtuple
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from fluxtui.engine.family.flux1.components import Components
from fluxtui.engine.hub import repository as hub_repository
from fluxtui.engine.hub import transfer
from fluxtui.engine.hub.refusals import BrokenFileError, CutError, DownloadError
from fluxtui.engine.keeper.speed import Speed
from fluxtui.engine.trainer.exit_reason import ending_of
from fluxtui.engine.trainer.refusal import NoRoomError, Refusal
from fluxtui.engine.wire import ProgressLine, TrainerExit
from fluxtui.persist.home import Home
from fluxtui.persist.sessions.record import Phase
from tests.models.fetching import NAME, SECRET, Fetch
from tests.models.hub import COMMIT, Hub, Repository
from tests.models.singles import take_apart

BIG = "transformer/diffusion_pytorch_model.safetensors"


def same_bytes(found: Path, wanted: Path) -> None:
    for path in wanted.rglob("*"):
        if path.is_file():
            assert (found / path.relative_to(wanted)).read_bytes() == path.read_bytes(), path


def blobs(home: Home) -> Path:
    return hub_repository.cache_folder(home.models / "hub", NAME) / "blobs"


def test_a_model_comes_whole_with_its_commit_and_is_fetched_once(hub: Hub, fetch: Fetch, tiny: Path, home: Home) -> None:
    found, told = fetch()
    same_bytes(found.folder, tiny)
    assert found.commit == COMMIT
    assert told.lines[-1]["model_commit"] == COMMIT
    total = next(line["items"] for line in told.lines if "items" in line)
    assert told.counted()[-1] == total == sum(path.stat().st_size for path in tiny.rglob("*") if path.is_file())
    assert told.counted() == sorted(told.counted())
    before = len(hub.requests)
    again, _ = fetch()
    assert (again.folder, len(hub.requests)) == (found.folder, before)


def test_a_body_that_is_cut_goes_on_where_it_was(hub: Hub, fetch: Fetch, tiny: Path) -> None:
    hub.faults.cuts, hub.faults.cut_after = 3, 20_000
    found, told = fetch()
    assert hub.faults.happened["cut"] == 3
    same_bytes(found.folder, tiny)
    assert any("Range" in headers for _, headers in hub.bodies())
    assert told.counted() == sorted(told.counted())


def test_a_cut_download_is_gone_on_with_by_the_next_process(hub: Hub, fetch: Fetch, tiny: Path, home: Home) -> None:
    hub.faults.cuts, hub.faults.cut_after = 10_000, 20_000
    hub.faults.ignores_range = True  # no connection brings anything new: this process gives up
    with pytest.raises(CutError) as caught:
        fetch()
    assert ending_of(caught.value).code == TrainerExit.NETWORK
    kept = {path.name: path.stat().st_size for path in blobs(home).glob("*.part")}
    assert kept
    assert max(kept.values()) >= 20_000
    hub.faults.cuts, hub.faults.ignores_range = 0, False
    hub.requests.clear()
    found, _ = fetch()
    same_bytes(found.folder, tiny)
    ranges = [headers["Range"] for _, headers in hub.bodies() if "Range" in headers]
    assert f"bytes={max(kept.values())}-" in ranges
    assert {int(asked.strip("bytes=-")) for asked in ranges} <= set(kept.values())
    assert not list(blobs(home).glob("*.part"))


def test_a_server_that_ignores_ranges_gives_the_same_bytes(hub: Hub, fetch: Fetch, tiny: Path) -> None:
    hub.faults.cuts, hub.faults.cut_after, hub.faults.ignores_range = 1, 40_000, True
    found, _ = fetch()
    assert hub.faults.happened["cut"] == 1
    same_bytes(found.folder, tiny)


def test_a_file_that_is_not_the_hubs_is_removed_and_named(hub: Hub, fetch: Fetch, tiny: Path, home: Home) -> None:
    hub.faults.wrong_byte = BIG
    with pytest.raises(BrokenFileError, match="diffusion_pytorch_model"):
        fetch()
    assert hub.faults.happened["wrong byte"] == 1
    digest = hashlib.sha256((tiny / BIG).read_bytes()).hexdigest()
    assert not list(blobs(home).glob(f"{digest}*"))
    hub.faults.wrong_byte = ""
    same_bytes(fetch()[0].folder, tiny)


def test_a_partial_file_that_rotted_meanwhile_is_found_out(hub: Hub, fetch: Fetch, tiny: Path, home: Home) -> None:
    whole = (tiny / BIG).read_bytes()
    part = blobs(home) / f"{hashlib.sha256(whole).hexdigest()}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"?" + whole[1:9000])
    with pytest.raises(BrokenFileError):
        fetch()
    same_bytes(fetch()[0].folder, tiny)


def test_the_disk_is_looked_at_before_anything_is_fetched(hub: Hub, fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(hub_repository.shutil, "disk_usage", lambda _: usage(10**9, 0, 1000))
    with pytest.raises(NoRoomError, match="1000 bytes are free"):
        fetch()
    assert not hub.bodies()


def test_a_gated_model_is_explained_before_anything_is_fetched(
    hub: Hub, fetch: Fetch, monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    hub.repositories[NAME] = Repository(tiny, gated="auto", licence="flux-1-dev-non-commercial-license", needs_token=SECRET)
    with pytest.raises(DownloadError) as caught:
        fetch()
    assert "no token on this machine" in str(caught.value)
    for part in (f"{hub.endpoint}/{NAME}", "flux-1-dev-non-commercial-license", "settings/tokens", "hf auth login", "HF_TOKEN"):
        assert part in caught.value.remedy
    monkeypatch.setenv("HF_TOKEN", "hf_of_someone_else")
    with pytest.raises(DownloadError, match="has not been let in") as caught:
        fetch()
    assert "someone_else" not in str(caught.value) + caught.value.remedy
    assert caught.value.exit == TrainerExit.CONFIGURATION
    assert not hub.bodies()
    monkeypatch.setenv("HF_TOKEN", SECRET)
    same_bytes(fetch()[0].folder, tiny)
    assert "token seen by the store" not in hub.faults.happened, "the token went to another host"


@pytest.mark.parametrize(
    ("token", "source", "revision", "words"),
    [
        ("bad", NAME, "", "does not know the token"),
        ("", "nobody/nothing", "", "no model nobody/nothing"),
        (SECRET, "nobody/nothing", "", "no model nobody/nothing"),
        ("", NAME, "v9", "no revision v9"),
    ],
)
def test_401_and_404_are_said_in_words(
    token: str, source: str, revision: str, words: str, hub: Hub, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(DownloadError, match=words) as caught:
        fetch(source, revision=revision)
    assert token not in str(caught.value) or not token.startswith("hf_")


@pytest.mark.parametrize(("status", "kind"), [(403, DownloadError), (404, DownloadError), (503, CutError)])
def test_what_the_store_answers_decides_whether_it_is_tried_again(
    status: int, kind: type[Refusal], hub: Hub, fetch: Fetch, tiny: Path
) -> None:
    hub.faults.status = status
    with pytest.raises(kind):
        fetch()
    assert hub.faults.happened["status"] >= (transfer.TRIES if kind is CutError else 1)
    hub.faults.status = 0
    same_bytes(fetch()[0].folder, tiny)


def test_a_hub_that_asks_to_be_left_alone_is_for_as_long_as_it_says(hub: Hub, fetch: Fetch, tiny: Path) -> None:
    hub.faults.status, hub.faults.statuses, hub.faults.retry_after = 429, 1, "1"
    before = time.monotonic()
    same_bytes(fetch()[0].folder, tiny)
    assert hub.faults.happened["status"] == 1
    assert time.monotonic() - before >= 1.0


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("7", 7.0), ("99999", transfer.LONGEST_WAIT), ("soon", 0.0), ("-3", 0.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("", 0.0)],
)
def test_what_a_hub_says_of_waiting_is_read_and_bounded(said: str, seconds: float) -> None:
    headers = Message()
    headers["Retry-After"] = said
    assert transfer._asked_to_wait(urllib.error.HTTPError("http://hub", 429, "", headers, None)) == seconds


def test_a_hub_may_say_until_when_to_wait() -> None:
    headers = Message()
    headers["Retry-After"] = format_datetime(datetime.now(UTC) + timedelta(seconds=30))
    assert 25.0 < transfer._asked_to_wait(urllib.error.HTTPError("http://hub", 503, "", headers, None)) <= 30.0


def test_a_hub_that_is_not_there_is_the_networks_fault(hub: Hub, fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CutError):
        fetch()


def test_a_slow_line_is_progress_all_the_way(hub: Hub, fetch: Fetch) -> None:
    hub.faults.pause = 0.02
    _, told = fetch()
    assert len(set(told.counted())) >= 4


@pytest.mark.parametrize(
    ("changed", "content", "words"),
    [
        ("model_index.json", {"_class_name": "StableDiffusionXLPipeline"}, "StableDiffusionXLPipeline"),
        ("model_index.json", {"_class_name": "FluxKontextPipeline"}, "FluxKontextPipeline"),
        ("transformer/config.json", {"in_channels": 384}, "FLUX.1 Fill"),
        ("transformer/config.json", [], "not a JSON object"),
        ("model_index.json", None, "no model_index.json"),
    ],
    ids=["SDXL", "Kontext", "Fill", "damaged", "weights alone"],
)
def test_what_is_no_flux_is_refused_before_its_gigabytes_are_fetched(
    changed: str, content: Any, words: str, hub: Hub, fetch: Fetch, tiny: Path, tmp_path: Path, home: Home
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny, other)
    (other / changed).unlink()
    if content is not None:
        (other / changed).write_text(json.dumps(content))
    hub.repositories[NAME].folder = other
    with pytest.raises(DownloadError, match=words):
        fetch()
    assert not any(path.endswith(".safetensors") for _, path, _ in hub.requests)
    assert not (blobs(home).parent / "snapshots").exists(), "nobody takes it for a model"


def test_two_processes_fetch_a_model_once(hub: Hub, fetch: Fetch, tiny: Path) -> None:
    hub.faults.pause = 0.005
    found: list[Components] = []
    threads = [threading.Thread(target=lambda: found.append(fetch()[0])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 2
    names = [path for path, _ in hub.bodies()]
    assert len(names) == len(set(names))
    same_bytes(found[0].folder, tiny)


def test_a_model_in_the_shared_cache_is_used_and_nothing_is_fetched(
    hub: Hub, fetch: Fetch, tiny: Path, tmp_path: Path, home: Home
) -> None:
    fetch()
    shutil.move(str(home.models / "hub"), tmp_path / "no-hub")
    hub.requests.clear()
    again, _ = fetch()
    assert not hub.requests
    assert again.folder.is_relative_to(tmp_path / "no-hub")
    os.unlink(again.folder / BIG)  # no longer whole: fetched
    assert fetch()[0].folder.is_relative_to(home.models)
    assert hub.bodies()


def test_names_that_lead_out_of_the_cache_are_refused(
    hub: Hub, fetch: Fetch, monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    monkeypatch.setattr(Repository, "files", lambda self: {"transformer/../../../../x.json": b"{}"})
    with pytest.raises(DownloadError, match="cannot be followed"):
        fetch()


def test_tokenizers_of_single_files_come_from_the_hub_where_none_lie_here(
    hub: Hub, fetch: Fetch, tiny: Path, tmp_path: Path
) -> None:
    files = take_apart(tiny, tmp_path / "models")
    for name, repository in (("tokenizer", "openai/clip-vit-large-patch14"), ("tokenizer_2", "google/t5-v1_1-xxl")):
        shutil.move(str(tmp_path / "models" / name), tmp_path / name)
        hub.repositories[repository] = Repository(tmp_path / name)
    found, _ = fetch(str(files["transformer"]))
    for name in ("tokenizer", "tokenizer_2"):
        assert (found.folder / name / "tokenizer.json").read_bytes() == (tiny / name / "tokenizer.json").read_bytes()
    encoders = found.load_text_encoders(__import__("torch").float32, "cpu")
    assert encoders.text_tokens == 16


def test_speed_and_time_left_are_told_after_two_seconds() -> None:
    speed = Speed()

    def at(seconds: float, mib: float, phase: Phase = Phase.DOWNLOAD) -> str:
        return speed.words(seconds, ProgressLine(phase=phase, item=int(mib * 2**20), items=1000 * 2**20, unit="bytes"))

    assert at(0, 0) == at(1, 10) == ""
    assert at(2, 20) == ", 10.0 MiB/s, 1m38s left"
    assert at(30, 40) == ", 731.4 KiB/s, 22m24s left"
    assert at(31, 5) == "", "bytes that were thrown away begin a new count"
    assert at(40, 1000) == ", 110.6 MiB/s"
    assert at(41, 1000, Phase.LOAD) == ""
