"""The proof, made again any time later: `fluxtui verify`."""

from __future__ import annotations

import msgspec

from fluxtui.control import engine
from fluxtui.persist.errors import FluxTUIError, RefusedError
from fluxtui.persist.files.struct_init import init_struct
from fluxtui.persist.files.text import clean
from fluxtui.persist.home import Home
from fluxtui.persist.sessions import overview
from fluxtui.persist.sessions.record import Proof


def verify(home: Home, name: str) -> Proof:
    """Prove the product of a completed session again, in a process of its own.

    Raises `RefusedError` where there is nothing to prove, `FluxTUIError` with what is missing where it is not proven.
    """
    seen = overview.look(home, name)
    if seen.status != "completed":
        raise RefusedError(f"{name} is {seen.state}; only a completed session has a file to prove.")
    arguments = ["--home", str(home.root), "--session", name, "--attempt", str(seen.attempt)]
    code, answer, said = engine.last_object("prove", arguments)
    if answer is None:
        raise engine.failed("verify", code, said)
    init_struct(Proof)
    try:
        proof = msgspec.convert(answer, Proof, strict=False)
    except msgspec.ValidationError as error:
        raise FluxTUIError(f"verify gave an answer that cannot be read: {clean(str(error), 200)}.") from error
    if not proof.ok or code != 0:
        raise FluxTUIError(f"{name} is not proven: {clean(proof.what or said or f'exit code {code}', 500).rstrip('.')}.")
    _compare(seen, proof)
    return proof


def _compare(seen: overview.Overview, proof: Proof) -> None:
    """A file that proves well may still not be the one that was proven then."""
    first = seen.record.proof if seen.record else None
    if first is not None and first.sha256 and proof.sha256 and first.sha256 != proof.sha256:
        raise FluxTUIError(f"{seen.name} is not proven: the file is sound, but not the one that was proven when it completed.")
