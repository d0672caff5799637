"""The model card says what was trained on what, how, and whose licence holds."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from fluxtui.engine.keeper.card import card
from fluxtui.persist.files import toml
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.sessions.record import Proof, Record
from fluxtui.persist.settings.spec import DatasetSpec, LoraSpec, ModelSpec, SampleSpec, Spec, ValidateSpec


@pytest.fixture
def folder(tmp_path: Path) -> SessionFolder:
    found = Home.open(tmp_path).session("ring")
    found.create()
    return found


def card_of(folder: SessionFolder, source: str, folders: tuple[str, ...] = (), **spec: object) -> str:
    data = DatasetSpec(path="/secret/place", trigger="vexo", folders=list(folders))
    made = Spec(
        name="ring", id="id", model=ModelSpec(source=source), dataset=data,
        lora=LoraSpec(rank=8, kind="dora"), sample=SampleSpec(prompts=["a [trigger] on `a` table"]),
        validate=ValidateSpec(images=2), **spec,
    )  # fmt: skip
    record = Record(
        session_id="id", attempt=2, nonce="n", status="completed", queued_at=datetime.now(UTC), host="h", boot_id="b", run_id="r",
        step=800, epoch=8,
    )  # fmt: skip
    return card(folder, made, record, Proof(ok=True, sha256="a" * 64, tensors_sha256="b" * 64, size=9))


def test_the_card_names_the_trigger_words_of_all_folders_and_no_folder(folder: SessionFolder) -> None:
    assert "Trigger word: `vexo`. Use it" in card_of(folder, "pico")
    further = ("/secret/two --trigger zap", "/secret/three", "/secret/old --trigger man --regularisation")
    text = card_of(folder, "pico", further)
    assert "Trigger words: `vexo`, `zap`. Use them" in text
    assert "secret" not in text


@pytest.mark.parametrize(
    ("source", "kind", "licence"),
    [
        ("black-forest-labs/FLUX.1-dev", "flux1", "license_name: flux-1-dev-non-commercial-license"),
        ("black-forest-labs/FLUX.1-schnell", "flux1", "license: apache-2.0"),
        ("pico", "pico", "license: apache-2.0"),
        ("/models/of-my-own", "flux1", ""),
    ],
)
def test_the_licence_is_the_bases_or_said_to_be_unknown(folder: SessionFolder, source: str, kind: str, licence: str) -> None:
    text = card_of(folder, source, kind=kind)
    front, _, rest = text.removeprefix("---\n").partition("---\n")
    assert (licence in front) if licence else ("license" not in front and "does not know that base" in rest)
    assert "## Licence" in rest
    assert "/models/" not in text
    assert "/secret" not in text


def test_recipe_data_set_and_samples_are_told(folder: SessionFolder) -> None:
    toml.write(folder.dataset_file, {"schema": 1, "folder": "/secret/place", "files": [
        {"path": "a.png", "size": 9, "mtime_ns": 1, "sha256": "x", "width": 64, "height": 64},
        {"path": "a.txt", "size": 9, "mtime_ns": 1, "sha256": "x"},
        {"path": "b.png", "size": 9, "mtime_ns": 1, "sha256": "x", "width": 64, "height": 64},
    ]})  # fmt: skip
    picture = folder.samples / "step-000000800" / "00.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"png")
    text = card_of(folder, "black-forest-labs/FLUX.1-dev")
    assert "| data set | 2 pictures, 2 of them held out for validation |" in text
    assert "dora, rank 8" in text
    assert "800 (8 epochs)" in text
    assert "](samples/step-000000800/00.png)" in text
    assert "- `a vexo on 'a' table`" in text
    assert "instance_prompt" in text
    assert "/secret" not in text


def test_a_fingerprint_that_cannot_be_read_leaves_its_line_out(folder: SessionFolder) -> None:
    folder.dataset_file.write_text("not = [toml")
    assert "data set" not in card_of(folder, "pico")
