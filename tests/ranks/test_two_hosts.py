"""One session on two hosts with a cable between them: real trainers, gloo, one home. As root: network namespaces."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fluxtui import control
from fluxtui.engine.keeper.machines.messages import NodeFolder, NodeRecord
from fluxtui.persist import metrics
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.files import toml
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.sessions.record import TERMINAL, Record, Result
from tests.ranks.hosts import Host, Hosts
from tests.trainer.job import SMALL
from tests.trainer.tiny_flux import little_pictures, tiny_flux

SETS = SMALL | {
    "train.steps": 60, "train.batch_size": 1, "lora.dropout": 0.1, "checkpoint.every_steps": 10, "hardware.gpus": [],
    "hardware.threads": 1, "guard.retry_delay": 0.1, "guard.grace": 1.0,
}  # fmt: skip
pytestmark = pytest.mark.root


class Pair:
    """A home with a model and pictures, and two hosts."""

    def __init__(self, folder: Path, a: Host, b: Host) -> None:
        self.home, self.a, self.b = Home.open(folder / "home"), a, b
        self.model, self.data = tiny_flux(folder / "model"), little_pictures(folder / "data")

    def new(self, name: str, **sets: Any) -> SessionFolder:
        wanted = SETS | {"hardware.nodes": 2} | {key.replace("__", "."): value for key, value in sets.items()}
        return control.create(self.home, name, dataset=str(self.data), model=str(self.model), sets=wanted)

    def start(self, name: str, *words: str) -> None:
        joined = self.b.fluxtui("join", name, "--node", "1")
        assert joined.returncode == 0, joined.stderr
        begun = self.a.fluxtui(*(words or ("start", name)))
        assert begun.returncode == 0, begun.stderr


@pytest.fixture
def pair(tmp_path: Path, needs: Callable[[str], str]) -> Iterator[Pair]:
    needs("ip"), needs("unshare")
    with Hosts(tmp_path, tmp_path / "home", {"OMP_NUM_THREADS": "1"}) as (a, b):
        yield Pair(tmp_path, a, b)


def record(folder: SessionFolder, attempt: int) -> Record:
    return toml.read(folder.attempt_file(attempt), Record)


def until(holds: Callable[[], Any], seconds: float = 150.0) -> Any:
    end = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < end, holds
        time.sleep(0.05)
    return value


def newest_step(folder: SessionFolder) -> int:
    return metrics.read_tail(folder.metrics_file, 1)[-1].step


def gradient_bytes(folder: SessionFolder) -> int:
    """Bytes of the adapter's tensors in float32, as its gradients have."""
    newest = until(lambda: commit.committed(folder.checkpoints))[-1]
    data = (folder.checkpoints / newest / "adapter.safetensors").read_bytes()
    return len(data) - 8 - int.from_bytes(data[:8], "little")


def await_step(folder: SessionFolder, attempt: int, step: int) -> None:
    def is_there() -> bool:
        assert not (ended := _ended(folder, attempt)), ended
        seen = metrics.read_tail(folder.metrics_file, 1) if folder.metrics_file.exists() else []
        return bool(seen) and seen[-1].attempt == attempt and seen[-1].step >= step

    until(is_there)


def await_end(folder: SessionFolder, attempt: int) -> Record:
    return until(lambda: _ended(folder, attempt))


def _ended(folder: SessionFolder, attempt: int) -> Record | None:
    try:
        found = record(folder, attempt)
    except FluxTUIError:
        return None
    return found if found.status in TERMINAL else None


def node_record(folder: SessionFolder) -> NodeRecord:
    return toml.read(NodeFolder(folder.path, 1).attempt_file(0), NodeRecord)


def test_two_hosts_train_to_the_bytes_of_two_ranks_on_one_through_a_stop_from_afar_and_a_killed_rank(pair: Pair) -> None:
    one_machine = pair.new("one-machine", hardware__nodes=1, hardware__ranks=2)
    assert pair.a.fluxtui("start", "one-machine").returncode == 0
    assert await_end(one_machine, 1).status == "completed"

    folder = pair.new("two-hosts")
    pair.start("two-hosts")
    await_step(folder, 1, 3)
    assert record(folder, 1).nodes == ["host-a", "host-b"]
    assert "10.77.0.1" in folder.log_file.read_text()
    assert "running on host-a" in pair.b.fluxtui("show", "two-hosts").stdout
    assert "running on host-a" in pair.b.fluxtui("resume", "two-hosts").stderr, "nothing is started twice"
    stopped = pair.b.fluxtui("stop", "two-hosts")
    assert stopped.returncode == 0, stopped.stderr
    first = await_end(folder, 1)
    assert (first.status, bool(first.checkpoint)) == ("stopped", True), first

    pair.start("two-hosts", "resume", "two-hosts")
    await_step(folder, 2, first.step + 2)
    os.kill(node_record(folder).ranks[0].pid, signal.SIGKILL)
    second = await_end(folder, 2)
    assert second.reason.startswith("rank 1 (node 1, host-b): killed by SIGKILL"), second.reason
    third = await_end(folder, 3)
    assert third.status == "completed", third.reason
    shas = [toml.read(one.result_file, Result).tensors_sha256 for one in (one_machine, folder)]
    assert shas[0] == shas[1]


def test_a_step_costs_its_gradients_on_the_wire_and_a_cable_that_is_pulled_is_found_and_named(pair: Pair) -> None:
    folder = pair.new("cut", guard__step=9.0, guard__batch=9.0, guard__first_steps=9.0, train__steps=200)
    pair.start("cut")
    await_step(folder, 1, 3)
    begun, before = newest_step(folder), pair.b.sent()
    await_step(folder, 1, begun + 8)
    sent, steps = pair.b.sent() - before, newest_step(folder) - begun  # read in the midst of a step, so of one more or less
    gradients = gradient_bytes(folder) * 2 * (2 - 1) / 2  # what a ring of two sends: docs/scale.md
    assert gradients * (steps - 1) <= sent <= 1.3 * gradients * (steps + 1), (gradients, sent / steps)
    pair.b.link("down")
    cut = await_end(folder, 1)
    assert cut.status == "failed"
    assert "rank 1 (node 1, host-b) in" in cut.reason, cut.reason
    assert "node 1, host-b cannot reach host-a over the network: " in cut.reason, cut.reason
    pair.b.link("up")
    await_step(folder, 2, 15)
    assert until(lambda: record(folder, 2).resumed_from) == "step-000000010"
    assert pair.b.fluxtui("kill", "cut").returncode == 0
    assert await_end(folder, 2).status == "stopped"


def test_other_pictures_on_one_host_are_named_before_anything_is_trained(pair: Pair, tmp_path: Path) -> None:
    folder = pair.new("unlike")
    others = little_pictures(tmp_path / "others", count=4)
    inner = pair.b.wrap
    pair.b.wrap = lambda *command: inner(  # type: ignore[method-assign]
        "sh", "-c", f'mount --bind {others} {pair.data} && exec "$@"', "sh", *command
    )
    pair.start("unlike")
    ended = await_end(folder, 1)
    assert ended.reason.startswith("rank 1 (node 1, host-b): the data set here is not the one of rank 0: "), ended.reason
    assert "is gone" in ended.reason or "changed" in ended.reason, ended.reason
    assert not folder.metrics_file.exists() or not folder.metrics_file.stat().st_size
