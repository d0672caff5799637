"""The front starts in the blink of an eye, because of what it does not import."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

HEAVY = ("torch", "numpy", "PIL", "diffusers", "transformers", "peft", "accelerate", "safetensors", "pynvml")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def loaded(run: Run, text: str) -> set[str]:
    done = run(f"{text}\nimport sys\nprint('LOADED', *sorted({{name.partition('.')[0] for name in sys.modules}}))")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("LOADED ")[2].split())


@pytest.mark.parametrize(
    "module", ["fluxtui.app", "fluxtui.cli", "fluxtui.cli.verbs", "fluxtui.control", "fluxtui.persist.sessions.overview"]
)
def test_a_front_loads_nothing_heavy(run_python: Run, module: str) -> None:
    assert not loaded(run_python, f"import {module}") & set(HEAVY)


def test_no_verb_loads_anything_heavy_or_the_ui(run_python: Run) -> None:
    text = "from fluxtui.cli import verbs\nfor _, group in verbs.GROUPS:\n    for verb in group: verb.parser()"
    assert not loaded(run_python, text) & {*HEAVY, "textual", "rich"}


def test_a_listing_loads_no_more_than_it_needs(run_python: Run, home_path: object) -> None:
    seen = loaded(run_python, "from fluxtui.cli import main\nassert main(['ls', '--json']) == 0")
    assert not seen & {*HEAVY, "textual", "rich", "subprocess", "asyncio", "psutil", "yaml"}
