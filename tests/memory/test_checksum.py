"""The sum over all bytes of the weights: nothing that a disk does to them is left out of it."""

from __future__ import annotations

import pytest
import torch

from fluxtui.engine.memory.checksum import WeightsSum


@pytest.mark.parametrize(
    ("shape", "dtype"), [((3,), torch.uint8), ((300, 1001), torch.bfloat16), ((1400, 1031), torch.float8_e4m3fn)]
)
def test_any_byte_of_a_weight_and_any_two_blocks_that_changed_places_are_in_its_sum(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    content = torch.randint(0, 255, (torch.Size(shape).numel() * dtype.itemsize,), dtype=torch.uint8)

    def sum_of(flat: torch.Tensor, name: str = "w") -> str:
        taken = WeightsSum()
        taken.take(name, flat.view(dtype).view(shape))
        return taken.hexdigest()

    whole = sum_of(content)
    for place in {0, len(content) // 2, len(content) - 1}:
        changed = content.clone()
        changed[place] ^= 128
        assert sum_of(changed) != whole, place
    assert sum_of(content, "v") != whole
    assert sum_of(content.clone()) == whole
    if len(content) > 2**20:
        swapped = content.clone()
        swapped[: 2**19] = content[2**19 : 2**20]
        swapped[2**19 : 2**20] = content[: 2**19]
        assert sum_of(swapped) != whole
