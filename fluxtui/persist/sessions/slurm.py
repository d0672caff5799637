"""What is kept of a session's Slurm job: `slurm/job.toml`, beside what submitit keeps there (script, pickles, logs)."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from msgspec import Struct

from fluxtui.persist.home import SessionFolder


class SlurmJob(Struct, frozen=True, kw_only=True):
    """The newest job, which Slurm may have run any number of times. Written by `fluxtui submit`."""

    job: str  # its number
    submitted_at: datetime
    host: str


def slurm_folder(folder: SessionFolder) -> Path:
    return folder.path / "slurm"


def job_file(folder: SessionFolder) -> Path:
    return slurm_folder(folder) / "job.toml"
