"""Killed anywhere, a run ends with the bytes of one that was never interrupted; what changed is refused."""

from __future__ import annotations

import random
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import fluxtui
from fluxtui.engine.family.flux1 import components
from fluxtui.engine.remedies import filled
from fluxtui.engine.trainer.refusal import Refusal
from fluxtui.engine.wire import TrainerExit
from fluxtui.persist import metrics
from fluxtui.persist.checkpoints.commit import remove_checkpoint, set_aside, verify_checkpoint
from fluxtui.persist.errors import DamagedError, RefusedError
from fluxtui.persist.settings import recipe
from tests.trainer.job import Bench
from tests.trainer.tiny_flux import little_pictures

NewBench = Callable[..., Bench]
EXACT: dict[str, Any] = {
    "train__steps": 12,
    "train__gradient_accumulation": 2,
    "train__batch_size": 1,
    "lora__dropout": 0.2,
    "checkpoint__every_steps": 2,
    "dataset__caption_dropout": 0.3,
}


def test_sigkill_at_random_points_gives_the_same_bytes(new_bench: NewBench) -> None:
    whole = new_bench("whole", **EXACT)
    whole.run_here()
    killed = new_bench("killed", **EXACT)
    chance = random.Random(5)
    for _ in range(2):
        running = killed.start()
        running.until_step(chance.randrange(1, 9))
        running.signal(signal.SIGKILL)
        running.wait()
    ended = killed.train()
    assert ended.code == TrainerExit.DONE, ended.log
    assert killed.result().tensors_sha256 == whole.result().tensors_sha256
    ours, theirs = (metrics.read_all(bench.folder.metrics_file) for bench in (killed, whole))
    assert [(m.step, m.epoch, m.loss, m.learning_rate) for m in ours] == [
        (m.step, m.epoch, m.loss, m.learning_rate) for m in theirs
    ]


def test_a_stop_commits_and_a_resume_goes_on_from_there(new_bench: NewBench) -> None:
    whole = new_bench("whole", **EXACT)
    whole.run_here()
    stopped = new_bench("stopped", **EXACT | {"checkpoint__every_steps": 0})
    running = stopped.start()
    running.until_step(3)
    running.signal(signal.SIGTERM)
    ended = running.wait()
    assert ended.code == TrainerExit.STOPPED, ended.log
    (name,) = stopped.checkpoints()
    assert name in {line.checkpoint for line in ended.lines}
    again = stopped.train()
    assert again.code == TrainerExit.DONE, again.log
    assert {line.resumed_from for line in again.lines} == {"", name}
    assert stopped.result().tensors_sha256 == whole.result().tensors_sha256


def test_requests_are_carried_out_and_acknowledged(new_bench: NewBench) -> None:
    bench = new_bench(
        train__steps=400,
        checkpoint__every_steps=0,
        sample__prompts=["a square"],
        sample__steps=1,
        sample__width=64,
        sample__height=64,
    )
    running = bench.start()
    running.until_step(2)
    asked = [running.request(verb) for verb in ("checkpoint", "sample")]
    with running.changed:
        running.changed.wait_for(lambda: any(line.acknowledged == asked[-1] for line in running.lines), timeout=60)
    assert len(bench.checkpoints()) == 1
    assert len(list(bench.folder.samples.glob("step-*/00.png"))) == 1
    running.request("stop-after-epoch")
    ended = running.wait()
    assert ended.code == TrainerExit.STOPPED, ended.log
    assert {line.acknowledged for line in ended.lines} >= set(asked)
    facts = verify_checkpoint(bench.folder.checkpoints / bench.checkpoints()[-1]).facts
    assert int(facts["step"]) % 3 == 0  # 5 pictures by twos: an epoch has 3 steps
    assert int(facts["step"]) < 400
    ends = [(line.step, line.epoch_end) for line in ended.lines if line.epoch_end is not None and line.step is not None]
    assert ends[0] == (0, 3)
    assert all(end == -(-step // 3) * 3 for step, end in ends[1:]), ends  # the step with which its epoch ends


def test_a_checkpoint_that_was_taken_away_since_is_written_again_by_a_stop(new_bench: NewBench) -> None:
    bench = new_bench(**EXACT)
    run = bench.prepare_here()
    run.commit()
    shutil.rmtree(bench.folder.checkpoints / "step-000000000")
    run.commit()
    run.close()
    assert verify_checkpoint(bench.folder.checkpoints / "step-000000000").facts["step"] == 0


def test_a_stop_before_training_began_claims_no_checkpoint(new_bench: NewBench) -> None:
    bench = new_bench("early", **EXACT)
    running = bench.start()
    running.request("stop")
    ended = running.wait()
    assert (ended.code, ended.error) == (TrainerExit.STOPPED, "stopped before training began"), ended.log
    assert bench.checkpoints() == []


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_used(new_bench: NewBench) -> None:
    whole, bench = new_bench("whole", **EXACT), new_bench("damaged", **EXACT)
    whole.run_here()
    bench.run_here()
    shutil.rmtree(bench.folder.checkpoints / bench.checkpoints()[-1])
    newest = bench.folder.checkpoints / bench.checkpoints()[-1] / "adapter.safetensors"
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    run = bench.run_here()
    assert run.state.step == 12
    assert bench.result().tensors_sha256 == whole.result().tensors_sha256
    assert len(list(bench.folder.checkpoints.glob(".corrupt-*"))) == 1


def test_where_every_checkpoint_is_damaged_nothing_starts_from_nothing(new_bench: NewBench) -> None:
    bench = new_bench(**EXACT)
    bench.run_here()
    for name in bench.checkpoints():
        (bench.folder.checkpoints / name / "counters.json").write_text("{}")
    with pytest.raises(DamagedError, match="no checkpoint"):
        bench.run_here()


def test_a_finished_run_trains_nothing_and_claims_anew(new_bench: NewBench) -> None:
    bench = new_bench(**EXACT)
    bench.run_here()
    before = bench.result()
    lines = bench.folder.metrics_file.read_bytes()
    bench.folder.product.unlink()
    bench.run_here()
    after = bench.result()
    assert bench.folder.metrics_file.read_bytes() == lines
    assert (after.sha256, after.tensors_sha256) == (before.sha256, before.tensors_sha256)
    assert (after.attempt, after.nonce) == (2, bench.nonce) != (before.attempt, before.nonce)


def test_what_a_trainer_killed_at_its_end_left_half_removed_is_swept_by_the_resume(new_bench: NewBench) -> None:
    bench = new_bench(train__steps=2)
    bench.run_here()
    half = bench.folder.checkpoints / ".tmp-step-000000001-0123456789abcdef"
    half.mkdir()
    (half / "adapter.safetensors").write_bytes(bytes(100))
    bench.run_here(resume="auto")
    assert not half.exists()
    assert bench.checkpoints() == ["step-000000002"]


def test_a_named_checkpoint_sets_the_newer_ones_aside(new_bench: NewBench) -> None:
    bench = new_bench(**EXACT)
    bench.run_here()
    first, hashes = bench.checkpoints()[0], bench.result().tensors_sha256
    run = bench.prepare_here(resume=first)
    assert run.state.step == int(first[-9:])
    assert bench.checkpoints() == [first]
    assert len(list(bench.folder.checkpoints.glob(".newer-*"))) == 3
    bench.run_here()
    assert bench.result().tensors_sha256 == hashes


def test_a_start_from_nothing_sets_every_checkpoint_aside(new_bench: NewBench) -> None:
    bench = new_bench(**EXACT)
    bench.run_here()
    before, product = bench.checkpoints(), bench.result().tensors_sha256
    run = bench.prepare_here(resume="")
    assert (run.state.step, bench.checkpoints()) == (0, [])
    assert len(list(bench.folder.checkpoints.glob(".newer-*"))) == len(before)
    bench.run_here()
    assert bench.result().tensors_sha256 == product


def test_a_session_that_begins_beyond_its_end_is_refused(new_bench: NewBench) -> None:
    long, short = new_bench("long", **EXACT), new_bench("short", **EXACT | {"train__steps": 6})
    long.run_here()
    with pytest.raises(Refusal, match="begins at step 8") as refused:
        short.run_here(start_from=str(long.folder.checkpoints / "step-000000008"))
    steps = short.spec.train.steps
    assert filled(refused.value.remedy, short.spec, False, list).startswith(f"set train.steps={8 + steps}: fluxtui new ")


def test_epochs_that_became_shorter_go_on_with_the_next_one(new_bench: NewBench, tmp_path: Path) -> None:
    data = little_pictures(tmp_path / "own", count=5)
    bench = new_bench(data=data, **EXACT | {"train__gradient_accumulation": 1, "checkpoint__every_steps": 4})
    bench.run_here()
    for name in bench.checkpoints()[1:]:
        remove_checkpoint(bench.folder.checkpoints, name)  # what stays is step 4 of an epoch of 5
    for number in (3, 4):
        for ending in ("png", "txt"):
            (data / f"{number:02d}.{ending}").unlink()
    run = bench.run_here(accept_changes=True)
    assert (run.state.step, run.state.inexact_since) == (12, 4)


def test_a_changed_recipe_is_refused_with_the_difference_and_accepted_on_demand(new_bench: NewBench) -> None:
    bench = new_bench(**EXACT)
    bench.run_here()
    set_aside(bench.folder.checkpoints, bench.checkpoints()[-1])
    bench.spec = recipe.apply(bench.spec, {"train.learning_rate": 5e-4})
    with pytest.raises(RefusedError, match=r"train\.learning_rate"):
        bench.run_here()
    run = bench.run_here(accept_changes=True)
    assert run.state.inexact_since == 10
    assert bench.run_here().state.inexact_since == 10  # and stays known, though nothing changed since
    bench.spec = recipe.apply(bench.spec, {"train.learning_rate": 6e-4})
    assert bench.run_here(accept_changes=True).state.inexact_since == 10, "a second change took the first one's place"


def test_a_changed_library_is_refused(new_bench: NewBench, monkeypatch: pytest.MonkeyPatch) -> None:
    from fluxtui.engine.trainer.checkpoint import committer as checkpoints

    bench = new_bench(**EXACT)
    bench.run_here()
    monkeypatch.setattr(checkpoints, "versions", lambda: {"torch": "99.0"})
    with pytest.raises(RefusedError, match=r"torch was .*, is 99\.0"):
        bench.run_here()
    monkeypatch.undo()
    monkeypatch.setattr(checkpoints, "__version__", "99.0")  # what computes is not what computed
    with pytest.raises(RefusedError, match=rf"FluxTUI was {re.escape(fluxtui.__version__)}, is 99\.0"):
        bench.run_here()


@pytest.mark.parametrize("part", ["transformer", "text_encoder_2"])
def test_a_model_whose_weights_were_replaced_is_refused_and_accepted_on_demand(
    new_bench: NewBench, tmp_path: Path, tiny_dev: Path, part: str
) -> None:
    model = tmp_path / "own-model"
    shutil.copytree(tiny_dev, model)
    bench = new_bench(model=model, train__steps=2)
    bench.run_here()
    (file,) = (model / part).glob("*.safetensors")
    weights = bytearray(file.read_bytes())
    weights[-3] ^= 1  # of the last number: no size, name or header says so
    file.write_bytes(weights)
    with pytest.raises(RefusedError, match="the model's files changed"):
        bench.run_here()
    assert bench.run_here(accept_changes=True).state.inexact_since == 2


def test_a_byte_of_the_weights_that_no_sample_of_a_large_file_holds_is_noticed(
    new_bench: NewBench, tmp_path: Path, tiny_dev: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(components, "_HASH_WHOLE", 0)  # as if the file were large: two samples, its beginning and its end
    monkeypatch.setattr(components, "_HASH_SAMPLES", 2)
    monkeypatch.setattr(components, "_HASH_SAMPLE", 64)
    model = tmp_path / "own-model"
    shutil.copytree(tiny_dev, model)
    bench = new_bench(model=model, train__steps=2)
    key = components.pipeline_at(model).model_key
    bench.run_here()
    (file,) = (model / "transformer").glob("*.safetensors")
    weights = bytearray(file.read_bytes())
    weights[-len(weights) // 3] ^= 1
    file.write_bytes(weights)
    assert components.pipeline_at(model).model_key == key
    with pytest.raises(RefusedError, match="bytes of the model's weights changed"):
        bench.run_here()
    weights[-len(weights) // 3] ^= 1
    file.write_bytes(weights)
    bench.run_here()


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ({"hardware.preset": "24GB"}, "the base's precision was float32, is int8"),
        ({"hardware.compile": True}, "hardware.compile was no, is yes"),
    ],
)
def test_hardware_settings_that_change_numbers_are_refused_and_accepted_on_demand(
    new_bench: NewBench, sets: dict[str, Any], words: str
) -> None:
    """[hardware] may change at a resume: what of it would make other numbers does not go unnoticed."""
    bench = new_bench(train__steps=2)
    bench.run_here()
    bench.spec = recipe.apply(bench.spec, sets)
    with pytest.raises(RefusedError, match=words):
        bench.run_here()
    assert bench.run_here(accept_changes=True).state.inexact_since == 2


def test_checkpoints_from_before_model_and_precision_were_noted_go_on(
    new_bench: NewBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fluxtui.engine.trainer.checkpoint import committer as checkpoints

    bench, noted = new_bench(train__steps=2), checkpoints.facts
    with monkeypatch.context() as before:
        newer = ("model", "precision", "compiled", "fluxtui")
        before.setattr(checkpoints, "facts", lambda *about: {k: v for k, v in noted(*about).items() if k not in newer})
        bench.run_here()
    assert bench.run_here().state.inexact_since is None


def test_a_changed_data_set_is_refused_and_marks_what_follows(new_bench: NewBench, tmp_path: Path) -> None:
    data = little_pictures(tmp_path / "own", count=5)
    bench = new_bench(data=data, **EXACT)
    bench.run_here()
    (data / "00.txt").write_text("something else\n")
    with pytest.raises(Exception, match=r"00\.txt"):
        bench.run_here()
    assert bench.run_here(accept_changes=True).state.inexact_since == 12


def test_another_session_goes_on_with_weights_optimizer_and_counters(new_bench: NewBench) -> None:
    long = new_bench("long", **EXACT | {"train__scheduler": "constant"})
    long.run_here()
    short = new_bench("short", **EXACT | {"train__scheduler": "constant", "train__steps": 8})
    short.run_here()
    other = new_bench("other", **EXACT | {"train__scheduler": "constant"})
    run = other.run_here(start_from=str(short.folder.checkpoints / "step-000000008"))
    assert run.state.step == 12
    assert other.result().tensors_sha256 == long.result().tensors_sha256


@pytest.mark.parametrize(
    ("optimizer", "module", "learnt"),
    [
        ("adamw", "torch", ()),
        ("prodigy", "prodigyopt", ("d", "d_max", "k")),
        ("schedule_free", "schedulefree", ("k", "weight_sum")),
    ],
)
def test_what_goes_on_keeps_what_was_learnt_and_takes_the_settings_of_the_new_recipe(
    new_bench: NewBench, optimizer: str, module: str, learnt: tuple[str, ...]
) -> None:
    pytest.importorskip(module, reason="pip install 'fluxtui[optimizers]'")
    rate = 1.0 if optimizer == "prodigy" else 1e-3
    sets = {"train__optimizer": optimizer, "train__learning_rate": rate, "train__scheduler": "constant", "train__steps": 3}
    first = new_bench("first", **sets)
    before = first.run_here().optimizer.param_groups[0]
    wanted = {"train__weight_decay": 0.5, "train__betas": [0.5, 0.75], "train__eps": 1e-4}
    checkpoint = str(first.folder.checkpoints / "step-000000003")
    other = new_bench("other", **sets | wanted).prepare_here(start_from=checkpoint).optimizer.param_groups[0]
    assert (other["weight_decay"], tuple(other["betas"]), other["eps"]) == (0.5, (0.5, 0.75), 1e-4)
    assert {key: other[key] for key in learnt} == {key: before[key] for key in learnt}
    assert all(before[key] for key in learnt)
    if optimizer == "adamw":
        first.spec = recipe.apply(first.spec, {"train.weight_decay": 0.25})
        assert first.prepare_here(accept_changes=True).optimizer.param_groups[0]["weight_decay"] == 0.25
        # B in a group of its own now: nothing of the state is lost
        split = new_bench("split", **sets, train__lora_plus=2.0).prepare_here(start_from=checkpoint).optimizer
        assert len(split.param_groups) == 2
        assert all(state["step"].item() == 3 for state in split.state.values())


def test_two_trainers_of_one_session_never_write_together(new_bench: NewBench) -> None:
    bench = new_bench(train__steps=2000)
    first = bench.start()
    first.until_step(1)
    second = bench.train()
    assert second.code == TrainerExit.CONFIGURATION
    assert "Another trainer" in second.error
    first.signal(signal.SIGTERM)
    assert first.wait().code == TrainerExit.STOPPED


def test_a_job_that_is_none_is_refused(new_bench: NewBench) -> None:
    ended = new_bench().train(spec=msgspec.UNSET)
    assert ended.code == TrainerExit.CONFIGURATION
    assert "standard input" in ended.error
