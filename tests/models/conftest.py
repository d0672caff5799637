"""Pipelines and the single files of them, made once a test session."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxtui.persist.home import Home
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
