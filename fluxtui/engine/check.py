"""`python -m fluxtui.engine check DIR`: the doctor, for people, for scripts (--json) and for a front that waits (--lines)."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

import msgspec

from fluxtui.engine import quiet
from fluxtui.engine.trainer.check.doctor import check
from fluxtui.engine.trainer.check.findings import Finding, Level, Report
from fluxtui.persist import output
from fluxtui.persist.datasets.folder import DEMO
from fluxtui.persist.errors import ExitCode, FluxTUIError, UsageError
from fluxtui.persist.files.text import clean
from fluxtui.persist.home import Home
from fluxtui.persist.models.folder import recognise
from fluxtui.persist.settings import defaults, recipe
from fluxtui.persist.settings.spec import DatasetSpec, ModelSpec, Spec

_SHOWN = {"error": 20, "warning": 5, "note": 5}  # findings of a kind in the report for people; all errors are to be fixed
_ROWS = 24          # buckets shown there
_BAR = 30           # columns


def main(argv: list[str]) -> int:
    """Exit code 0: a start would take the data set; 1: it would not; 2, 3: there is nothing to examine."""
    try:
        words = _parser().parse_args(argv)
        report = _check(words)
    except FluxTUIError as error:
        quiet.refuse(str(error))
        return int(error.exit_code)
    if words.json or words.lines:
        document = {"report": msgspec.to_builtins(report)} if words.lines else report
        output.write(msgspec.json.encode(document).decode() + "\n")
    else:
        output.write(text_of(report))
    return int(ExitCode.DONE if report.ok else ExitCode.FAILED)


class _Parser(argparse.ArgumentParser):
    """What does not fit is one sentence, as of every verb."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{clean(message, 400)}; {self.prog} --help shows how.")


def _parser() -> _Parser:
    parser = _Parser(prog="fluxtui check", allow_abbrev=False, description="Examine a data set before it is trained on.")
    parser.add_argument("folders", nargs="+", metavar="DIR", help="images and captions; or demo; several, as dataset.folders")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--lines", action="store_true", help='JSON lines: {"item": 3, "items": 20}, and {"report": …} at the end')
    parser.add_argument("--quick", action="store_true", help="headers only: damage inside a picture and copies are not found")
    parser.add_argument("--model", default="", help="pico, or a folder: counts tokens by its tokenizer")
    parser.add_argument("--trigger", default="", help="the trigger word")
    parser.add_argument("--resolution", default="", help="pixels, several with commas: 512,768,1024")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="sets", help="as in `fluxtui new`")
    parser.add_argument("--ranks", type=int, default=1, help="GPUs that will train")
    parser.add_argument("--processes", type=int, default=0, help="processes that decode; 0: one a core")
    return parser


def _check(words: argparse.Namespace) -> Report:
    sets = list(words.sets)
    if words.trigger:
        sets.append(f"dataset.trigger={words.trigger}")
    if words.resolution:
        sets.append(f"dataset.resolution=[{words.resolution}]")
    first, *further = words.folders
    if first == DEMO:
        spec = defaults.new_spec("check", "pico", first, "pico", 0, "", {})  # as the demo trains on it
    else:
        spec = Spec(name="check", id="check", model=ModelSpec(source=words.model or "none"), dataset=DatasetSpec(path=first))
    more: dict[str, object] = {"dataset.folders": further} if further else {}
    spec = recipe.apply(spec, {**recipe.parse_sets(sets), **more})
    model = recognise(words.model, Home.open()).path if words.model else None
    show = _line if words.lines else _bar if sys.stderr.isatty() else _nothing
    return check(
        spec.dataset, spec.train, model, headers_only=words.quick, ranks=words.ranks, processes=words.processes, progress=show
    )


def text_of(report: Report) -> str:
    """The report for people."""
    held = f"{_count(report.images, 'image')}, {_count(report.captions, 'caption')}"
    lines = [f"{held} in {_where(report)} ({report.seconds:.1f} s)", ""]
    lines += _folder_lines(report)
    lines += _bucket_lines(report)
    lines += _finding_lines(report.findings)
    verdict = "a training can start from this" if report.ok else "a training would be refused until the errors are fixed"
    lines.append(f"{_count(report.errors, 'error')}, {_count(report.warnings, 'warning')}: {verdict}")
    return "\n".join(lines) + "\n"


def _count(number: int, one: str) -> str:
    return f"{number} {one}{'' if number == 1 else 's'}"


def _where(report: Report) -> str:
    return report.folder if len(report.folders) == 1 else f"{len(report.folders)} folders"


def _folder_lines(report: Report) -> list[str]:
    """Each folder, where there are several: what becomes of its pictures in an epoch."""
    if len(report.folders) == 1:
        return []
    lines = ["images  captions  repeats   uses  regularise  folder"]
    for one in report.folders:
        told = f"{one.folder}, trigger {one.trigger}" if one.trigger else one.folder
        lines.append(f"{one.images:>6}{one.captions:>10}{one.repeats:>9}{one.uses:>7}{one.regularisation:>12}  {told}")
    return [*lines, ""]


def _bucket_lines(report: Report) -> list[str]:
    if not report.plan.buckets:
        return []
    lines = ["bucket         uses  steps  cropped away: mean, most"]
    for row in report.plan.buckets[:_ROWS]:
        size = f"{row.width} x {row.height}"
        lines.append(f"{size:<13}{row.uses:>6}{row.steps:>7}{row.mean_crop_loss:>19.1%}{row.largest_crop_loss:>8.1%}")
    if len(report.plan.buckets) > _ROWS:
        lines.append(f"… and {len(report.plan.buckets) - _ROWS} buckets more")
    plan = report.plan
    steps = f"an epoch: {plan.uses} samples in {plan.steps} steps of up to {plan.global_batch}"
    return [*lines, steps + (f", {plan.short_steps} of them smaller" if plan.short_steps else ""), ""]


def _finding_lines(findings: list[Finding]) -> list[str]:
    """The first few of each kind: a thousand of one would hide all others."""
    lines: list[str] = []
    seen: dict[tuple[Level, str], int] = {}
    for found in findings:
        of_kind = (found.level, found.kind)
        seen[of_kind] = seen.get(of_kind, 0) + 1
        if seen[of_kind] <= _SHOWN[found.level]:
            lines.append(f"{found.level:<8} {found.sentence}")
    for (level, kind), count in seen.items():
        if count > _SHOWN[level]:
            lines.append(f"{level:<8} … and {count - _SHOWN[level]} more: {kind}")
    return [*lines, ""] if lines else []


def _line(done: int, total: int) -> None:
    output.write(f'{{"item": {done}, "items": {total}}}\n')
    output.finish()


def _bar(done: int, total: int) -> None:
    filled = _BAR * done // max(1, total)
    end = "\n" if done == total else ""
    sys.stderr.write(f"\r[{'#' * filled}{'.' * (_BAR - filled)}] {done} of {total}{end}")
    sys.stderr.flush()


def _nothing(_done: int, _total: int) -> None:
    return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
