"""What goes to the device: the numbers as they are, and to a GPU without making the host wait."""

from __future__ import annotations

from typing import Any

import torch

from fluxtui.engine.send import send


class Played:
    """A tensor that notes what is asked of it: there is no GPU here."""

    def __init__(self, device: str, asked: list[str]) -> None:
        self.device, self.asked = torch.device(device), asked

    def pin_memory(self) -> Played:
        self.asked.append("pinned")
        return self

    def to(self, device: torch.device, non_blocking: bool = False) -> Played:
        self.asked.append(f"to {device.type}, {'without' if non_blocking else 'with'} waiting")
        return self


def test_to_a_gpu_it_goes_from_page_locked_memory_without_waiting() -> None:
    asked: list[str] = []
    tensor: Any = Played("cpu", asked)
    send(tensor, torch.device("cuda", 0))
    assert asked == ["pinned", "to cuda, without waiting"]


def test_what_is_there_already_or_stays_on_the_cpu_is_not_page_locked() -> None:
    asked: list[str] = []
    there: Any = Played("cuda", asked)
    send(there, torch.device("cuda", 0))
    assert asked == ["to cuda, with waiting"]
    here = torch.ones(3)
    assert send(here, torch.device("cpu")) is here
