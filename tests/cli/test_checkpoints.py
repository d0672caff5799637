"""Sessions that begin with another's checkpoint; lists and removals, whatever lies about and whoever was killed on the way."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

from fluxtui.persist.checkpoints import commit
from fluxtui.persist.files.lock import Lock
from fluxtui.persist.sessions.record import Proof
from tests.cli.conftest import Lab
from tests.ui.fabricate import make_record


def checkpoint(lab: Lab, name: str, step: int) -> str:
    commit.commit_checkpoint(lab.home.session(name).checkpoints, made := commit.step_name(step), {"x": b"x"}, {"step": step})
    return made


def test_a_session_that_would_train_no_step_is_refused_with_what_to_set(lab: Lab) -> None:
    lab.make("a", train__steps=30)
    checkpoint(lab, "a", 30)
    refused = lab.call("new", "b", "--from", "a", "--checkpoint", "newest")
    assert refused.code == 2
    assert "--set train.steps=60" in refused.sentence
    assert not lab.home.session("b").exists()
    assert lab.call("new", "b", "--from", "a", "--checkpoint", "newest", "--set", "train.steps=60").code == 0
    checkpoint(lab, "a", 20)
    assert lab.call("new", "c", "--from", "a", "--checkpoint", "step-000000020").code == 0


def test_a_session_that_would_train_no_step_is_refused_where_its_epochs_say_how_far(lab: Lab) -> None:
    lab.make("a", train__steps=0, train__epochs=2)
    make_record(lab.home.session("a"), status="completed", steps=30)
    checkpoint(lab, "a", 30)
    refused = lab.call("new", "b", "--from", "a", "--checkpoint", "newest", "--set", "train.learning_rate=1e-5")
    assert (refused.code, "--set train.steps=60" in refused.sentence) == (2, True)
    assert lab.call("new", "b", "--from", "a", "--checkpoint", "newest", "--set", "train.epochs=4").code == 0


def test_the_command_that_a_completed_session_names_makes_one_that_trains_on(lab: Lab) -> None:
    lab.make("a", train__steps=400)
    checkpoint(lab, "a", 400)
    product = lab.home.session("a").product
    product.write_bytes(b"x")
    proof = Proof(ok=True, size=1, sha256=hashlib.sha256(b"x").hexdigest())
    make_record(lab.home.session("a"), status="completed", steps=400, proof=proof)
    said = re.search(r"fluxtui (new a-2 .*) trains on", lab.call("start", "a").sentence)
    assert said is not None
    assert lab.call(*said[1].split()).code == 0


def test_what_a_session_began_with_may_go_once_it_has_a_checkpoint_of_its_own(lab: Lab) -> None:
    lab.make("a")
    checkpoint(lab, "a", 20)
    assert lab.call("new", "b", "--from", "a", "--checkpoint", "newest").code == 0
    assert lab.call("rm", "a", "--yes").code == 0
    refused = lab.call("start", "b")
    assert (refused.code, "begins with a/step-000000020, which is gone" in refused.sentence) == (3, True)
    checkpoint(lab, "b", 25)
    assert lab.call("resume", "b").code == 0


def test_checkpoints_are_listed_whatever_lies_among_them(lab: Lab) -> None:
    lab.make("a")
    sound = checkpoint(lab, "a", 10)
    folder = lab.home.session("a").checkpoints
    (folder / "step-000000099").write_bytes(b"stray")
    (folder / sound / "gone").symlink_to("nowhere")
    listed = lab.call("checkpoints", "a", "--json")
    assert listed.code == 1
    found = {one["name"]: one["damaged"] for one in json.loads(listed.out)}
    assert found.keys() == {sound, "step-000000099"}
    assert found[sound] is None
    assert "is not a folder" in found["step-000000099"]
    verified = lab.call("checkpoints", "a", "--verify")
    assert (verified.code, "not part of the checkpoint" in verified.out) == (1, True)


def test_what_a_killed_removal_left_goes_with_the_next_one_and_one_under_way_is_left_alone(lab: Lab) -> None:
    lab.make("a")
    left = [lab.home.sessions / f".removed-{name}-00000000" for name in ("dead", "busy")]
    for path in left:
        path.mkdir()
        (path / "training.log").write_text("x")
    lock = Lock.take(left[1] / "lock")
    assert lock is not None
    lab.make("b")
    assert [path.exists() for path in left] == [False, True]
    lock.release()
    assert lab.call("rm", "a", "--yes").code == 0
    assert [path.exists() for path in left] == [False, False]
    assert os.listdir(lab.home.sessions) == ["b"]


def test_what_a_killed_making_left_goes_with_the_next_one_and_one_under_way_is_left_alone(lab: Lab) -> None:
    lab.home.sessions.mkdir(exist_ok=True)
    dead, alive = (lab.home.sessions / f".new-{name}-00000000" for name in ("dead", "alive"))
    for path in (dead, alive):
        (path / "attempts").mkdir(parents=True)
    os.utime(dead, (0, 0))
    lab.make("a")
    assert sorted(os.listdir(lab.home.sessions)) == [".new-alive-00000000", "a"]


def test_a_link_in_the_place_of_the_checkpoints_costs_a_stranger_nothing(lab: Lab, tmp_path: Path) -> None:
    lab.make("a")
    name = checkpoint(lab, "a", 10)
    folder = lab.home.session("a").checkpoints
    folder.rename(tmp_path / "stranger")
    folder.symlink_to(tmp_path / "stranger")
    refused = lab.call("checkpoints", "a", "--rm", name)
    assert (refused.code, "is a link" in refused.sentence) == (1, True)
    assert (tmp_path / "stranger" / name).is_dir()
