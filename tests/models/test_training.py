"""A training from single files ends with the same bytes as one from the pipeline's folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fluxtui.persist.home import Home
from fluxtui.persist.models.folder import settle
from tests.models.singles import FILES
from tests.trainer.job import Bench, small_spec
from tests.trainer.tiny_flux import little_pictures


@pytest.fixture
def trained(tmp_path: Path, home: Home) -> Callable[[Path, str], str]:
    data = little_pictures(tmp_path / "data")

    def run(model: Path, name: str) -> str:
        bench = Bench(tmp_path / f"home-{name}", small_spec(model, data, name, train__steps=3))
        bench.run_here()
        return bench.result().tensors_sha256

    return run


def test_a_lora_trained_from_files_is_the_one_trained_from_the_folder(
    tiny: Path, models: Path, home: Home, trained: Callable[[Path, str], str]
) -> None:
    assembled = settle(str(models / FILES["transformer"]), home).path
    assert assembled is not None
    assert trained(assembled, "files") == trained(tiny, "folder")
