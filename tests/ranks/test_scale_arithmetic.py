"""The arithmetic of docs/scale.md is that of `bench/wire.py`, and its sizes are those of the adapter that is trained."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

from fluxtui.persist.room import Shape, lora_weights

ROOT = Path(__file__).parents[2]


def test_the_tables_of_the_document_are_what_the_script_prints() -> None:
    printed = subprocess.run([sys.executable, ROOT / "bench" / "wire.py"], capture_output=True, text=True, check=True).stdout
    rows = [line for line in printed.splitlines() if line.startswith("| ")]
    document = [line for line in (ROOT / "docs" / "scale.md").read_text().splitlines() if line.startswith("| ")]
    first = document.index(rows[0])
    numbers = [line for line in document[first:] if "GPUs" in line or line.split("|")[1].strip().replace("-", "0").isdecimal()]
    assert len(rows) == 4 * 7, "a head, a rule and five links in each of four tables"
    assert numbers == rows


def test_the_bytes_of_a_rank_are_those_of_flux_1s_default_adapter() -> None:
    wire = runpy.run_path(str(ROOT / "bench" / "wire.py"))
    assert lora_weights(Shape(), 1) == wire["PARAMETERS_A_RANK"]
    document = (ROOT / "docs" / "scale.md").read_text()
    assert f"{lora_weights(Shape(), 1):,} parameters" in document.replace("\n", " ")
    for rank in (4, 16, 64):
        count, size = lora_weights(Shape(), rank) / 1e6, wire["gradient_bytes"](rank)
        words = f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
        assert f"| {rank} | {count:.1f} M | {words} |" in document
