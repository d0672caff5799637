"""Sessions whose product, records, checkpoints or spec were taken away or changed: what a resume makes of it, and refuses."""

from __future__ import annotations

import errno
import json
import os
import shutil
from typing import Any

import pytest

from fluxtui import control
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.errors import RefusedError
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.sessions.record import Proof
from tests.cli.conftest import Lab, until
from tests.ui.fabricate import make_record


def test_a_completed_file_that_is_gone_is_made_again_by_a_resume(lab: Lab) -> None:
    lab.make("a")
    control.start(lab.home, "a")
    assert lab.call("wait", "a", "--timeout", "60").code == 0
    with pytest.raises(RefusedError, match="completed"):
        control.start(lab.home, "a", resume="auto")
    lab.home.session("a").product.unlink()
    assert (lab.look().state, lab.look().is_resumable) == ("changed", True)
    assert lab.call("wait", "a").code == 1
    assert control.start(lab.home, "a", resume="auto") == 2
    assert lab.call("wait", "a", "--timeout", "60").code == 0


def test_a_completed_file_that_was_changed_is_kept_and_made_again_by_a_resume(lab: Lab) -> None:
    lab.make("a")
    control.start(lab.home, "a")
    assert lab.call("wait", "a", "--timeout", "60").code == 0
    product = lab.home.session("a").product
    proven = product.read_bytes()
    flipped, times = bytes([proven[0] ^ 1]) + proven[1:], product.stat()
    product.write_bytes(flipped)
    os.utime(product, ns=(times.st_atime_ns, times.st_mtime_ns))  # as touch and rsync set it back
    seen = lab.look()
    assert (seen.state, seen.remedy, seen.is_resumable) == ("changed", "fluxtui resume a", True)
    assert lab.call("verify", "a").code == 1
    assert lab.call("resume", "a").code == 0
    assert lab.call("wait", "a", "--timeout", "60").code == 0
    assert product.read_bytes() == proven
    assert [path.read_bytes() for path in product.parent.glob(".changed-*")] == [flipped]
    assert "is kept as .changed-a.safetensors-1" in lab.home.session("a").log_file.read_text()


def test_over_a_completed_file_that_cannot_be_read_nothing_is_made(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.make("a")
    product, real = lab.home.session("a").product, os.lstat
    make_record(lab.home.session("a"), status="completed", proof=Proof(ok=True, size=1, sha256="0"))

    def fails(path: Any, **more: Any) -> os.stat_result:
        if str(path) == str(product):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, **more)

    monkeypatch.setattr(os, "lstat", fails)
    refused = lab.call("resume", "a")
    assert refused.code == 4
    assert "the file cannot be read: the disk failed" in refused.sentence
    assert "cannot be read" in lab.call("show", "a").out


def test_without_its_records_a_session_goes_on_from_its_checkpoint_and_never_from_nothing(lab: Lab) -> None:
    lab.make("a")
    assert lab.call("start", "a").code == 0
    assert lab.call("wait", "a", "--timeout", "60").code == 0
    folder = lab.home.session("a")
    until(lambda: not Lock.held(folder.lock_file))  # the keeper outlives its last record by a card and a clean-up
    shutil.rmtree(folder.attempts)
    shown = json.loads(lab.call("show", "a", "--json").out)
    assert (shown["state"], shown["remedy"]) == ("unreadable", "fluxtui resume a")
    assert "step-000000030 is there" in shown["reason"]
    refused = lab.call("start", "a")
    assert refused.code == 4
    assert "fluxtui resume a" in refused.sentence
    assert lab.call("resume", "a").code == 0
    assert lab.call("wait", "a", "--timeout", "60").code == 0
    assert "step 1/30" not in lab.call("logs", "a", "-n", "100000").out.partition("COMPLETED")[2]


def test_a_resume_whose_checkpoints_were_taken_away_never_begins_at_step_0_without_a_word(lab: Lab) -> None:
    lab.make("a", train__steps=100_000)
    assert control.start(lab.home, "a") == 1
    until(lambda: bool(commit.committed(lab.home.session("a").checkpoints)))
    control.stop(lab.home, "a")
    assert lab.call("wait", "a", "--timeout", "60").code == 1
    folder = lab.home.session("a")
    newest = commit.committed(folder.checkpoints)[-1]
    shutil.move(folder.checkpoints, folder.path / "elsewhere")
    refused = lab.call("resume", "a")
    assert refused.code == 4
    assert f"a had {newest}, and no checkpoint is in" in refused.sentence
    assert folder.attempt_numbers() == [1]
    assert lab.call("resume", "a", "--accept-changes").code == 0


def test_a_completed_session_whose_spec_is_gone_is_refused_in_one_plain_sentence(lab: Lab) -> None:
    lab.make("a")
    assert (control.start(lab.home, "a"), lab.call("wait", "a", "--timeout", "60").code) == (1, 0)
    folder = lab.home.session("a")
    kept = folder.kept_spec_file.read_text()
    folder.spec_file.unlink()
    refused = lab.call("resume", "a")  # as `show` says
    assert refused.code == 4
    assert refused.sentence == "fluxtui: a is completed; its lost session.toml was made again from its keeper's copy"
    assert folder.spec_file.read_text() == kept
    folder.spec_file.unlink()
    folder.kept_spec_file.unlink()
    refused = lab.call("resume", "a")
    assert refused.code == 4
    said = "a: The spec session.toml is unreadable: it is gone; fix session.toml, or fluxtui rm a."
    assert refused.sentence == f"fluxtui: {said}"
