"""The layer of a plain LoRA: peft's own, with a forward pass of its own. Imports peft, which takes seconds."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.layer import Linear

from fluxtui.engine.trainer.adapter.lora import ADAPTER


class PlainLinear(Linear):  # type: ignore[misc]  # peft has no types
    """`W x + b + s B A x`, the update added to the base's output where that lies, by the product that makes it.

    peft's forward pass goes over something as large as the output six times (base, B's product, `* s`, `+`, and back), this
    one twice; and its sum is rounded once. No layer that it is put on keeps its output for the backward pass.
    """

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:  # noqa: ANN401  (as peft has it)
        """`(…, in)` to `(…, out)`, in the dtype of the input."""
        if self.disable_adapters or self.merged or args or kwargs:
            through_peft: torch.Tensor = super().forward(x, *args, **kwargs)
            return through_peft
        x = x.contiguous()  # else each product would copy it for itself
        made: torch.Tensor = self.base_layer(x.flatten(0, -2))  # flat, and no view: autograd copies a gradient for each of those
        down = self.lora_A[ADAPTER](self.lora_dropout[ADAPTER](x)).flatten(0, -2)
        made.addmm_(down, self.lora_B[ADAPTER].weight.to(down.dtype).t(), alpha=self.scaling[ADAPTER])
        return made.view(*x.shape[:-1], made.shape[-1])
