"""Why an action is not possible now, in one sentence; empty where it is. Pure functions of the situation."""

from __future__ import annotations

from dataclasses import dataclass

from fluxtui.persist.sessions.overview import Overview


@dataclass(frozen=True, slots=True)
class Situation:
    """What an action looks at to say whether it can be done."""

    session: Overview | None = None  # the selected one
    is_demo_here: bool = True  # the bundled model and pictures are installed
    is_filtered: bool = False
    is_kept: bool = False  # a keeper holds it, whatever its newest record says
    gone: str = ""  # what the session was called whose screen is open, where its folder is no longer there


def stands(session: Overview) -> str:
    """ "night-run has failed", "paused-fox is stopped"."""
    return f"{session.name} has failed" if session.state == "failed" else f"{session.name} is {session.state}"


def needs_session(situation: Situation) -> str:
    if situation.gone:
        return f"{situation.gone} is gone"
    if situation.session is None:
        return "no session is shown; esc shows all" if situation.is_filtered else "no session is selected; n makes one"
    if situation.session.state == "unreadable":
        return f"what is on disk of {situation.session.name} cannot be read: {situation.session.reason}"
    return ""


def start(situation: Situation) -> str:
    if why := needs_session(situation):
        return why
    session = situation.session
    assert session is not None
    if session.state == "elsewhere":
        return f"{session.name} is {session.reason}"
    if session.is_active:
        return f"{session.name} is {session.state} already"
    if session.state == "changed":
        return f"{session.name} was completed, and its file is changed or gone: r makes it again"
    if session.state == "completed":
        return completed(session)
    return "" if session.state == "new" else f"{session.name} has been started before: r resumes it"


def completed(session: Overview) -> str:
    return f"{session.name} is completed: N makes one that trains on, with newest at “go on from it” and more steps"


def resume(situation: Situation) -> str:
    session = situation.session
    if session is not None and session.is_resumable:
        return ""
    if why := needs_session(situation):
        return why
    assert session is not None
    if session.state == "new":
        return f"{session.name} has not been started yet: s starts it"
    if session.state == "completed":
        return completed(session)
    if session.state == "elsewhere":
        return f"{session.name} is {session.reason}"
    return f"{stands(session)}; nothing to resume" if session.is_active else ""


def stop(situation: Situation) -> str:
    if why := needs_session(situation):
        return why
    session = situation.session
    assert session is not None
    if session.state == "stopping":
        return f"{session.name} is stopping already; K ends it at once"
    if session.is_active or session.state == "elsewhere":
        return ""
    if situation.is_kept:
        return f"a keeper of {session.name} has begun and says nothing yet; K ends it"
    return not_running(session)


def kill(situation: Situation) -> str:
    session = situation.session
    if session is not None and session.is_kept_unseen:
        return ""  # its record cannot be read, but a keeper is at work on it all the same
    if session is not None and session.is_beginning:
        return ""  # its keeper has written no record yet; one that hangs there must be ended too
    if session is not None and situation.is_kept:
        return ""  # the same of one that resumes it: the newest record is that of the attempt before
    if why := needs_session(situation):
        return why
    assert session is not None
    return "" if session.is_active or session.state == "elsewhere" else not_running(session)


def while_training(situation: Situation) -> str:
    if why := kill(situation):
        return why
    session = situation.session
    assert session is not None
    return "" if session.status == "running" else f"{stands(session)}; this needs a running one"


def waits(situation: Situation) -> str:
    if why := needs_session(situation):
        return why
    session = situation.session
    assert session is not None
    return "" if session.state == "queued" else f"{stands(session)}; only one that waits has a place to change"


def not_running(session: Overview) -> str:
    if session.state == "new":
        return f"{session.name} has not been started yet: s starts it"
    return f"{stands(session)}; nothing of it is running"


def verify(situation: Situation) -> str:
    if why := needs_session(situation):
        return why
    session = situation.session
    assert session is not None
    if session.state in {"completed", "changed"}:
        return ""
    return f"{stands(session)}; only a completed one can be proven"


def edit_spec(situation: Situation) -> str:
    if why := needs_session(situation):
        return why
    session = situation.session
    assert session is not None
    if session.state == "new" or session.never_trained:
        return ""
    after = f", `fluxtui resume {session.name} --set KEY=VALUE` changes some" if session.is_resumable else ""
    return f"{session.name} was started, so its settings stay: N clones it{after}"


def delete(situation: Situation) -> str:
    if situation.session is None:
        return f"{situation.gone} is gone" if situation.gone else "no session is selected"
    session = situation.session
    if session.state == "elsewhere":
        return f"{session.name} is {session.reason}"
    if session.state == "unreadable" and session.is_active:
        return f"a keeper is at work on {session.name}: K ends it first"
    if session.state == "stopping":
        return f"{session.name} is stopping: wait for its end, or K ends it at once"
    return f"{session.name} is {session.state}: x stops it first" if session.is_active else ""


def demo(situation: Situation) -> str:
    return "" if situation.is_demo_here else "the demo's model is not part of this installation"
