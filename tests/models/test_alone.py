"""A transformer that stands alone on the hub, as Flux-Dev2Pro's does: trained with the other parts of a whole FLUX.1."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fluxtui.engine.family.flux1.components import Components
from fluxtui.engine.hub.refusals import DownloadError
from fluxtui.engine.trainer.reporter import Reporter
from fluxtui.engine.trainer.source import open_model
from fluxtui.persist.errors import UsageError
from fluxtui.persist.home import Home
from fluxtui.persist.models.folder import recognise
from fluxtui.persist.settings.spec import ModelSpec
from tests.models.fetching import NAME, Fetch
from tests.models.hub import COMMIT, Hub, Repository
from tests.models.singles import take_apart
from tests.trainer.job import Bench, small_spec
from tests.trainer.tiny_flux import little_pictures, new_transformer

ALONE = "ashen0209/Flux-Dev2Pro"


@pytest.fixture
def weights(hub: Hub, tmp_path: Path) -> Path:
    """Another transformer than the pipeline's, in shards at the top of a repository of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        new_transformer().save_pretrained(tmp_path / "alone", max_shard_size="60KB")
    (tmp_path / "alone" / "README.md").write_text("a card")
    hub.repositories[ALONE] = Repository(tmp_path / "alone")
    return tmp_path / "alone"


def first_weight(folder: Path) -> torch.Tensor:
    return Components(folder).load_transformer(torch.float32, "cpu").x_embedder.weight


def test_it_is_trained_with_the_other_parts_of_flux_1_dev(hub: Hub, fetch: Fetch, weights: Path, tiny: Path, home: Home) -> None:
    assert len(list(weights.glob("*.safetensors"))) > 1, "in shards"
    found, told = fetch(ALONE)
    assert found.commit == COMMIT
    assert any(line.get("model_commit") == COMMIT for line in told.lines)
    fetched = [path for path, _ in hub.bodies()]
    assert not any(path.endswith("FLUX.1-dev/transformer/diffusion_pytorch_model.safetensors") for path in fetched)
    own = new_transformer().from_pretrained(weights).x_embedder.weight
    assert torch.equal(first_weight(found.folder), own)
    assert not torch.equal(own, first_weight(tiny))
    for part in ("vae", "text_encoder", "text_encoder_2", "tokenizer", "scheduler"):
        for path in (tiny / part).iterdir():
            assert (found.folder / part / path.name).read_bytes() == path.read_bytes()
    before, keys = len(hub.requests), (found.model_key, found.text_key)
    again = open_model(ModelSpec(source=ALONE), home.root, COMMIT, Reporter(None), is_offline=True)
    assert (again.folder, again.commit, len(hub.requests)) == (found.folder, COMMIT, before)
    assert (again.model_key, again.text_key) == keys
    whole, _ = fetch(NAME)  # of which the transformer was left on the hub
    assert torch.equal(first_weight(whole.folder), first_weight(tiny))


def test_its_parts_are_found_again_though_the_base_has_moved_on(fetch: Fetch, weights: Path, tiny: Path, home: Home) -> None:
    found, _ = fetch(ALONE)
    key = found.model_key
    newer = home.models / "hub" / "models--black-forest-labs--FLUX.1-dev" / "refs" / "main"
    newer.write_text("f" * 40)
    assert fetch(ALONE)[0].model_key == key


def test_links_to_what_is_gone_are_made_anew(hub: Hub, fetch: Fetch, weights: Path, home: Home) -> None:
    found, _ = fetch(ALONE)
    shutil.rmtree(home.models / "hub")
    again, _ = fetch(ALONE)
    assert again.folder == found.folder
    assert torch.equal(first_weight(again.folder), new_transformer().from_pretrained(weights).x_embedder.weight)


@pytest.mark.parametrize("form", ["folder", "single files"])
def test_the_other_parts_may_be_a_folder_or_single_files_of_this_machine(
    form: str, hub: Hub, fetch: Fetch, weights: Path, tiny: Path, tmp_path: Path
) -> None:
    del hub.repositories[NAME]
    base = tiny if form == "folder" else take_apart(tiny, tmp_path / "comfy")["transformer"]
    found, _ = fetch(ALONE, base=str(base))
    encoders = found.load_text_encoders(torch.float32, "cpu")
    wanted = next(iter(load_file(tiny / "text_encoder" / "model.safetensors").values()))
    assert any(torch.equal(value, wanted) for value in encoders.clip.state_dict().values())
    assert torch.equal(first_weight(found.folder), new_transformer().from_pretrained(weights).x_embedder.weight)


def test_parts_of_another_width_are_refused_by_name(fetch: Fetch, weights: Path, tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "wide")
    config = json.loads((tmp_path / "wide" / "text_encoder_2" / "config.json").read_text())
    (tmp_path / "wide" / "text_encoder_2" / "config.json").write_text(json.dumps(config | {"d_model": 999}))
    with pytest.raises(DownloadError, match="T5 encoder of wide does not go with"):
        fetch(ALONE, base=str(tmp_path / "wide"))


def test_another_model_of_the_same_form_is_refused_before_it_is_fetched(hub: Hub, fetch: Fetch, weights: Path) -> None:
    config = json.loads((weights / "config.json").read_text())
    (weights / "config.json").write_text(json.dumps(config | {"_class_name": "FluxControlNetModel"}))
    with pytest.raises(DownloadError, match="FluxControlNetModel"):
        fetch(ALONE)
    assert not hub.bodies()


def test_single_files_of_the_hub_are_named_with_the_command_that_fetches_one(
    hub: Hub, fetch: Fetch, tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "fp8").mkdir()
    shutil.copy(tiny / "transformer" / "diffusion_pytorch_model.safetensors", tmp_path / "fp8" / "flux1-dev-fp8.safetensors")
    (tmp_path / "fp8" / "config.json").write_text("{}")  # what repositories have to count downloads by
    hub.repositories["Kijai/flux-fp8"] = Repository(tmp_path / "fp8")
    with pytest.raises(DownloadError, match=r"holds single files \(flux1-dev-fp8\.safetensors\)") as refused:
        fetch("Kijai/flux-fp8")
    assert "hf download Kijai/flux-fp8 flux1-dev-fp8.safetensors" in refused.value.remedy
    assert not hub.bodies()


def test_a_session_of_it_is_trained_to_its_product(hub: Hub, weights: Path, tmp_path: Path, home: Home) -> None:
    data = little_pictures(tmp_path / "data", count=3)
    bench = Bench(home.root, small_spec(Path("x"), data, "alone", model__source=ALONE, train__steps=2))
    run = bench.run_here()
    assert run.components.commit == COMMIT
    assert bench.result().step == 2


def test_a_folder_with_a_transformer_alone_is_told_apart(weights: Path, home: Home) -> None:
    with pytest.raises(UsageError, match="transformer alone"):
        recognise(str(weights), home)
