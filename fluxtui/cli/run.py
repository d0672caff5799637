"""start, resume, stop, kill, wait, checkpoint, sample, queue."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path

from fluxtui import control
from fluxtui.cli.out import data, say
from fluxtui.cli.progress import ProgressLines
from fluxtui.control import Answer
from fluxtui.persist.errors import ExitCode, FluxTUIError, NotFoundError, UsageError
from fluxtui.persist.home import Home
from fluxtui.persist.sessions import overview
from fluxtui.persist.settings import recipe


def start_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME | SPEC.toml", help="a session, or a spec file to make and start one from")
    parser.add_argument("--priority", type=_whole, default=0, metavar="N", help="place in the queue; smaller numbers go first")


def start_verb(arguments: Namespace) -> int:
    home = Home.open()
    name = arguments.name
    if name.endswith(".toml") or "/" in name:
        path = Path(name)
        if not path.is_file():
            raise NotFoundError(f"There is no spec {name}; give a file, or the name of a session.")
        name = control.create_from_file(home, path).name
        say(f"{name} is made.")
    control.start(home, name, priority=arguments.priority)
    if waiting := control.waits_for(home, name):
        say(f"{name} waits for {waiting} and starts by itself, also when you leave; fluxtui stop {name} takes it back.")
    else:
        say(f"{name} started; it keeps running when you leave. fluxtui shows it; fluxtui logs {name} -f follows its log.")
    return int(ExitCode.DONE)


def submit_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the session")
    parser.add_argument(
        "--slurm", action="append", default=[], metavar="K=V",
        help="an option of sbatch as submitit names it: partition, account, qos, time (minutes), gpus_per_node, mem …",
    )  # fmt: skip


def submit_verb(arguments: Namespace) -> int:
    name = arguments.name
    job = control.submit(Home.open(), name, arguments.slurm)
    say(f"{name} is job {job}; fluxtui logs {name} -f follows it once it runs; fluxtui stop {name} stops it, or takes it back.")
    return int(ExitCode.DONE)


def join_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the session")
    parser.add_argument("--node", type=_whole, required=True, metavar="K", help="1, 2, …: the number of this machine")


def join_verb(arguments: Namespace) -> int:
    control.join(Home.open(), arguments.name, arguments.node)
    say(
        f"This machine is node {arguments.node} of {arguments.name}: it trains along when node 0 starts, and leaves with it; "
        f"its log is nodes/{arguments.node}.log in the session's folder."
    )
    return int(ExitCode.DONE)


def resume_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", default="", help="the session; not with --lost")
    parser.add_argument("--checkpoint", default="", metavar="C", help="resume from this checkpoint; newer ones are set aside")
    settings = "a setting outside the recipe; kept for later attempts"
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="K=V", help=settings)
    parser.add_argument("--accept-changes", action="store_true", help="resume although recipe, data, model or libraries changed")
    parser.add_argument("--lost", action="store_true", help="every session that a reboot or a dead keeper ended")


def resume_verb(arguments: Namespace) -> int:
    home = Home.open()
    if arguments.lost:
        if arguments.name or arguments.checkpoint or arguments.sets:
            raise UsageError("--lost resumes every lost session as it stands; leave the rest away.")
        return _resume_lost(home)
    if not arguments.name:
        raise UsageError("Name the session, or give --lost for all that a reboot ended.")
    attempt = control.start(
        home,
        arguments.name,
        resume=arguments.checkpoint or "auto",
        overrides=recipe.parse_sets(arguments.sets),
        accept_changes=arguments.accept_changes,
    )
    if waiting := control.waits_for(home, arguments.name):
        say(f"{arguments.name} waits for {waiting} and resumes by itself, attempt {attempt}.")
    else:
        say(f"{arguments.name} resumes, attempt {attempt}; fluxtui logs {arguments.name} -f follows it.")
    return int(ExitCode.DONE)


def _resume_lost(home: Home) -> int:
    results = control.resume_lost(home)
    for name, result in results:
        if isinstance(result, FluxTUIError):
            say(f"{name}: {result}")
        elif waiting := control.waits_for(home, name):
            say(f"{name} waits for {waiting} and resumes by itself, attempt {result}.")
        else:
            say(f"{name} resumes, attempt {result}.")
    if not results:
        say("No session is lost.")
    return int(ExitCode.FAILED if any(isinstance(result, FluxTUIError) for _, result in results) else ExitCode.DONE)


def stop_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the session")
    parser.add_argument("--after-epoch", action="store_true", help="finish the epoch first")


def stop_verb(arguments: Namespace) -> int:
    return _tell(control.stop(Home.open(), arguments.name, arguments.after_epoch))


def kill_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the session")


def kill_verb(arguments: Namespace) -> int:
    return _tell(control.kill(Home.open(), arguments.name))


def checkpoint_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the session")


def checkpoint_verb(arguments: Namespace) -> int:
    return _tell(control.checkpoint(Home.open(), arguments.name))


def sample_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the session")


def sample_verb(arguments: Namespace) -> int:
    return _tell(control.sample(Home.open(), arguments.name))


def queue_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the session")
    parser.add_argument("--priority", type=_whole, required=True, metavar="N", help="smaller numbers go first; default 0")


def queue_verb(arguments: Namespace) -> int:
    return _tell(control.queue(Home.open(), arguments.name, arguments.priority))


def _tell(answer: Answer) -> int:
    say(answer.sentence)
    return int(ExitCode.TIMED_OUT if answer.is_pending else ExitCode.DONE)


def wait_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the session")
    parser.add_argument("--timeout", type=_seconds, default=None, metavar="S", help="give up after S seconds, with exit code 5")
    parser.add_argument("--progress", action="store_true", help="print progress on stderr")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ArgumentTypeError(f"{text} is no time to wait: give seconds, 0 or more")
    return value


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ArgumentTypeError(f"{text} is no whole number") from None


def wait_verb(arguments: Namespace) -> int:
    return wait_and_tell(Home.open(), arguments.name, arguments.timeout, is_loud=arguments.progress)


def wait_and_tell(home: Home, name: str, timeout: float | None, is_loud: bool) -> int:
    """Wait for the end; 0 only when completed. The product's path is the data."""
    try:
        seen = control.wait(home, name, timeout, ProgressLines() if is_loud else None)
    except KeyboardInterrupt:
        say(f"\n{name} goes on without this; fluxtui wait {name} waits again, fluxtui stop {name} stops it.")
        raise
    if seen.state == "completed":
        say(f"{name} is completed and proven: step {seen.step}, tensors {seen.tensors_sha256[:12]}.")
        data(overview.look(home, name).output)
        return int(ExitCode.DONE)
    after = f"; {seen.remedy}" if seen.remedy else ""
    say(f"{name} is {seen.state}: {seen.reason}{after}")
    return int(ExitCode.FAILED)
