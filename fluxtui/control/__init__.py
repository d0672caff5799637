"""What fronts do to sessions: create, start, resume, stop, kill, wait, remove. Records and processes; no UI, no torch.

Each function raises a `FluxTUIError` with one sentence where it cannot be done, before anything is changed.
"""

from fluxtui.control.ask import Answer, checkpoint, kill, queue, sample, stop
from fluxtui.control.create import create, create_from_file, next_name, spec_of_file
from fluxtui.control.edit import draft, edit, take_draft
from fluxtui.control.launch import join, resume_lost, start
from fluxtui.control.prove import verify
from fluxtui.control.remove import remove, remove_checkpoint
from fluxtui.control.slurm import submit
from fluxtui.control.watch import wait, waits_for

__all__ = [
    "Answer",
    "checkpoint",
    "create",
    "create_from_file",
    "draft",
    "edit",
    "join",
    "kill",
    "next_name",
    "queue",
    "remove",
    "remove_checkpoint",
    "resume_lost",
    "sample",
    "spec_of_file",
    "start",
    "stop",
    "submit",
    "take_draft",
    "verify",
    "wait",
    "waits_for",
]
