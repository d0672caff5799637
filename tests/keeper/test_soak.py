"""The soak of bench/, short: nothing is lost, nothing is falsely completed, whatever is killed when."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import FAULTS_ROOT

SOAK = Path(__file__).parent.parent.parent / "bench" / "soak.py"


def test_a_short_soak_loses_nothing():
    done = subprocess.run([sys.executable, SOAK, "--seconds", "20", "--sessions", "2", "--json"], capture_output=True, text=True)
    figures = json.loads(done.stdout)
    assert done.returncode == 0, figures
    assert figures["kills"] + figures["stops_and_kills_by_request"] + figures["hangs"] > 0
    assert figures["sessions_completed"] >= 2
    if FAULTS_ROOT:  # a fifth of some thirty
        assert figures["full_disks"] + figures["disks_that_fail"] > 0
