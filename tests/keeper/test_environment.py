"""What a trainer finds in its environment."""

from __future__ import annotations

import pytest

from fluxtui.engine.keeper import spawn


@pytest.mark.parametrize(
    ("own", "found"),
    [
        ({}, ("2500", None)),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, (None, "ACTIVE")),
        ({"GOMP_SPINCOUNT": "7"}, ("7", None)),
    ],
)
def test_idle_threads_of_a_trainer_soon_sleep_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, own: dict[str, str], found: tuple[str | None, str | None]
) -> None:
    """Threads that spin on cores that others use too: 7 s a step of the pico where it takes 0.1 s."""
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    environment = spawn._environment("run", [], 2)
    assert (environment.get("GOMP_SPINCOUNT"), environment.get("OMP_WAIT_POLICY")) == found
    assert environment["OMP_NUM_THREADS"] == "2"
