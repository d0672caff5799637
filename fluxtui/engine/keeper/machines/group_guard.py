"""All ranks judged together. Ranks wait for each other at every step, so a group is hung only when every rank is. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from fluxtui.engine.keeper.guard import Judgement, RankGuard, words

SILENT = 12.0  # seconds without a tick: a trainer's thread ticks every 5


@dataclass(frozen=True, slots=True)
class GroupJudgement:
    """All ranks together. Ranks wait for each other, so the group is hung only when every rank that spoke is.

    Who waits for others at the rendezvous polls, which looks like a load at work. So where one rank is as good as dead (never
    spoke, or stopped ticking) and over its limit, it is enough that the others are over theirs.
    """

    by_rank: dict[int, Judgement]
    silent: dict[int, Judgement] = field(default_factory=dict)  # ranks that never spoke: what the others wait for
    where: dict[int, str] = field(default_factory=dict)  # machine of each rank, where there are several
    network: str = ""  # what the keepers found of the network between them

    @property
    def is_hung(self) -> bool:
        if all(judged.is_hung for judged in self.by_rank.values()):
            return True
        frozen = [judged for judged in self.by_rank.values() if judged.ticked is not None and judged.ticked > SILENT]
        is_awaited = any(judged.is_hung for judged in [*frozen, *self.silent.values()])
        return is_awaited and all(judged.is_over for judged in self.by_rank.values())

    @property
    def last(self) -> Judgement:
        """The rank that made progress last: what the others may be waiting for."""
        return min(self.by_rank.values(), key=lambda judged: judged.waited)

    def amber_words(self) -> str:
        """Empty where any rank moves."""
        return self.last.amber_words() if all(judged.is_amber for judged in self.by_rank.values()) else ""

    def phase_words(self) -> str:
        """What the group is busy with."""
        return words(self.last.kind)

    def hung_words(self) -> str:
        """`in train for 301 s`, each rank named where there are several, and what its thread's tick says of it."""
        if len(self.by_rank) == 1 and not self.silent:
            judged = self.last
            return f"in {words(judged.kind)} for {judged.waited:.0f} s{_tick_words(judged)}"
        said = [
            f"{self._name(rank)} in {words(judged.kind)} for {judged.waited:.0f} s{_tick_words(judged)}"
            for rank, judged in self.by_rank.items()
        ]
        said += [f"{self._name(rank)} never said a word" for rank in self.silent]
        return "; ".join([*said, self.network] if self.network else said)

    def _name(self, rank: int) -> str:
        return f"rank {rank}{self.where.get(rank, '')}"


def judge(ranks: dict[int, RankGuard], now: float) -> GroupJudgement:
    """Judge a group. A rank above 0 that never spoke is judged by rank 0, which cannot pass the rendezvous without it."""
    judged = {rank: guard.judge(now) for rank, guard in ranks.items()}
    spoken = {rank: one for rank, one in judged.items() if ranks[rank].has_spoken or rank == 0}
    return GroupJudgement(spoken, {rank: one for rank, one in judged.items() if rank not in spoken})


def _tick_words(judged: Judgement) -> str:
    if judged.ticked is None or judged.kind == "start":
        return ""
    if judged.ticked > SILENT:
        return f" (not even a tick for {judged.ticked:.0f} s: stopped, or the interpreter is blocked)"
    return " (its other threads still run)" if judged.ticked < judged.waited - 1.0 else ""
