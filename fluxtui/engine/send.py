"""Tensors on their way to the device that computes."""

from __future__ import annotations

import torch


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The same numbers on `device`. To a GPU from page-locked memory: a plain copy waits until the GPU has done all it was asked.

    The page-locked copy needs no owner: torch's allocator does not give its memory away before the transfer is done.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
