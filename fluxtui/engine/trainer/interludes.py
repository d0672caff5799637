"""What comes between the steps, samples and held-out losses: when one is due, and how long those to come will take. No torch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from fluxtui.persist.settings.spec import Spec

Kind = Literal["samples", "validation"]


@dataclass(slots=True)
class Interludes:
    """Of one run. Steps count from 1 here: `step` is the last one done, `epoch` and `ended` are of it."""

    spec: Spec
    steps: int  # optimizer steps planned
    steps_per_epoch: int
    _took: dict[Kind, float] = field(default_factory=dict)  # seconds, of the last one of each kind

    def draws(self, step: int, epoch: int, ended: bool) -> bool:
        """Whether the samples of this step are due; those of the last one are drawn once all is safe."""
        sample = self.spec.sample
        by_epochs = ended and sample.every_epochs > 0 and epoch % sample.every_epochs == 0
        by_steps = sample.every_steps > 0 and step % sample.every_steps == 0
        return step < self.steps and (by_epochs or by_steps)

    def validates(self, epoch: int, ended: bool) -> bool:
        """Whether the held-out loss is due."""
        every = self.spec.validate.every_epochs
        return ended and self.holds_out and epoch % every == 0

    @property
    def holds_out(self) -> bool:
        """Whether there are held-out pictures, and a loss of them is asked for."""
        return self.spec.validate.images > 0 and self.spec.validate.every_epochs > 0

    @contextmanager
    def timed(self, kind: Kind) -> Iterator[None]:
        """Around one of them: how long it took, where it came to its end, is what those to come are taken to."""
        began = time.monotonic()
        yield
        self._took[kind] = time.monotonic() - began

    def seconds_left(self, step: int, epoch: int, position: int) -> float:
        """What those still to come will take, the last samples included; 0 of a kind of which there was none so far.

        `epoch` epochs and `position` steps of the next one are done.
        """
        ends = range(step - position + self.steps_per_epoch, self.steps + 1, self.steps_per_epoch)
        numbered = list(enumerate(ends, epoch + 1))
        left = 0.0
        if took := self._took.get("samples"):
            every = self.spec.sample.every_steps
            due = set(range(step - step % every + every, self.steps, every)) if every else set()
            due |= {end for number, end in numbered if self.draws(end, number, True)}
            left += took * (len(due) + 1)
        if took := self._took.get("validation"):
            left += took * sum(self.validates(number, True) for number, _ in numbered)
        return left
