"""Muon for the matrices, AdamW for the rest.

Muon: Jordan et al., https://kellerjordan.github.io/posts/muon/ . Done here in float32 (torch's own works in bfloat16,
which this CPU lacks) and for all matrices of one shape at once.
"""

from __future__ import annotations

from collections import defaultdict

import torch

_QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalised(momentum: torch.Tensor, rounds: int = 5) -> torch.Tensor:
    """Newton-Schulz towards the nearest semi-orthogonal matrix, for a stack (n, rows, columns); kernels are flattened to one."""
    a, b, c = _QUINTIC
    tall = momentum.size(1) > momentum.size(2)
    x = momentum.mT if tall else momentum
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(rounds):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: torch.Tensor = x.mT if tall else x
    return result


class Muon(torch.optim.Optimizer):
    """Orthogonalised Nesterov momentum; the step's root mean square matches AdamW's (factor 0.2 sqrt(max side))."""

    def __init__(self, matrices: list[torch.nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.nn.Parameter]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape[matrix.shape].append(matrix)
            for matrices in by_shape.values():
                self._step_alike(matrices, group["lr"], group["momentum"], group["weight_decay"])

    def _step_alike(self, matrices: list[torch.nn.Parameter], rate: float, momentum: float, decay: float) -> None:
        for matrix in matrices:
            self.state[matrix].setdefault("momentum", torch.zeros_like(matrix)).lerp_(matrix.grad, 1 - momentum)
        stack = torch.stack([m.grad.lerp(self.state[m]["momentum"], momentum).flatten(1) for m in matrices if m.grad is not None])
        update = orthogonalised(stack)
        for matrix, change in zip(matrices, update, strict=True):
            matrix.mul_(1 - rate * decay).add_(change.view_as(matrix), alpha=-rate * 0.2 * max(stack.shape[1:]) ** 0.5)


def split_parameters(
    module: torch.nn.Module,
) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
    """(matrices for Muon, everything else): embeddings, input and output layers, modulation,
    norms and biases are not for Muon."""
    matrices: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for name, weight in module.named_parameters():
        inner = "block" in name or ".layers." in name
        plain = weight.ndim in (2, 4) and inner and "relative_attention" not in name and ".norm" not in name
        (matrices if plain else rest).append(weight)
    return matrices, rest
