"""A fault at every single system call of a commit, a resume, a record, a session's making and the final export (rows 1 and 3).

Each sweep strikes each call that changes anything, one run a call, and proves that none was missed: as many points as the
plain trace shows, every strike seen in its own trace, and with one more nothing is struck.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fluxtui.persist.errors import FluxTUIError
from tests.faults import judge, sweep
from tests.faults.program import SCENARIOS
from tests.faults.sweep import CHANGING, FAULTS, HARMLESS, READING, Outcome

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]


@pytest.fixture(autouse=True)
def strace(needs: Callable[[str], str]) -> str:
    return needs("strace")


@pytest.fixture(params=list(SCENARIOS))
def scenario(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def test_no_call_that_changes_anything_is_left_out_of_the_sweeps(scenario: str, folder: Path) -> None:
    prepared = judge.prepare(scenario, folder / "prepared")
    called = sweep.all_calls(scenario, prepared, folder / "work")
    assert called - {*CHANGING, *READING} <= HARMLESS
    assert {"openat", "write", "fsync", "rename"} <= called


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_any_call_tears_nothing_and_loses_nothing(
    scenario: str, fault: str, folder: Path, record_property: Callable[[str, object], None]
) -> None:
    _sweep(scenario, fault, CHANGING, folder, record_property)


@pytest.mark.parametrize("fault", ["EIO", "EIO for good"])
def test_a_disk_that_cannot_be_read_loses_nothing(
    scenario: str, fault: str, folder: Path, record_property: Callable[[str, object], None]
) -> None:
    calls = (*READING, "close") if fault == "EIO" else READING  # a disk over the network may fail as late as that
    _sweep(scenario, fault, calls, folder, record_property)


def _sweep(
    scenario: str, fault: str, calls: tuple[str, ...], folder: Path, record_property: Callable[[str, object], None]
) -> None:
    prepared, work = judge.prepare(scenario, folder / "prepared"), folder / "work"
    points = sweep.survey(scenario, prepared, work, calls)
    struck = 0
    for call, number in [(name, number) for name in calls for number in range(1, points[name] + 1)]:
        outcome = sweep.strike(scenario, prepared, work, call, fault, number)
        where = f"{fault} at {call} {number} of {points[call]}"
        assert sweep.was_struck(outcome, call, fault), f"{where} did not happen: {outcome}"
        if call == "fsync" and fault == "EIO":
            _not_tried_again(outcome)
        try:
            judge.judge(scenario, work, outcome, call, fault)
        except (AssertionError, FluxTUIError, OSError) as error:
            raise AssertionError(f"after {where}: {error!r}\n{outcome}") from error
        struck += 1
    for call in calls:  # one more, and the program runs through: the numbers above were all there are
        outcome = sweep.strike(scenario, prepared, work, call, fault, points[call] + 1)
        assert outcome.code == 0, outcome
        assert not sweep.was_struck(outcome, call, fault), outcome
    assert struck == sum(points.values())
    record_property("struck", f"{scenario}: {fault}: {struck}")


def _not_tried_again(outcome: Outcome) -> None:
    lines = [line for line in outcome.trace if sweep.call_of(line) == "fsync"]
    at = next(number for number, line in enumerate(lines) if "(INJECTED)" in line)
    failed = lines[at].partition(">")[0].partition("<")[2]
    assert failed
    assert not [line for line in lines[at + 1 :] if f"<{failed}>" in line], f"{failed} was synced again after an error"
