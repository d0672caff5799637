"""Why the hub gives no model, in one sentence each, with the change that helps."""

from __future__ import annotations

from fluxtui.engine.trainer.refusal import Refusal
from fluxtui.engine.wire import TrainerExit
from fluxtui.persist.files.text import clean


class DownloadError(Refusal):
    """The hub does not give the model, and would not if it was asked again."""


class CutError(Refusal):
    """The network or the hub failed. What came is kept; the keeper tries again."""

    exit = TrainerExit.NETWORK
    usual_remedy = "look at the network, then fluxtui resume {name}: what came is kept"


class BrokenFileError(Refusal):
    """A file arrived whole and is not the hub's. It was removed."""

    exit = TrainerExit.NETWORK

    def __init__(self, name: str, why: str) -> None:
        super().__init__(
            f"{clean(name, 200)} was fetched and is not what the hub has: {why}; it was removed",
            "resume downloads it again; if it happens again, a proxy or the disk changes bytes",
        )


class NoAccessError(DownloadError):
    """Answered 401, 403 or 404."""


def no_access(what: str, status: int, code: str) -> NoAccessError:
    """The refusal that an HTTP answer means, for one file."""
    words = {401: "the hub asks for a token", 403: "this token may not read it", 404: "it is not on the hub any more"}
    why = words.get(status, f"the hub answered {status}")
    remedy = "see huggingface.co/settings/tokens, then `hf auth login` or HF_TOKEN" if status in (401, 403) else ""
    return NoAccessError(f"{clean(what, 200)} is not given: {why}{f' ({clean(code, 40)})' if code else ''}", remedy)


def gated(repository: str, licence: str, has_token: bool, endpoint: str) -> DownloadError:
    """A model behind a licence: what to accept, where, and where the token comes from. Said before anything is fetched."""
    page = f"{endpoint}/{repository}"
    what = f"its licence ({clean(licence, 100)})" if licence else "its licence"
    if has_token:
        return DownloadError(
            f"{repository} is gated, and the account of your token has not been let in",
            f"accept {what} on {page} with that account (a fine-grained token also needs the right to read gated "
            "repositories), then fluxtui resume {name}",
        )
    return DownloadError(
        f"{repository} is gated, and there is no token on this machine",
        f"accept {what} on {page}, make a read token on {endpoint}/settings/tokens, then `hf auth login` or "
        "export HF_TOKEN=…, and resume",
    )


def unknown(repository: str, has_token: bool) -> DownloadError:
    """404, or 401 without an account: the hub tells a private model from a missing one to nobody."""
    more = "your token cannot see it" if has_token else "for a private one `hf auth login`"
    return DownloadError(f"there is no model {repository} on the hub, or it is private", f"check the id; {more}")


def bad_token() -> DownloadError:
    return DownloadError(
        "the hub does not know the token of this machine",
        "make a new one on huggingface.co/settings/tokens, then `hf auth login` or HF_TOKEN; open models need none",
    )
