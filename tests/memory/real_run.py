"""A few real optimizer steps over a random transformer on the CPU, and what the planner says that they take."""

from __future__ import annotations

from typing import Any

from fluxtui.engine import quiet


def run(size: dict[str, Any]) -> int:
    """Trains two steps; gives the planned bytes: base, adapter, gradients, Adam, activations at their peak."""
    quiet.hush()
    import torch

    from fluxtui.engine.memory.activations import Shape, _inputs, _with_adapter, measure
    from fluxtui.engine.memory.precision import CODECS, QuantizedLinear
    from fluxtui.engine.memory.weights import count_weights
    from fluxtui.persist.spec import LoraSpec
    from tests.trainer.tiny_flux import new_transformer

    torch.set_num_threads(1)
    with torch.device("meta"):
        config = dict(
            new_transformer(
                num_layers=size["double"], num_single_layers=size["single"], num_attention_heads=size["heads"],
                attention_head_dim=128, axes_dims_rope=(16, 56, 56),
            ).config
        )  # fmt: skip
    is_coded = size["precision"] in CODECS
    shape = Shape(
        dtype=torch.float32, is_coded=is_coded, lora=LoraSpec(rank=16), tokens=size["tokens"], text_tokens=128, batch=1,
        is_checkpointed=size["checkpointed"],
    )  # fmt: skip
    model, lora = _with_adapter(config, shape, size["double"], size["single"])
    model = model.to_empty(device="cpu")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        with torch.no_grad():
            tensor.fill_(1) if tensor.dtype == torch.uint8 else tensor.normal_(0.0, 1e-4 if name.endswith("scales") else 0.02)
    assert any(isinstance(module, QuantizedLinear) for module in model.modules()) == is_coded
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], fused=True)
    for _ in range(2):
        inputs = {
            key: torch.randn(value.shape) if isinstance(value, torch.Tensor) else value
            for key, value in _inputs(model.config, shape).items()
        }
        model(**inputs, return_dict=False)[0].square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
    return count_weights(config, size["precision"], 4, 0).on_device + 4 * 4 * lora + measure(config, shape).peak
