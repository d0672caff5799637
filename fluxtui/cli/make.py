"""demo, new, import, rm."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from fluxtui import control
from fluxtui.cli.out import say
from fluxtui.persist.datasets import parts
from fluxtui.persist.errors import ExitCode, NotFoundError, UsageError
from fluxtui.persist.files.text import clean
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.settings import compatibility, keys, recipe


def demo_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--headless", action="store_true", help="wait and print progress instead of opening the UI")
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="K=V", help="as for fluxtui new")


def demo_verb(arguments: Namespace) -> int:
    from fluxtui.demo import IMAGES_DIR, PICO_DIR

    for part in (PICO_DIR, IMAGES_DIR):
        if not Path(part).is_dir():
            raise NotFoundError(f"The demo is not complete: {part} is missing; install FluxTUI again.")
    home = Home.open()
    name = control.next_name(home, "demo")
    control.create(home, name, dataset="demo", model="pico", sets=recipe.parse_sets(arguments.sets))
    control.start(home, name)
    has_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if has_terminal and not arguments.headless:
        from fluxtui.cli import _open_ui

        return _open_ui(name)
    if not arguments.headless:
        say("There is no terminal, so this waits and prints progress; in a terminal the UI opens.")
    say(f"{name} started; fluxtui show {name}, logs {name} -f and stop {name} work from anywhere.")
    from fluxtui.cli.run import wait_and_tell

    return wait_and_tell(home, name, None, is_loud=True)


def new_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a-z, 0-9, '.', '_' and '-'")
    dataset = "folder of images with captions, or demo; repeat it for more folders, like 'DIR --repeats 5'"
    parser.add_argument("--dataset", action="append", default=[], metavar="DIR", help=dataset)
    parser.add_argument("--model", default="", metavar="M", help="pico, a hub id, a folder or a file; default FLUX.1-dev")
    parser.add_argument("--trigger", default="", metavar="T", help="word that stands for what is to be learned")
    parser.add_argument("--title", default="", help="free text")
    prompts = "file of sample prompts, one a line: 'TEXT --w 768 --h 512 --d 7', or one of kohya's"
    parser.add_argument("--prompts", type=Path, default=None, metavar="FILE", help=prompts)
    parser.add_argument(
        "--recipe", "--preset", default="", dest="preset", metavar="R", help="subject, style, face, fast or fluxgym"
    )
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="K=V", help="a key of `fluxtui keys`")
    parser.add_argument("--from", default="", dest="origin", metavar="NAME", help="copy the settings of another session")
    parser.add_argument("--checkpoint", default="", metavar="C", help="with --from: take over its weights too; newest, or a name")


def _take_folders(sets: dict[str, object], given: Sequence[str]) -> str:
    """The first folder; into the sets go the further ones, and what stands behind one that is alone."""
    path, own = parts.read(given[0])
    further, typed = given[1:], [f"dataset.{name}={value}" for name, value in own.items()]
    if own and (problem := parts.problem_of(given[0])):
        raise UsageError(f"--dataset {clean(given[0], 200)}: {problem}.")
    if own and further:
        what = " ".join(f"--set {one}" for one in typed)
        raise UsageError(f"What is set for the first folder holds for all: give {what}, and behind the others what differs.")
    sets |= recipe.parse_sets(typed)
    if further:
        if "dataset.folders" in sets:
            raise UsageError("Further folders are given by --dataset and by --set dataset.folders; give them by one of the two.")
        sets["dataset.folders"] = keys.check("dataset.folders", further)
    return path


def new_verb(arguments: Namespace) -> int:
    home = Home.open()
    sets = recipe.parse_sets(arguments.sets)
    dataset = _take_folders(sets, arguments.dataset) if arguments.dataset else ""
    left = _take_prompts(sets, arguments.prompts)
    made = control.create(
        home,
        arguments.name,
        dataset=dataset,
        model=arguments.model,
        trigger=arguments.trigger,
        preset=arguments.preset,
        sets=sets,
        title=arguments.title,
        from_session=arguments.origin,
        from_checkpoint=arguments.checkpoint,
    )
    for sentence in left:
        say(f"not carried over as it stands: {sentence}")
    _say_what_reads(made)
    say(f"{arguments.name} is made; fluxtui start {arguments.name} starts it.")
    return int(ExitCode.DONE)


def _say_what_reads(made: SessionFolder) -> None:
    if told := compatibility.only_read_by(recipe.load_spec(made.spec_file)):
        say(f"{told}; lora.kind=lora is read by all.")


def _take_prompts(sets: dict[str, object], path: Path | None) -> list[str]:
    """The prompts of a file into what is set; what could not be taken, a sentence each."""
    if path is None:
        return []
    from fluxtui.persist.imports import prompts as import_prompts

    sets["sample.prompts"], left = import_prompts.read_file(path)
    return left


def import_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the session")
    parser.add_argument("file", metavar="FILE", type=Path, help="ui_state.json, a kohya TOML or JSON, or an ai-toolkit YAML")
    parser.add_argument("--dataset", default="", metavar="DIR", help="pictures to use instead of those that the file names")
    parser.add_argument("--model", default="", metavar="M", help="model to use instead of the one that the file names")
    parser.add_argument("--prompts", type=Path, default=None, metavar="FILE", help="sample prompts, as for fluxtui new")
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="K=V", help="overrides what the file says")


def import_verb(arguments: Namespace) -> int:
    from fluxtui.persist.imports import configuration as importers

    home = Home.open()
    found = importers.read(arguments.file)
    found.left += _take_prompts(found.sets, arguments.prompts)
    made = control.create(
        home,
        arguments.name,
        dataset=arguments.dataset or found.dataset,
        model=arguments.model or found.model,
        sets={**found.sets, **recipe.parse_sets(arguments.sets)},
    )
    for sentence in found.left:
        say(f"not carried over as it stands: {sentence}")
    for path in found.near:
        if path in (arguments.dataset or found.dataset, arguments.model or found.model):
            say(f"found beside outputs/: {path}")
    _say_what_reads(made)
    say(f"{arguments.name} is made from a configuration of {found.source}; fluxtui start {arguments.name} starts it.")
    return int(ExitCode.DONE)


def rm_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the session")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def rm_verb(arguments: Namespace) -> int:
    home = Home.open()
    name = arguments.name
    from fluxtui.persist.sessions import overview

    seen = overview.look(home, name)
    if not arguments.yes:
        if not sys.stdin.isatty():
            raise UsageError(f"rm removes {seen.path} for good; say so with --yes.")
        say(f"Remove {name} ({seen.state}) with its checkpoints, samples and product, {seen.path}? Type yes: ")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            say("Nothing was removed.")
            return int(ExitCode.REFUSED)
    control.remove(home, name)
    say(f"{name} is removed.")
    return int(ExitCode.DONE)
