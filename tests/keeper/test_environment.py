"""What a trainer finds in its environment."""

from __future__ import annotations

import pytest

from fluxtui.engine.keeper import spawn


@pytest.mark.parametrize(("own", "found"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_idle_threads_of_a_trainer_sleep_unless_the_user_wants_them_to_spin(
    monkeypatch: pytest.MonkeyPatch, own: str | None, found: str
) -> None:
    """Two threads that spin on cores that others use too: 7 s a step of the pico where it takes 0.1 s."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if own is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", own)
    environment = spawn._environment("run", [], 2)
    assert (environment["OMP_WAIT_POLICY"], environment["OMP_NUM_THREADS"]) == (found, "2")
