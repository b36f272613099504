"""Who each uid is: a seeded shuffle deals uids over cohorts, and the uid's own streams draw its links and machine."""

from __future__ import annotations

from dataclasses import dataclass

from covsim.behaviors import Behavior, Honest
from covsim.behaviors.membership import Membership
from covsim.randomness import Streams
from covsim.scenario.counterfactual import Counterfactual
from covsim.scenario.schema import Scenario
from covsim.scenario.sizes import cohort_sizes
from covsim.world.slow import SlowPolicy
from covsim.world.unsteady import Unsteadiness


@dataclass(frozen=True, slots=True)
class PeerSpec:
    """One peer as the scenario and the seed make it."""

    uid: int
    cohort: str
    behavior: Behavior
    membership: Membership
    uplink_bits_per_s: float
    downlink_bits_per_s: float
    speed: float
    when_slow: SlowPolicy
    unsteadiness: Unsteadiness


def population(scenario: Scenario) -> tuple[PeerSpec, ...]:
    """All peers by uid; who is absent by the `counterfactual:` section has a uid and is not among them.

    Cohorts are dealt in the order of their names and draws are keyed by uid, so the order in which a file lists its
    cohorts changes nothing.
    """
    streams = Streams(scenario.seed)
    sizes = cohort_sizes(scenario.peers, scenario.cohorts)
    names = [name for name, size in sizes.items() for _ in range(size)]
    dealt = streams.numpy("uids").permutation(scenario.peers)
    cohort_of = {int(uid): name for uid, name in zip(dealt, names, strict=True)}
    instead = scenario.counterfactual or Counterfactual()
    there = [uid for uid in range(scenario.peers) if not instead.takes_out(uid, cohort_of[uid])]
    if not there:
        raise ValueError("counterfactual: nobody is left")
    return tuple(_peer(scenario, streams, uid, cohort_of[uid], instead) for uid in there)


def _peer(scenario: Scenario, streams: Streams, uid: int, name: str, instead: Counterfactual) -> PeerSpec:
    cohort = scenario.cohorts[name]
    return PeerSpec(
        uid=uid,
        cohort=name,
        behavior=Honest() if instead.makes_honest(uid, name) else cohort.behavior,
        membership=cohort.membership,
        uplink_bits_per_s=cohort.uplink.draw(streams.numpy("uplink", uid)),
        downlink_bits_per_s=cohort.downlink.draw(streams.numpy("downlink", uid)),
        speed=cohort.speed.draw(streams.numpy("speed", uid)),
        when_slow=cohort.when_slow,
        unsteadiness=Unsteadiness(cohort.step_noise, cohort.slowdowns, cohort.preemption),
    )
