"""The doctor on machines that are not here: drivers, builds of torch and cards faked at their edges."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from fluxtui.cli import doctor
from fluxtui.engine.cards import Card, Torch, judge, runs_on
from fluxtui.gpu import HostGauges

CU126 = ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")
GOOD = Torch(version="2.8.0", cuda="12.6", architectures=CU126, cards=(Card("NVIDIA L4", (8, 9), 24 << 30),))


@pytest.mark.parametrize(
    ("capability", "built", "runs"),
    [
        ((8, 9), CU126, True),  # sm_86 code runs on sm_89
        ((8, 0), ("sm_86",), False),  # not the other way round
        ((12, 0), CU126, False),  # a 5090 and a build of before
        ((12, 0), ("sm_90", "compute_90"), True),
        ((12, 0), ("sm_120a",), True),
        ((6, 1), ("sm_70", "compute_70"), False),
        ((9, 0), (), False),
    ],
)
def test_what_a_build_runs_on_is_cudas_rule(capability: tuple[int, int], built: tuple[str, ...], runs: bool) -> None:
    assert runs_on(capability, built) is runs


@pytest.mark.parametrize(
    ("change", "gpus", "subject", "level", "words"),
    [
        ({}, 1, "torch on GPU 0", "good", "bf16, fp8"),
        ({"cards": (Card("RTX 5090", (12, 0), 32 << 30),)}, 1, "torch on GPU 0", "bad", "sm_120"),
        ({"cards": (Card("Tesla T4", (7, 5), 16 << 30),)}, 1, "torch on GPU 0", "note", "without bf16"),
        ({"cards": (Card("H100", (9, 0), 80 << 30, "CUDA error: uncorrectable ECC error"),)}, 1, "torch on GPU 0", "bad", "ECC"),
        ({"cuda": "", "cards": ()}, 2, "torch", "bad", "without CUDA, on a machine with 2 GPUs"),
        ({"cuda": "", "cards": ()}, 0, "torch", "good", "without CUDA"),
        (
            {"cards": (), "trouble": "The NVIDIA driver on your system is too old (found version 11040)."},
            1,
            "torch",
            "bad",
            "11040",
        ),
        ({"cards": (), "trouble": "CUDA unknown error"}, 1, "torch", "bad", "unknown error"),
        ({}, 4, "torch", "note", "sees 1 of 4"),
        ({"bitsandbytes": "0.45", "bitsandbytes_trouble": "libcusparse.so.12"}, 1, "bitsandbytes", "bad", "libcusparse"),
        ({"bitsandbytes": "0.45"}, 1, "bitsandbytes", "good", "loads"),
        ({}, 1, "bitsandbytes", "note", "not installed"),
    ],
)
def test_each_disagreement_has_its_finding(change: dict[str, object], gpus: int, subject: str, level: str, words: str) -> None:
    found = next(one for one in judge(msgspec.structs.replace(GOOD, **change), gpus) if one.subject == subject)
    assert (found.level, words in found.found) == (level, True), found
    assert bool(found.remedy) == (level != "good"), "each finding has its remedy"


def test_a_share_of_a_gpu_that_maps_no_memory_is_told_what_to_set() -> None:
    share = Card("NVIDIA A16-16Q", (8, 6), 16 << 30, "CUDA driver error: operation not supported")
    told = next(one for one in judge(msgspec.structs.replace(GOOD, cards=(share,)), 1) if one.level == "bad")
    assert "PYTORCH_ALLOC_CONF=expandable_segments:False" in told.remedy


def found(subject: str) -> list[doctor.Finding]:
    return [one for one in doctor.examine() if one.subject == subject]


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLUXTUI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FLUXTUI_RUNTIME", str(tmp_path / "runtime"))
    return tmp_path


def test_a_driver_with_gpus_and_a_torch_without_cuda_disagree(at_home: Path, driver: Callable[..., None]) -> None:
    driver("gpus=2")
    seen = doctor.examine()
    assert {one.subject for one in seen} >= {"GPU 0", "GPU 1", "torch", "bitsandbytes"}
    torch = next(one for one in seen if one.subject == "torch")
    assert (torch.level, "2 GPUs" in torch.found) == ("bad", True), torch
    assert "TORCH=system" in torch.remedy


@pytest.mark.parametrize(
    ("settings", "words"),
    [("init=9", "not loaded"), ("init=18", "reboot"), ("count=15", "fell off the bus"), ("gpus=0", "no GPU")],
)
def test_the_drivers_reason_is_told(settings: str, words: str, at_home: Path, driver: Callable[..., None]) -> None:
    driver(settings)
    doctor._driver.cache_clear()
    told = doctor._gpus()[0]
    assert (told.level, words in told.found) == ("note", True), told
    assert told.remedy


def test_one_ill_gpu_of_two_is_told_beside_the_other(at_home: Path, driver: Callable[..., None]) -> None:
    driver("gpus=2", "handle1=15")
    doctor._driver.cache_clear()
    seen = doctor._gpus()
    assert [one.subject for one in seen] == ["GPU 0", "GPU"]
    assert (seen[1].level, "bus" in seen[1].found) == ("bad", True)


def test_indices_that_nobody_can_read_are_told_with_their_remedy(
    at_home: Path, driver: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    for settings, level in ((("gpus=2",), "good"), (("gpus=2", "unlike=1"), "bad"), (("gpus=1", "unlike=1"), "good")):
        driver(*settings)
        doctor._driver.cache_clear()
        assert doctor._gpus()[-1].level == level, settings
    driver("gpus=2", "unlike=1")
    doctor._driver.cache_clear()
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in doctor._gpus()[-1].remedy


FAKE_TORCH = """
class _V: cuda = "12.6"
__version__, version, bfloat16 = "2.8.0+cu126", _V, None
class _P: name, major, minor, total_memory = "NVIDIA GeForce RTX 5090", 12, 0, 32 << 30
class cuda:
    init = staticmethod(lambda: None)
    device_count = staticmethod(lambda: 1)
    get_device_properties = staticmethod(lambda index: _P)
    get_arch_list = staticmethod(lambda: ["sm_80", "sm_90"])
def ones(*shape, **more): raise RuntimeError("CUDA error: no kernel image is available for execution on the device\\nmore")
"""


@pytest.mark.parametrize(
    ("torch", "words"),
    [
        ("raise OSError('libcudart.so.12: cannot open shared object file')", "libcudart.so.12"),
        ("import os; os.abort()", "killed by signal 6"),
        (FAKE_TORCH, "sm_120, and this torch is built for sm_80, sm_90"),
    ],
)
def test_a_torch_that_does_not_fit_is_told_and_takes_nobody_with_it(
    torch: str, words: str, at_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (at_home / "path" / "torch").mkdir(parents=True)
    (at_home / "path" / "torch" / "__init__.py").write_text(torch)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(at_home / "path"), os.environ.get("PYTHONPATH", "")]))
    doctor._driver.cache_clear()
    told = [one for one in doctor._torch() if one.subject != "bitsandbytes"]  # which asks more of torch than the fake one has
    bad = [one for one in told if one.level == "bad"]
    assert len(bad) == 1
    assert words in bad[0].found, bad
    assert bad[0].remedy


@pytest.mark.parametrize(("gibibytes", "level"), [(3, "bad"), (8, "note"), (64, "good")])
def test_memory_is_the_containers(gibibytes: int, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gauges = HostGauges(
        cpu_percent=0.0, cpu_count=2, memory_used=1 << 30, memory_total=gibibytes << 30, disk_free=0, disk_total=0, disk_path="/"
    )
    monkeypatch.setattr("fluxtui.gpu.host_gauges", lambda: gauges)
    monkeypatch.setattr("fluxtui.gpu.host.machine_memory", lambda _: (0, 512 << 30))
    (told,) = doctor._memory()
    assert (told.level, "this container's limit" in told.found) == (level, True)
    assert bool(told.remedy) == (level != "good")


def test_folders_of_models_that_are_not_there_are_named(at_home: Path) -> None:
    (at_home / "home").mkdir(mode=0o700)
    (at_home / "home" / "config.toml").write_text('[models]\nfolders = ["/no/where/models"]\n')
    (told,) = doctor._models()
    assert (told.level, "/no/where/models" in told.found) == ("note", True)
    (at_home / "home" / "config.toml").write_text("[models]\nfolders = 3\n")
    assert doctor._models()[0].level == "bad"


def test_bitsandbytes_is_found_where_it_is_installed() -> None:
    """Every other process of the engine keeps it out: the doctor's is asked for it."""
    version = importlib.metadata.version("bitsandbytes")
    done = subprocess.run([sys.executable, "-m", "fluxtui.engine", "machine"], capture_output=True, text=True, check=True)
    told = next(one for one in json.loads(done.stdout)["findings"] if one["subject"] == "bitsandbytes")
    assert (told["level"], told["found"]) == ("good", f"{version} loads")
