"""How many bytes of tensors live at once while something is computed: on the meta device, where nothing is computed at all."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operations make, and when they go. What was there before is not counted.

    `splits`: sums of the queries' gradient, in float32, that a GPU's deterministic attention holds in its backward pass beside
    what it gives back: as many as its multiprocessors over the heads of the batch (`mha_bwd` of flash attention).
    """

    def __init__(self, splits: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has types, but not here
        self.splits = splits
        self.live = 0  # bytes
        self.peak = 0  # bytes
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # noqa: ANN401
        before = {id_of(value) for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)}
        outputs = func(*args, **(kwargs or {}))
        for value in tree_leaves(outputs):
            if isinstance(value, torch.Tensor) and id_of(value) not in before and id_of(value) not in self._sizes:
                self._add(value.untyped_storage())
        if self.splits and func is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default:
            self.peak = max(self.peak, self.live + 4 * self.splits * args[1].numel())
        return outputs

    def _add(self, storage: torch.UntypedStorage) -> None:
        self._sizes[storage._cdata] = storage.nbytes()
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._gone, storage._cdata)

    def _gone(self, key: int) -> None:
        self.live -= self._sizes.pop(key, 0)


def id_of(tensor: torch.Tensor) -> int:
    """Which storage a tensor is a view of."""
    identity: int = tensor.untyped_storage()._cdata
    return identity


@contextmanager
def fused_attention() -> Iterator[None]:
    """Scaled-dot-product attention as devices compute it: fused, keeping queries, keys, values, output and one number a row.

    On the meta device torch would take it apart, and count a matrix of tokens by tokens that no device ever makes. (A
    TorchFunctionMode would not be asked again while the backward pass recomputes.)
    """
    apart = functional.scaled_dot_product_attention

    def fused(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        out: torch.Tensor = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value)[0]
        return out

    functional.scaled_dot_product_attention = fused
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = apart
