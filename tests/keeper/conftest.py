from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the stand-ins are run as modules of their own

from keeper_lab import Lab

from fluxtui.persist.home import Home
from tests.gpu.conftest import library

__all__ = ["library"]


@pytest.fixture
def lab(tmp_path):
    made = Lab(tmp_path, Home.open(tmp_path / "home"))
    yield made
    made.close()
