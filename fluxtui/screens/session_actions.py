"""The actions on sessions. Each runs in a thread of its own and ends in a notice; none blocks the screen."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from textual.app import App
from textual.message import Message

from fluxtui.actions import BY_NAME
from fluxtui.persist.errors import FluxTUIError, RefusedError
from fluxtui.persist.files.text import clean
from fluxtui.persist.home import Home
from fluxtui.persist.sessions.overview import Overview
from fluxtui.screens import jobs
from fluxtui.screens.keys.dispatch import Dispatcher
from fluxtui.screens.watching.watch import Watch

if TYPE_CHECKING:
    from fluxtui.screens.dialogs.ask import Ask
    from fluxtui.screens.dialogs.export_box import Export
    from fluxtui.screens.form.fields import Evaluation


class JobDone(Message):
    """A thread has finished its job; `done` is to be called on the loop."""

    def __init__(self, done: Callable[[], None]) -> None:
        super().__init__()
        self.done = done


class SessionActions(App[int], Dispatcher):
    """The app, as far as it acts. Every `do_` is reached by `action_do` only after the table has not refused it."""

    home: Home
    sessions: Mapping[str, Overview]
    watch_disk: Watch
    _question: Ask | None = None  # the last one

    def say(self, text: str, kind: str = "info", stays: bool = False) -> None:
        raise NotImplementedError

    def withdraw(self, text: str) -> None:
        """Take a notice away that is not true any more."""
        raise NotImplementedError

    def run_job(
        self,
        work: Callable[[], str],
        kind: str = "info",
        otherwise: Callable[[FluxTUIError], bool] | None = None,
        meanwhile: str = "",
    ) -> None:
        """Run `work` in a thread; say what it returns. An error is said too, unless `otherwise` (on the loop) takes it.

        `meanwhile` is said at once and stands until the answer is there, however long that takes.
        """
        if meanwhile:
            self.say(meanwhile, stays=True)

        def answer(done: Callable[[], None]) -> None:
            if meanwhile:
                self.withdraw(meanwhile)
            done()

        def carry_out() -> None:
            try:
                text = work()
                done = partial(self.say, text, kind)
            except FluxTUIError as error:
                done = partial(self._say_error, error, otherwise)
            except Exception as error:  # noqa: BLE001 - the outer edge of a worker: said, and the screen lives on
                done = partial(self.say, _fault(error), "bad", True)
            self.post_message(JobDone(partial(answer, done)))
            self.watch_disk.hurry()

        threading.Thread(target=carry_out, daemon=True, name="job").start()

    def run_quietly(self, work: Callable[[], None]) -> None:
        """Run something in a thread that shows its own result; only what goes wrong is said.

        It runs in the caller's context, which names the app: a widget that was left meanwhile finds it by its screen no more.
        """

        def carry_out() -> None:
            try:
                work()
            except (FluxTUIError, OSError) as error:
                self.post_message(JobDone(partial(self.say, clean(str(error)), "warn")))
            except Exception as error:  # noqa: BLE001 - the outer edge of a worker: said, and the screen lives on
                if self.is_running:
                    self.post_message(JobDone(partial(self.say, _fault(error), "bad", True)))

        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(carry_out,), daemon=True, name="job").start()

    def _say_error(self, error: FluxTUIError, otherwise: Callable[[FluxTUIError], bool] | None) -> None:
        if otherwise is None or not otherwise(error):
            self.say(clean(str(error)), "bad", stays=True)

    def _ask(self, name: str, title: str, text: str, yes: str, action: Callable[[], None], key: str = "") -> None:
        """Do it only where the user says yes. Once the session is gone, or the key that asked would be refused, the question
        goes away by itself."""
        from fluxtui.screens.dialogs.ask import Ask

        def is_moot() -> bool:
            return name not in self.sessions or (bool(key) and bool(BY_NAME[key].refusal(self.situation(name))))

        self._question = Ask(title, text, yes, is_moot)
        self.push_screen(self._question, lambda answer: action() if answer else None)

    def drop_moot_question(self) -> None:
        if self._question is not None:
            self._question.drop_if_moot()

    def _chosen(self) -> Overview:
        session = self.situation().session
        assert session is not None, "the table refuses what needs a session where there is none"
        return session

    def do_start(self) -> None:
        name = self._chosen().name
        self.run_job(lambda: jobs.started(self.home, name), "info", meanwhile=f"starting {name}")

    def do_resume(self) -> None:
        session = self._chosen()
        if "--accept-changes" not in f"{session.reason} {session.remedy}":
            self.resume(session.name)
            return
        # its trainer found the data set, the model or a library changed, and refused: a plain resume would end the same way
        text = f"{session.reason.rstrip('.')}. The run would not be exact from here on, and its record would say so."
        action = partial(self.resume, session.name, "auto", True)
        self._ask(session.name, f"resume {session.name}", text, "Go on with the changes", action, "resume")

    def resume(self, name: str, checkpoint: str = "auto", accept_changes: bool = False) -> None:
        """Go on from a checkpoint; where something changed since, show the difference and ask."""

        def otherwise(error: FluxTUIError) -> bool:
            if accept_changes or not isinstance(error, RefusedError) or "accept-changes" not in str(error):
                return False
            text = f"{error} The run would not be exact from here on, and its record would say so."
            self._ask(name, f"resume {name}", text, "Go on with the changes", lambda: self.resume(name, checkpoint, True))
            return True

        work = partial(jobs.resumed, self.home, name, checkpoint, accept_changes)
        self.run_job(work, "info", otherwise, f"resuming {name}")

    def do_stop(self) -> None:
        self._ask_keeper("stop")

    def do_stop_after_epoch(self) -> None:
        self._ask_keeper("stop-after-epoch")

    def do_checkpoint(self) -> None:
        self._ask_keeper("checkpoint")

    def do_sample(self) -> None:
        self._ask_keeper("sample")

    def do_sooner(self) -> None:
        name = self._chosen().name
        self.run_job(lambda: jobs.moved(self.home, name, first=True))

    def do_later(self) -> None:
        name = self._chosen().name
        self.run_job(lambda: jobs.moved(self.home, name, first=False))

    def _ask_keeper(self, verb: str) -> None:
        name = self._chosen().name
        self.run_job(lambda: jobs.asked(self.home, name, verb))

    def do_kill(self) -> None:
        session = self._chosen()
        name, last = session.name, session.checkpoint
        since = f"What was trained since {last} is lost." if last else "There is no checkpoint yet: all of it is lost."
        text = f"End {name} at once? {since} (x stops it with a checkpoint.)"
        action = partial(self.run_job, lambda: jobs.asked(self.home, name, "kill"))
        self._ask(name, f"kill {name}", text, "Kill it", action, "kill")

    def do_delete(self) -> None:
        session = self._chosen()
        name = session.name
        what = "its checkpoints, samples, log and the finished LoRA" if session.output else "its checkpoints, samples and log"
        text = f"Delete {name} with {what}? This cannot be undone. Your pictures stay."
        action = partial(self.run_job, lambda: jobs.removed(self.home, name))
        self._ask(name, f"delete {name}", text, "Delete it", action, "delete")

    def do_verify(self) -> None:
        name = self._chosen().name
        self.run_job(lambda: jobs.verified(self.home, name), "good", meanwhile=f"proving {name} again")

    def resume_from(self, name: str, checkpoint: str, newest: bool) -> None:
        """Resume from a checkpoint; where newer ones would be set aside, ask first."""
        if newest:
            self.resume(name, checkpoint)
            return
        text = f"Resume {name} from {checkpoint}? The newer checkpoints are set aside, not deleted."
        self._ask(name, f"resume {name}", text, "Resume from it", lambda: self.resume(name, checkpoint))

    def delete_checkpoint(self, name: str, checkpoint: str) -> None:
        text = f"Delete {checkpoint} of {name}? This cannot be undone."
        action = partial(jobs.checkpoint_removed, self.home, name, checkpoint)
        self._ask(name, f"delete {checkpoint}", text, "Delete it", lambda: self.run_job(action))

    def export(self, name: str, checkpoint: str, has_average: bool) -> None:
        """Ask for which program, which weights and where to; then write the checkpoint as a LoRA file."""
        from fluxtui.screens.dialogs.export_box import ExportBox

        def write(wanted: Export | None) -> None:
            if wanted is not None:
                self.run_job(partial(jobs.exported, self.home, name, wanted), "good", meanwhile=f"writing {wanted.path}")

        self.push_screen(ExportBox(name, checkpoint, self._formats_of(name), has_average), write)

    def _formats_of(self, name: str) -> tuple[str, ...]:
        """The formats that can hold a session's LoRA; all where its settings cannot be read, which the export then says."""
        from fluxtui.persist.settings import recipe
        from fluxtui.persist.settings.compatibility import READ_BY

        try:
            kind = recipe.load_spec(self.home.session(name).spec_file).lora.kind
        except FluxTUIError:
            kind = "lora"
        return READ_BY[kind]

    def make(self, origin: str, seen: Evaluation, starts: bool, edits: bool = False) -> None:
        """Make the session that a form describes, or change the one it is about, and perhaps start it."""
        from fluxtui.screens.form import jobs as form_jobs

        name = origin if edits else seen.values["name"]
        self.select_later(name)
        work = partial(form_jobs.edited if edits else form_jobs.made, self.home, origin, seen, starts)
        self.run_job(work, "info", meanwhile=f"starting {name}" if starts else f"{'changing' if edits else 'making'} {name}")

    def edit_in_editor(self, name: str) -> None:
        """The settings of a session in $EDITOR, with the terminal to itself; then they are looked at and taken over."""
        from fluxtui import control
        from fluxtui.screens.form.jobs import drafted

        try:
            path = control.draft(self.home, name)
        except FluxTUIError as error:
            self.say(clean(str(error)), "warn")
            return
        if self.opened_in_editor(path):
            self.run_job(partial(drafted, self.home, name))

    def opened_in_editor(self, path: Path) -> bool:
        """Whether the user's editor was at work on the file and ended well; what went wrong is said."""
        from fluxtui.screens.editor import problem_of_editing

        problem = problem_of_editing(self, path)
        if problem:
            self.say(problem, "warn")
        return not problem

    def select_later(self, name: str) -> None:
        """Select a session as soon as it is seen."""
        raise NotImplementedError

    def do_demo(self) -> None:
        self.run_job(lambda: jobs.demo(self.home, self._select_soon), "info", meanwhile="making the demo")

    def _select_soon(self, name: str) -> None:
        """From a thread."""
        self.post_message(JobDone(partial(self.select_later, name)))


def _fault(error: Exception) -> str:
    from fluxtui.persist.fault import record_fault

    return clean(record_fault([], error), 500)
