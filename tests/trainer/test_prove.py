"""The proof finds what is wrong with a product, and says it in one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import torch

from fluxtui.engine.contents import update_norm
from fluxtui.engine.prove import prove
from fluxtui.engine.trainer.checkpoint.state import from_safetensors
from fluxtui.engine.trainer.plan_steps import world_size_of
from fluxtui.engine.trainer.product import write_product
from fluxtui.persist.files import tensorfile, toml
from fluxtui.persist.sessions.record import ProcessIdentity, Proof, Record
from tests.trainer.job import Bench

NewBench = Callable[..., Bench]


@pytest.fixture
def proven(new_bench: NewBench) -> Bench:
    """A session whose product is good."""
    bench = new_bench(train__steps=2)
    bench.run_here()
    bench.write_record()
    return bench


def proof_of(bench: Bench) -> Proof:
    return prove(bench.root, bench.spec.name, 0, lambda **_: None)


def rewrite(bench: Bench, change: Callable[[dict[str, torch.Tensor]], None], **metadata: object) -> None:
    """The product with other tensors or metadata, and a result that claims just this."""
    said = json.loads(tensorfile.read_header(bench.folder.product).metadata["fluxtui"]) | metadata
    tensors = from_safetensors(bench.folder.product)
    change(tensors)
    made = write_product(bench.folder.product, tensors, {"fluxtui": json.dumps(said)})
    claim = msgspec.structs.replace(bench.result(), size=made.size, sha256=made.sha256, tensors_sha256=made.tensors_sha256)
    toml.write(bench.folder.result_file, claim)


def test_a_good_product_is_proven_by_another_process(proven: Bench) -> None:
    command = [sys.executable, "-m", "fluxtui.engine", "prove", "--home", str(proven.root), "--session", proven.spec.name]
    done = subprocess.run(command, capture_output=True, cwd="/", timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"})
    proof = msgspec.json.decode(done.stdout.splitlines()[-1], type=Proof)
    assert (done.returncode, proof.ok, proof.what) == (0, True, ""), done.stderr
    assert proof.tensors_sha256 == proven.result().tensors_sha256
    assert proof.size == proven.folder.product.stat().st_size
    assert any("diffusers loads it" in check for check in proof.checks)


def test_every_flaw_is_named(proven: Bench) -> None:
    name = "transformer.transformer_blocks.0.attn.to_q.lora_B.weight"
    good = proven.folder.product.read_bytes()
    result = proven.result()
    flaws: dict[str, Callable[[], None]] = {
        "not finite": lambda: rewrite(proven, lambda tensors: tensors[name].view(-1)[0:1].fill_(float("nan"))),
        "is zero": lambda: rewrite(proven, lambda tensors: tensors[name].zero_()),
        f"{name} is missing": lambda: rewrite(proven, lambda tensors: tensors.pop(name)),
        "not part of this LoRA": lambda: rewrite(proven, lambda t: t.update({"transformer.proj_out.lora_A.weight": t[name]})),
        "has shape": lambda: rewrite(proven, lambda tensors: tensors.update({name: tensors[name][:, :2].contiguous()})),
        "another session_id": lambda: rewrite(proven, lambda tensors: None, session_id="other"),
        "another recipe_sha256": lambda: rewrite(proven, lambda tensors: None, recipe_sha256="0" * 64),
        "another step": lambda: rewrite(proven, lambda tensors: None, step=1),
        "bytes instead of": lambda: proven.folder.product.write_bytes(good[:-1]),
        "SHA-256": lambda: proven.folder.product.write_bytes(good[:-1] + bytes([good[-1] ^ 1])),
        "of another attempt": lambda: toml.write(proven.folder.result_file, msgspec.structs.replace(result, nonce="stale")),
        "and 2 were planned": lambda: toml.write(proven.folder.result_file, msgspec.structs.replace(result, step=1)),
        "little.safetensors is missing": proven.folder.product.unlink,
    }
    assert proof_of(proven).ok
    for what, flaw in flaws.items():
        flaw()
        proof = proof_of(proven)
        assert not proof.ok
        assert what in proof.what, (what, proof)
        proven.folder.product.write_bytes(good)
        toml.write(proven.folder.result_file, result)
    assert proof_of(proven).ok


def test_a_plan_by_epochs_is_reckoned_from_the_data_set(new_bench: NewBench) -> None:
    bench = new_bench(train__steps=0, train__epochs=2, validate__images=1)
    bench.run_here()
    bench.write_record()
    proof = proof_of(bench)
    assert proof.ok, proof.what
    assert any("step 4 of 4" in check for check in proof.checks)  # 4 pictures by twos, twice


@pytest.mark.parametrize(
    ("changes", "ranks"),
    [({"world_size": 2}, 2), ({"gpus": ["GPU-a", "GPU-b", "GPU-c"]}, 3), ({"overrides": {"hardware.ranks": 2}}, 2), ({}, 1)],
)
def test_how_many_ranks_trained_is_known_of_old_records_too(proven: Bench, changes: dict[str, Any], ranks: int) -> None:
    """Older ones do not say it, and hold the one prover where the ranks were."""
    record = toml.read(proven.folder.attempt_file(1), Record)
    prover = ProcessIdentity(pid=1, start_ticks=1, boot_id="b")
    assert world_size_of(proven.spec, msgspec.structs.replace(record, ranks=[prover], **changes)) == ranks


def test_the_attempt_that_only_proved_vouches_for_the_one_that_trained(proven: Bench) -> None:
    trained = toml.read(proven.folder.attempt_file(1), Record)
    later = msgspec.structs.replace(trained, attempt=2, nonce="of-attempt-2", status="completed")
    toml.write(proven.folder.attempt_file(2), later)
    assert prove(proven.root, "little", 2, lambda **_: None).ok
    toml.write(proven.folder.attempt_file(2), msgspec.structs.replace(later, status="running"))
    assert "of another attempt" in prove(proven.root, "little", 2, lambda **_: None).what


def test_the_norm_of_an_update_is_that_of_the_product() -> None:
    a, b = torch.randn(4, 30), torch.randn(50, 4)
    assert update_norm({"lora_A": a, "lora_B": b}) == pytest.approx(float((b @ a).norm()), rel=1e-5)
    b[:, 0], a[1:] = 0, 0
    assert update_norm({"lora_A": a, "lora_B": b}) == 0.0
