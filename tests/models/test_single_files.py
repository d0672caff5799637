"""FLUX.1 from single files is FLUX.1 from its folder, weight for weight and number for number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fluxtui.demo import PICO_DIR
from fluxtui.engine.family.flux1.components import Components, pipeline_at
from fluxtui.engine.family.flux1.encode import encode_image_mean, encode_prompts
from fluxtui.engine.memory.precision import CODECS, QuantizedLinear
from fluxtui.persist.errors import DamagedError, NotFoundError, UsageError
from fluxtui.persist.home import Home
from fluxtui.persist.models import assembly as model_assembly
from fluxtui.persist.models.folder import recognise, settle
from tests.models.singles import FILES, float8, originals, prefixed, take_apart, told, weights, write


def built(source: str, home: Home) -> Components:
    seen = settle(source, home)
    assert seen.path is not None
    return pipeline_at(seen.path)


def assert_same(found: Components, wanted: Components) -> None:
    """Every weight bit for bit, and what the parts make of the same input."""
    ours, theirs = found.load_transformer(torch.float32, "cpu"), wanted.load_transformer(torch.float32, "cpu")
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())
    assert ours.config["axes_dims_rope"] is not None
    assert {k: v for k, v in dict(ours.config).items() if k[0] != "_"}.items() >= {
        key: (tuple(value) if isinstance(value, list) else value)
        for key, value in wanted.transformer_config.items() if key != "axes_dims_rope"
    }.items()  # fmt: skip
    encoders, reference = found.load_text_encoders(torch.float32, "cpu"), wanted.load_text_encoders(torch.float32, "cpu")
    for one, other in zip(encode_prompts(encoders, ["a red square"]), encode_prompts(reference, ["a red square"]), strict=True):
        assert torch.equal(one, other)
    picture = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    vae, other_vae = found.load_vae(torch.float32, "cpu"), wanted.load_vae(torch.float32, "cpu")
    latents = encode_image_mean(vae, picture)
    assert torch.equal(latents, encode_image_mean(other_vae, picture))
    assert torch.equal(vae.decode(latents).sample, other_vae.decode(latents).sample)
    assert vae.config["scaling_factor"] == other_vae.config["scaling_factor"]


def test_four_files_are_the_pipeline(tiny: Path, models: Path, home: Home) -> None:
    found = built(str(models / FILES["transformer"]), home)
    assert_same(found, pipeline_at(tiny))
    assert found.text_tokens == pipeline_at(tiny).text_tokens
    assert sum(path.stat().st_size for path in found.folder.rglob("*") if not path.is_symlink()) < 2**20, "weights were copied"


def test_the_pico_model_from_files_is_the_pico_model(tmp_path: Path, home: Home) -> None:
    take_apart(PICO_DIR, tmp_path / "models")
    assert_same(built(str(tmp_path / "models" / FILES["transformer"]), home), pipeline_at(PICO_DIR))


def test_one_checkpoint_with_all_parts_is_the_pipeline(tiny: Path, models: Path, home: Home, tmp_path: Path) -> None:
    parts = originals(tiny)
    whole = prefixed(parts["transformer"], "model.diffusion_model.") | prefixed(parts["vae"], "vae.")
    whole |= prefixed(parts["text_encoder"], "text_encoders.clip_l.transformer.")
    whole |= prefixed(parts["text_encoder_2"], "text_encoders.t5xxl.transformer.")
    file = write(tmp_path / "checkpoints" / "all.safetensors", whole, told(tiny, *parts))
    for name in ("tokenizer", "tokenizer_2"):
        (tmp_path / name).symlink_to(models / name)
    found = built(str(file), home)
    assert_same(found, pipeline_at(tiny))
    for part, content in parts.items():
        assert model_assembly.part_tensors(found.folder / part).keys() == {
            name.removeprefix("text_model.") for name in content
        }, part
    assert {Path(origin.file) for origin in model_assembly.origins_of(found.folder).values()} == {file}


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model."])
@pytest.mark.parametrize("form", ["bf16", "fp8", "fp8 scaled", "fp8 rows"])
def test_every_storage_is_read_as_it_was_meant(
    prefix: str, form: str, tiny: Path, models: Path, home: Home, tmp_path: Path
) -> None:
    content = originals(tiny)["transformer"]
    if form == "bf16":
        stored = {name: value.bfloat16() for name, value in content.items()}
        meant = {name: value.float() for name, value in stored.items()}
    else:
        stored, meant = float8(content, scaled=form != "fp8", rows=form == "fp8 rows")
    marker = stored.pop("scaled_fp8", None)
    stored = prefixed(stored, prefix) | ({} if marker is None else {"scaled_fp8": marker})
    file = write(tmp_path / "m" / "x.safetensors", stored, told(tiny, "transformer"))
    reference = write(tmp_path / "r" / "x.safetensors", meant, told(tiny, "transformer"))
    rest = ",".join(str(models / FILES[part]) for part in ("vae", "text_encoder", "text_encoder_2"))
    ours = built(f"{file},{rest}", home).load_transformer(torch.float32, "cpu").state_dict()
    theirs = built(f"{reference},{rest}", home).load_transformer(torch.float32, "cpu").state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    plain = weights(tiny, "transformer")
    assert any(not torch.equal(value, plain[name].float()) for name, value in ours.items()), "nothing was rounded"


@pytest.mark.parametrize("form", ["bf16", "fp8", "fp8 scaled", "fp8 rows"])
def test_every_storage_goes_into_every_precision(form: str, tiny: Path, models: Path, home: Home, tmp_path: Path) -> None:
    content = originals(tiny)["transformer"]
    if form == "bf16":
        stored = {name: value.bfloat16() for name, value in content.items()}
    else:
        stored, _ = float8(content, scaled=form != "fp8", rows=form == "fp8 rows")
    file = write(tmp_path / "m" / "x.safetensors", stored, told(tiny, "transformer"))
    rest = ",".join(str(models / FILES[part]) for part in ("vae", "text_encoder", "text_encoder_2"))
    found = built(f"{file},{rest}", home)
    meant = found.load_transformer(torch.float32, "cpu").state_dict()
    for codec, bound in (("int8", 0.012), ("fp8", 0.033), ("nf4", 0.11)):
        loaded = found.load_transformer(torch.bfloat16, "cpu", codec=CODECS[codec])
        layers = {name: layer for name, layer in loaded.named_modules() if isinstance(layer, QuantizedLinear)}
        assert len(layers) == 2 * 14 + 2 * 6
        for name, layer in layers.items():
            exact = meant[f"{name}.weight"]
            error = (layer.codec.decode(layer.parts(), layer.shape, exact.dtype) - exact).norm() / exact.norm()
            assert error < bound, (codec, name, float(error))


def test_a_t5_in_8_bits_is_read_as_it_was_meant(tiny: Path, models: Path, home: Home, tmp_path: Path) -> None:
    stored, meant = float8(originals(tiny)["text_encoder_2"], scaled=True)
    file = write(tmp_path / "t5_fp8.safetensors", stored, told(tiny, "text_encoder_2"))
    found = built(f"{models / FILES['transformer']},{file}", home)
    ours = found.load_text_encoders(torch.float32, "cpu").t5.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in meant.items())
    assert torch.equal(ours["encoder.embed_tokens.weight"], meant["shared.weight"])


def test_16_bit_encoders_are_taken_before_8_bit_ones(tiny: Path, models: Path, home: Home, tmp_path: Path) -> None:
    stored, _ = float8(originals(tiny)["text_encoder_2"], scaled=True)
    folder = tmp_path / "mine"
    take_apart(tiny, folder)
    write(folder / "clip" / "a_t5_fp8.safetensors", stored, told(tiny, "text_encoder_2"))
    seen = recognise(str(folder / FILES["transformer"]), home)
    assert seen.collection is not None
    assert seen.collection.parts["text_encoder_2"].path == folder / FILES["text_encoder_2"]


def test_parts_are_found_in_the_configured_folders_by_bare_names_too(tiny: Path, models: Path, home: Home) -> None:
    with pytest.raises(NotFoundError):
        recognise("some-flux.safetensors", home)
    home.config.write_text(f'[models]\nfolders = ["{models}"]\n')
    assert_same(built("some-flux.safetensors", home), pipeline_at(tiny))


def test_what_is_missing_is_named_with_the_places_looked_at(models: Path, home: Home, tmp_path: Path) -> None:
    alone = tmp_path / "alone" / "x.safetensors"
    alone.parent.mkdir()
    alone.symlink_to(models / FILES["transformer"])
    with pytest.raises(NotFoundError, match=r"VAE .*alone.*\[models\] folders"):
        recognise(str(alone), home)


def test_the_hubs_cache_gives_the_parts_that_are_missing(tiny: Path, models: Path, home: Home, tmp_path: Path) -> None:
    snapshot = tmp_path / "no-hub" / "models--black-forest-labs--FLUX.1-dev" / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(tiny)
    alone = tmp_path / "alone" / "x.safetensors"
    alone.parent.mkdir()
    alone.symlink_to(models / FILES["transformer"])
    assert_same(built(str(alone), home), pipeline_at(tiny))


def test_a_file_that_was_exchanged_or_lost_is_refused(tiny: Path, home: Home, tmp_path: Path) -> None:
    files = take_apart(tiny, tmp_path / "models")
    seen = settle(str(files["transformer"]), home)
    vae = files["vae"].read_bytes()
    files["vae"].write_bytes(vae + b" ")
    with pytest.raises(DamagedError, match="another file"):
        recognise(seen.written, home)
    files["vae"].unlink()
    with pytest.raises(NotFoundError, match="is gone"):
        recognise(seen.written, home)
    files["vae"].write_bytes(vae)
    assert settle(str(files["transformer"]), home).written == recognise(seen.written, home).written == seen.written


def test_a_weight_that_is_missing_or_too_much_is_named(tiny: Path, models: Path, home: Home, tmp_path: Path) -> None:
    rest = ",".join(str(models / FILES[part]) for part in ("vae", "text_encoder", "text_encoder_2"))
    for change, words in (("lack", "single_transformer_blocks.1.proj_out.weight"), ("extra", "double_blocks.0.odd")):
        content = originals(tiny)["transformer"]
        if change == "lack":
            del content["single_blocks.1.linear2.weight"]
        else:
            content["double_blocks.0.odd.weight"] = torch.zeros(2)
        file = write(tmp_path / change / "x.safetensors", content, told(tiny, "transformer"))
        with pytest.raises(DamagedError, match=words if change == "lack" else "odd"):
            built(f"{file},{rest}", home).load_transformer(torch.float32, "cpu")


def test_a_session_is_made_of_a_file_and_keeps_its_parts(models: Path, home: Home, tmp_path: Path) -> None:
    from fluxtui import control
    from fluxtui.persist.settings import recipe
    from tests.trainer.tiny_flux import little_pictures

    data = little_pictures(tmp_path / "data")
    folder = control.create(home, "mine", dataset=str(data), model=str(models / FILES["transformer"]))
    spec = recipe.load_spec(folder.spec_file)
    assert Path(spec.model.source).parent == home.models
    assert spec.kind == "pico"
    index = json.loads((Path(spec.model.source) / "model_index.json").read_text())
    assert index["_class_name"] == "FluxPipeline"


def test_files_that_do_not_go_together_are_refused(models: Path, home: Home, tmp_path: Path) -> None:
    take_apart(PICO_DIR, tmp_path / "pico")
    with pytest.raises(UsageError, match="another width"):
        recognise(f"{models / FILES['transformer']},{tmp_path / 'pico' / FILES['text_encoder_2']}", home)
    with pytest.raises(UsageError, match="Both"):
        recognise(f"{models / FILES['transformer']},{tmp_path / 'pico' / FILES['transformer']}", home)
    with pytest.raises(UsageError, match="not a transformer"):
        recognise(str(models / FILES["vae"]), home)
