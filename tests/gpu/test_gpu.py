"""GPUs behind a driver that raises, hangs, crashes, says N/A or loses them (faults.md row 27).

The driver's library itself is replaced (its C functions), nothing of ours and nothing of the Python package.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fluxtui.gpu import Gpus, GpuWatch, host_gauges, list_gpus, watch
from fluxtui.gpu.host import container_memory, machine_memory
from fluxtui.gpu.readings import Gpu
from fluxtui.gpu.slot import SIZE, pack, unpack

GIB = 1 << 30


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("driver")
    source = Path(__file__).with_name("fake_nvml.c")
    for compiler in ("cc", "gcc", "clang"):
        try:
            subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", source], check=True, timeout=60)
        except FileNotFoundError:
            continue
        return folder
    message = "no C compiler to build the stub of the driver's library with"
    pytest.fail(message) if os.environ.get("FLUXTUI_FAULTS") == "root" else pytest.skip(message)


@pytest.fixture
def driver(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`driver("count=15")` makes the stub answer so from now on."""
    settings = tmp_path / "settings"

    def say(*lines: str) -> None:
        settings.with_suffix(".new").write_text("".join(f"{line}\n" for line in lines))
        settings.with_suffix(".new").rename(settings)

    monkeypatch.setenv("LD_LIBRARY_PATH", str(library))
    monkeypatch.setenv("FAKE_NVML", str(settings))
    say()
    return say


@pytest.fixture
def watching() -> Iterator[GpuWatch]:
    found = GpuWatch()
    yield found
    found.stop()


def until(watching: GpuWatch, condition: Callable[[Gpus], bool], seconds: float = 20.0) -> Gpus:
    end = time.monotonic() + seconds
    while True:
        before = time.perf_counter()
        found = watching.latest()
        assert time.perf_counter() - before < 0.25, "asking waited for the driver"
        if condition(found):
            return found
        assert time.monotonic() < end, found
        time.sleep(0.02)


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
    assert found[0].missing["utilisation"] == "not told of a MIG instance"


@pytest.mark.parametrize("code", [3, 13])
def test_a_gpu_that_knows_no_instances_is_a_plain_one(driver: Callable[..., None], code: int) -> None:
    driver(f"migmode={code}")
    assert [gpu.uuid for gpu in list_gpus().devices] == ["GPU-1"]


def test_no_driver_at_all_says_so(monkeypatch: pytest.MonkeyPatch, watching: GpuWatch, tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("no library")  # stands before a real one, where a machine has that
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    for found in (list_gpus(20), _watched(watching)):
        assert found.devices == ()
        assert "no NVIDIA driver" in found.why
    assert watching._child is not None
    assert watching._child.wait(10) == 3, "nothing goes on watching where there is nothing to watch"
    assert "no NVIDIA driver" in watching.latest().why


def _watched(watching: GpuWatch) -> Gpus:
    watching.start(0.1)
    return until(watching, lambda found: found.at > 0)


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


def test_the_watch_follows_and_never_waits(driver: Callable[..., None], watching: GpuWatch) -> None:
    assert "not read yet" in watching.latest().why
    watching.start(0.05)
    assert until(watching, lambda found: bool(found.devices)).devices[0].utilisation == 97.0
    driver("busy=3")
    assert until(watching, lambda found: found.devices[0].utilisation == 3.0)
    driver("handle0=15")
    assert until(watching, lambda found: "fell off the bus" in found.why).devices == ()
    driver()
    assert until(watching, lambda found: bool(found.devices)), "a GPU that came back is seen again"
    watching.stop()
    assert watching.latest().devices == ()


def test_the_newest_reading_is_given_however_long_nobody_looked(driver: Callable[..., None], watching: GpuWatch) -> None:
    watching.start(0.005)
    until(watching, lambda found: bool(found.devices))
    time.sleep(1.0)  # nobody looks: some hundred readings pass
    driver("busy=1")
    time.sleep(0.3)
    assert watching.latest().devices[0].utilisation == 1.0


def test_a_driver_that_hangs_meanwhile_only_makes_the_answer_say_so(
    driver: Callable[..., None], watching: GpuWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_SILENT_SECONDS", 0.5)
    monkeypatch.setattr(watch, "_KILL_SECONDS", 1.0)
    monkeypatch.setattr(watch, "_RESTART_SECONDS", 0.1)
    watching._delay = 0.1
    watching.start(0.05)
    until(watching, lambda found: bool(found.devices))
    first = watching._child
    driver("count=hang")
    found = until(watching, lambda found: not found.devices)
    assert "has not answered for" in found.why
    driver()
    until(watching, lambda found: bool(found.devices))
    assert first is not None
    assert first.poll() == -signal.SIGKILL, "the hanging child was ended and another one started"
    assert watching._child is not first


def test_a_child_that_dies_is_started_again_with_patience(
    driver: Callable[..., None], watching: GpuWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching._delay = 0.2
    driver("memory=crash")
    watching.start(0.05)
    assert f"by signal {int(signal.SIGSEGV)}" in until(watching, lambda found: "ended" in found.why).why
    driver()
    until(watching, lambda found: bool(found.devices))
    assert watching._delay == 0.4


PARENT = """
import os, sys, time
from fluxtui.gpu import GpuWatch
watch = GpuWatch()
watch.start(0.05)
while not watch.latest().devices:
    time.sleep(0.02)
if sys.argv[1] == "hang":
    open(os.environ["FAKE_NVML"], "w").write("count=hang\\n")
    time.sleep(0.3)
print(watch._child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("state", ["well", "hang"])
def test_the_child_ends_with_its_parent_however_that_ends(driver: Callable[..., None], state: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, state], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert Path(f"/proc/{child}").exists()
    parent.kill()
    parent.wait()
    end = time.monotonic() + 10
    while Path(f"/proc/{child}/stat").exists() and Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < end, "the child outlived its parent"
        time.sleep(0.02)


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
