"""GPUs behind a driver that raises, hangs, crashes, says N/A or loses them (faults.md row 27).

The driver's library itself is replaced (its C functions), nothing of ours and nothing of the Python package.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fluxtui.gpu import Gpus, list_gpus
from fluxtui.gpu.readings import Gpu
from fluxtui.gpu.slot import SIZE, pack, unpack

GIB = 1 << 30


def test_every_figure_has_its_unit(driver: Callable[..., None]) -> None:
    driver("gpus=2")
    found = list_gpus()
    assert found.why == ""
    assert found.devices[1] == Gpu(
        index=1,
        uuid="GPU-2",
        name="Fake H100",
        memory_total=80 * GIB,
        memory_used=2 * GIB,
        utilisation=97.0,
        power_watts=350.5,
        power_limit_watts=700.0,
        temperature_celsius=65.0,
        slowed_by=(),
        processes={4000: GIB, 4001: 2 * GIB},
    )
    assert 0 <= time.monotonic() - found.at < 10


@pytest.mark.parametrize(
    ("answer", "figure", "why"),
    [
        ("rates=3", "utilisation", "does not support"),
        ("memory=3", "memory", "does not support"),
        ("power=4", "power_watts", "no permission"),
        ("limit=13", "power_limit_watts", "too old"),
        ("temperature=999", "temperature_celsius", "unknown reason"),
        ("processes=4", "processes", "no permission"),
        ("reasons=3", "slowed_by", "does not support"),
        ("hidden=1", "processes", "how much memory each"),
        ("power=77", "power_watts", "NVML error 77"),
    ],
)
def test_a_missing_figure_carries_its_reason_and_the_others_are_there(
    driver: Callable[..., None], answer: str, figure: str, why: str
) -> None:
    driver(answer)
    [found] = list_gpus().devices
    assert list(found.missing) == [figure]
    assert why in found.missing[figure]
    assert found.missing[figure].isprintable()
    figures = {"utilisation", "power_watts", "power_limit_watts", "temperature_celsius"}
    assert {name for name in figures if getattr(found, name) is None} == figures & {figure}
    assert found.memory_total == (0 if figure == "memory" else 80 * GIB)


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        (0x1, ()),
        (0x4, ("power limit",)),
        (0x48, ("heat, by the hardware",)),
        (0x8, ("hardware, for heat or power",)),
        (0x24, ("power limit", "heat")),
        (0x80, ("power supply brake",)),
    ],
)
@pytest.mark.parametrize("driver_is_old", [False, True])
def test_what_slows_a_gpu_down_is_said_in_words(
    driver: Callable[..., None], bits: int, words: tuple[str, ...], driver_is_old: bool
) -> None:
    driver(f"bits={bits}", "reasons=13" if driver_is_old else "reasons=0")
    [found] = list_gpus().devices
    assert found.slowed_by == words
    assert "slowed_by" not in found.missing


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("init=9", "kernel driver is not loaded"),
        ("init=4", "no permission"),
        ("init=18", "updated under the running kernel module; reboot"),
        ("init=999", "unknown reason"),
        ("count=20", "out of memory"),
        ("gpus=0", "but no GPU"),
        ("handle0=15", "GPU 0: it fell off the bus"),
        ("memory=15", "GPU 0: it fell off the bus"),
        ("uuid=999", "GPU 0: the NVIDIA driver failed"),
    ],
)
def test_a_driver_that_refuses_is_a_sentence(driver: Callable[..., None], answer: str, why: str) -> None:
    driver(answer)
    found = list_gpus()
    assert found.devices == ()
    assert why in found.why


def test_a_lost_gpu_does_not_hide_the_others(driver: Callable[..., None]) -> None:
    driver("gpus=3", "handle1=15")
    found = list_gpus()
    assert [gpu.index for gpu in found.devices] == [0, 2]
    assert found.why.startswith("GPU 1: it fell off the bus")


def test_a_gpu_cut_into_instances_is_listed_as_its_instances(driver: Callable[..., None]) -> None:
    driver("mig=2")
    found = list_gpus().devices
    assert [(gpu.index, gpu.uuid) for gpu in found] == [(0, "MIG-101"), (0, "MIG-201")]
    assert found[0].utilisation is None
    assert found[0].missing["utilisation"].startswith("not told of a MIG instance; ")
    assert found[0].slowed_by is None


@pytest.mark.parametrize("code", [3, 13])
def test_a_gpu_that_knows_no_instances_is_a_plain_one(driver: Callable[..., None], code: int) -> None:
    driver(f"migmode={code}")
    assert [gpu.uuid for gpu in list_gpus().devices] == ["GPU-1"]


def test_texts_of_the_driver_reach_no_terminal_as_escapes(driver: Callable[..., None]) -> None:
    for degree in (1, 2):
        driver(f"evil={degree}")
        [found] = list_gpus().devices
        assert found.name.isprintable()
        assert "GPU" in found.name


def test_a_hanging_driver_is_given_up_in_time(driver: Callable[..., None]) -> None:
    driver("count=hang")
    before = time.monotonic()
    found = list_gpus(timeout=1.0)
    assert time.monotonic() - before < 2.0
    assert found.devices == ()
    assert "has not answered for 1 s" in found.why


def test_a_crashing_driver_is_a_sentence(driver: Callable[..., None]) -> None:
    driver("memory=crash")
    assert f"by signal {int(signal.SIGSEGV)}" in list_gpus().why


def test_a_module_in_the_folder_where_it_was_started_is_not_imported(
    driver: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "pynvml", "msgspec"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a stranger was imported')")
    monkeypatch.chdir(tmp_path)
    assert list_gpus().devices


def test_a_torn_slot_is_no_reading() -> None:
    whole = pack(Gpus((Gpu(index=0, uuid="u", name="n"),), "", 1.0))
    assert unpack(whole) is not None
    assert unpack(b"") is None
    assert all(unpack(whole[:cut]) is None for cut in range(len(whole)))
    assert unpack(whole[:-3] + b"xxx") is None
    many = pack(Gpus(tuple(Gpu(index=i, uuid="u" * 200, name="n" * 200) for i in range(4000)), "", 1.0))
    assert len(many) <= SIZE
    assert "more than can be shown" in unpack(many).why  # type: ignore[union-attr]


def test_importing_the_gauges_is_cheap_and_loads_no_driver() -> None:
    program = "import sys; import fluxtui.gpu; print({'pynvml', 'psutil', 'numpy', 'torch', 'ctypes'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"
