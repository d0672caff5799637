"""Publishing: an explicit list of files, private unless asked otherwise, and a token that is nowhere of ours."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluxtui.persist.files import toml
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.sessions.record import Result
from tests.trainer.hub import Hub, serving

PICTURE = "samples/step-000000008/00.png"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as found:
        yield found


@pytest.fixture
def session(tmp_path: Path) -> SessionFolder:
    """A session's folder with a product that was proven, its card, and much that is nobody's business."""
    folder = Home.open(tmp_path / "home").session("little")
    folder.create()
    product = os.urandom(20_000)
    folder.product.write_bytes(product)
    digest = hashlib.sha256(product).hexdigest()
    toml.write(folder.result_file, Result(
        nonce="n", attempt=1, session_id="id", recipe_sha256="r", step=8, file=folder.product.name, size=len(product),
        sha256=digest, tensors_sha256="t",
    ))  # fmt: skip
    folder.card_file.write_text(f"---\nlibrary_name: diffusers\n---\n# little\n\n![step 8]({PICTURE})\n![x](../../secret.png)\n")
    for step in (4, 8):
        shown = folder.samples / f"step-{step:09}" / "00.png"
        shown.parent.mkdir(parents=True)
        shown.write_bytes(b"picture of step %d" % step)
    return folder


def publish(session: SessionFolder, hub: Hub, *words: str, token: str = "hf_secret") -> subprocess.CompletedProcess[str]:
    home = session.path.parents[1]
    command = [sys.executable, "-m", "fluxtui.engine", "publish", "--home", str(home), "--session", "little", *words]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(home)}
    environment |= {"HF_TOKEN": token} if token else {}
    return subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=120, env=environment)


def test_the_product_its_card_and_its_pictures_arrive_and_nothing_else(session: SessionFolder, hub: Hub) -> None:
    before = sorted(path.name for path in session.path.rglob("*"))
    done = publish(session, hub, "--repo", "me/little-lora")
    assert done.returncode == 0, done.stderr
    assert hub.files == {
        "little.safetensors": session.product.read_bytes(), "README.md": session.card_file.read_bytes(),
        PICTURE: (session.path / PICTURE).read_bytes(),
    }  # fmt: skip
    assert hub.repos == {"me/little-lora": True}
    assert len(hub.commits) == 1
    assert [line.partition("  ")[0] for line in done.stdout.splitlines()[:-1]] == ["little.safetensors", "README.md", PICTURE]
    assert "private repository me/little-lora" in done.stdout
    assert sorted(path.name for path in session.path.rglob("*")) == before
    assert "hf_secret" not in done.stdout + done.stderr
    assert not any(b"hf_secret" in path.read_bytes() for path in session.path.parents[1].rglob("*") if path.is_file())


def test_public_only_when_asked_even_where_the_repository_is(session: SessionFolder, hub: Hub) -> None:
    hub.repos["me/seen"] = False
    done = publish(session, hub, "--repo", "me/seen")
    assert done.returncode == 4
    assert "public" in done.stderr
    assert hub.commits == []
    assert publish(session, hub, "--repo", "me/seen", "--public").returncode == 0
    assert publish(session, hub, "--repo", "me/new", "--public").returncode == 0
    assert hub.repos["me/new"] is False


def test_refusals_are_one_sentence_and_send_nothing(session: SessionFolder, hub: Hub) -> None:
    cases = [
        (publish(session, hub, "--repo", "me/x", token=""), "hf auth login"),
        (publish(session, hub, "--repo", "me/x", token="hf_wrong"), "The hub refused"),
        (publish(session, hub, "--repo", "../x"), "OWNER/NAME"),
    ]
    session.product.write_bytes(b"something else")
    cases.append((publish(session, hub, "--repo", "me/x"), "not the file that was proven"))
    session.product.unlink()
    cases.append((publish(session, hub, "--repo", "me/x"), "is missing"))
    for done, what in cases:
        assert done.returncode != 0
        assert what in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert "hf_" not in done.stderr.replace("hf auth", "")
    assert cases[2][0].stdout == ""  # the name is refused before anything is listed
    assert hub.files == {}
    assert hub.commits == []


def test_a_hub_that_is_not_there_is_one_sentence(session: SessionFolder, hub: Hub) -> None:
    hub.address = "http://127.0.0.1:9"
    done = publish(session, hub, "--repo", "me/x")
    assert done.returncode == 1
    assert "could not be reached" in done.stderr
    assert "Traceback" not in done.stderr
