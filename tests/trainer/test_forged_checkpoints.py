"""Checkpoints that verify and are not what they seem, as a hand and no disk makes them; and what a changed recipe is told."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from fluxtui.engine.trainer import runtime
from fluxtui.engine.trainer.checkpoint import state as states
from fluxtui.engine.trainer.checkpoint.committer import changes, facts
from fluxtui.engine.trainer.checkpoint.state import LoopState
from fluxtui.engine.trainer.loop import train
from fluxtui.persist.checkpoints.commit import MANIFEST, commit_checkpoint, step_name, verify_checkpoint
from fluxtui.persist.errors import DamagedError, UsageError
from fluxtui.persist.settings import keys, recipe
from fluxtui.persist.settings.keys import Key
from fluxtui.persist.settings.spec import RECIPE_TABLES, Spec
from tests.trainer.job import Bench

NewBench = Callable[..., Bench]
NO_RUN = "does not say where a run is"


def forge(checkpoint: Path, file: str, content: bytes | None) -> None:
    """Exchange or remove a file of a checkpoint, with a MANIFEST whose hashes are those of what lies there then."""
    facts = verify_checkpoint(checkpoint).facts
    files = {path.name: path.read_bytes() for path in checkpoint.iterdir() if path.name != MANIFEST}
    files.pop(file)
    shutil.rmtree(checkpoint)
    commit_checkpoint(checkpoint.parent, checkpoint.name, files if content is None else files | {file: content}, facts)


def test_one_that_verifies_and_says_nonsense_is_set_aside_and_the_one_before_used(new_bench: NewBench) -> None:
    """It is no crash, and is not tried again the same way."""
    bench = new_bench(train__steps=4, checkpoint__every_steps=2, train__batch_size=1)
    bench.run_here()
    parent = bench.folder.checkpoints
    before, newest = bench.checkpoints()
    counters = json.loads((parent / newest / "counters.json").read_bytes())
    sound = {path.name: path.read_bytes() for path in (parent / newest).iterdir() if path.name != MANIFEST}
    about = verify_checkpoint(parent / newest).facts

    def other(**values: object) -> bytes:
        return json.dumps(counters | values).encode()

    cases = (
        ("counters.json", b"not JSON", NO_RUN),
        ("counters.json", b"[" * 100_000, NO_RUN),
        ("counters.json", b"[1]", NO_RUN),
        ("counters.json", other(step=-5), NO_RUN),
        ("counters.json", other(step="4"), NO_RUN),
        ("counters.json", other(groups=[]), NO_RUN),
        ("counters.json", other(step=3), "is that of step 3, whatever the folder is called"),
        ("counters.json", None, "has no counters.json"),
        ("adapter.safetensors", b"x" * 100, "adapter.safetensors"),
        ("optimizer.safetensors", None, "has no optimizer.safetensors"),
    )
    for file, content, words in cases:
        forge(parent / newest, file, content)
        verify_checkpoint(parent / newest)  # the forgery is a good one
        told: list[str] = []
        assert states.find(parent, "auto", lambda _, why, told=told: told.append(why)) == before
        assert words in told[0]
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(parent / newest)
        commit_checkpoint(parent, newest, sound, about)
    assert states.find(parent, "auto", lambda _, __: pytest.fail("the sound one was set aside")) == newest


def test_an_optimizer_of_another_adapter_is_refused_in_one_sentence(new_bench: NewBench) -> None:
    bench = new_bench(train__steps=2, train__batch_size=1)
    bench.run_here()
    newest = bench.folder.checkpoints / bench.checkpoints()[-1]
    moments = states.from_safetensors(newest / states.OPTIMIZER_FILE)
    forged = {f"stranger/{name.rpartition('/')[2]}": tensor for name, tensor in moments.items()}
    forge(newest, states.OPTIMIZER_FILE, b"".join(states.to_safetensors(forged)))
    with pytest.raises(DamagedError, match="'stranger' is none of its weights"):
        bench.run_here()


def test_a_session_keeps_what_it_commits_beside_newer_checkpoints_of_another(new_bench: NewBench) -> None:
    """Copied in while it trains, they were counted as its own: each commit deleted what it had just written."""
    bench = new_bench(train__steps=4, checkpoint__every_steps=2, train__batch_size=1)
    run = bench.prepare_here()
    others = [step_name(step) for step in range(100, 106)]
    for step, name in enumerate(others, start=100):
        commit_checkpoint(bench.folder.checkpoints, name, {"adapter.safetensors": b"x"}, {"step": step, "session_id": "other"})
    train(run)
    assert bench.checkpoints() == ["step-000000002", "step-000000004", *others]


def test_a_manifest_that_says_nonsense_of_recipe_and_versions_makes_everything_changed(new_bench: NewBench) -> None:
    bench = new_bench(train__steps=2)
    now = described(bench, bench.spec)
    for nonsense in ("no JSON", "[1]", "[" * 100_000):
        found = changes(now | {"recipe": nonsense, "versions": nonsense, "recipe_sha256": "0"}, now)
        assert "train.steps was absent, is 2" in found[0]
        assert any(phrase.startswith("torch was absent, is ") for phrase in found)


def test_each_key_of_the_recipe_that_was_changed_is_named_with_both_values(new_bench: NewBench) -> None:
    bench = new_bench(train__steps=2)
    then = described(bench, bench.spec)
    recipe_keys = [key for key in keys.all_keys() if key.table in RECIPE_TABLES]
    assert {key.table for key in recipe_keys} == set(RECIPE_TABLES)
    for key in recipe_keys:
        changed = recipe.apply(bench.spec, {key.dotted: other_value(key, value_of(bench.spec, key))})
        was, is_now = (keys.show(msgspec.to_builtins(value_of(spec, key))) for spec in (bench.spec, changed))
        assert changes(then, described(bench, changed)) == [f"the recipe changed ({key.dotted} was {was}, is {is_now})"]


def value_of(spec: Spec, key: Key) -> Any:
    return getattr(getattr(spec, key.table), key.name)


def other_value(key: Key, value: object) -> object:
    """A value that the key takes, and that is not its value now."""
    lists = [[512], [0.5, 0.6], ["single_*=4"], ["/elsewhere"], [{"path": "/elsewhere"}]]
    words = ("other", ".cap", "other/step-000000480")
    for candidate in (*key.choices, True, False, 0, 1, 2, 0.25, 0.5, 3.5, 16, 64, 100, *words, *lists):
        with contextlib.suppress(UsageError):
            if (fitting := keys.check(key.dotted, candidate)) != value:
                return fitting
    raise AssertionError(f"no other value is known for {key.dotted}")


def described(bench: Bench, spec: Spec) -> dict[str, str | int]:
    """What a MANIFEST would say of a checkpoint of this spec, all else being equal."""
    job = msgspec.structs.replace(bench.new_job(), spec=spec, recipe_sha256=recipe.recipe_sha256(spec))
    alone = runtime.Runtime(torch.device("cpu"), torch.float32, 0, 1)
    return facts(job, alone, "data", "model", "weights", LoopState())
