"""A session that begins with a LoRA file: of any naming, at the scale that the file says, or refused with what to set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline

from fluxtui.engine.export import export, update_distance
from fluxtui.engine.family.flux1 import lora_scale
from fluxtui.engine.trainer.checkpoint.state import from_safetensors, to_safetensors
from fluxtui.persist.errors import FluxTUIError, NotFoundError
from fluxtui.persist.files import tensorfile
from tests.trainer.job import Bench
from tests.trainer.tiny_flux import new_transformer

NewBench = Callable[..., Bench]
FORMATS = ("diffusers", "kohya", "comfyui")


@pytest.mark.parametrize("form", FORMATS)
def test_a_session_begins_with_a_file_of_any_naming(new_bench: NewBench, tmp_path: Path, trained: Bench, form: str) -> None:
    path = tmp_path / "begin.safetensors"
    export(trained.root, "little", form, path, "", "fp32", False)
    run = new_bench("next", lora__rank=6, lora__alpha=3.0, lora__rslora=True, lora__weights=str(path)).prepare_here()
    saved = from_safetensors(trained.folder.checkpoints / trained.checkpoints()[-1] / "adapter.safetensors")
    own = dict(run.adapter.named_parameters())
    for module in run.adapter.modules:
        meant = (saved[f"{module}.lora_A"], saved[f"{module}.lora_B"] * 0.5)
        found = (own[f"{module}.lora_A"].detach(), own[f"{module}.lora_B"].detach() * run.adapter.scales[module])
        assert update_distance(found, meant) < 1e-6
    assert run.adapter.scales[module] == pytest.approx(3.0 / 6**0.5)


def as_onetrainer(key: str) -> str:
    """Its older names: the module of diffusers, its dots flattened, kohya's endings."""
    module = key.removeprefix("transformer.").removesuffix(".lora_A.weight").removesuffix(".lora_B.weight")
    return f"lora_transformer_{module.replace('.', '_')}.lora_{'down' if 'lora_A' in key else 'up'}.weight"


@pytest.mark.parametrize(
    ("form", "named"),
    [("diffusers", as_onetrainer), ("diffusers", lambda key: key.removeprefix("transformer.")),
     ("comfyui", lambda key: key.removeprefix("diffusion_model."))],
)  # fmt: skip
def test_a_session_begins_with_a_file_of_another_programs_names(
    new_bench: NewBench, tmp_path: Path, trained: Bench, form: str, named: Callable[[str], str]
) -> None:
    path, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    export(trained.root, "little", form, path, "", "fp32", False)
    tensors = {named(key): tensor for key, tensor in from_safetensors(path).items()}
    if named is as_onetrainer:  # alpha of twice the rank
        tensors |= {key.replace("lora_down.weight", "alpha"): torch.tensor(8.0) for key in tensors if "lora_down" in key}
    theirs.write_bytes(b"".join(to_safetensors(tensors)))
    run = new_bench("next", lora__rank=4, lora__alpha=4.0, lora__weights=str(theirs)).prepare_here()
    saved = from_safetensors(trained.folder.checkpoints / trained.checkpoints()[-1] / "adapter.safetensors")
    own = dict(run.adapter.named_parameters())
    for module in run.adapter.modules:
        meant = (saved[f"{module}.lora_A"], saved[f"{module}.lora_B"] * (1.0 if named is as_onetrainer else 0.5))
        assert update_distance((own[f"{module}.lora_A"].detach(), own[f"{module}.lora_B"].detach()), meant) < 1e-6


def test_a_file_of_diffusers_begins_at_the_scale_that_its_metadata_says(new_bench: NewBench, tmp_path: Path) -> None:
    """Saved by `FluxPipeline.save_lora_weights`, of several ranks and alphas: the update is what peft makes of it."""
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    transformer = new_transformer()
    config = LoraConfig(
        r=4, lora_alpha=2, target_modules=r".*\.attn\.to_[qkv]|.*\.proj_mlp", rank_pattern={"to_q": 2}, alpha_pattern={"to_k": 6},
    )  # fmt: skip
    transformer.add_adapter(config)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    FluxPipeline.save_lora_weights(
        tmp_path, get_peft_model_state_dict(transformer), transformer_lora_adapter_metadata=config.to_dict()
    )
    path = tmp_path / "pytorch_lora_weights.safetensors"
    assert lora_scale.KEY in tensorfile.read_header(path).metadata
    run = new_bench(lora__rank=8, lora__alpha=4.0, lora__weights=str(path)).prepare_here()
    own = dict(run.adapter.named_parameters())
    names = [name.removesuffix(".lora_A.default") for name, _ in transformer.named_modules() if name.endswith("lora_A.default")]
    assert {"to_q", "to_k", "proj_mlp"} <= {name.rpartition(".")[2] for name in names}
    for name in names:
        meant = transformer.get_submodule(name).get_delta_weight("default").detach()
        ours = run.adapter.scales[name] * own[f"{name}.lora_B"].detach() @ own[f"{name}.lora_A"].detach()
        torch.testing.assert_close(ours, meant, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "said",
    [
        "{", "[]", '{"transformer.r": 4}', '{"transformer.lora_alpha": "x"}',
        '{"transformer.lora_alpha": 4, "transformer.use_dora": true}',
        '{"transformer.lora_alpha": 4, "transformer.use_rslora": 1}',
        '{"transformer.lora_alpha": 4, "transformer.alpha_pattern": {"(": 2}}',
    ],
)  # fmt: skip
def test_what_is_not_understood_of_a_scale_is_refused_in_a_sentence(said: str) -> None:
    with pytest.raises(FluxTUIError, match=r"cannot be read .*; fold alpha"):
        lora_scale.declared_by({lora_scale.KEY: said})
    assert lora_scale.declared_by({"format": "pt"}) == {}
    rslora = lora_scale.declared_by({lora_scale.KEY: '{"transformer.lora_alpha": 8, "transformer.use_rslora": true}'})
    assert rslora["transformer"].scale("x.to_q", 16) == 2.0


def test_a_product_of_several_ranks_begins_a_session_of_the_same_ranks(new_bench: NewBench, tmp_path: Path) -> None:
    layers = {"lora__layers": ["single_transformer_blocks.*=2", r".*attn\.to_q=8"], "lora__rank": 4, "lora__alpha": 4.0}
    bench = new_bench(train__steps=2, **layers)
    trained_run = bench.run_here()
    bench.write_record()
    for form in ("diffusers", "kohya"):
        path = tmp_path / f"{form}.safetensors"
        export(bench.root, "little", form, path, "", "fp32", False)
        run = new_bench(form, **layers, lora__weights=str(path)).prepare_here()
        theirs, own = (dict(one.adapter.named_parameters()) for one in (trained_run, run))
        for module in run.adapter.modules:
            meant, found = ((of[f"{module}.lora_A"].detach(), of[f"{module}.lora_B"].detach()) for of in (theirs, own))
            assert update_distance(found, meant) < 1e-6, (form, module)


def test_a_lora_of_a_text_encoder_that_is_not_trained_is_left_out_and_said(
    new_bench: NewBench, tmp_path: Path, trained: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "begin.safetensors"
    export(trained.root, "little", "kohya", path, "", "fp32", False)
    tensors = from_safetensors(path)
    for encoder in ("te1_text_model_encoder_layers_0_mlp_fc1", "te3_encoder_block_0_layer_0_SelfAttention_q"):
        tensors |= {f"lora_{encoder}.lora_down.weight": torch.ones(4, 24), f"lora_{encoder}.lora_up.weight": torch.ones(32, 4)}
    path.write_bytes(b"".join(to_safetensors(tensors)))
    new_bench("next", lora__weights=str(path)).prepare_here()
    said = capfd.readouterr().out
    assert "holds a LoRA of CLIP too, which is left out; set train.clip_learning_rate" in said
    assert "holds a LoRA of T5 too" in said


def test_a_file_that_does_not_fit_is_refused_with_what_to_set(new_bench: NewBench, tmp_path: Path, trained: Bench) -> None:
    path = tmp_path / "begin.safetensors"
    export(trained.root, "little", "diffusers", path, "", "fp32", False)
    for name, sets, what in (
        ("rank", {"lora__rank": 2}, "has rank 4, this session 2"), ("targets", {"lora__targets": "attention"}, "no targets"),
    ):  # fmt: skip
        with pytest.raises(FluxTUIError, match=what):
            new_bench(name, lora__weights=str(path), **sets).prepare_here()
    with pytest.raises(NotFoundError, match="nowhere"):
        new_bench("gone", lora__weights=str(tmp_path / "nowhere.safetensors")).prepare_here()
