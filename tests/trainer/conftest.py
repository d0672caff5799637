"""The tiny models and pictures, made once a test session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.job import Bench, small_spec
from tests.trainer.tiny_flux import little_pictures, tiny_flux


@pytest.fixture(scope="session")
def tiny_dev(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_flux(tmp_path_factory.mktemp("models") / "tiny-dev")


@pytest.fixture(scope="session")
def tiny_schnell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_flux(tmp_path_factory.mktemp("models") / "tiny-schnell", kind="schnell")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return little_pictures(tmp_path_factory.mktemp("data") / "pictures", count=5)


@pytest.fixture
def new_bench(tmp_path: Path, tiny_dev: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Bench]:
    """`new_bench("name", train__steps=4)`: a home of its own with one session of the tiny dev model."""
    monkeypatch.setenv("FLUXTUI_RUNTIME", str(tmp_path / "runtime"))

    def make(name: str = "little", model: Path | None = None, data: Path | None = None, **sets: Any) -> Bench:
        return Bench(tmp_path / f"home-{name}", small_spec(model or tiny_dev, data or pictures, name, **sets))

    return make


@pytest.fixture
def trained(new_bench: Callable[..., Bench]) -> Bench:
    """A little session that was trained to its end, with a record."""
    bench = new_bench(lora__rank=4, lora__alpha=2.0, checkpoint__every_steps=4)
    bench.run_here()
    bench.write_record()
    return bench
