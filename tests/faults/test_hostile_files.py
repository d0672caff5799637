"""Files that want to harm: pickles that pose as anything (fault 31), and our own files with any bytes changed (hypothesis).

What reads a file of ours raises a `FluxTUIError` of one sentence, or takes what is sound; it executes nothing and shows nothing
that a terminal obeys. make soak draws many more examples.
"""

from __future__ import annotations

import ast
import json
import os
import pickle
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fluxtui import control
from fluxtui.demo import PICO_DIR
from fluxtui.engine.family.flux1.stream import weights_of
from fluxtui.engine.trainer.checkpoint import state
from fluxtui.engine.trainer.data import caption
from fluxtui.engine.trainer.data.cache import EntryKey, read_entry
from fluxtui.persist import metrics
from fluxtui.persist.checkpoints import commit
from fluxtui.persist.errors import DamagedError, FluxTUIError
from fluxtui.persist.files import tensorfile, toml
from fluxtui.persist.home import Home
from fluxtui.persist.models.folder import recognise
from fluxtui.persist.sessions import overview, overview_json, record_cache
from fluxtui.persist.sessions.record import Record, Result
from fluxtui.persist.sessions.requests import take_requests
from fluxtui.persist.settings import recipe
from tests.journeys.terminal import until
from tests.persist.inert import is_inert
from tests.ui.fabricate import make_record, make_session

ROOT = Path(__file__).parent.parent.parent
MANY = settings(
    max_examples=3000 if os.environ.get("FLUXTUI_SOAK") else 60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
EVIL = [
    b"\x1b]52;c;aGk=\x07", b"\xff\xfe\x00", b"\xe2\x80\xae", b"[" * 50, b"'''", b'"""', b"\n[a.b]\n", b"1e999", b"\x9b31m",
    b"\\u001b[2J",
]  # fmt: skip


class Boom:
    """Unpickled, it leaves a trace."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, (str(self.marker), "w"))


def pickles(marker: Path, at: Path) -> Iterator[bytes]:
    """As `pickle.dump` and as `torch.save` write them."""
    data = pickle.dumps(Boom(marker))
    yield data
    with zipfile.ZipFile(at, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")
    yield at.read_bytes()


def test_31_a_pickle_is_never_opened_whatever_it_poses_as(home_path: Path, tmp_path: Path) -> None:
    marker, home = tmp_path / "executed", Home.open(home_path)
    folder = make_session(home, "one")
    for number, data in enumerate(pickles(marker, tmp_path / "archive")):
        files = {state.ADAPTER_FILE: data, state.OPTIMIZER_FILE: data, state.COUNTERS_FILE: data}
        name = commit.step_name(number + 1)
        commit.commit_checkpoint(folder.checkpoints, name, files, {"step": number + 1})
        commit.verify_checkpoint(folder.checkpoints / name)  # its hashes are right: only its form is not
        for file in (state.ADAPTER_FILE, state.OPTIMIZER_FILE):
            with pytest.raises(DamagedError):
                state.from_safetensors(folder.checkpoints / name / file)
        model = tmp_path / f"model-{number}"
        _copy_with(PICO_DIR, model, data)
        for part in ("transformer", "vae", "text_encoder"):
            with pytest.raises((FluxTUIError, ValueError, OSError)):
                list(weights_of(model / part)[1])
        for file in ("pytorch_model.bin", "flux.ckpt", "flux.pt", "flux.safetensors"):
            (tmp_path / file).write_bytes(data)
            with suppress(FluxTUIError):
                recognise(str(tmp_path / file), home)
        for path in (folder.spec_file, folder.attempt_file(1), folder.result_file, folder.dataset_file, folder.product):
            path.write_bytes(data)
        folder.metrics_file.write_bytes(data + b"\n")
        (folder.control / "1.toml").write_bytes(data)
        entry = tmp_path / "entry"
        entry.write_bytes(data)
        with pytest.raises(FluxTUIError):
            read_entry(entry, EntryKey("latents", "0" * 64))
        with pytest.raises(FluxTUIError):
            toml.read(folder.result_file, Result)
        assert overview.look(home, "one").state == "unreadable"
        assert take_requests(folder)[0] == []
        assert metrics.read_all(folder.metrics_file) == []
        with pytest.raises(FluxTUIError):
            tensorfile.tensors_sha256(folder.product)
    assert not marker.exists(), "a pickle was opened"
    pickle.loads(pickle.dumps(Boom(marker))).close()  # noqa: S301  (otherwise this test would show nothing)
    assert marker.exists()


def _copy_with(source: Path, target: Path, data: bytes) -> None:
    """The pico's folder with every file of weights replaced."""
    for path in Path(source).rglob("*"):
        if path.is_file():
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(data if path.suffix == ".safetensors" else path.read_bytes())


def test_no_module_of_ours_can_open_a_pickle_or_run_text() -> None:
    found = []
    for path in (ROOT / "fluxtui").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            found += [f"{path.name}:{node.lineno} {what}" for what in _dangers(node)]
    assert found == []


def _dangers(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = {alias.name.partition(".")[0] for alias in node.names} | {(getattr(node, "module", None) or "").partition(".")[0]}
        yield from names & {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if called in ("eval", "exec", "compile", "os.system", "os.popen", "runpy.run_path") or given.get("shell") == "True":
            yield called
        if called == "torch.load" and given.get("weights_only") != "True":
            yield called
        if given.get("trust_remote_code") == "True" or given.get("allow_pickle") == "True":
            yield called


def refused(attempt: Callable[[], object]) -> str:
    """The sentence with which it was refused; empty where it was not. Any other error is a defect."""
    try:
        attempt()
    except FluxTUIError as error:
        return str(error)
    return ""


@st.composite
def changed(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes with a few of them flipped, cut out, doubled, or with something hostile put in."""
    for _ in range(draw(st.integers(1, 4))):
        at, length = draw(st.integers(0, len(data))), draw(st.integers(0, 40))
        put = draw(st.one_of(st.binary(max_size=20), st.sampled_from(EVIL), st.just(data[at : at + length] * 2)))
        data = data[:at] + put + data[at + length :]
    return data


@dataclass(frozen=True)
class Session:
    """A failed session, and what its files held."""

    home: Home
    spec: Path
    record: Path
    good_spec: bytes
    good_record: bytes


@pytest.fixture
def session(home_path: Path) -> Session:
    home = Home.open(home_path)
    folder = make_session(home, "one")
    make_record(folder, status="failed", reason="why", remedy="fluxtui resume one")
    spec, record = folder.spec_file, folder.attempt_file(1)
    return Session(home, spec, record, spec.read_bytes(), record.read_bytes())


@MANY
@given(data=st.data())
def test_a_record_with_any_bytes_changed_is_shown_inert_or_unreadable(session: Session, data: st.DataObject) -> None:
    session.record.write_bytes(data.draw(changed(session.good_record)))
    record_cache._seen.clear()
    found = overview_json.to_json(overview.look(session.home, "one"))
    json.dumps(found)
    assert all(is_inert(value) for value in found.values() if isinstance(value, str)), found
    with suppress(FluxTUIError):
        toml.read(session.record, Record)


@MANY
@given(data=st.data())
def test_a_spec_with_any_bytes_changed_is_read_or_refused_in_one_sentence(session: Session, data: st.DataObject) -> None:
    session.spec.write_bytes(data.draw(changed(session.good_spec)))
    refusal = refused(lambda: recipe.load_spec(session.spec))
    assert "\n" not in refusal
    assert is_inert(refusal)


@MANY
@given(data=st.data())
def test_a_tensor_file_with_any_bytes_changed_is_sound_or_damaged(tmp_path: Path, data: st.DataObject) -> None:
    tensors = {f"a.{n}": ("F32", (2, 3), bytes(24)) for n in range(3)}
    good = b"".join(bytes(piece) for piece in tensorfile.serialize(tensors, {"k": "v"}))
    path = tmp_path / "file.safetensors"
    path.write_bytes(data.draw(changed(good)))
    with suppress(DamagedError):
        header = tensorfile.read_header(path)
        assert all(0 <= info.start <= info.end for info in header.tensors.values())
        tensorfile.tensors_sha256(path)


@MANY
@given(text=st.one_of(st.binary(max_size=300), st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass"))))
def test_any_bytes_as_a_caption_are_text_or_a_named_error(text: bytes) -> None:
    lines: list[str] = []
    refusal = refused(lambda: lines.extend(caption.caption_lines(text, "a.txt")))
    assert "a.txt" in refusal or refusal == ""
    assert all(line == " ".join(line.split()) and line and "\0" not in line for line in lines)


def test_whatever_the_umask_files_are_0600_and_folders_0700(
    home_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that a whole session leaves, made by keeper, trainer and front."""
    plan = tmp_path / "plan.json"
    plan.write_text("{}")
    standins = ROOT / "tests" / "keeper"
    for name, value in {"TRAINER": "standin", "PROVER": "standin_prover", "STANDIN": str(plan)}.items():
        monkeypatch.setenv(f"FLUXTUI_{name}", value)
    monkeypatch.setenv("PYTHONPATH", f"{standins}{os.pathsep}{ROOT}")
    before = os.umask(0)
    try:
        home = Home.open(home_path)
        sets = {"train.steps": 20, "checkpoint.every_steps": 5, "hardware.gpus": []}
        control.create(home, "one", dataset="demo", model="pico", sets=sets)
        control.start(home, "one")
        until(lambda: not overview.look(home, "one").is_active, 60)
    finally:
        os.umask(before)
    assert overview.look(home, "one").state == "completed"
    places = [home.root, *home.root.rglob("*"), *(tmp_path / "run").rglob("*")]
    assert len(places) > 20
    wrong = [
        f"{path}: {stat.S_IMODE(path.lstat().st_mode):o}"
        for path in places
        if stat.S_IMODE(path.lstat().st_mode) != (0o700 if path.is_dir() else 0o600)
    ]
    assert wrong == []
