"""Lion (arXiv:2302.06675): each number moves by the rate, towards the sign of a mixture of gradient and momentum."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

AT_ONCE = 32 * 2**20  # bytes of parameters that a kernel goes over: as many are held beside them


class Lion(torch.optim.Optimizer):
    """The step of lion-pytorch (state `exp_avg`, decay by `1 - lr * weight_decay`), many parameters to a kernel."""

    def __init__(
        self, params: Iterable[Any], lr: float, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Of all parameters that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            for some in _by_bytes([parameter for parameter in group["params"] if parameter.grad is not None]):
                self._move(some, group)

    def _move(self, parameters: list[torch.Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["exp_avg"] = torch.zeros_like(parameter)
        momenta = [self.state[parameter]["exp_avg"] for parameter in parameters]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        (mixed, kept), rate = group["betas"], group["lr"]
        torch._foreach_mul_(parameters, 1.0 - rate * group["weight_decay"])
        moves = torch._foreach_mul(momenta, mixed)
        torch._foreach_add_(moves, gradients, alpha=1.0 - mixed)
        torch._foreach_sign_(moves)
        torch._foreach_add_(parameters, moves, alpha=-rate)
        torch._foreach_mul_(momenta, kept)
        torch._foreach_add_(momenta, gradients, alpha=1.0 - kept)


def _by_bytes(parameters: list[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """In order, each part of `AT_ONCE` bytes at most, or of one parameter."""
    some: list[torch.Tensor] = []
    size = 0
    for parameter in parameters:
        if some and size + parameter.nbytes > AT_ONCE:
            yield some
            some, size = [], 0
        some.append(parameter)
        size += parameter.nbytes
    if some:
        yield some
