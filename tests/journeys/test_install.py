"""What `make` does on machines that are not like this one. Pip is asked what it would install; nothing is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
HEAVY = ("torch", "triton", "nvidia-cu", "nvidia-nccl", "cuda-")


def make(*variables: str, target: str = "install", **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "-C", str(ROOT), target, *variables]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300)


def shim(folder: Path, body: str) -> Path:
    """A `python` that answers as the script says."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{body}\nexec {sys.executable} \"$@\"\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def pod_python(tmp_path: Path) -> Path:
    """The Python of a pod that already has a torch, of another version than the pinned one, in an environment of its own."""
    pod = tmp_path / "pod"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(pod)], check=True)
    site = pod / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    facts = site / "torch-2.9.1+cu128.dist-info"
    facts.mkdir(parents=True)
    (site / "torch").mkdir()
    (site / "torch" / "__init__.py").write_text("__version__ = '2.9.1+cu128'\n")
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.9.1+cu128\n")
    (facts / "RECORD").write_text("torch/__init__.py,,\n")
    (facts / "WHEEL").write_text("Wheel-Version: 1.0\n")
    return pod / "bin" / "python"


def test_on_a_pod_that_has_torch_nothing_heavy_is_fetched_again(tmp_path: Path, pod_python: Path) -> None:
    report = tmp_path / "report.json"
    made_for_another_torch = tmp_path / "venv"  # and left half made: no Python in it
    made_for_another_torch.mkdir()
    (made_for_another_torch / ".fluxtui-made").write_text("pinned torch, Python 3.11\n/usr/bin/python3\n")
    (made_for_another_torch / "left-over").touch()
    done = make("TORCH=system", f"PYTHON={pod_python}", f"VENV={tmp_path / 'venv'}", FLUXTUI_INSTALL_REPORT=str(report))
    assert done.returncode == 0, done.stderr
    names = {item["metadata"]["name"].lower() for item in json.loads(report.read_text())["install"]}
    assert "diffusers" in names, "the report is not of a real resolution"
    assert not [name for name in names if name.startswith(HEAVY)]
    show = [tmp_path / "venv/bin/python", "-c", "import torch; print(torch.__version__)"]
    seen = subprocess.run(show, capture_output=True, text=True)
    assert seen.stdout.strip() == "2.9.1+cu128"
    assert not (made_for_another_torch / "left-over").exists()


def test_an_environment_that_somebody_else_made_is_installed_into_and_never_emptied(tmp_path: Path) -> None:
    shim(tmp_path, "exit 0").rename(tmp_path / "pip-does-nothing")
    theirs = tmp_path / "venv"
    (theirs / "bin").mkdir(parents=True)
    (tmp_path / "pip-does-nothing").rename(theirs / "bin" / "python")
    (theirs / "mine").touch()
    for _ in range(2):
        done = make(f"PYTHON={sys.executable}", f"VENV={theirs}")
        assert done.returncode == 0, done.stderr
    assert "setting up" not in done.stderr
    assert (theirs / "mine").exists()
    assert not (theirs / ".fluxtui-made").exists()


def test_an_interrupted_installation_is_gone_on_with_by_the_same_command(tmp_path: Path) -> None:
    waits = shim(tmp_path, 'case "$*" in "-m venv"*) mkdir -p "$3/bin"; ln -s /bin/false "$3/bin/python"; kill -INT $$; esac')
    done = make(f"PYTHON={waits}", f"VENV={tmp_path / 'venv'}")
    assert done.returncode != 0
    whole = shim(tmp_path, 'case "$*" in "-m venv"*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; exit 0;; *pip*) exit 0;; esac')
    done = make(f"PYTHON={whole}", f"VENV={tmp_path / 'venv'}")
    assert done.returncode == 0, done.stderr
    assert "installed; source" in done.stderr


def test_what_the_tests_were_installed_with_is_not_set_up_again_to_run(tmp_path: Path) -> None:
    whole = shim(tmp_path, 'case "$*" in "-m venv"*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; exit 0;; *pip*) exit 0;; esac')
    words = (f"PYTHON={whole}", f"VENV={tmp_path / 'venv'}")
    assert "setting up" in make(*words, target="install-test").stderr
    again = make(*words)
    assert (again.returncode, again.stderr) == (0, "")


@pytest.mark.parametrize(("wrong", "said"), [("TORCH=nope", "TORCH is 'nope'"), ("FAULTS=yes", "FAULTS is 'yes'")])
def test_a_wrong_value_is_refused_before_anything_is_made(wrong: str, said: str, tmp_path: Path) -> None:
    done = make(wrong, f"VENV={tmp_path / 'venv'}")
    assert done.returncode != 0
    assert said in done.stderr
    assert "or leave it out" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_system_torch_where_there_is_none_is_one_sentence(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(empty)], check=True)
    done = make("TORCH=system", f"PYTHON={empty / 'bin/python'}", f"VENV={tmp_path / 'venv'}")
    assert done.returncode != 0
    assert "has no torch; leave TORCH out" in done.stderr


def test_a_python_too_old_is_one_sentence(tmp_path: Path) -> None:
    old = shim(tmp_path, 'case "$*" in *version_info*) exit 1;; -V) echo Python 3.9.2; exit 0;; esac')
    done = make(f"PYTHON={old}", f"VENV={tmp_path / 'venv'}")
    assert done.returncode != 0
    assert "Python 3.9.2 is too old; install Python 3.11 or newer" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_a_python_without_venv_is_one_sentence(tmp_path: Path) -> None:
    bare = shim(tmp_path, 'case "$*" in *ensurepip*) exit 1;; esac')
    done = make(f"PYTHON={bare}", f"VENV={tmp_path / 'venv'}")
    assert done.returncode != 0
    assert "cannot make virtual environments; install its venv package" in done.stderr


def test_no_python_at_all_is_one_sentence(tmp_path: Path) -> None:
    done = make("PYTHON=python-that-is-not-there", f"VENV={tmp_path / 'venv'}")
    assert done.returncode != 0
    assert "there is no python-that-is-not-there; install Python 3.11" in done.stderr


def test_a_wheel_takes_every_file_that_the_package_reads() -> None:
    """Package data is named in pyproject.toml by patterns: each must fit a file, and no file beside the code may be left out."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["fluxtui"]
    package = ROOT / "fluxtui"
    found = {pattern: {path for path in package.glob(pattern) if path.is_file()} for pattern in patterns}
    # Until Python 3.13 a final ** matches folders only; setuptools takes the files in them.
    found |= {p: {path for path in package.glob(f"{p}/*") if path.is_file()} for p in patterns if p.endswith("**")}
    assert [pattern for pattern, files in found.items() if not files] == []
    data = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert data == set().union(*found.values())
