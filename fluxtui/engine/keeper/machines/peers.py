"""A session's keepers on other machines, as the one that attends its own ranks sees them: news, judgements, a common end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from fluxtui.engine.keeper.classify import RankExit
from fluxtui.engine.keeper.guard import RankGuard
from fluxtui.engine.keeper.machines import group_guard
from fluxtui.engine.keeper.machines.group_guard import GroupJudgement
from fluxtui.engine.keeper.termination import How


@dataclass(frozen=True, slots=True)
class News:
    """Why the ranks here are to be stopped or ended now."""

    how: How | Literal["stop"]
    why: str
    is_well: bool = False  # the others left in order: these follow by themselves
    patience: float | None = None  # seconds to do so; None: as for ranks of one machine


class Peers(Protocol):
    """Asked at each turn. Nothing in it waits."""

    @property
    def decides(self) -> bool:
        """Whether a hang is judged here; on other machines than node 0 it is only reported."""
        ...

    @property
    def are_others(self) -> bool: ...

    def listen(self, now: float, exits: Sequence[RankExit]) -> News | None:
        """News of the others, who hear how ranks here have left."""
        ...

    def judge(self, guards: Mapping[int, RankGuard], now: float) -> GroupJudgement:
        """All ranks together, as far as this keeper knows of them."""
        ...

    def end(self, how: How, patience: float, now: float) -> None:
        """The ranks here are being ended: so are the others'."""
        ...

    def are_gone(self, now: float) -> bool:
        """Whether no other machine has a rank any more, as far as can be known."""
        ...

    def waiting_words(self, now: float) -> str:
        """Whom the end still waits for; empty where nobody."""
        ...


class Alone:
    """One machine."""

    decides = True
    are_others = False

    def listen(self, now: float, exits: Sequence[RankExit]) -> News | None:
        return None

    def judge(self, guards: Mapping[int, RankGuard], now: float) -> GroupJudgement:
        return group_guard.judge(dict(guards), now)

    def end(self, how: How, patience: float, now: float) -> None:
        return

    def are_gone(self, now: float) -> bool:
        return True

    def waiting_words(self, now: float) -> str:
        return ""
