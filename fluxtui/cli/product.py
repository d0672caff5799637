"""verify, export, publish."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from fluxtui import control
from fluxtui.cli import out
from fluxtui.cli.relay import become_engine
from fluxtui.persist.errors import ExitCode, RefusedError
from fluxtui.persist.files.tilde import expanded
from fluxtui.persist.home import Home
from fluxtui.persist.sessions import overview

FORMATS = ("diffusers", "kohya", "comfyui")
DTYPES = ("bf16", "fp16", "fp32")


def verify_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the session")
    parser.add_argument("--json", action="store_true", help="the proof as one object")


def verify_verb(arguments: Namespace) -> int:
    home = Home.open()
    proof = control.verify(home, arguments.name)
    if arguments.json:
        out.data_json(proof)
    else:
        for check in proof.checks:
            out.data(check)
        out.say(f"{arguments.name} is proven: {out.size(proof.size)}, tensors {proof.tensors_sha256[:12]}.")
    return int(ExitCode.DONE)


def export_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the session")
    parser.add_argument("--format", required=True, choices=FORMATS, help="diffusers, kohya or comfyui: whose tensor names to use")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="the file to write")
    checkpoint = "export a checkpoint instead of the finished file: newest, or its name"
    parser.add_argument("--checkpoint", default="", metavar="C", help=checkpoint)
    parser.add_argument("--ema", action="store_true", help="the averaged weights instead of the trained ones")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16", help="bf16 (default), fp16 or fp32")


def export_verb(arguments: Namespace) -> int:
    home = Home.open()
    overview.look(home, arguments.name)
    words = ["--home", str(home.root), "--session", arguments.name, "--format", arguments.format]
    words += ["--output", str(expanded(arguments.output).absolute()), "--dtype", arguments.dtype]
    words += ["--checkpoint", arguments.checkpoint] if arguments.checkpoint else []
    words += ["--ema"] if arguments.ema else []
    become_engine("export", words)


def publish_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the session")
    parser.add_argument("--repo", required=True, metavar="OWNER/NAME", help="the repository, made if it does not exist")
    parser.add_argument("--public", action="store_true", help="make it public; private without this")


def publish_verb(arguments: Namespace) -> int:
    home = Home.open()
    seen = overview.look(home, arguments.name)
    if seen.state != "completed":
        raise RefusedError(f"{seen.name} is {seen.state}; only a completed session is published.")
    words = ["--home", str(home.root), "--session", seen.name, "--repo", arguments.repo]
    become_engine("publish", words + (["--public"] if arguments.public else []))
