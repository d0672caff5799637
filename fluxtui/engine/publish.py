"""A proven session on the hub: its file, its card and the samples that the card shows, and nothing else.

    python -m fluxtui.engine publish --home ROOT --session NAME --repo OWNER/NAME [--public]

The token is the hub's own affair: HF_TOKEN of the environment, or what `hf auth login` left. It is never asked for, written or
shown here.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from pathlib import Path
from urllib.parse import unquote

from fluxtui.engine import quiet
from fluxtui.engine.trainer.exit_reason import first_line
from fluxtui.persist import output
from fluxtui.persist.errors import ExitCode, FluxTUIError, NotFoundError, RefusedError, UsageError
from fluxtui.persist.files import toml
from fluxtui.persist.files.text import clean
from fluxtui.persist.home import Home, SessionFolder
from fluxtui.persist.sessions.record import Result

_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_PICTURE = re.compile(r"\]\((samples/step-\d{9}/\d{1,3}\.png)\)")
_BLOCK = 1 << 22


def main(argv: list[str]) -> int:
    """Each file on standard output as it is listed, then where they are; an error on standard error."""
    quiet.hush()
    parser = argparse.ArgumentParser(prog="fluxtui.engine publish")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--session", required=True)
    parser.add_argument("--repo", required=True)
    parser.add_argument("--public", action="store_true")
    options = parser.parse_args(argv)
    try:
        must_be_repository(options.repo)
        folder = Home(options.home).session(options.session)
        files = files_of(folder)
        for name, path in files.items():
            output.write(f"{name}  {path.stat().st_size:,} bytes\n")
        output.finish()
        print(publish(folder.name, files, options.repo, is_public=options.public))
    except FluxTUIError as error:
        quiet.refuse(str(error))
        return int(error.exit_code)
    return int(ExitCode.DONE)


def must_be_repository(repo: str) -> None:
    """Raises `UsageError` for what the hub cannot have."""
    if not _REPO.fullmatch(repo):
        raise UsageError(f"{clean(repo, 80)} is no name of a repository; write it as OWNER/NAME.")


def files_of(folder: SessionFolder) -> dict[str, Path]:
    """Name on the hub -> file: the product, as it was proven, the card, the pictures in it.

    Raises `NotFoundError` where one is missing, `RefusedError` where the product is not the one that was proven.
    """
    result = toml.read(folder.result_file, Result)
    for path in (folder.product, folder.card_file):
        if not path.is_file() or path.is_symlink():
            raise NotFoundError(f"{path} is missing, so there is nothing to publish; fluxtui verify {folder.name} looks.")
    digest = hashlib.sha256()
    with folder.product.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    if digest.hexdigest() != result.sha256:
        raise RefusedError(f"{folder.product.name} is not the file that was proven; fluxtui verify {folder.name} says more.")
    shown = [unquote(link) for link in _PICTURE.findall(folder.card_file.read_text(encoding="utf-8"))]
    pictures = {link: folder.path / link for link in shown if (folder.path / link).is_file()}
    return {folder.product.name: folder.product, "README.md": folder.card_file, **pictures}


def publish(name: str, files: dict[str, Path], repo: str, is_public: bool) -> str:
    """One commit with just these files; the sentence that says where. Raises a `FluxTUIError`."""
    must_be_repository(repo)
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # the second: of whichever client the hub's library uses

    if not get_token():
        raise RefusedError("The hub needs a token: set HF_TOKEN, or log in with `hf auth login`; FluxTUI keeps none.")
    api = HfApi()
    try:
        api.create_repo(repo, private=not is_public, exist_ok=True)
        is_private = bool(api.model_info(repo).private)
        if not is_private and not is_public:
            raise RefusedError(f"{repo} is there already and public; say so with --public, or give another name.")
        operations = [CommitOperationAdd(path_in_repo=target, path_or_fileobj=path) for target, path in files.items()]
        done = api.create_commit(repo, operations, commit_message=f"{name}, published by FluxTUI")
    except HfHubHTTPError as error:
        raise RefusedError(f"The hub refused: {clean(first_line(error), 300)}") from error
    except (HTTPError, OSError, ValueError) as error:
        raise FluxTUIError(f"The hub could not be reached or understood: {clean(first_line(error), 300)}") from error
    kind = "private" if is_private else "public"
    return f"{len(files)} files are in the {kind} repository {repo}: {done.commit_url}"
