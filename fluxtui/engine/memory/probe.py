"""The plan beside what a real step took, once, in the record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fluxtui.engine.family.flux1.components import Components
from fluxtui.persist.spec import Spec


def note_first_step(
    optimizer: torch.optim.Optimizer, planned: Callable[[], int], measured: Callable[[], int], note: Callable[[str], None]
) -> None:
    """After the first optimizer step: one sentence with both peaks, in bytes as they are given. Later steps are not looked at."""

    def compare(*_: Any) -> None:  # noqa: ANN401  (as torch calls it)
        handle.remove()
        ours, theirs = planned(), measured()
        note(f"GPU memory: {theirs / 2**30:.2f} GiB at the peak of the first step, {ours / 2**30:.2f} GiB planned")

    handle = optimizer.register_step_post_hook(compare)


def planned_peak(spec: Spec, components: Components, card: int) -> int:
    """Bytes of the training phase by the plan. What the whole device holds beside torch's tensors is not in it."""
    from fluxtui.engine.memory.phases import memory_of
    from fluxtui.engine.plan import model_of

    return memory_of(spec, model_of(components.folder, is_schnell=not components.guidance_embeds), card).training_peak
