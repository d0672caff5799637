"""DoRA, LoKr and ranks of single layers: what they compute, that they resume exactly, and which files can carry them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from fluxtui.engine.export import export
from fluxtui.engine.family.flux1.components import pipeline_at
from fluxtui.engine.family.flux1.targets import target_names
from fluxtui.engine.plan import plan_of
from fluxtui.engine.plan_table import table
from fluxtui.engine.prove import prove
from fluxtui.engine.trainer.adapter.lora import Adapter, add_lora
from fluxtui.engine.trainer.checkpoint.state import from_safetensors
from fluxtui.engine.trainer.loop import advance
from fluxtui.persist.checkpoints.commit import remove_checkpoint
from fluxtui.persist.errors import FluxTUIError, RefusedError
from fluxtui.persist.files import tensorfile
from fluxtui.persist.home import Home
from fluxtui.persist.settings.compatibility import only_read_by
from fluxtui.persist.settings.layers import LayerSize, problem_of, sizes_of
from fluxtui.persist.settings.spec import LoraSpec
from fluxtui.screens.form.fields import evaluate
from tests.trainer.job import Bench

NewBench = Callable[..., Bench]
LAYERS = [r"single_.*=2", r".*attn\.to_q=8/4"]


def adapted(model: Path, dtype: torch.dtype = torch.float32, seed: int = 1, **spec: object) -> Adapter:
    transformer = pipeline_at(model).load_transformer(dtype, "cpu")
    return add_lora(transformer, target_names(transformer, "attention+mlp"), LoraSpec(**{"rank": 4, "alpha": 4.0, **spec}), seed)


def stirred(adapter: Adapter, strength: float = 0.1) -> Adapter:
    """Every trained number moved, so that nothing is zero."""
    with torch.no_grad():
        for number, parameter in enumerate(adapter.parameters()):
            parameter.add_(strength * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    return adapter


def test_no_draw_of_pefts_own_leaves_a_lokr_layer_out(tiny_dev: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in 2^24 is 0, from a generator that no checkpoint holds."""
    adapter = stirred(adapted(tiny_dev, kind="lokr"))
    layer = adapter.layers["transformer_blocks.0.ff.net.0.proj"].train()
    inputs = torch.randn(3, layer.get_base_layer().in_features, generator=torch.Generator().manual_seed(1))
    wanted = layer(inputs)
    monkeypatch.setattr(torch, "rand", lambda *_: torch.zeros(1))
    assert torch.equal(layer(inputs), wanted)


def test_a_dora_computes_what_the_paper_says(tiny_dev: Path) -> None:
    adapter = adapted(tiny_dev, kind="dora", alpha=8.0)
    name = "transformer_blocks.0.ff.net.0.proj"
    layer = adapter.layers[name]
    base = layer.get_base_layer()
    inputs = torch.randn(3, base.in_features, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(layer(inputs), base(inputs), rtol=1e-5, atol=1e-5)  # nothing changes before the first step
    own = dict(stirred(adapter).named_parameters())
    direction = base.weight + 2.0 * own[f"{name}.lora_B"] @ own[f"{name}.lora_A"]
    weight = own[f"{name}.magnitude"][:, None] * direction / direction.norm(dim=1, keepdim=True)
    torch.testing.assert_close(layer(inputs), functional.linear(inputs, weight, base.bias), rtol=1e-4, atol=1e-5)
    layer(inputs).square().sum().backward()
    assert all(own[f"{name}.{part}"].grad.abs().max() > 0 for part in ("lora_A", "lora_B", "magnitude"))


@pytest.mark.parametrize(("rank", "parts"), [(2, ("lokr_w1", "lokr_w2_a", "lokr_w2_b")), (64, ("lokr_w1", "lokr_w2"))])
def test_a_lokr_computes_a_kronecker_product(tiny_dev: Path, rank: int, parts: tuple[str, ...]) -> None:
    adapter = adapted(tiny_dev, kind="lokr", rank=rank, alpha=2.0 * rank)
    name = "transformer_blocks.0.ff.net.0.proj"
    layer = adapter.layers[name]
    base = layer.get_base_layer()
    inputs = torch.randn(3, base.in_features, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(layer(inputs), base(inputs))
    own = dict(stirred(adapter).named_parameters())
    assert tuple(key.rpartition(".")[2] for key in own if key.startswith(name)) == parts
    second = own[f"{name}.{parts[1]}"] if len(parts) == 2 else own[f"{name}.lokr_w2_a"] @ own[f"{name}.lokr_w2_b"]
    update = 2.0 * torch.kron(own[f"{name}.lokr_w1"], second)
    torch.testing.assert_close(layer(inputs), functional.linear(inputs, base.weight + update, base.bias), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["dora", "lokr"])
def test_both_kinds_stay_float32_on_a_bf16_base_and_follow_from_the_seed(tiny_dev: Path, kind: str) -> None:
    one, same, other = (dict(adapted(tiny_dev, torch.bfloat16, seed, kind=kind).named_parameters()) for seed in (1, 1, 2))
    assert {parameter.dtype for parameter in one.values()} == {torch.float32}
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    layer = adapted(tiny_dev, torch.bfloat16, kind=kind).layers["transformer_blocks.0.attn.to_q"]
    assert layer(torch.randn(2, 32, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_rank_and_alpha_by_pattern(tiny_dev: Path) -> None:
    spec = LoraSpec(rank=4, alpha=2.0, layers=LAYERS)
    assert sizes_of(spec, ["single_transformer_blocks.0.proj_out", "transformer_blocks.1.attn.to_q", "x"]) == {
        "single_transformer_blocks.0.proj_out": LayerSize(2, 1.0), "transformer_blocks.1.attn.to_q": LayerSize(8, 4.0),
        "x": LayerSize(4, 2.0),
    }  # fmt: skip
    adapter = adapted(tiny_dev, alpha=2.0, layers=LAYERS)
    for name, layer in adapter.layers.items():
        size = sizes_of(spec, [name])[name]
        assert layer.lora_A["default"].weight.shape[0] == size.rank
        assert layer.scaling["default"] == adapter.scales[name] == size.scale(False)
    for entry, what in (("to_q", "PATTERN=RANK"), ("(=4", "regular"), (".*=0", "from 1"), (".*=4/0", "above 0"), ("a=4", "")):
        assert what in problem_of(entry)
        assert bool(problem_of(entry)) == bool(what)


@pytest.mark.parametrize(
    "sets",
    [{"lora__kind": "dora"}, {"lora__kind": "lokr"}, {"lora__layers": LAYERS, "lora__alpha": 2.0, "lora__max_norm": 0.004}],
)
def test_each_kind_resumes_exactly_and_is_proven(new_bench: NewBench, sets: dict[str, object]) -> None:
    bench = new_bench(train__steps=6, checkpoint__every_steps=3, **sets)
    bench.run_here()
    whole = bench.result().tensors_sha256
    remove_checkpoint(bench.folder.checkpoints, "step-000000006")
    bench.run_here()
    assert bench.result().tensors_sha256 == whole
    bench.write_record()
    proof = prove(bench.root, "little", 0, lambda **_: None)
    assert proof.ok, proof.what
    assert any("loads it" in check for check in proof.checks)


@pytest.mark.parametrize(("kind", "form"), [("dora", "diffusers"), ("lokr", "comfyui")])
def test_what_a_format_cannot_carry_is_told_before_and_refused(
    new_bench: NewBench, tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str, form: str
) -> None:
    bench = new_bench(train__steps=2, lora__kind=kind, checkpoint__every_steps=1)
    told = only_read_by(bench.spec)
    assert told.lower().startswith(f"{form} alone reads"), told
    planned = plan_of(Home(bench.root), bench.spec, None)
    assert planned.only_read_by == told
    assert f"the file: {told}" in table(planned)
    assert ("read by", told) in evaluate(Home(bench.root), {"lora.kind": kind}).facts
    bench.run_here()
    assert f"warning: {told}" in capfd.readouterr().out
    bench.write_record()
    path = tmp_path / "out.safetensors"
    for other in {"diffusers", "kohya", "comfyui"} - {form}:
        with pytest.raises(RefusedError, match=f"cannot carry a {kind}.*{form}"):
            export(bench.root, "little", other, path, "", "bf16", False)
        assert not path.exists()
    export(bench.root, "little", form, path, "", "bf16", False)
    assert tensorfile.tensors_sha256(path) == bench.result().tensors_sha256
    export(bench.root, "little", form, path, "step-000000001", "fp32", False)
    assert {tensor.dtype for tensor in from_safetensors(path).values()} == {torch.float32}


def test_updates_are_kept_from_growing_beyond_a_length(new_bench: NewBench) -> None:
    longest = 0.03
    bench = new_bench(
        train__steps=3, train__learning_rate=1e-2, lora__max_norm=longest, lora__alpha=2.0, lora__layers=LAYERS,
        train__clip_learning_rate=1e-2,
    )  # fmt: skip
    run = bench.prepare_here()
    seen: list[dict[str, torch.Tensor]] = []
    names = [name for adapter in run.adapters for name, _ in adapter.named_parameters()]
    parameters = [parameter for adapter in run.adapters for parameter in adapter.parameters()]

    def updates(values: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        held = dict(zip(names, values, strict=True))
        scales = {name: scale for adapter in run.adapters for name, scale in adapter.scales.items()}
        return {name: scale * held[f"{name}.lora_B"] @ held[f"{name}.lora_A"] for name, scale in scales.items()}

    run.optimizer.register_step_post_hook(lambda *_: seen.append(updates([p.detach().clone() for p in parameters])))
    for step in (1, 2, 3):
        advance(run, step)
        for name, kept in updates([p.detach() for p in parameters]).items():
            made = seen[-1][name]
            torch.testing.assert_close(kept, made * min(1.0, longest / max(float(made.norm()), 1e-12)), rtol=1e-4, atol=1e-7)
    lengths = [float(update.norm()) for one in seen for update in one.values()]
    assert min(lengths) < longest < max(lengths)  # some were too long, and some were left alone


def test_layers_of_several_ranks_are_exported_with_their_own_updates(new_bench: NewBench, tmp_path: Path) -> None:
    bench = new_bench(train__steps=2, lora__layers=LAYERS, lora__alpha=2.0)
    bench.run_here()
    bench.write_record()
    for form in ("diffusers", "kohya", "comfyui"):
        assert "read back" in export(bench.root, "little", form, tmp_path / f"{form}.safetensors", "", "fp32", False)
    ranks = {t.shape[0] for key, t in from_safetensors(tmp_path / "diffusers.safetensors").items() if "lora_A" in key}
    assert ranks == {8}  # padded: one rank for every reader


def test_what_does_not_go_together_is_refused_before_training(new_bench: NewBench) -> None:
    for name, sets, what in (
        ("dropout", {"lora__kind": "lokr", "lora__dropout": 0.1}, "lora.dropout=0"),
        ("rslora", {"lora__kind": "lokr", "lora__rslora": True}, "lora.rslora"),
        ("clip", {"lora__kind": "lokr", "train__clip_learning_rate": 1e-4}, "clip_learning_rate=0"),
        ("ranks", {"lora__kind": "dora", "lora__rank_dropout": 0.1}, "lora.rank_dropout=0"),
        ("long", {"lora__kind": "lokr", "lora__max_norm": 1.0}, "lora.max_norm=0"),
        ("free", {"train__optimizer": "schedule_free", "train__scheduler": "constant", "lora__max_norm": 1.0}, "lora.max_norm=0"),
    ):
        with pytest.raises(FluxTUIError) as caught:
            new_bench(name, **sets).prepare_here()
        assert what in f"{caught.value} {getattr(caught.value, 'remedy', '')}"
