"""What a validator makes of evidence: standings, weights for the chain, and the gather list if it leads.

No payload, theta or link is needed for it, so recorded evidence can be judged again by other rules (`nodes.rescoring`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol, final

import simpy

from covsim.chain.extrinsics import LogVerdicts
from covsim.events import Evaluated, Event, ListPublished, RuleApplied, Scored, WeightsSet
from covsim.gauntlet.evidence import Evidence, Judgement, Standings, Verdict
from covsim.gauntlet.gauntlet import judge
from covsim.gauntlet.selection import Selection
from covsim.gauntlet.settings import GauntletSettings
from covsim.nodes.board import Board, GatherList
from covsim.nodes.chain_node import ChainNode
from covsim.randomness import Streams
from covsim.world.clock import Clock


class Judge(Protocol):
    """Judges a validator's windows; see `gauntlet.judge`."""

    def judged(
        self,
        settings: GauntletSettings,
        standings: Standings,
        evidence: Sequence[Evidence],
        *,
        round: int,
        active: Collection[int],
        places: tuple[int, int],
        lots: Callable[[int], float],
    ) -> Judgement:
        """One window judged. Of its verdicts nobody reads the stamps in their evidence."""

    def logged(self, round: int, judgement: Judgement, places: tuple[int, int]) -> LogVerdicts:
        """The extrinsic from which everybody can compute the validator's weights."""


@final
class Gauntlet:
    """Judges by the rules, every window anew."""

    judged = staticmethod(judge)

    @staticmethod
    def logged(round: int, judgement: Judgement, places: tuple[int, int]) -> LogVerdicts:
        """All final scores, and the verdicts."""
        return _logged(round, judgement, places)


@dataclass(frozen=True)
class Office:
    """What all validators share when they keep their books.

    Asynchronous plans expect nobody in particular in a round (`expects_everybody` is False). `judge_of` gives a
    validator what judges for it.
    """

    env: simpy.Environment
    clock: Clock
    streams: Streams
    board: Board
    chain: ChainNode
    emit: Callable[[Event], None]
    rules: GauntletSettings
    selection: Selection
    expects_everybody: bool
    judge_of: Callable[[str], Judge] = lambda label: Gauntlet()


class Books:
    """One validator's memory of all peers, and what it says in public.

    Args:
        label: its name.
        rank: its place among the validators by stake, 0 for the highest, which leads.
    """

    def __init__(self, office: Office, label: str, rank: int) -> None:
        self.standings = Standings()
        self.weights: dict[int, float] = {}
        self._office = office
        self._label = label
        self._name = f"validator:{label}"
        self._rank = rank
        self._judge = office.judge_of(label)
        self._weights_set = -1  # the round after which weights were last handed to the chain
        self._last_seen: dict[int, int] = {}
        self._heard: tuple[int, set[int]] = (-1, set())  # a round, and whose payloads for it lay there

    def active(self, round: int, lay_there: Callable[[int, int], bool]) -> frozenset[int]:
        """The peers that are registered and were heard of lately; all that are registered, where nobody is expected.

        Who registers counts as heard of in that round.

        Args:
            lay_there: whether the store holds something of a uid for a round by now.
        """
        registered = self._office.chain.peers
        if self._heard[0] != round:
            self._heard = round, set()
        heard = self._heard[1]
        for uid in registered - heard:
            self._last_seen.setdefault(uid, round)
            if lay_there(uid, round):
                self._last_seen[uid] = round
                heard.add(uid)
            elif lay_there(uid, round - 1):
                self._last_seen[uid] = round - 1
        if not self._office.expects_everybody:
            return registered
        most = self._office.rules.active_windows
        return frozenset(uid for uid in registered if round - self._last_seen[uid] <= most)

    def judge(
        self,
        evidence: Sequence[Evidence],
        round: int,
        active: Collection[int],
        num_drawn: int,
        evaluation_s: float,
    ) -> None:
        """Judge a round and say so: verdicts, what everybody is worth, what each rule could do; log it on chain."""
        office = self._office
        places = office.selection.places(len(active))
        judgement = self._judge.judged(
            office.rules,
            self.standings,
            evidence,
            round=round,
            active=active,
            places=places,
            lots=scoring_lots(office.streams, self._label, round),
        )
        self.standings, self.weights = judgement.standings, dict(judgement.weights)
        now_s = office.env.now
        seen = {row.uid: row for row in evidence}
        for verdict in judgement.verdicts:
            stamps = seen.get(verdict.evidence.uid, verdict.evidence)
            office.emit(_evaluated(now_s, self._label, round, verdict, stamps))
        office.emit(
            Scored(
                time_s=now_s,
                validator=self._label,
                round=round,
                evaluated=num_drawn,
                evaluation_s=evaluation_s,
                active=tuple(sorted(active)),
                places=places,
                weights=judgement.weights,
                burned=judgement.burned,
            )
        )
        for entry in judgement.coverage:
            office.emit(RuleApplied(now_s, self._label, round, entry.rule, entry.eligible, entry.fired))
        if "verdicts" in office.chain.settings.log:
            office.chain.submit(self._name, self._judge.logged(round, judgement, places))

    def pay_equally(self, round: int, uids: Collection[int]) -> None:
        """Find all of these peers worth the same, and nobody else worth anything, without a look at their work."""
        office = self._office
        self.weights = {uid: 1 / len(uids) for uid in sorted(uids)}
        active = tuple(sorted(office.chain.peers))
        shares, places = tuple(self.weights.items()), office.selection.places(len(active))
        office.emit(Scored(office.env.now, self._label, round, 0, 0.0, active, places, shares, 0.0))

    def set_weights(self, weights: Mapping[int, float], round: int) -> None:
        """Hand weights to the chain, if it is time to; what is missing to 1 is burned."""
        office = self._office
        every = office.rules.weights.set_every_windows
        if round - self._weights_set < every or not office.chain.may_set_weights(self._name):
            return
        self._weights_set = round
        burned = max(0.0, 1.0 - math.fsum(weights.values()))
        office.emit(WeightsSet(office.env.now, self._label, round, tuple(sorted(weights.items())), burned))
        office.chain.set_weights(self._name, round, weights, burned)

    def publish_list(self, round: int, active: Collection[int]) -> None:
        """Put up the next gather list, if one is due and it falls to this validator."""
        selection, board = self._office.selection, self._office.board
        overdue = 0 if board.last_round is None else round - board.last_round - selection.refresh_windows
        if selection.due(round, board.last_round) and selection.leads(self._rank, overdue):
            window = self._office.clock.window_at(self._office.env.now)
            self.put_up_list(round, active, window + selection.delay_windows)

    def put_up_list(self, round: int, active: Collection[int], effective_window: int) -> None:
        """Choose whom to gather from what is known after `round`, and put it on the board."""
        office = self._office
        generator = office.streams.numpy("gather list", round)
        choice = office.selection.choose(self.standings, active, round, generator)
        weights = {uid: peer.weight for uid, peer in self.standings.peers.items()}
        office.board.publish(GatherList(effective_window, choice.selected, choice.reserve, weights), round)
        office.emit(
            ListPublished(office.env.now, self._label, round, effective_window, choice.selected, choice.reserve)
        )


def scoring_lots(streams: Streams, label: str, round: int) -> Callable[[int], float]:
    """What orders equals in a validator's window: a number per uid; whoever knows the seed can draw it again."""
    return cache(lambda uid: streams.uniform("lot", label, round, uid))


def _logged(round: int, judgement: Judgement, places: tuple[int, int]) -> LogVerdicts:
    """The extrinsic from which everybody can compute a validator's weights: all final scores, and the verdicts."""
    return LogVerdicts(
        round=round,
        final_scores=tuple((uid, peer.final_score) for uid, peer in sorted(judgement.standings.peers.items())),
        places=places,
        verdicts=tuple(
            (
                verdict.evidence.uid,
                verdict.evidence.status,
                verdict.gradient_score,
                verdict.standing.indicator_average,
                verdict.standing.mu,
                verdict.standing.sigma,
                verdict.standing.final_score,
            )
            for verdict in judgement.verdicts
        ),
    )


def _evaluated(time_s: float, label: str, round: int, verdict: Verdict, stamps: Evidence) -> Evaluated:
    evidence, before, after = verdict.evidence, verdict.before, verdict.standing
    return Evaluated(
        time_s=time_s,
        validator=label,
        uid=evidence.uid,
        round=round,
        status=evidence.status,
        stored_s=stamps.stored_s,
        previous_stored_s=stamps.previous_stored_s,
        problem=evidence.problem,
        evaluated=evidence.evaluated,
        on_gather_list=evidence.on_gather_list,
        asked_as_reserve=evidence.asked_as_reserve,
        gathered=evidence.gathered,
        own_before=evidence.own_before,
        own_after=evidence.own_after,
        random_before=evidence.random_before,
        random_after=evidence.random_after,
        overlap=evidence.overlap,
        overlap_with=evidence.overlap_with,
        overlap_stored_s=stamps.overlap_stored_s,
        steps_behind=evidence.steps_behind,
        gradient_score=verdict.gradient_score,
        indicator=verdict.indicator,
        indicator_average=after.indicator_average,
        indicator_average_before=before.indicator_average,
        mu=after.mu,
        mu_before=before.mu,
        sigma=after.sigma,
        sigma_before=before.sigma,
        final_score=after.final_score,
        final_score_before=before.final_score,
        reasons=verdict.reasons,
    )
