"""The stub of the driver's library: its C functions, and nothing of ours or of the Python package."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fluxtui.gpu import GpuWatch


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
