"""docs/recovery.md holds every message that a user can meet; state, keys, command line and keeper agree on what comes next."""

from __future__ import annotations

import ast
import re
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from fluxtui import actions, refusals
from fluxtui.cli import verbs
from fluxtui.engine import remedies
from fluxtui.engine.keeper.classify import Evidence, RankExit, Verdict, classify, remedy_of
from fluxtui.engine.trainer.exit_reason import NonFiniteError
from fluxtui.engine.wire import TrainerExit
from fluxtui.persist import errors
from fluxtui.persist.errors import UsageError
from fluxtui.persist.files import toml
from fluxtui.persist.home import Home
from fluxtui.persist.sessions import overview, state
from fluxtui.persist.sessions.overview import Overview
from fluxtui.persist.sessions.record import Record
from fluxtui.persist.settings import recipe
from fluxtui.refusals import Situation
from fluxtui.screens.panels.next_step import next_step
from tests.persist.test_state import TABLE
from tests.ui.conftest import opened, seen, text_of
from tests.ui.fabricate import make_record, make_session

TEXT = (Path(__file__).parent.parent.parent / "docs" / "recovery.md").read_text()
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SEEN = Evidence(phase="train")
ENDS: list[tuple[RankExit, Evidence]] = [
    *((RankExit(0, code=code), SEEN) for code in TrainerExit if code not in (TrainerExit.DONE, TrainerExit.STOPPED)),
    *((RankExit(0, signal=number), SEEN) for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM)),
    (RankExit(0, code=17), SEEN),
    (RankExit(0, code=1), Evidence(has_spoken=False, last_log_line="ModuleNotFoundError: No module named 'x'")),
    (RankExit(0, signal=signal.SIGKILL), Evidence(out_of_memory="its memory cgroup was at its limit", peak_memory=2**31)),
    (RankExit(0, code=82), Evidence(out_of_memory="the kernel's log names it")),
    (RankExit(0, signal=signal.SIGBUS), Evidence(shared_memory_full=True, phase="train")),
    (RankExit(0, signal=signal.SIGKILL, ended_by_keeper=True), Evidence(because="hung", hung="in train for 301 s")),
]


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, a list a row."""
    part = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("| ")][2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])] for line in lines]


def verdicts() -> list[Verdict]:
    return [classify([left], evidence) for left, evidence in ENDS]


def fragments(cell: str) -> list[str]:
    """The literal pieces of what a cell of the docs says a reason is."""
    plain = re.sub(r"\([^)]*\)|`", "", cell)
    return [piece.strip(" :.").lower() for piece in re.split(r"…|;|\bN\b|,", plain) if len(piece.strip(" :.")) > 5]


def test_every_state_stands_in_the_docs_with_its_glyph() -> None:
    shown = " ".join(cells[0] for cells in rows("States"))
    for name, (glyph, word, _) in state._LOOKS.items():
        assert f"{glyph} {word}" in shown, name


@pytest.mark.parametrize("verdict", verdicts(), ids=lambda verdict: verdict.reason[:40])
def test_every_reason_of_the_keeper_stands_in_the_docs_with_what_follows(verdict: Verdict) -> None:
    found = [
        cells for cells in rows("Reasons of a failure") if any(piece in verdict.reason.lower() for piece in fragments(cells[0]))
    ]
    assert found, verdict.reason
    retried = {cells[2] for cells in found}
    assert ("yes" if verdict.is_retried else "no") in retried, (verdict.reason, found)
    assert verdict.remedy


def commands(text: str) -> list[list[str]]:
    """The words of every command that a sentence names: as many behind "fluxtui" as the command line takes."""
    found = []
    for piece in re.findall(r"\bfluxtui (.+?)(?=[,;)]|$|\bfluxtui )", text):
        words = piece.split()
        for most in range(len(words), 0, -1):
            try:
                verbs.find(words[0]).parser().parse_args(words[1:most])
            except UsageError:
                continue
            found.append(words[:most])
            break
        else:
            raise AssertionError(f"fluxtui {piece} is no command")
    return found


@pytest.mark.parametrize("checkpoint", ["", "step-000000100"])
@pytest.mark.parametrize("verdict", verdicts(), ids=lambda verdict: verdict.reason[:40])
def test_what_a_remedy_says_can_be_pasted_and_its_key_is_named_once_after_what_comes_first(
    verdict: Verdict, checkpoint: str, home_path: Path
) -> None:
    home = Home.open(home_path)
    folder = make_session(home, "hot")
    make_session(home, "hot-2")
    spec = recipe.load_spec(folder.spec_file)
    remedy = remedies.filled(remedy_of(verdict, "hot", checkpoint), spec, bool(checkpoint), home.session_names)
    assert not re.search(r"[{}…]", remedy)
    assert commands(remedy), f"{verdict.reason}: nothing to paste in {remedy!r}"
    for verb, *words in commands(remedy):
        if verb == "new":
            assert words[0] == "hot-3"  # hot-2 is there already
            assert ("--checkpoint" in words) == bool(checkpoint)
    make_record(folder, status="failed", reason=verdict.reason, remedy=remedy, checkpoint=checkpoint)
    step = next_step(overview.look(home, "hot"))
    said = f"{step.first} KEY {step.text}"
    pasted = [words[0] for words in commands(said)] + {"resume": ["resume"], "clone": []}[step.action]
    assert [verb for verb, *words in commands(said) if verb == "resume" and len(words) == 1] == []  # the key's, not said again
    assert {"resume", "new"} & {*pasted, "new" if step.action == "clone" else ""}
    if step.action == "resume" and not verdict.is_retried and remedy != _RESUME_ONLY:
        assert step.first or "exit 0" in verdict.reason or verdict.reason.startswith("the trainer found itself without"), remedy


_RESUME_ONLY = "fluxtui resume hot"


def test_what_only_says_a_setting_gets_the_command_that_sets_it(home_path: Path) -> None:
    folder = make_session(Home.open(home_path), "hot", train__learning_rate=1.0, train__batch_size=4)
    spec = recipe.load_spec(folder.spec_file)

    def filled(remedy: str) -> str:
        return remedies.filled(remedy, spec, True, lambda: ["hot"])

    assert filled(NonFiniteError("the loss is not finite").remedy) == (
        "make one with a lower learning rate: fluxtui new hot-2 --from hot --checkpoint newest --set train.learning_rate=0.5"
    )
    assert filled("set hardware.stream_blocks=12; hardware.check_memory=false tries it all the same") == (
        "set hardware.stream_blocks=12: fluxtui resume hot --set hardware.stream_blocks=12; "
        "hardware.check_memory=false tries it all the same"
    )
    assert filled("set lora.dropout=0") == "set lora.dropout=0: fluxtui new hot-2 --from hot --set lora.dropout=0"
    assert filled("set dataset.resolution=[512, 768], hardware.compile=false").endswith(
        "fluxtui new hot-2 --from hot --checkpoint newest --set 'dataset.resolution=[512, 768]' --set hardware.compile=false"
    )
    assert filled("set model.precision=bf16, or lora.kind=lora").endswith("lora.kind=lora: fluxtui new hot-2 --from hot "
                                                                          "--checkpoint newest --set model.precision=bf16")
    assert "--set train.batch_size=1 --set train.gradient_accumulation=4" in filled(remedies.TAKES_LESS)


def test_every_exit_code_of_the_trainer_stands_in_the_docs() -> None:
    codes = {cells[1] for cells in rows("Reasons of a failure")}
    wanted = {str(int(code)) for code in TrainerExit if code not in (TrainerExit.DONE, TrainerExit.STOPPED)}
    assert wanted <= codes, wanted - codes


def test_every_sentence_about_the_disk_stands_in_the_docs() -> None:
    said = [cells[0] for cells in rows("What the disk says")]
    for number, sentence in {**errors._SENTENCES, "no inodes": errors._NO_INODES}.items():
        assert sentence in said, (number, sentence)


WHERE_SESSIONS_ARE_REFUSED = (
    "engine/keeper", "engine/trainer/checkpoint/resume.py", "engine/trainer/train.py", "persist/home.py",
    "persist/files/durable.py", "persist/checkpoints/commit.py", "persist/files/lock.py", "persist/files/regular.py",
    "control/launch.py", "control/ask.py", "control/remove.py", "control/room.py", "control/changed.py", "control/edit.py",
    "control/watch.py",
)  # fmt: skip
NAMES = r"…|\b(?:name|host|file|step n|user n|node [kl])\b|session\.edited\.toml|training\.log|\d+|[;:]|\. |, "
OF_A_CHECKPOINT = "that of another session than"  # why one is set aside, which the log says; no refusal


def literal(node: ast.AST) -> str:
    """A string as it stands in the source, with … for what is filled in."""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return str(node.value) if isinstance(node, ast.Constant) else ""


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"[`*]", "", text)).lower()


def stands_in(text: str, sentence: str) -> bool:
    """Whether the longest part of the sentence, between names, numbers and stops, is in that text."""
    return max((re.sub(r"^and ", "", part.strip(" .,:;")) for part in re.split(NAMES, plain(sentence))), key=len) in text


def test_every_refusal_of_a_session_stands_in_the_docs() -> None:
    root, docs, found = Path(refusals.__file__).parent, plain(TEXT), []
    for place in WHERE_SESSIONS_ARE_REFUSED:
        for path in [root / place] if place.endswith(".py") else sorted((root / place).glob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call) or not node.exc.args:
                    continue
                if ast.unparse(node.exc.func) in ("StorageError", "RefusedError", "DamagedError", "TimedOutError"):
                    found.append(literal(node.exc.args[0]))
    found = [one for one in found if re.search(r"\w{4}", one) and OF_A_CHECKPOINT not in one]
    assert len(found) > 40
    assert not [sentence for sentence in found if not stands_in(docs, sentence)]


def test_every_sentence_that_the_docs_quote_stands_in_the_code() -> None:
    root = Path(refusals.__file__).parent
    code = plain(" ".join(
        literal(node) for path in root.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.JoinedStr | ast.Constant)
    ))  # fmt: skip
    parts = {heading: TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0] for heading in ("Requests", "Checkpoints")}
    said = [quoted for part in parts.values() for quoted in re.findall(r"(?<![*\w])\*([^*]+)\*", part)]
    said += [cells[0] for heading in ("Refusals", "What lies in the way") for cells in rows(heading)]
    assert len(said) > 40
    assert not [sentence for sentence in said if not stands_in(code, sentence)]


@pytest.mark.parametrize(("what", "record", "facts", "shown", "_reason", "_remedy"), TABLE, ids=[row[0] for row in TABLE])
def test_the_command_that_a_state_names_can_be_given_and_is_the_key_that_the_ui_names(
    what: str, record: Record | None, facts: state.Facts, shown: str, _reason: str, _remedy: str
) -> None:
    derived = state.derive(record, facts)
    session = Overview(
        name=facts.name, path=Path("/nowhere"), title="", id="i", kind="pico", shown=derived, record=record,
        attempt=0 if record is None else record.attempt,
    )  # fmt: skip
    situation = Situation(session)
    verb = (re.match(r"fluxtui (\w+) a\b", derived.remedy) or [""])[0].removeprefix("fluxtui ").removesuffix(" a")
    if verb in ("start", "resume", "kill"):
        assert getattr(refusals, verb)(situation) == "", f"{what}: {derived.remedy} is named, and its key is refused"
    if verb in ("start", "resume"):
        assert next_step(session)[0] == verb, f"{what}: {derived.remedy} is named, and the UI says {next_step(session)}"
    if session.is_beginning:
        assert refusals.kill(situation) == "", "a keeper that hangs before its first record can be ended"
    if session.is_resumable:
        assert refusals.resume(situation) == ""
    elif shown in ("completed", "new", "elsewhere"):
        assert refusals.resume(situation)


KEYS = {"r": "resume", "s": "start", "x": "stop", "K": "kill", "N": "clone", "n": "new"}


@pytest.mark.parametrize(("what", "record", "facts", "shown", "_reason", "_remedy"), TABLE, ids=[row[0] for row in TABLE])
def test_no_refusal_names_a_key_that_is_refused_itself(
    what: str, record: Record | None, facts: state.Facts, shown: str, _reason: str, _remedy: str
) -> None:
    session = Overview(
        name=facts.name, path=Path("/nowhere"), title="", id="i", kind="pico", shown=state.derive(record, facts), record=record,
        attempt=0 if record is None else record.attempt,
    )  # fmt: skip
    situation = Situation(session)
    for action in actions.TABLE:
        said = action.refusal(situation)
        for key in re.findall(r"(?:^|[:;,] |or |then )([rsxKNn]) [a-z]+s\b", said):
            named = actions.BY_NAME[KEYS[key]]
            assert named.name != action.name
            assert named.refusal(situation) == "", f"{what}: {action.name} says {said!r}, and {key} is refused"
        for verb, *_ in commands(said.replace("`", "")):
            if verb in ("start", "resume", "stop", "kill"):
                assert actions.BY_NAME[verb].refusal(situation) == "", f"{what}: {said}"


async def test_every_reason_of_the_keeper_is_shown_in_the_ui_and_by_the_command(home_path: Path) -> None:
    home = Home.open(home_path)
    for number, verdict in enumerate(verdicts()):
        folder = make_session(home, f"s{number:02d}")
        record = make_record(folder, status="failed", reason=verdict.reason, remedy=verdict.remedy.replace("{name}", folder.name))
        toml.write(folder.attempt_file(1), msgspec.structs.replace(record, finished_at=NOW + timedelta(hours=1)))
    async with opened(home, (220, 60)) as (app, pilot):
        for number, verdict in enumerate(verdicts()):
            name = f"s{number:02d}"
            looked = overview.look(home, name)
            assert (looked.state, looked.reason) == ("failed", verdict.reason)
            app.board.sessions.select(name)
            await seen(pilot, lambda reason=verdict.reason[:45]: reason in text_of(app), f"{verdict.reason} of {name}")
