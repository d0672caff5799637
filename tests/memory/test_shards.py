"""Loading: host memory peaks near one shard above what stays, under a memory cgroup that the whole model does not fit into."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.memory.sharded import write_sharded, write_t5

ROOT = Path(__file__).parents[2]
MB = 2**20


@contextmanager
def memory_limit(limit: int) -> Iterator[Path]:
    """A memory cgroup (v1) of its own."""
    group = Path("/sys/fs/cgroup/memory") / f"fluxtui-load-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(limit))
        yield group
    finally:
        group.rmdir()


@dataclass(frozen=True)
class Loaded:
    code: int
    said: dict[str, int]  # before, peak, stays: bytes
    errors: str


def load(folder: Path, precision: str, how: str, group: Path | None = None) -> Loaded:
    command = [sys.executable, "-m", "tests.memory.sharded", str(folder), precision, how]
    if group is not None:
        command = ["/bin/sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh", *command]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=900, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    return Loaded(done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr)


SMALL: dict[str, Any] = {"num_layers": 4, "num_single_layers": 16, "num_attention_heads": 64}  # width 1024: 0.8 GB
LARGE: dict[str, Any] = {  # blocks of full width: 6.1 GB
    "num_layers": 4, "num_single_layers": 12, "attention_head_dim": 128, "num_attention_heads": 24,
    "axes_dims_rope": (16, 56, 56), "joint_attention_dim": 4096, "pooled_projection_dim": 768,
}  # fmt: skip


def test_a_load_peaks_within_one_shard_of_what_stays(tmp_path: Path) -> None:
    total = write_sharded(tmp_path, 100 * MB, **SMALL)
    seen = load(tmp_path, "int8", "streamed")
    assert seen.code == 0, seen.errors
    assert 0.5 * total < seen.said["stays"] < 0.53 * total
    assert seen.said["peak"] - seen.said["before"] < seen.said["stays"] + 100 * MB


def test_t5_goes_to_its_device_a_tensor_at_a_time(tmp_path: Path) -> None:
    """9.5 GB of the real one, for each rank: read, cast, placed, dropped."""
    total = write_t5(tmp_path, "30MB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 4
    seen = load(tmp_path, "t5", "both")
    assert seen.code == 0, seen.errors
    assert seen.said["streamed"] < 30 * MB
    assert seen.said["whole"] > total, "what is not streamed would be seen"


@pytest.mark.root
@pytest.mark.soak
def test_six_gigabytes_load_under_three(tmp_path: Path) -> None:
    total = write_sharded(tmp_path, 600 * MB, **LARGE)
    assert total > 6 * 10**9
    with memory_limit(3 * 10**9) as group:
        seen = load(tmp_path, "nf4", "streamed", group)
        assert seen.code == 0, seen.errors
        assert seen.said["peak"] < seen.said["before"] + seen.said["stays"] + 600 * MB
        assert load(tmp_path, "nf4", "whole", group).code == -9


@pytest.mark.root
def test_a_model_larger_than_its_memory_cgroup_loads_where_it_is_streamed(tmp_path: Path) -> None:
    total = write_sharded(tmp_path, 100 * MB, **SMALL)
    with memory_limit(340 * MB + total // 2 + 300 * MB) as group:  # libraries, int8, and little more than two shards
        seen = load(tmp_path, "int8", "streamed", group)
        assert seen.code == 0, seen.errors
        assert load(tmp_path, "int8", "whole", group).code == -9
