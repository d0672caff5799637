"""A prover without torch, for tests whose subject is the keeper: reckons the hash chain itself, and believes nothing else."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path

import msgspec
from standin import nap, product_bytes

from fluxtui.engine import life, wire
from fluxtui.persist.files import toml
from fluxtui.persist.files.tensorfile import tensors_sha256
from fluxtui.persist.home import Home
from fluxtui.persist.sessions.record import Phase, Proof, Result
from fluxtui.persist.settings import recipe


def expected_state(seed: int, steps: int) -> bytes:
    state = hashlib.sha256(str(seed).encode()).digest()
    for step in range(steps):
        state = hashlib.sha256(state + step.to_bytes(8, "big")).digest()
    return state


def main() -> int:
    life.enter()
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path)
    parser.add_argument("--session")
    parser.add_argument("--attempt", type=int)
    found = parser.parse_args()
    folder = Home.open(found.home).session(found.session)
    os.write(int(os.environ[wire.PROGRESS_FD]), wire.encode(wire.ProgressLine(phase=Phase.PROVE, item=0)))
    settings_file = os.environ.get("FLUXTUI_STANDIN")
    settings = json.loads(Path(settings_file).read_text()) if settings_file else {}
    if "prover_reached" in settings:
        Path(settings["prover_reached"]).write_text(str(os.getpid()))
    nap(settings.get("prove_seconds", 0))
    if settings.get("prover_exit"):
        os._exit(settings["prover_exit"])
    spec = recipe.load_spec(folder.spec_file)
    result = toml.read(folder.result_file, Result)
    before, data = folder.product.stat(), folder.product.read_bytes()
    wanted = product_bytes(
        expected_state(spec.train.seed, spec.train.steps), spec.id, recipe.recipe_sha256(spec), spec.train.steps
    )
    proof = Proof(
        ok=data == wanted,
        what="" if data == wanted else "the bytes are not those of an uninterrupted run",
        file=folder.product.name,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        tensors_sha256=tensors_sha256(folder.product),
        mtime_ns=before.st_mtime_ns,
        ctime_ns=before.st_ctime_ns,
        checks=["bytes"],
    )
    assert result.step == spec.train.steps
    print("a line that is no answer")
    print(msgspec.json.encode(proof).decode(), flush=True)
    return 0 if proof.ok else 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
