"""From `model.source` to a pipeline on this disk; a hub id is resolved to a commit and fetched, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fluxtui.engine.family.flux1.components import Components, pipeline_at
from fluxtui.engine.trainer.endings import first_line
from fluxtui.engine.trainer.refusal import Refusal
from fluxtui.engine.trainer.reporter import Reporter
from fluxtui.persist.home import Home
from fluxtui.persist.model_folder import recognise
from fluxtui.persist.record import Phase
from fluxtui.persist.spec import ModelSpec

# no single-file weights of the whole model, no pickles, no pictures: what a pipeline folder needs, and nothing else
_WANTED = ["model_index.json", *(f"{part}/*.{ending}" for part in ("transformer", "vae", "text_encoder", "text_encoder_2")
           for ending in ("json", "safetensors")), "tokenizer/*", "tokenizer_2/*", "scheduler/*"]  # fmt: skip


class DownloadError(Refusal):
    """The hub does not give the model."""


def open_model(model: ModelSpec, home: Path, commit: str, reporter: Reporter, is_offline: bool = False) -> Components:
    """The pipeline that the spec means. `commit` is what the hub id resolved to in an earlier attempt; "" in the first.

    Where `is_offline`, nothing is fetched.
    """
    found = recognise(model.source, Home(home))
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
    except (errors.LocalEntryNotFoundError, errors.HfHubHTTPError, OSError) as error:
        raise DownloadError(
            f"{hub_id} could not be fetched: {first_line(error)}",
            "look at the network, then resume: what came is kept",
        ) from error
    return Path(folder), Path(folder).name


def _progress_bar(reporter: Reporter) -> type[Any]:
    """tqdm's interface without its drawing: bytes of all files, as progress lines."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    class Reported(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
            kwargs.pop("name", None)
            super().__init__(*args, **(kwargs | {"disable": True}))
            self.total = kwargs.get("total")

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if self.unit == "B":
                reporter.progress(Phase.DOWNLOAD, item=int(self.n), items=int(self.total or 0), unit="bytes")

    return Reported
