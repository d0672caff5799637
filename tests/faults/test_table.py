"""docs/faults.md names for each of its 46 rows the tests that show it: they exist, and no row is missing."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
ROW = re.compile(r"^\| (\d+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.M)


def all_tests() -> set[str]:
    """The names of all test functions."""
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found.add(node.name)
    return found


def test_every_row_of_the_faults_has_tests_that_exist() -> None:
    rows = {int(number): re.findall(r"`(test_\w+)`", named) for number, _, _, named in ROW.findall(_text())}
    assert sorted(rows) == list(range(1, 47))
    assert not [number for number, names in rows.items() if not names], "rows without a test"
    missing = {name for names in rows.values() for name in names} - all_tests()
    assert not missing


def test_no_test_that_carries_a_rows_number_is_left_out() -> None:
    numbered = {name for name in all_tests() if re.match(r"test_\d\d?_", name)}
    for number, _, _, named in ROW.findall(_text()):
        numbered -= {name for name in numbered if name.startswith(f"test_{number}_") and f"`{name}`" in named}
        numbered -= {name for name in numbered if name.startswith(f"test_{number}_") and re.search(rf"`test_{number}_", named)}
    assert not numbered, f"of no row: {numbered}"


def _text() -> str:
    return (ROOT / "docs" / "faults.md").read_text()
