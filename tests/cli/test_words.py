"""What is typed: help, near misses, one sentence and the right exit code for all that does not fit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fluxtui.cli import verbs
from fluxtui.persist.settings import recipe
from tests.cli.conftest import Lab

VERBS = [verb for _, group in verbs.GROUPS for verb in group]


def test_help_lists_every_verb_of_the_design(lab: Lab) -> None:
    text = lab.call("--help").out  # 80 columns, as where there is no terminal
    words = (
        "demo new import edit start ls show logs metrics stop kill resume wait queue checkpoint sample checkpoints verify export "
        "publish check plan cache doctor rm"
    )
    assert not [word for word in words.split() if f"\n  {word} " not in text]


# check becomes the engine, whose words it takes: the next test
@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb.name != "check"], ids=lambda verb: verb.name)
def test_every_verb_has_help_and_refuses_an_option_it_does_not_know(lab: Lab, verb: verbs.Verb) -> None:
    assert lab.call(verb.name, "--help").code == 0
    asked = lab.call(verb.name, "--no-such-option")
    assert asked.code == 2
    assert asked.sentence


def test_check_takes_its_options_before_the_folder_too() -> None:
    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "fluxtui", "check", *words], capture_output=True, text=True)

    assert json.loads(call("--json", "--quick", "demo").stdout)["ok"] is True
    assert "--resolution" in call("--help").stdout
    asked = call("--no-such-option", "demo")
    assert (asked.returncode, asked.stdout) == (2, "")
    assert asked.stderr == "fluxtui: unrecognized arguments: --no-such-option; fluxtui check --help shows how.\n"


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (["lst"], 2, "did you mean ls"),
        (["blah"], 2, "There is no verb blah; fluxtui help lists them."),
        (["keys", "zzz"], 2, "No key has the word zzz"),
        (["status", "x"], 2, "did you mean show?"),
        (["delete", "x"], 2, "did you mean rm?"),
        (["ls", "--jsn"], 2, "did you mean --json?"),
        (["keys", "network_dim"], 2, "did you mean lora.rank?"),
        (["queue", "x", "--priority", "y"], 2, "y is no whole number"),
        (["qqqqqq"], 2, "fluxtui help lists them"),
        (["show"], 2, "NAME"),
        (["show", "nothing"], 3, "no session nothing"),
        (["show", "../x"], 2, "cannot be a name"),
        (["new", "a"], 2, "--dataset"),
        (["new", "a", "--dataset", "demo", "--preset", "zz"], 2, "fluxgym"),
        (["new", "a", "--dataset", "demo", "--set", "train.batch_size=0"], 2, "from 1 to 1024"),
        (["new", "a", "--dataset", "demo", "--checkpoint", "newest"], 2, "--from"),
        (["new", "a", "--from", "nothing"], 3, "nothing"),
        (["new", "a", "--dataset", "/no/where"], 3, "/no/where"),
        (["new", "a", "--dataset", "demo", "--model", "nothing"], 3, "no model nothing"),
        (["new", "a", "--dataset", "demo", "--set", "validate.images=999"], 2, "[validate] images is 999"),
        (["start", "nothing"], 3, "no session"),
        (["start", "./nothing.toml"], 3, "no spec"),
        (["resume"], 2, "--lost"),
        (["wait", "nothing"], 3, "no session"),
        (["wait", "nothing", "--timeout", "-1"], 2, "give seconds, 0 or more"),
        (["queue", "nothing"], 2, "--priority"),
        (["export", "nothing", "--format", "zip", "-o", "x"], 2, "zip"),
        (["cache", "--prune", "--keep", "-1"], 2, "--keep"),
        (["keys", "zzzz"], 2, "No key has the word zzzz"),
        (["logs", "nothing", "-n", "-4"], 2, "-4 is not how many"),
        (["metrics", "nothing", "-n", "x"], 2, "x is not how many"),
        (["show", "\x1b[31m\u202e"], 2, "cannot be a name"),
        (["\x1b[31mred"], 2, "no verb"),
    ],
)
def test_what_does_not_fit_is_one_sentence(lab: Lab, words: list[str], code: int, part: str) -> None:
    asked = lab.call(*words)
    assert asked.code == code, asked
    assert part in asked.sentence
    assert asked.sentence.startswith("fluxtui: ")
    assert "\x1b" not in asked.err
    assert asked.out == ""
    assert lab.home.session_names() == []


def test_a_new_session_holds_what_was_set_and_defaults_for_the_rest(lab: Lab) -> None:
    asked = lab.call(
        "new",
        "a",
        "--dataset",
        "demo",
        "--set",
        "train.steps=7",
        "--set",
        "lora.rank=8",
        "--title",
        "My heart",
        "--trigger",
        "tok",
    )
    assert (asked.code, asked.out) == (0, "")
    spec = recipe.load_spec(lab.home.session("a").spec_file)
    assert (spec.train.steps, spec.lora.rank, spec.title, spec.dataset.trigger) == (7, 8, "My heart", "tok")
    assert (spec.model.source, spec.kind, spec.dataset.resolution) == ("pico", "pico", [64])


def test_a_clone_has_the_settings_a_new_id_and_what_was_set_over_them(lab: Lab) -> None:
    lab.make("a", lora__rank=8)
    assert lab.call("new", "b", "--from", "a", "--set", "train.steps=50").code == 0
    first, second = (recipe.load_spec(lab.home.session(name).spec_file) for name in "ab")
    assert (second.lora.rank, second.train.steps, second.name) == (8, 50, "b")
    assert first.id != second.id
    assert "has no checkpoint" in lab.call("new", "c", "--from", "a", "--checkpoint", "newest").sentence


def test_a_spec_of_the_users_own_is_made_complete(lab: Lab, tmp_path: Path) -> None:
    from fluxtui import control

    path = tmp_path / "mine.toml"
    path.write_text('title = "T"\n[dataset]\npath = "demo"\n[train]\nsteps = 9\n')
    folder = control.create_from_file(lab.home, path)
    spec = recipe.load_spec(folder.spec_file)
    assert (folder.name, spec.title, spec.train.steps, spec.kind, len(spec.id)) == ("mine", "T", 9, "pico", 32)
    path.write_text("[train]\nstepz = 9\n")
    path = path.rename(tmp_path / "other.toml")
    assert "train.steps" in lab.call("start", str(path)).sentence


def test_a_session_that_cannot_be_written_leaves_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from fluxtui.persist.files import durable

    real = os.replace

    def full(source: object, target: object) -> None:
        if str(target).endswith("session.toml"):
            raise OSError(28, "No space left on device")
        real(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(durable.os, "replace", full)
    assert "disk is full" in lab.call("new", "a", "--dataset", "demo").sentence
    assert lab.home.session_names() == []


def test_no_room_is_said_with_the_sum_before_anything_is_made(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    monkeypatch.setattr(os, "statvfs", lambda path: types.SimpleNamespace(f_bavail=1, f_frsize=2**20, f_blocks=1))
    sentence = lab.call("new", "a", "--dataset", "demo", "--model", "owner/flux").sentence
    assert "1.0 MiB are free" in sentence
    assert "4 + 1 checkpoints 3.7 GiB, the product 124.7 MiB, caches " in sentence
    assert lab.home.session_names() == []


def test_data_goes_to_stdout_alone_and_is_json_where_asked(lab: Lab) -> None:
    lab.make("a")
    for words in (["ls"], ["show", "a"], ["metrics", "a"], ["checkpoints", "a"], ["keys"], ["doctor"], ["cache"]):
        asked = lab.call(*words, "--json")
        assert asked.err == "", asked
        json.loads(asked.out)
    assert json.loads(lab.call("show", "a", "--json").out) == json.loads(lab.call("ls", "--json").out)[0]


def test_rm_asks_and_without_a_terminal_wants_yes(lab: Lab) -> None:
    lab.make("a")
    assert "--yes" in lab.call("rm", "a").sentence
    assert lab.home.session_names() == ["a"]
    assert lab.call("rm", "a", "--yes").code == 0
    assert lab.home.session_names() == []
    assert list(lab.home.sessions.iterdir()) == []


def test_doctor_says_what_in_config_toml_does_nothing(lab: Lab) -> None:
    def told() -> list[tuple[str, str]]:
        found = json.loads(lab.call("doctor", "--json").out)
        return [(one["level"], one["found"]) for one in found if one["subject"] == "config.toml"]

    assert told() == []
    lab.home.config.write_text('on_end = "true"\n[keys]\nkil = "k"\n')
    assert told() == [("note", "config.toml remaps 'kil', which is no action")]
    lab.home.config.write_text('on_end = "true"\n')
    [(level, _)] = told()
    assert level == "good"


def test_the_home_of_a_user_that_there_is_not_is_a_folder_that_is_not_there(lab: Lab) -> None:
    """`~pictures` for `~/pictures` was called a fault of FluxTUI, and `check` ended with a traceback."""
    absent = "~nobody-here/pictures"
    command = [sys.executable, "-m", "fluxtui", "check", absent]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = f"fluxtui: There is no data set folder {absent}; give one that exists, or demo.\n"
    assert (done.returncode, done.stderr) == (3, told)
    assert absent in lab.call("new", "a", "--model", "pico", "--dataset", absent).sentence
    assert "There is no model" in lab.call("new", "a", "--model", "~nobody-here/flux", "--dataset", "demo").sentence


def test_doctor_tells_of_a_home_that_cannot_be_opened_once_and_blames_nothing_else(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FLUXTUI_HOME", str(tmp_path / "file" / "home"))
    found = json.loads(lab.call("doctor", "--json").out)
    told = [(one["subject"], one["remedy"]) for one in found if str(tmp_path / "file") in one["found"]]
    assert told == [("home", "set FLUXTUI_HOME to a folder of yours")]


def test_doctor_names_no_limit_of_open_files_that_is_already_so(lab: Lab) -> None:
    def told(limits: str) -> str:
        command = ["bash", "-c", f'{limits}; exec "$@"', "bash", sys.executable, "-m", "fluxtui", "doctor", "--json"]
        found = json.loads(subprocess.run(command, capture_output=True, check=False).stdout)
        return next(one["remedy"] for one in found if one["subject"] == "open files")

    assert told("ulimit -Sn 64 && ulimit -Hn 512") == "ulimit -n 512"
    assert told("ulimit -n 64").startswith("raise the hard limit")


def test_doctor_shows_no_token(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    asked = lab.call("doctor")
    assert "HF_TOKEN" in asked.out
    assert "verysecret" not in asked.out + asked.err


def test_a_reader_that_goes_away_and_a_fault_of_ours_show_no_traceback(lab: Lab) -> None:
    lab.make("a")
    command = f"{sys.executable} -m fluxtui keys | head -1"
    piped = subprocess.run(["bash", "-c", f"{command}; echo code ${{PIPESTATUS[0]}}"], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in piped.stderr
    assert "code 0" in piped.stdout or "code 141" in piped.stdout
    broken = (
        "import fluxtui.cli.show as s\ndef bad(a): raise ZeroDivisionError('x')\ns.ls_verb = bad\n"
        "from fluxtui.cli import main\nprint(main(['ls']))"
    )
    done = subprocess.run([sys.executable, "-c", broken], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "1"
    assert len(done.stderr.strip().splitlines()) == 1
    report = Path(os.environ["FLUXTUI_RUNTIME"]) / "faults.log"
    assert "ZeroDivisionError" in report.read_text()
    assert str(report) in done.stderr


def test_an_imported_configuration_makes_a_session_and_names_what_was_left(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"network_dim": 8, "network_module": "x", "max_train_epochs": 3}))
    asked = lab.call("import", "a", str(path), "--dataset", "demo", "--model", "pico")
    assert asked.code == 0, asked
    assert "not carried over as it stands: network_module" in asked.err
    spec = recipe.load_spec(lab.home.session("a").spec_file)
    assert (spec.lora.rank, spec.lora.alpha, spec.train.epochs, spec.train.steps) == (8, 1.0, 3, 0)
    assert lab.call("import", "b", str(tmp_path / "none.json")).code == 3


def test_words_of_other_programs_lead_to_verbs_that_there_are() -> None:
    names = {verb.name for verb in VERBS} | {"--version"}
    assert set(verbs._OURS.values()) <= names
    assert not set(verbs._OURS) & names


def test_metrics_in_json_are_all_steps_or_as_many_as_were_asked_for(lab: Lab) -> None:
    lab.make("a")
    one = {"attempt": 1, "epoch": 1, "loss": 0.1, "learning_rate": 1e-4, "gradient_norm": 1.0, "seconds": 0.1}
    lines = [json.dumps({**one, "step": step, "at": "2026-01-01T00:00:00Z"}) for step in range(1, 31)]
    lab.home.session("a").metrics_file.write_text("\n".join(lines) + "\n")
    assert [step["step"] for step in json.loads(lab.call("metrics", "a", "--json", "-n", "2").out)] == [29, 30]
    assert len(json.loads(lab.call("metrics", "a", "--json").out)) == 30
    assert len(lab.call("metrics", "a").out.splitlines()) == 21


def completed(lab: Lab, *words: str) -> set[str]:
    """What bash offers for the last of the words."""
    ask = 'source <("$0" -m fluxtui completion); COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _fluxtui; echo "${COMPREPLY[@]}"'
    environment = {**os.environ, "FLUXTUI_HOME": str(lab.home.root)}
    command = ["bash", "--norc", "-c", ask, sys.executable, "fluxtui", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(done.stdout.split())


def test_bash_completes_verbs_sessions_settings_options_and_choices(lab: Lab) -> None:
    lab.make("night-run")
    lab.make("noon")
    assert {verb.name for verb in VERBS} < completed(lab, "")
    assert completed(lab, "sh") == {"show"}
    assert completed(lab, "show", "n") == {"night-run", "noon"}
    assert completed(lab, "resume", "ni") == {"night-run"}
    assert completed(lab, "new", "n") == set(), "that is a name of its own"
    assert completed(lab, "new", "x", "--set", "train.st") == {"train.steps="}
    assert completed(lab, "show", "noon", "--j") == {"--json"}
    assert completed(lab, "export", "noon", "--format", "k") == {"kohya"}


def test_a_session_folder_under_a_name_that_none_can_have_is_told_of_with_one_that_would_do(lab: Lab) -> None:
    assert lab.call("new", "dog", "--dataset", "demo", "--model", "pico").code == 0
    sessions = lab.home.sessions
    for name in ("Dog", "cafe\u0301", "a\x1b]52;c;aGk=\x07"):
        shutil.copytree(sessions / "dog", sessions / name)
    (sessions / "No session").mkdir()
    said = lab.call("ls")
    assert said.code == 0
    assert f"Not listed: Dog is no name of a session; rename that folder in {sessions} to dog-2." in said.err
    assert said.err.count("Not listed") == 3
    assert "\x1b" not in said.err
    shutil.rmtree(sessions / "dog")
    os.rename(sessions / "Dog", sessions / "dog-2")
    assert lab.call("ls").out.splitlines()[1].startswith("dog-2")


def test_what_the_engine_refuses_is_said_as_every_verb_says_it() -> None:
    command = [sys.executable, "-m", "fluxtui", "check", "/nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 3
    assert done.stderr.startswith("fluxtui: There is no data set folder")


@pytest.mark.parametrize("columns", [80, 200])
def test_help_fits_the_terminal(lab: Lab, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = lab.call("help").out.splitlines()
    assert max(map(len, lines)) <= columns
    assert any("resume" in line and "continue exactly" in line for line in lines)
    assert any("fluxtui resume NAME" in line for line in lines) == (columns == 200)
