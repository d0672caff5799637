"""CPU, memory and disk, of the machine or of the container."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from fluxtui.gpu import host, host_gauges
from fluxtui.gpu.host import container_memory, machine_memory, network_bytes


def test_the_host_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUXTUI_HOME", str(tmp_path / "not" / "yet"))
    found = host_gauges()
    assert 0 <= found.cpu_percent <= 100
    assert 0 < found.memory_used < found.memory_total
    assert 0 < found.disk_free <= found.disk_total
    assert found.disk_path == str(tmp_path)
    assert found.disk_total == os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    assert host_gauges().cpu_percent > 100 / found.cpu_count / 3, "a busy core is not seen"


def test_the_memory_of_a_container_is_its_limit(tmp_path: Path) -> None:
    own, groups = tmp_path / "own", tmp_path / "groups"

    def write(folder: Path, **files: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name.replace("__", ".")).write_text(text)

    own.write_text("0::/pod/box\n")
    assert container_memory(groups, own) is None
    write(groups / "pod" / "box", memory__max="max\n", memory__current="700\n", memory__stat="anon 1\ninactive_file 200\n")
    assert container_memory(groups, own) is None
    write(groups / "pod", memory__max="1000\n", memory__current="700\n", memory__stat="anon 1\ninactive_file 200\n")
    assert container_memory(groups, own) == (500, 1000)
    own.write_text("4:cpu,cpuacct:/x\n7:memory:/job\n0::/\n")
    files = {"memory__limit_in_bytes": "900\n", "memory__usage_in_bytes": "800\n", "memory__stat": "total_inactive_file 100\n"}
    write(groups / "memory" / "job", **files)
    write(groups / "memory", **{**files, "memory__limit_in_bytes": f"{2**63 - 4096}\n"})
    assert container_memory(groups, own) == (700, 900)
    assert container_memory(groups, tmp_path / "missing") is None
    assert machine_memory(tmp_path / "missing") == (0, 0)


def test_the_network_is_what_the_cards_carried_between_two_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = tmp_path / "dev"

    def carried(read: int, written: int) -> None:
        devices.write_text(
            "Inter-|   Receive                                                |  Transmit\n"
            " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier\n"
            f"    lo: 999999 1 0 0 0 0 0 0 999999 1 0 0 0 0 0 0\n"
            f"  eth0:{read} 1 0 0 0 0 0 0 {written} 1 0 0 0 0 0 0\n"
            f"veth12: 7777 1 0 0 0 0 0 0 7777 1 0 0 0 0 0 0\n"
            f"  ib0: 500 1 0 0 0 0 0 0 50 1 0 0 0 0 0 0\n"
        )

    carried(1000, 100)
    assert network_bytes(devices) == (1500, 150)
    assert network_bytes(tmp_path / "missing") is None
    monkeypatch.setattr(host, "_NETWORK_BEFORE", [])
    assert host._network_rates(devices, 10.0) is None, "a first look knows no rate"
    carried(5000, 300)
    assert host._network_rates(devices, 12.0) == (2000.0, 100.0)
    carried(0, 0)  # the card was replaced
    assert host._network_rates(devices, 13.0) == (0.0, 0.0)
