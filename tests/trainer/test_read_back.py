"""An exported file is read back and compared with what was trained, before it is called written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fluxtui.engine.export import read_back
from fluxtui.engine.family.flux1.lora_file import Factors, to_diffusers
from fluxtui.engine.trainer.checkpoint.state import to_safetensors
from fluxtui.persist.errors import FluxTUIError

SHAPES = {"transformer_blocks.0.attn.to_q": (8, 6), "transformer_blocks.0.attn.to_k": (8, 6)}
Q, K = SHAPES


def factors(*modules: str, scale: float = 1.0) -> Factors:
    generator = torch.Generator().manual_seed(1)
    return {
        name: (torch.randn(2, 6, generator=generator), scale * torch.randn(8, 2, generator=generator)) for name in modules
    }


def lost(path: Path, written: Factors, trained: Factors) -> float:
    path.write_bytes(b"".join(to_safetensors(to_diffusers(written))))
    return read_back(path, trained, trained, SHAPES, "fp32")


def test_what_was_trained_is_found_again(tmp_path: Path) -> None:
    assert lost(tmp_path / "out", factors(Q, K), factors(Q, K)) < 1e-7


def test_an_update_that_is_missing_is_found(tmp_path: Path) -> None:
    with pytest.raises(FluxTUIError, match=f"does not hold {K}"):
        lost(tmp_path / "out", factors(Q), factors(Q, K))


def test_an_update_that_is_another_is_found(tmp_path: Path) -> None:
    with pytest.raises(FluxTUIError, match=f"holds another update of {Q} than was trained"):
        lost(tmp_path / "out", factors(Q, scale=1.001), factors(Q))


def test_an_update_that_was_not_trained_is_found_unless_it_is_zero(tmp_path: Path) -> None:
    """A file may pad several layers to one: what was not trained there must not change the picture."""
    trained = factors(Q)
    nothing = trained | {K: (torch.ones(2, 6), torch.zeros(8, 2))}
    assert lost(tmp_path / "out", nothing, trained) < 1e-7
    with pytest.raises(FluxTUIError, match=f"holds an update of {K}, which was not trained"):
        lost(tmp_path / "out", trained | factors(K), trained)


def test_a_number_that_is_not_finite_is_found(tmp_path: Path) -> None:
    trained = factors(Q)
    trained[Q][1][0, 0] = torch.inf
    with pytest.raises(FluxTUIError, match="has numbers too large"):
        lost(tmp_path / "out", trained, trained)
