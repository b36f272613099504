"""Who is paid: the stake-weighted mean of the validators' weights, round by round.

Until a chain runs the consensus, this stands for the emission. A validator's last weights stay in force until it sets
new ones, as on the chain; before its first ones, what its stake would pay goes to nobody.
"""

from __future__ import annotations

from collections import defaultdict

from covsim.events import Scored
from covsim.record.recorder import Recorder


def payouts(recorder: Recorder) -> dict[int, dict[int, float]]:
    """By round and uid, the share of that round's emission that the peer is paid; burned shares are in nobody's."""
    total_stake = sum(recorder.stakes.values())
    by_round: dict[int, list[Scored]] = defaultdict(list)
    for scored in recorder.of(Scored):
        by_round[scored.round].append(scored)
    in_force: dict[str, Scored] = {}
    paid: dict[int, dict[int, float]] = {}
    for round in _span(by_round):
        in_force |= {scored.validator: scored for scored in by_round.get(round, [])}
        paid[round] = defaultdict(float)
        for name in sorted(in_force):
            for uid, weight in in_force[name].weights:
                paid[round][uid] += recorder.stakes[name] / total_stake * weight
    return paid


def total_per_peer(recorder: Recorder) -> dict[int, float]:
    """What every peer was paid over the run, in rounds' worth of emission; 0 for those who earned nothing."""
    rounds = payouts(recorder).values()
    return {uid: sum(paid.get(uid, 0.0) for paid in rounds) for uid in recorder.peers}


def _span(rounds: dict[int, list[Scored]]) -> range:
    return range(min(rounds), max(rounds) + 1) if rounds else range(0)
