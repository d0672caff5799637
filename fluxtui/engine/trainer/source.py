"""From `model.source` to a pipeline on this disk; a hub id is resolved to a commit and fetched, once."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path
from typing import Any

from fluxtui.engine.family.flux1.components import Components, pipeline_at
from fluxtui.engine.trainer.endings import first_line
from fluxtui.engine.trainer.refusal import Refusal
from fluxtui.engine.trainer.reporter import Reporter
from fluxtui.persist.home import Home
from fluxtui.persist.model_folder import settle
from fluxtui.persist.record import Phase
from fluxtui.persist.spec import ModelSpec

# no single-file weights of the whole model, no pickles, no pictures: what a pipeline folder needs, and nothing else
_WANTED = ["model_index.json", *(f"{part}/*.{ending}" for part in ("transformer", "vae", "text_encoder", "text_encoder_2")
           for ending in ("json", "safetensors")), "tokenizer/*", "tokenizer_2/*", "scheduler/*"]  # fmt: skip

CHECKED = ".checked"  # in the cache: an empty file for each hash that was found to be true
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BLOCK = 16 << 20  # bytes


class DownloadError(Refusal):
    """The hub does not give the model."""


def open_model(model: ModelSpec, home: Path, commit: str, reporter: Reporter, is_offline: bool = False) -> Components:
    """The pipeline that the spec means. `commit` is what the hub id resolved to in an earlier attempt; "" in the first.

    Where `is_offline`, nothing is fetched.
    """
    found = settle(model.source, Home(home))
    if found.path is not None:
        return pipeline_at(found.path)
    folder, resolved = _fetch(found.hub_id, commit or model.revision or None, home / "models" / "hub", reporter, is_offline)
    reporter.progress(Phase.DOWNLOAD, model_commit=resolved)
    return pipeline_at(folder, resolved)


def _fetch(hub_id: str, revision: str | None, cache: Path, reporter: Reporter, is_offline: bool) -> tuple[Path, str]:
    """Fetches what is missing; bytes that are here are not fetched again, and a cut download goes on where it was."""
    from huggingface_hub import errors, snapshot_download

    reporter.progress(Phase.DOWNLOAD, unit="bytes")
    try:
        folder = snapshot_download(
            hub_id,
            revision=revision,
            cache_dir=cache,
            allow_patterns=_WANTED,
            local_files_only=is_offline,
            tqdm_class=_progress_bar(reporter),
        )
    except errors.GatedRepoError:
        raise DownloadError(
            f"{hub_id} is gated", "accept its licence on the hub's page, then `hf auth login` or set HF_TOKEN"
        ) from None
    except errors.RepositoryNotFoundError:
        raise DownloadError(
            f"there is no model {hub_id} on the hub, or it is private", "check the id; for a private one `hf auth login`"
        ) from None
    except errors.RevisionNotFoundError:
        raise DownloadError(
            f"{hub_id} has no revision {revision}", "set model.revision to a commit, tag or branch of it"
        ) from None
    except (errors.LocalEntryNotFoundError, errors.HfHubHTTPError, OSError, *_network_errors()) as error:
        raise DownloadError(
            f"{hub_id} could not be fetched: {first_line(error)}",
            "look at the network, then resume: the files that came whole are kept",
        ) from error
    if not is_offline:
        verify_fetched(hub_id, Path(folder), cache / CHECKED, reporter)
    return Path(folder), Path(folder).name


def _network_errors() -> tuple[type[Exception], ...]:
    """The base of the errors of the HTTP library that the hub's client uses: another one with its versions."""
    names = (("httpx2", "HTTPError"), ("httpx", "HTTPError"), ("requests", "RequestException"))
    return tuple(getattr(sys.modules[module], name) for module, name in names if module in sys.modules)


def verify_fetched(hub_id: str, folder: Path, checked: Path, reporter: Reporter) -> None:
    """Each large file of a fetched model is hashed once and held against its name in the cache, which is its SHA-256.

    `huggingface_hub` looks at sizes alone. What was found sound is remembered in `checked` by its hash. A file that is not
    what the hub says is deleted, so that a resume fetches it again. Raises `DownloadError`.
    """
    checked.mkdir(mode=0o700, exist_ok=True)
    for path in sorted(folder.rglob("*")):
        blob = path.resolve()
        if _SHA256.fullmatch(blob.name) is None or not blob.is_file() or (checked / blob.name).exists():
            continue
        digest, done, size = hashlib.sha256(), 0, blob.stat().st_size
        with blob.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                done += len(block)
                reporter.progress(Phase.DOWNLOAD, item=done, items=size, unit="bytes")
        if digest.hexdigest() != blob.name:
            blob.unlink()
            raise DownloadError(
                f"{path.relative_to(folder)} of {hub_id} came damaged: its SHA-256 is not the one that the hub names",
                "resume fetches that file again",
            )
        (checked / blob.name).touch(mode=0o600)


def _progress_bar(reporter: Reporter) -> type[Any]:
    """tqdm's interface without its drawing: bytes of all files, as progress lines."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    class Reported(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
            kwargs.pop("name", None)
            super().__init__(*args, **(kwargs | {"disable": True}))
            self.total, self.unit = kwargs.get("total"), kwargs.get("unit", "it")  # a disabled bar keeps neither

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if self.unit == "B":
                reporter.progress(Phase.DOWNLOAD, item=int(self.n), items=int(self.total or 0), unit="bytes")

    return Reported
