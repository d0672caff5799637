"""Exports: every format, at the full shape of FLUX.1-dev, holds the very updates that were trained."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel

from fluxtui.engine.export import _must_be_writable, export, main
from fluxtui.engine.family.flux1 import lora_file
from fluxtui.engine.family.flux1.targets import target_names
from fluxtui.engine.trainer.checkpoint.state import from_safetensors, to_safetensors
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.errors import FluxTUIError, NotFoundError, RefusedError, StorageError
from fluxtui.persist.files import tensorfile
from tests.trainer.job import Bench

NewBench = Callable[..., Bench]
FORMATS = ("diffusers", "kohya", "comfyui")


@pytest.fixture(scope="module")
def full_shapes() -> tuple[dict[str, tuple[int, int]], FluxTransformer2DModel]:
    """Every linear layer of FLUX.1-dev: 19 double and 38 single blocks of width 3072, without their bytes."""
    with torch.device("meta"):
        model = FluxTransformer2DModel(guidance_embeds=True)
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_901_408_320
    linear = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    return {name: (module.out_features, module.in_features) for name, module in linear.items()}, model


def random_factors(shapes: dict[str, tuple[int, int]], names: tuple[str, ...], rank: int, scale: float) -> lora_file.Factors:
    generator = torch.Generator().manual_seed(rank)
    factors = {}
    for name in names:
        out_features, in_features = shapes[name]
        a = torch.randn(rank, in_features, generator=generator, dtype=torch.bfloat16)
        b = torch.randn(out_features, rank, generator=generator, dtype=torch.bfloat16)
        factors[name] = (a, (b.float() * 0.01 * scale).to(torch.bfloat16))
    return factors


@pytest.mark.parametrize(("rank", "alpha", "targets"), [(16, 16.0, "attention"), (8, 4.0, "attention+mlp")])
def test_round_trips_at_the_full_shape(
    full_shapes: tuple[dict[str, tuple[int, int]], FluxTransformer2DModel], tmp_path: Path, rank: int, alpha: float, targets: str
) -> None:
    shapes, model = full_shapes
    names = target_names(model, targets)
    assert len(names) == {"attention": 19 * 8 + 38 * 3, "attention+mlp": 19 * 12 + 38 * 5}[targets]
    factors = random_factors(shapes, names, rank, alpha / rank)
    for form in FORMATS:
        tensors = {
            "diffusers": lambda: lora_file.to_diffusers(factors), "kohya": lambda: lora_file.to_kohya(factors, shapes),
            "comfyui": lambda: lora_file.to_comfyui(factors, shapes),
        }[form]()  # fmt: skip
        path = tmp_path / f"{form}.safetensors"
        path.write_bytes(b"".join(to_safetensors(tensors)))
        for found in (lora_file.read_factors(from_safetensors(path), shapes), by_diffusers(path)):
            assert {module for module, (_, b) in found.items() if b.any()} == set(names)
            for module in names:  # the very factors, so the very update; cheaper to see than 418 products
                assert all(
                    torch.equal(ours.float(), meant.float()) for ours, meant in zip(found[module], factors[module], strict=True)
                )
        path.unlink()


def by_diffusers(path: Path) -> lora_file.Factors:
    """The factors as diffusers' own converters read the file. ComfyUI's names differ from kohya's by their dots alone."""
    tensors = from_safetensors(path)
    if any(key.startswith("diffusion_model.") for key in tensors):
        tensors = {key.replace("lora_A", "lora_down").replace("lora_B", "lora_up"): value for key, value in tensors.items()}
    read = FluxPipeline.lora_state_dict(tensors)
    modules = {key.removeprefix("transformer.").removesuffix(".lora_A.weight") for key in read if key.endswith(".lora_A.weight")}
    return {m: (read[f"transformer.{m}.lora_A.weight"], read[f"transformer.{m}.lora_B.weight"]) for m in modules}


@pytest.mark.parametrize("form", FORMATS)
def test_a_session_is_exported_read_back_and_described(trained: Bench, tmp_path: Path, form: str) -> None:
    path = tmp_path / "out.safetensors"
    said = export(trained.root, "little", form, path, "", "bf16", False)
    assert str(path) in said
    metadata = tensorfile.read_header(path).metadata
    assert metadata["modelspec.architecture"] == "flux-1-dev/lora"
    assert metadata["ss_network_dim"] == "4"
    assert metadata["sshs_model_hash"] == behind_the_header(path)
    assert json.loads(metadata["fluxtui"])["trigger"] == "zorp"
    again = tmp_path / "again.safetensors"
    export(trained.root, "little", form, again, "", "bf16", False)
    assert again.read_bytes() == path.read_bytes()
    if form == "diffusers":
        assert tensorfile.tensors_sha256(path) == trained.result().tensors_sha256


def behind_the_header(path: Path) -> str:
    """kohya's `addnet_hash_safetensors`: SHA-256 from the header's end to the file's."""
    data = path.read_bytes()
    return hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()


def test_the_product_itself_says_what_programs_look_for(trained: Bench) -> None:
    """It is the file that people copy and publish, more often than an export."""
    said = tensorfile.read_header(trained.folder.product).metadata
    assert said["sshs_model_hash"] == behind_the_header(trained.folder.product)
    assert said["modelspec.hash_sha256"] == f"0x{said['sshs_model_hash']}"
    assert (said["modelspec.trigger_phrase"], said["ss_network_module"], said["ss_steps"]) == ("zorp", "networks.lora_flux", "8")
    assert json.loads(said["ss_tag_frequency"]) == {"little": {"zorp": 1}}


# Whose rows a layer of FLUX.1's own code holds, in order, by diffusers' names: ComfyUI's and kohya's map, written down anew.
_DOUBLE = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn.proj": ("attn.to_out.0",), "txt_attn.proj": ("attn.to_add_out",),
    "img_mlp.0": ("ff.net.0.proj",), "img_mlp.2": ("ff.net.2",), "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
}  # fmt: skip
_SINGLE = {"linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"), "linear2": ("proj_out",)}


@pytest.mark.parametrize("form", ["kohya", "comfyui"])
def test_a_reader_that_shares_no_code_finds_the_trained_updates(trained: Bench, tmp_path: Path, form: str) -> None:
    """alpha 2, rank 4: whoever reads up, down and alpha as sd-scripts and ComfyUI do gets 0.5 B A of each module."""
    path = tmp_path / "out.safetensors"
    export(trained.root, "little", form, path, "", "fp32", False)
    tensors = from_safetensors(path)
    saved = from_safetensors(trained.folder.checkpoints / "step-000000008" / "adapter.safetensors")
    modules = {name.rpartition(".")[0] for name in saved}
    seen = set()
    double, single = ("transformer_blocks", _DOUBLE, "double_blocks"), ("single_transformer_blocks", _SINGLE, "single_blocks")
    for blocks, rows, kohya in (double, single):
        for number in range(1 + max(int(name.split(".")[1]) for name in modules if name.startswith(blocks))):
            for layer, parts in rows.items():
                dotted = f"{kohya}.{number}.{layer}"
                if form == "kohya":
                    key = "lora_unet_" + dotted.replace(".", "_")
                    up, down = tensors.pop(f"{key}.lora_up.weight"), tensors.pop(f"{key}.lora_down.weight")
                    whole = up @ down * (float(tensors.pop(f"{key}.alpha")) / down.shape[0])
                else:
                    key = f"diffusion_model.{dotted}"
                    whole = tensors.pop(f"{key}.lora_B.weight") @ tensors.pop(f"{key}.lora_A.weight")
                start = 0
                for part in parts:
                    module = f"{blocks}.{number}.{part}"
                    meant = saved[f"{module}.lora_B"] @ saved[f"{module}.lora_A"] * 0.5
                    torch.testing.assert_close(whole[start : start + len(meant)], meant, rtol=1e-4, atol=1e-7)
                    assert meant.any()
                    start += len(meant)
                    seen.add(module)
                assert start == len(whole)
    assert seen == modules
    assert not tensors


def test_a_rank_that_bf16_cannot_say_is_exported_all_the_same(new_bench: NewBench, tmp_path: Path) -> None:
    """Three ranks of 129 make a fused one of 387, and bf16 knows 386 and 388."""
    bench = new_bench("wide", lora__rank=129, lora__alpha=129.0, train__steps=2, lora__targets="attention")
    bench.run_here()
    bench.write_record()
    assert "read back" in export(bench.root, "wide", "kohya", tmp_path / "wide.safetensors", "", "bf16", False)


def test_without_a_checkpoint_the_products_own_step_is_exported(trained: Bench, tmp_path: Path) -> None:
    """A later checkpoint, of a training that went on elsewhere and was copied in, is not the finished file."""
    newer = trained.folder.checkpoints / "step-000000009"
    older = trained.folder.checkpoints / "step-000000004"
    files = {path.name: path.read_bytes() for path in older.iterdir() if path.name != "MANIFEST"}
    commit.commit_checkpoint(trained.folder.checkpoints, newer.name, files, {})
    assert "of step 8" in export(trained.root, "little", "diffusers", tmp_path / "out.safetensors", "", "bf16", False)


def test_a_checkpoint_and_another_precision_can_be_exported(trained: Bench, tmp_path: Path) -> None:
    early, late = tmp_path / "early.safetensors", tmp_path / "late.safetensors"
    late.touch(0o640)
    assert "of step 4" in export(trained.root, "little", "diffusers", early, "step-000000004", "fp32", False)
    assert "of step 8" in export(trained.root, "little", "diffusers", tmp_path / "new.safetensors", "newest", "fp32", False)
    assert "of step 8" in export(trained.root, "little", "diffusers", late, "", "fp32", False)
    assert {tensor.dtype for tensor in from_safetensors(early).values()} == {torch.float32}
    assert tensorfile.tensors_sha256(early) != tensorfile.tensors_sha256(late)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (early, late)]
    assert modes == [0o666 & ~umask(), 0o640], "another user's program could not read it"
    with pytest.raises(NotFoundError, match="step-000000005"):
        export(trained.root, "little", "diffusers", early, "step-000000005", "fp32", False)


def umask() -> int:
    now = os.umask(0o077)
    os.umask(now)
    return now


def multiply(bench: Bench, ending: str, factor: float) -> None:
    """The last checkpoint again, with some of its tensors made larger or smaller."""
    name = bench.checkpoints()[-1]
    folder = bench.folder.checkpoints / name
    saved = from_safetensors(folder / "adapter.safetensors")
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "MANIFEST"}
    for key, tensor in saved.items():
        if key.endswith(ending):
            tensor.mul_(factor)
    files["adapter.safetensors"] = b"".join(to_safetensors(saved))
    commit.remove_checkpoint(bench.folder.checkpoints, name)
    commit.commit_checkpoint(bench.folder.checkpoints, name, files, {})


def test_a_precision_that_loses_the_update_is_refused(trained: Bench, tmp_path: Path) -> None:
    path = tmp_path / "out.safetensors"
    for factor, why in ((1e-6, "would lose"), (1e15, "too large for fp16")):
        multiply(trained, "lora_B", factor)
        for form in FORMATS:
            with pytest.raises(FluxTUIError, match=why):
                export(trained.root, "little", form, path, "", "fp16", False)
            assert not path.exists()
        export(trained.root, "little", "kohya", path, "", "bf16", False)
        path.unlink()


@pytest.mark.parametrize(("kind", "form", "part"), [("dora", "diffusers", "lora_A"), ("lokr", "comfyui", "lokr_w1")])
def test_the_other_kinds_are_held_to_it_too(new_bench: NewBench, tmp_path: Path, kind: str, form: str, part: str) -> None:
    bench = new_bench(train__steps=1, checkpoint__every_steps=1, lora__kind=kind)
    bench.run_here()
    bench.write_record()
    path = tmp_path / "out.safetensors"
    for factor in (1e-7, 1e14):  # too small, too large
        multiply(bench, part, factor)
        with pytest.raises(FluxTUIError, match="float16 cannot hold the numbers"):
            export(bench.root, "little", form, path, "", "fp16", False)
        assert not path.exists()
    export(bench.root, "little", form, path, "", "bf16", False)


def test_an_export_replaces_nothing_but_an_earlier_one_of_the_same_session(
    trained: Bench, new_bench: NewBench, tmp_path: Path
) -> None:
    path = tmp_path / "out.safetensors"
    export(trained.root, "little", "diffusers", path, "", "bf16", False)
    assert "kohya" in export(trained.root, "little", "kohya", path, "", "bf16", False)
    other = new_bench("other", train__steps=1, checkpoint__every_steps=1)
    other.run_here()
    other.write_record()
    notes, link = tmp_path / "notes.txt", tmp_path / "link.safetensors"
    notes.write_text("mine")
    link.symlink_to(trained.folder.product)
    for taken in (path, notes, trained.folder.product):
        before = taken.read_bytes()
        with pytest.raises(RefusedError, match="is there already and is no export of other"):
            export(other.root, "other", "diffusers", taken, "newest", "bf16", False)
        assert taken.read_bytes() == before
    for taken in (trained.folder.product, link):
        with pytest.raises(RefusedError, match="is there already"):
            export(trained.root, "little", "diffusers", taken, "", "bf16", False)


def test_a_bad_request_gets_one_sentence(trained: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--home", str(trained.root), "--session", "little", "--format", "diffusers"]
    assert main([*common, "--output", str(tmp_path)]) == 2
    assert main([*common, "--output", str(tmp_path / "no/such.safetensors")]) == 3
    assert main([*common, "--checkpoint", "step-9", "--output", str(tmp_path / "a.safetensors")]) == 3
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 3
    assert "Traceback" not in "".join(said)


def test_a_schedule_free_checkpoint_is_exported_as_it_is_evaluated(new_bench: NewBench, tmp_path: Path) -> None:
    """The optimizer trains at one point and is evaluated at another; the product is of the second, and so is an export."""
    bench = new_bench(train__optimizer="schedule_free", train__scheduler="constant", train__learning_rate=1e-2)
    run = bench.run_here()
    bench.write_record()
    path = tmp_path / "out.safetensors"
    export(bench.root, "little", "diffusers", path, "newest", "bf16", False)
    assert tensorfile.tensors_sha256(path) == bench.result().tensors_sha256
    trained_at = {key: tensor.detach().to(torch.bfloat16) for key, tensor in run.adapter.named_parameters()}
    assert any(
        not torch.equal(tensor, trained_at[key.removeprefix("transformer.").removesuffix(".weight")])
        for key, tensor in from_safetensors(path).items()
    )


def test_averaged_weights_are_exported_on_demand(new_bench: NewBench, tmp_path: Path, trained: Bench) -> None:
    bench = new_bench("averaged", train__ema_decay=0.9)
    bench.run_here()
    raw, averaged = tmp_path / "raw.safetensors", tmp_path / "averaged.safetensors"
    export(bench.root, "averaged", "diffusers", raw, "", "bf16", False)
    export(bench.root, "averaged", "diffusers", averaged, "", "bf16", True)
    assert tensorfile.tensors_sha256(raw) == bench.result().tensors_sha256 != tensorfile.tensors_sha256(averaged)
    with pytest.raises(FluxTUIError, match="ema_decay"):
        export(trained.root, "little", "diffusers", tmp_path / "no.safetensors", "", "bf16", True)


def test_rslora_folds_its_own_scale_into_the_product(new_bench: NewBench) -> None:
    bench = new_bench(lora__rank=4, lora__alpha=4.0, lora__rslora=True, train__steps=2)
    run = bench.run_here()
    tensors, own = from_safetensors(bench.folder.product), dict(run.adapter.named_parameters())
    module = run.adapter.modules[0]
    expected = (own[f"{module}.lora_B"].detach() * 2.0).to(torch.bfloat16)  # 4 / sqrt(4)
    assert torch.equal(tensors[f"transformer.{module}.lora_B.weight"], expected)
    layer = run.adapter.model.get_submodule(module)
    assert layer.scaling["default"] == 2.0


@pytest.mark.parametrize("where", ["", "below/deeper"])
def test_where_one_may_not_write_another_place_is_asked_for_and_not_another_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A file in another user's folder was answered with "PermissionError: [Errno 13]"."""

    def denied(path: Path) -> bool:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "access", lambda *_: False)
    if where:
        monkeypatch.setattr(Path, "is_dir", denied)
    with pytest.raises(StorageError, match=r"You may not write in .*; give -o a file in a folder of yours\.$"):
        _must_be_writable(tmp_path / where / "lora.safetensors")
