"""The private checkpoints of pretraining: written whole or not at all, on the machine that trains only.

A stage that was stopped goes on as if it had not been: weights, optimizers and the generator are put back, and a stage that
is asked for with another plan than it began with is refused. So seed and thread count decide every byte.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Kept = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stage:
    """All that changes while a stage trains, and the plan that it follows."""

    plan: dict[str, Any]
    modules: dict[str, torch.nn.Module]
    optimizers: list[torch.optim.Optimizer]
    generator: torch.Generator

    def keep(self, path: Path, step: int) -> None:
        """Writes the state after `step` optimizer steps."""
        save(path, {
            "plan": self.plan,
            "step": step,
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "random": self.generator.get_state(),
        })  # fmt: skip

    def restore(self, path: Path) -> int:
        """Puts a kept state back; returns its step, 0 where there is none."""
        state = load(path)
        if state is None:
            return 0
        if state["plan"] != self.plan:
            raise SystemExit(f"{path} was begun with {state['plan']}, not {self.plan}: give the same, or another --work folder.")
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self.generator.set_state(state["random"])
        return int(state["step"])


def save(path: Path, state: Kept) -> None:
    """Writes beside, syncs, renames: a crash leaves the checkpoint before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    with beside.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def load(path: Path) -> Kept | None:
    """The checkpoint, or None where there is none yet."""
    if not path.exists():
        return None
    state: Kept = torch.load(path, weights_only=True)
    return state
