"""The ordinary life of a session: from queued to proven, stopped, resumed, withdrawn."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from keeper_lab import Lab, until

from fluxtui.persist import process
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.sessions import overview


def test_a_session_runs_to_completed_with_proof_card_and_marker(lab: Lab):
    one = lab.session()
    record = one.run()
    assert record.status == "completed"
    assert (record.step, record.steps, record.exit_code) == (30, 30, 0)
    assert record.output == str(one.folder.product)
    assert one.folder.card_file.read_text().startswith("---\n")
    rule = "=" * 80
    assert f"{rule}\nTRAINING COMPLETED SUCCESSFULLY\nModel saved: {one.folder.product}\n{rule}\n" in one.log()


def test_what_a_probed_step_took_stays_in_the_record(lab: Lab):
    lab.plan(memory={"planned": 10**10, "probed": 11 * 10**9, "step_seconds": 1.5, "card": "a card\x1b[31m"})
    record = lab.session().run()
    assert record.status == "completed"
    assert record.memory is not None
    assert (record.memory.planned, record.memory.probed, record.memory.step_seconds) == (10**10, 11 * 10**9, 1.5)
    assert record.memory.card.startswith("a card")
    assert "\x1b" not in record.memory.card


def test_a_stop_request_commits_a_checkpoint_and_a_resume_gives_the_same_bytes(lab: Lab):
    lab.plan(step_seconds=0.05)
    one = lab.session(steps=60, every=0)
    keeper = one.start()
    one.await_step(5)
    request = one.request("stop")
    keeper.wait()
    record = one.record()
    assert record.status == "stopped"
    assert record.exit_code == 75
    assert record.checkpoint.startswith("step-")
    assert [ack.outcome for ack in record.acks if ack.id == request] == ["accepted"]
    assert f"TRAINING STOPPED BY USER - checkpoint {one.folder.checkpoints / record.checkpoint}" in one.log()
    lab.plan()
    record = one.run()
    assert record.status == "completed"
    assert record.attempt == 2
    assert f"TRAINING RESUMED - from {one.folder.checkpoints}/step-" in one.log()


def test_sigterm_sigint_and_sighup_to_the_keeper_mean_stop(lab: Lab):
    lab.plan(step_seconds=0.05)
    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        one = lab.session(name.lower(), steps=1000, every=0)
        keeper = one.start()
        one.await_step(3)
        os.kill(keeper.pid, getattr(signal, name))
        assert keeper.wait() == 0
        one.check()
        record = one.record()
        assert (record.status, record.exit_code) == ("stopped", 75)
        assert record.checkpoint


def test_stop_after_epoch_ends_at_an_epoch(lab: Lab):
    lab.plan(step_seconds=0.4)
    one = lab.session(steps=1000, every=0)
    keeper = one.start()
    one.await_step(2)
    assert overview.look(lab.home, one.folder.name).stop_words == ""
    one.request("stop-after-epoch")
    until(lambda: one.record().stops_after_epoch)  # whoever looks sees it, not only who asked
    shown = overview.look(lab.home, one.folder.name)
    assert shown.stop_words.startswith(f"stops after epoch {shown.epoch}, in about ") or shown.state == "stopped"
    keeper.wait()
    record = one.record()
    assert record.status == "stopped"
    assert record.step % 5 == 0
    assert not record.stops_after_epoch  # it is over


def test_checkpoint_and_sample_requests_reach_the_trainer_and_are_acknowledged(lab: Lab):
    lab.plan(step_seconds=0.05)
    one = lab.session(steps=1000, every=0)
    keeper = one.start()
    one.await_step(2)
    ids = [one.request("checkpoint"), one.request("sample")]
    until(lambda: [ack.id for ack in one.record().acks if ack.outcome == "carried out"] == ids)
    assert one.record().checkpoint
    one.request("kill")
    keeper.wait()


def test_kill_ends_at_once_and_is_stopped_with_the_last_checkpoint(lab: Lab):
    lab.plan(step_seconds=0.05, ignore_term=True, deaf=True)
    one = lab.session(steps=1000, every=10)
    keeper = one.start()
    one.await_step(15)
    one.request("kill")
    keeper.wait()
    one.check()
    record = one.record()
    assert (record.status, record.signal) == ("stopped", "SIGKILL")
    assert record.checkpoint == commit.committed(one.folder.checkpoints)[-1]


def test_a_stop_that_the_trainer_does_not_obey_is_carried_through(lab: Lab):
    lab.plan(step_seconds=0.05, ignore_term=True, deaf=True)
    one = lab.session(steps=1000, every=10)
    keeper = one.start("--set", "guard.stop=2")
    one.await_step(15)
    one.request("stop")
    one.await_status("stopping")
    keeper.wait()
    one.check()
    record = one.record()
    assert (record.status, record.signal) == ("stopped", "SIGKILL")
    assert "did not finish in its time" in record.reason
    assert record.overrides == {"guard.stop": 2}


def test_a_stop_before_the_first_step_has_nothing_to_commit_and_takes_the_grace_at_most(lab: Lab):
    lab.plan({"when": "load", "do": "spin"})
    one = lab.session()
    keeper = one.start("--set", "guard.stop=600")
    until(lambda: one.record().phase == "load")
    one.request("stop")
    keeper.wait(10)
    one.check()
    assert one.record().status == "stopped"


def test_the_keeper_is_small_and_loads_no_torch(lab: Lab):
    lab.plan(step_seconds=0.05)
    one = lab.session(steps=1000)
    keeper = one.start()
    one.await_step(20)
    status = dict(line.split(":", 1) for line in Path(f"/proc/{keeper.pid}/status").read_text().splitlines())
    maps = Path(f"/proc/{keeper.pid}/maps").read_text()
    assert int(status["VmRSS"].split()[0]) < 40 * 1024
    assert int(status["Threads"]) == 1
    assert not any(name in maps for name in ("torch", "numpy", "textual"))
    one.request("kill")
    keeper.wait()


def test_on_end_runs_detached_with_name_and_state(lab: Lab, tmp_path):
    said = tmp_path / "said"
    lab.home.config.write_text(f"on_end = 'echo \"$FLUXTUI_NAME $FLUXTUI_STATE\" > {said}; sleep 2'\n")
    one = lab.session()
    assert one.run().status == "completed"
    until(lambda: said.exists() and said.read_text() == "one completed\n")


def test_records_hold_who_can_be_signalled(lab: Lab):
    lab.plan(step_seconds=0.05)
    one = lab.session(steps=1000)
    keeper = one.start()
    record = one.await_step(3)
    assert process.is_alive(record.keeper)
    assert record.keeper.pid == keeper.pid
    assert record.keeper.run_id
    assert all(process.is_alive(rank) for rank in record.ranks)
    assert {rank.run_id for rank in record.ranks} == {record.run_id}
    one.request("kill")
    keeper.wait()


def test_a_retry_and_a_resume_stand_at_the_step_they_go_back_to(lab: Lab):
    lab.plan({"attempt": 1, "at": 17, "do": "segfault"}, step_seconds=0.05)
    one = lab.session(steps=1000, every=10)
    keeper = one.start()
    until(lambda: one.record().attempt == 2)
    two = one.record()
    if two.status == "queued":  # it is looked at now and then: by its log at the latest
        assert two.step == 10
    until(lambda: ", back to step 10, after: crashed by SIGSEGV" in one.log())
    one.await_step(25)
    one.request("kill")
    keeper.wait()
    record = one.record()
    at = int(record.checkpoint.removeprefix("step-"))
    seen = overview.look(lab.home, one.folder.name)
    assert (seen.step, seen.standing) == (record.step, at)
    assert at < record.step
    assert f"TRAINING STOPPED BY USER - killed by you, checkpoint {one.folder.checkpoints / record.checkpoint}" in one.log()
