"""Faults 21, 22, 25, 26, 40 and the end of ranks: how a trainer ended, said truly."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path

import pytest
from keeper_lab import SLOW, Lab, fast, removed, until
from standin import product_bytes

from fluxtui.persist.files import tensorfile, toml
from fluxtui.persist.sessions.record import Result

ONCE = fast(auto_resume=False)


def test_21_exit_0_half_way_is_failed_without_proof(lab: Lab):
    lab.plan({"at": 15, "do": "exit", "code": 0})
    one = lab.session()
    record = one.run()
    assert (record.status, record.exit_code, len(one.attempts)) == ("failed", 0, 1)
    assert record.reason == "exit 0 without proof: there is no result file"
    assert "ERROR: TRAINING FAILED - exit 0 without proof" in one.log()
    assert "SUCCESSFULLY" not in one.log()


def test_22_a_perfect_product_of_an_earlier_attempt_proves_nothing(lab: Lab):
    one = lab.session()
    assert one.run().status == "completed"
    kept = one.folder.product.read_bytes(), one.folder.result_file.read_bytes()
    one.folder.product.unlink()
    lab.plan({"at": 0, "do": "exit", "code": 0}, {"at": 30, "do": "exit", "code": 0}, product=False)
    one.folder.product.write_bytes(kept[0])
    one.folder.result_file.write_bytes(kept[1])
    record = one.start("--resume", "step-000000030").wait() == 0 and one.record()
    assert (record.status, record.attempt) == ("failed", 2)
    assert record.reason == "exit 0 without proof: the result file is of another attempt"


def test_22_a_product_of_another_session_with_a_forged_result_fails_on_its_metadata(lab: Lab):
    lab.plan(product=False, step_seconds=0.1)
    one = lab.session(steps=20)
    keeper = one.start()
    nonce = one.await_step(5).nonce
    data = product_bytes(b"x", "another session", one.record().recipe_sha256, 20)
    one.folder.product.write_bytes(data)
    forged = Result(
        nonce=nonce,
        attempt=1,
        session_id=one.spec.id,
        recipe_sha256=one.record().recipe_sha256,
        step=20,
        file=one.folder.product.name,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        tensors_sha256=tensorfile.tensors_sha256(one.folder.product),
    )
    toml.write(one.folder.result_file, forged)
    keeper.wait()
    assert one.record().reason == "exit 0 without proof: the product's metadata names another session id"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("missing", "the product is missing"),
        ("short", "the product has"),
        ("flipped", "the product's bytes are not those of the result file"),
        ("link", "cannot be read"),
        ("fifo", "not a regular file"),
    ],
)
def test_a_product_that_is_not_what_was_claimed_is_never_completed(lab: Lab, tmp_path: Path, spoil, words):
    flag = tmp_path / "at_end"
    lab.plan({"when": "end", "do": "wait_for", "reached": str(flag), "until": str(tmp_path / "go")})
    one = lab.session()
    keeper = one.start()
    until(flag.exists)
    product = one.folder.product
    data = product.read_bytes()
    product.unlink()
    if spoil == "short":
        product.write_bytes(data[:-1])
    elif spoil == "flipped":
        product.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif spoil == "link":
        (tmp_path / "elsewhere").write_bytes(data)
        product.symlink_to(tmp_path / "elsewhere")
    elif spoil == "fifo":
        os.mkfifo(product)
    (tmp_path / "go").touch()
    keeper.wait()
    record = one.record()
    assert record.status == "failed"
    assert words in record.reason


def test_wrong_numbers_are_found_by_the_prover(lab: Lab):
    """The claim holds in itself, but the tensors are not those of the recipe: only the proof can know."""
    lab.plan(wrong_state=True)
    one = lab.session()
    record = one.run()
    assert record.reason == "exit 0 without proof: the bytes are not those of an uninterrupted run"
    assert record.proof is not None
    assert not record.proof.ok


@pytest.mark.parametrize(
    ("how", "words"), [("exit", "the proving process gave no answer (exit code 3"), ("hang", "hung in prove for")]
)
def test_a_prover_that_dies_or_hangs_proves_nothing(lab: Lab, how, words):
    lab.plan(**({"prover_exit": 3} if how == "exit" else {"prove_seconds": 3600}))
    one = lab.session(guard=fast(prove=2))
    record = one.run()
    assert record.status == "failed"
    assert record.reason.startswith("exit 0 without proof: ")
    assert words in record.reason


@pytest.mark.parametrize(("deed", "name"), [("segfault", "SIGSEGV"), ("abort", "SIGABRT")])
def test_26_a_crash_is_named_its_stack_is_in_the_log_and_it_is_tried_again(lab: Lab, deed, name):
    lab.plan({"attempt": 1, "at": 15, "do": deed})
    one = lab.session()
    record = one.run()
    first = one.record(1)
    assert (first.status, first.signal, first.exit_code) == ("failed", name, None)
    assert first.reason == f"crashed by {name} in train"
    assert f"in do_{deed}" in one.log()
    assert f"ERROR: TRAINING CRASHED - crashed by {name} in train" in one.log()
    assert record.status == "completed"


@pytest.mark.parametrize(("code", "tries"), [(76, 1), (80, 1), (81, 2), (9, 2)])
def test_exit_codes_of_real_processes_are_tried_again_as_the_table_says(lab: Lab, code, tries):
    lab.plan({"attempt": 1, "at": 12, "do": "exit", "code": code, "error": "the reason", "remedy": "what to change"})
    one = lab.session()
    one.run()
    first = one.record(1)
    assert (first.status, first.exit_code, len(one.attempts)) == ("failed", code, tries)
    assert "the reason" in first.reason
    assert first.remedy == "what to change"
    assert first.checkpoint == "step-000000010"


@pytest.mark.root
def test_25_the_oom_killer_is_named_and_not_tried_again(lab: Lab, tmp_path: Path):
    group = Path("/sys/fs/cgroup/memory") / f"fluxtui-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(150 * 2**20))
        lab.plan({"at": 15, "do": "eat_memory"})
        one = lab.session()
        keeper = one.start(wrap=["/bin/sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"])
        keeper.wait()
        assert int((group / "memory.oom_control").read_text().split("oom_kill ")[1]) >= 1  # the fault happened
        one.check()
        record = one.record()
        assert (record.status, record.signal, len(one.attempts)) == ("failed", "SIGKILL", 1)
        assert record.reason.startswith("host memory: the trainer was killed by the kernel's OOM killer")
        assert "peak was" in record.reason
        assert record.checkpoint == "step-000000010"
    finally:
        until(lambda: removed(group), 10)


def test_25_gpu_memory_keeps_the_trainers_sentence(lab: Lab):
    lab.plan(
        {
            "at": 12,
            "do": "exit",
            "code": 79,
            "error": "the GPU's memory is used up (peak 23.1 GiB of 24.0 GiB)",
            "remedy": "rank 8",
        }
    )
    one = lab.session()
    record = one.run()
    assert record.reason == "the GPU's memory is used up (peak 23.1 GiB of 24.0 GiB)"
    assert (record.remedy, len(one.attempts)) == ("rank 8", 1)


@pytest.mark.root
def test_25_a_full_shared_memory_explains_sigbus(lab: Lab, needs):
    """1 MB of it, in a mount namespace of the keeper's own, as a container has it."""
    lab.plan({"at": 15, "do": "fill_shared_memory"})
    one = lab.session(guard=ONCE)
    small = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"'
    keeper = one.start(wrap=[needs("unshare"), "-m", "/bin/sh", "-c", small, "sh"])
    keeper.wait()
    one.check()
    record = one.record()
    assert (record.status, record.signal) == ("failed", "SIGBUS")
    assert record.reason == "crashed by SIGBUS in train: /dev/shm is full"
    assert record.remedy.startswith("make room in /dev/shm (a container's --shm-size), then fluxtui resume")
    assert "in do_fill_shared_memory" in one.log()


def test_40_an_engine_that_cannot_import_fails_at_once_with_that_reason(lab: Lab, tmp_path: Path):
    (tmp_path / "poison").mkdir()
    (tmp_path / "poison" / "broken_trainer.py").write_text("import a_module_that_is_not_there\n")
    one = lab.session()
    began = time.monotonic()
    keeper = one.start(FLUXTUI_TRAINER="broken_trainer", PYTHONPATH=str(tmp_path / "poison"))
    keeper.wait()
    record = one.record()
    assert time.monotonic() - began < 5 * SLOW
    assert (record.status, len(one.attempts)) == ("failed", 1)
    assert record.reason == "the engine cannot start: ModuleNotFoundError: No module named 'a_module_that_is_not_there'"


def test_40_no_descriptors_left_fails_with_that_reason(lab: Lab):
    ends = set()
    for limit in (8, 16, 24, 32, 40, 48):
        one = lab.session(f"limit-{limit}")
        keeper = one.start(may_fail=True, wrap=["/bin/sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh"])
        assert keeper.wait(20) == (0 if keeper.answer["ok"] else 1)
        if keeper.answer["ok"]:
            assert one.record().status == "completed"  # whoever is let in has enough to the end
        else:
            assert "raise `ulimit -n`" in keeper.answer["error"] or "open files" in keeper.answer["error"]
            assert one.attempts == []
        ends.add(keeper.answer["ok"])
    assert ends == {True, False}


@pytest.mark.root
def test_40_no_processes_left_fails_with_that_reason(lab: Lab):
    group = Path("/sys/fs/cgroup/pids") / f"fluxtui-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / "pids.max").write_text("1")
        one = lab.session()
        keeper = one.start(wrap=["/bin/sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"])
        keeper.wait()
        assert int((group / "pids.events").read_text().split()[1]) >= 1  # the fault happened
        record = one.record()
        assert record.status == "failed"
        assert record.reason.startswith("no process can be started")
    finally:
        until(lambda: removed(group), 10)


def test_ranks_are_spawned_with_a_rendezvous_and_end_together(lab: Lab):
    one = lab.session(ranks=2)
    record = one.run()
    assert record.status == "completed"
    assert "rank 1" in one.log()
    assert (record.world_size, len(record.ranks)) == (2, 2)  # the one that proved is none of them
    assert record.prover not in (None, *record.ranks)


def test_the_death_of_any_rank_ends_all_and_names_it(lab: Lab):
    lab.plan({"rank": 1, "at": 5, "do": "segfault"}, step_seconds=0.1)
    one = lab.session(steps=100, ranks=2, guard=ONCE)
    keeper = one.start()
    record = one.await_step(3)
    assert len(record.ranks) == 2
    keeper.wait()
    one.check()
    record = one.record()
    assert (record.status, record.signal) == ("failed", "SIGSEGV")
    assert record.reason == "rank 1: crashed by SIGSEGV in train"


def test_the_hang_of_all_ranks_names_each(lab: Lab):
    lab.plan({"rank": 0, "at": 12, "do": "hang"}, {"rank": 1, "at": 12, "do": "hang"})
    one = lab.session(ranks=2, guard=ONCE)
    record = one.run()
    assert record.status == "failed"
    assert "rank 0 in train for" in record.reason
    assert "rank 1 in train for" in record.reason


def test_a_flood_in_the_log_is_capped_and_blocks_nobody(lab: Lab):
    lab.plan({"at": 5, "do": "flood", "megabytes": 200}, {"at": 25, "do": "hang", "seconds": 4 * SLOW})  # time for the cap
    one = lab.session(guard=fast(first_steps=30, step=30, batch=30))
    assert one.run().status == "completed"
    assert one.folder.log_file.stat().st_size < 64 * 2**20
    assert one.folder.path.joinpath("training.log.1").stat().st_size <= 200 * 2**20
    shutil.rmtree(one.folder.path)
