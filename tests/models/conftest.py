"""Pipelines and the single files of them, made once a test session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fluxtui.engine.family.flux1.components import Components
from fluxtui.engine.hub import transfer
from fluxtui.engine.trainer.source import open_model
from fluxtui.persist.home import Home
from fluxtui.persist.settings.spec import ModelSpec
from tests.models.fetching import NAME, Fetch, Telling
from tests.models.hub import Hub, Repository
from tests.models.singles import take_apart
from tests.trainer.tiny_flux import tiny_flux


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random FLUX.1 of the dev kind."""
    return tiny_flux(tmp_path_factory.mktemp("tiny") / "pipeline", seed=3)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """A folder of models like ComfyUI's, with that FLUX.1 in four files."""
    folder = tmp_path_factory.mktemp("comfy") / "models"
    take_apart(tiny, folder)
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """An empty home; no hub's cache of the user's is looked at."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "no-hub"))
    monkeypatch.setenv("FLUXTUI_RUNTIME", str(tmp_path / "runtime"))
    return Home.open(tmp_path / "home")


@pytest.fixture
def hub(tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with Hub({NAME: Repository(tiny)}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(transfer, "FIRST_PAUSE", 0.01)
        yield server


@pytest.fixture
def fetch(home: Home) -> Fetch:
    def run(source: str = NAME, **model: str) -> tuple[Components, Telling]:
        told = Telling()
        return open_model(ModelSpec(source=source, **model), home.root, "", told), told

    return run
