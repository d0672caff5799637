"""The data set doctor beside the form: every picture looked at in a process of its own, and what of that is to fix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fluxtui.persist.datasets import folder as dataset_folder
from fluxtui.persist.errors import FluxTUIError
from fluxtui.persist.files.text import clean
from fluxtui.persist.settings import recipe
from fluxtui.screens.drawing import words
from fluxtui.screens.form.fields import Evaluation

Report = Mapping[str, Any]  # as `fluxtui check --json` prints it


class Examination:
    """One at a time; what was found holds as long as the form names the same pictures.

    `on_loop` takes, from a thread, what is to be called on the UI's loop; `tell` is called there whenever something is new.
    """

    def __init__(self, on_loop: Callable[[Callable[[], None]], object], tell: Callable[[Report | None], object]) -> None:
        self._on_loop, self._tell = on_loop, tell
        self.progress = ""  # while it is under way
        self.report: Report | None = None
        self._of: tuple[str, str] = ("", "")  # the pictures
        self._serial = 0  # of the examination that counts

    @property
    def errors(self) -> Sequence[str]:
        """What keeps a training from starting, a sentence each."""
        if self.report is None or self.report.get("ok"):
            return ()
        found = [one for one in self.report.get("findings", []) if one.get("level") == "error"]
        return [clean(str(one.get("sentence", "")), 400) for one in found] or [verdict(self.report)]

    def hold_to(self, seen: Evaluation) -> None:
        """Forget what was found where the form names other pictures now."""
        if (self.report is not None or self.progress) and _pictures(seen) != self._of:
            self._serial += 1
            self.progress, self.report = "", None

    def begin(self, path: str, seen: Evaluation) -> Callable[[], None]:
        """A new one, which `path` names the data set of; returns the work, for a thread."""
        self._serial += 1
        self._of, self.progress, self.report = _pictures(seen), "examining the pictures", None
        arguments = [str(dataset_folder.resolve(path)), "--lines"]
        if seen.spec is not None:  # all that the doctor goes by
            sets = seen.spec.dataset
            own = {f"dataset.{name}": getattr(sets, name) for name in sets.__struct_fields__ if name != "path"}
            arguments += [word for one in recipe.format_sets(own) for word in ("--set", one)]
        serial = self._serial
        return lambda: self._run(serial, arguments)

    def _run(self, serial: int, arguments: list[str]) -> None:
        """Runs in the thread."""
        from fluxtui.control import engine

        found: dict[str, Any] = {}

        def take(line: dict[str, Any]) -> None:
            if "report" in line:
                found.update(line["report"])
            elif "item" in line:
                told = f"examined {line['item']} of {line.get('items', '?')} pictures"
                self._on_loop(lambda: self._progressed(serial, told))

        try:
            code, said = engine.run("check", arguments, take)
        except FluxTUIError as error:
            code, said = 1, clean(str(error), 400)
        if not found:
            found.update(ok=False, findings=[{"level": "error", "sentence": said or f"the examination ended with code {code}"}])
        self._on_loop(lambda: self._took(serial, found))

    def _progressed(self, serial: int, told: str) -> None:
        if serial == self._serial:
            self.progress = told
            self._tell(None)

    def _took(self, serial: int, report: Report) -> None:
        if serial == self._serial:
            self.progress, self.report = "", report
            self._tell(report)


def _pictures(seen: Evaluation) -> tuple[str, str]:
    """What names the pictures of the answers."""
    return seen.values.get("dataset.path", ""), seen.answers.get("dataset.folders", "")


def verdict(report: Report) -> str:
    """What the doctor's report comes to, in one sentence."""
    looked = f"{words.count(int(report.get('images', 0)), 'picture')} examined"
    levels = [str(finding.get("level")) for finding in report.get("findings", [])]
    if not report.get("ok"):
        wrong = words.count(max(1, levels.count("error")), "thing")
        return f"{looked}: {wrong} to fix before a training can start"
    doubts = levels.count("warning")
    return f"{looked}: a training can start from them" + (f"; {words.count(doubts, 'warning')}" if doubts else "")
