"""ls, show, metrics."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from fluxtui.cli import out
from fluxtui.cli.logs import how_many
from fluxtui.persist.errors import ExitCode, NotFoundError
from fluxtui.persist.files.text import clean
from fluxtui.persist.home import Home, name_like
from fluxtui.persist.sessions import overview, overview_json, state
from fluxtui.persist.sessions.overview import Overview


def ls_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="a list of objects, as documented in docs/command-line.md")


def ls_verb(arguments: Namespace) -> int:
    home = Home.open()
    found = overview.look_all(home)
    if arguments.json:
        out.data_json([overview_json.to_json(seen) for seen in found])
        return int(ExitCode.DONE)
    for name in (misnamed := home.misnamed())[:3]:
        from fluxtui.control import next_name

        would_do = next_name(home, name_like(name))
        out.say(f"Not listed: {clean(name, 80)} is no name of a session; rename that folder in {home.sessions} to {would_do}.")
    if not found and not misnamed:
        out.say(f"No sessions in {home.root}; fluxtui demo trains one, fluxtui new makes one.")
        return int(ExitCode.DONE)
    rows = [_row(seen) for seen in found]
    titles = ("NAME", "STATE", "PHASE", "STEP", "LOSS", "LEFT", "")
    out.table(titles, rows, right=(3, 4, 5))
    return int(ExitCode.DONE)


def _row(seen: Overview) -> tuple[str, ...]:
    return (
        seen.name,
        f"{seen.shown.glyph} {seen.shown.word}" if out.has_unicode() else seen.shown.word,
        (seen.phase or "") if seen.is_active else "",
        f"{seen.standing}/{seen.steps}" if seen.steps else str(seen.standing or ""),
        f"{seen.loss:.4f}" if seen.loss is not None else "",
        out.duration(seen.eta_seconds or None),
        seen.reason if seen.state not in ("running", "new") else seen.stop_words,
    )


def show_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the session")
    parser.add_argument("--json", action="store_true", help="one object, as documented in docs/command-line.md")


def show_verb(arguments: Namespace) -> int:
    home = Home.open()
    seen = overview.look(home, arguments.name)
    if arguments.json:
        out.data_json(overview_json.to_json(seen))
        return int(ExitCode.DONE)
    title = f"  {seen.title}" if seen.title else ""
    out.data(f"{seen.name}  {out.state_words(seen.shown)}{title}")
    record = seen.record
    stops = f"{seen.stop_words.removeprefix('stops ')}; fluxtui stop {seen.name} stops it now" if seen.stop_words else ""
    reached = f", {seen.step} reached; it goes on from {seen.standing}" if seen.standing < seen.step else ""
    out.facts(
        [
            ("why", seen.reason),
            ("stops", stops),
            ("next", seen.next),
            ("phase", f"{seen.phase} {seen.inner}".strip() if seen.phase and seen.is_active else ""),
            ("step", f"{seen.standing} of {seen.steps or '?'}{reached}" if seen.attempt else ""),
            ("epoch", f"{seen.epoch} of {seen.epochs}" if seen.epochs else ""),
            ("loss", f"{seen.loss:.4f}" if seen.loss is not None else ""),
            ("speed", f"{seen.step_seconds:.3g} s a step" if seen.step_seconds is not None else ""),
            ("left", out.duration(seen.eta_seconds or None)),
            ("queued", out.moment(seen.queued_at)),
            ("started", out.moment(seen.started_at)),
            ("finished", out.moment(seen.finished_at)),
            ("exit code", seen.exit_code),
            ("signal", seen.signal),
            ("machines", ", ".join(record.nodes) if record else ""),
            ("runs on", ", ".join(seen.gpus) or ("CPU" if record and record.started_at else "")),
            ("threads", record.threads if record else ""),
            ("memory", seen.memory_words),
            ("hint", record.gpu_hint if record else ""),
            ("not exact", f"since step {record.inexact_since}" if record and record.inexact_since is not None else ""),
            ("checkpoint", seen.checkpoint),
            ("product", seen.output),
            ("tensors", seen.tensors_sha256),
            ("folder", seen.path),
        ]
    )
    _attempts(home, seen)
    return int(ExitCode.DONE)


def _attempts(home: Home, seen: Overview) -> None:
    """How each attempt before the newest one ended."""
    rows = []
    for number, record, problem in overview.records(home, seen.name)[:-1]:
        if record is None:
            rows.append((str(number), "unreadable", "", "", problem))
        else:
            status, why = state.of_attempt(record)
            rows.append((str(number), status, out.moment(record.queued_at), str(record.step), why))
    if rows:
        out.data("")
        out.table(("ATTEMPT", "STATUS", "QUEUED", "STEP", "WHY"), rows, right=(0, 3))


def metrics_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the session")
    parser.add_argument("--json", action="store_true", help="a list of objects, one a step")
    count = "the last N steps; else 20, and all with --json"
    parser.add_argument("-n", type=how_many, default=None, metavar="N", dest="count", help=count)


def metrics_verb(arguments: Namespace) -> int:
    from fluxtui.persist import metrics

    home = Home.open()
    overview.look(home, arguments.name)
    path = home.session(arguments.name).metrics_file
    count = 20 if arguments.count is None and not arguments.json else arguments.count
    try:
        found = metrics.read_all(path) if count is None else metrics.read_tail(path, count)
    except NotFoundError:
        found = []
    if arguments.json:
        out.data_json(found)
        return int(ExitCode.DONE)
    rows = [
        (
            str(one.step),
            str(one.epoch),
            f"{one.loss:.5f}" if one.loss is not None else "",
            f"{one.learning_rate:.3g}",
            f"{one.gradient_norm:.4g}" if one.gradient_norm is not None else "",
            f"{one.seconds:.3f}",
            str(one.attempt),
        )
        for one in found
    ]
    if rows:
        out.table(("STEP", "EPOCH", "LOSS", "RATE", "GRADIENT", "SECONDS", "ATTEMPT"), rows, right=range(6))
    else:
        out.say(f"{arguments.name} has made no step yet.")
    return int(ExitCode.DONE)
