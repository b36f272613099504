"""What cannot work, found by arithmetic before a run starts: each warning is one line that shows its numbers.

Warnings and not errors: it may be the point of the scenario.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence

from covsim.behaviors import Copycat
from covsim.gauntlet.selection import AllSelection, GauntletSelection
from covsim.learning.inner_loop import Training
from covsim.scenario.population import PeerSpec, population
from covsim.scenario.preflight_faults import fault_warnings
from covsim.scenario.preflight_machines import machine_warnings, step_seconds
from covsim.scenario.preflight_network import gather_s, idle_trunks, network_warnings, upload_s
from covsim.scenario.preflight_timelines import timeline_warnings
from covsim.scenario.rounded import rate_text, size_text, time_text
from covsim.scenario.schema import Scenario
from covsim.world.clock import Windowed
from covsim.world.layers import Layered

MEMORY_ROWS = 6  # of N float32 per peer: two moments, error buffer, theta, gradient, what is being compressed
MUCH_MEMORY_BYTES = 8e9
OLDER_PLACES = {"paper": (15, 0), "v0.2": (15, 0)}  # gather and reserve list, where there was no reserve


def warnings(scenario: Scenario) -> list[str]:
    """Every warning about a scenario, in the order of a round.

    Where a user's own module decides sizes, which only a run loads, nothing is said of what depends on them.
    """
    peers = population(scenario)
    if isinstance(scenario.timeline, Layered):  # the rest is of windows, payloads and scores
        return list(_empty_cohorts(scenario, peers))
    return [
        line
        for check in _CHECKS
        if (scenario.size_is_known or check not in _OF_PAYLOADS)
        and (scenario.model.known_before_run or check is not _memory)
        and not (scenario.topology.direct and check in _OF_THE_STORE)
        for line in check(scenario, peers)
    ]


def _empty_cohorts(scenario: Scenario, peers: Sequence[PeerSpec]) -> Iterator[str]:
    there = {peer.cohort for peer in peers}
    for name in sorted(set(scenario.cohorts) - there):
        yield f"cohort {name} has no peers: its share of {scenario.peers} rounds to none"


def _inner_steps(scenario: Scenario, peers: Sequence[PeerSpec]) -> Iterator[str]:
    """Peers whose upload, gather and H steps do not fit one window; that some are slow is the rule, not a warning."""
    if scenario.plan.asynchrony or not scenario.timeline.foresees:  # they are never cut, or see `_timelines`
        return
    wanted = scenario.plan.inner_steps
    fitting = [_steps_that_fit(scenario, peer) for peer in peers if peer.when_slow.kind == "fewer_steps"]
    short = [steps for steps in fitting if steps < wanted]
    if len(short) > len(peers) / 2:
        window, step = time_text(scenario.window_s), time_text(scenario.inner_step_s)
        yield (
            f"{len(short)} of {len(peers)} peers cannot do all inner steps: {max(0, int(statistics.median(short)))} of "
            f"{wanted} steps of {step} fit into a window of {window} beside upload and gather, at the median of them"
        )


def _machines(scenario: Scenario, peers: Sequence[PeerSpec]) -> Iterator[str]:
    yield from machine_warnings(scenario, peers, lambda peer: _exchange_s(scenario, peer))


def _trunks(scenario: Scenario, peers: Sequence[PeerSpec]) -> Iterator[str]:
    """Trunks of a direct exchange; those on the way to a store are looked at with the rest of its network."""
    if scenario.topology.direct:
        yield from idle_trunks(scenario)


def _timelines(scenario: Scenario, peers: Sequence[PeerSpec]) -> Iterator[str]:
    yield from timeline_warnings(scenario, peers, lambda peer: _exchange_s(scenario, peer))


def _uploads(scenario: Scenario, peers: Sequence[PeerSpec]) -> Iterator[str]:
    """Payloads that the store refuses, or that are later than the put window, however early their peers start."""
    largest = scenario.store.max_object
    if scenario.payload_bytes > largest:
        sent, taken = size_text(scenario.payload_bytes), size_text(largest)
        yield f"nobody can ever land: a payload is {sent}, the store takes {taken}"
        return
    limit = scenario.timeline.put_window
    late = [peer for peer in peers if upload_s(scenario, peer) >= limit]
    if late:
        typical = _median_peer(late, key=lambda peer: peer.uplink_bits_per_s)
        took = f"{size_text(scenario.payload_bytes)} takes {time_text(upload_s(scenario, typical))}"
        rate = rate_text(typical.uplink_bits_per_s)
        lasts = time_text(limit)
        yield f"{len(late)} of {len(peers)} peers can never land: {took} at {rate}, the put window is {lasts}"
    ingress = scenario.store.ingress
    if ingress is not None and len(peers) * scenario.payload_bytes * 8 / ingress > limit:
        yield (
            f"the store cannot take all uploads: {len(peers)} x {size_text(scenario.payload_bytes)} take "
            f"{time_text(len(peers) * scenario.payload_bytes * 8 / ingress)} at {rate_text(ingress)}, "
            f"the put window is {time_text(limit)}"
        )


def _gathers(scenario: Scenario, peers: Sequence[PeerSpec]) -> Iterator[str]:
    """Peers who give up every gather before it is complete."""
    limit = scenario.timeline.gather_timeout
    slow = [peer for peer in peers if _gather_s(scenario, peer) > limit]
    if slow:
        typical = _median_peer(slow, key=lambda peer: peer.downlink_bits_per_s)
        load = f"{_num_gathered(scenario)} x {size_text(scenario.payload_bytes)}"
        took = f"take {time_text(_gather_s(scenario, typical))} at {rate_text(typical.downlink_bits_per_s)}"
        yield (
            f"{len(slow)} of {len(peers)} peers cannot finish a full gather: {load} {took}, "
            f"it is given up after {time_text(limit)}"
        )


def _selection(scenario: Scenario, peers: Sequence[PeerSpec]) -> Iterator[str]:
    places, _ = scenario.selection.places(scenario.peers)
    if places >= scenario.peers and not isinstance(scenario.selection, AllSelection):
        yield f"the gather list of {places} has room for all {scenario.peers} peers: selection leaves nobody out"


def _validators(scenario: Scenario, peers: Sequence[PeerSpec]) -> Iterator[str]:
    """Validators that are still busy with one round when the next is to be evaluated."""
    number = min(scenario.gauntlet.evaluated_per_window, scenario.peers)
    for name, validator in sorted(scenario.validators.items()):
        download_s = (number + _num_gathered(scenario)) * scenario.payload_bytes * 8 / validator.downlink
        needed_s = scenario.timeline.put_window + download_s + number * scenario.deployment.evaluation
        if needed_s > scenario.window_s and scenario.timeline.foresees:
            yield (
                f"validator {name} cannot keep up: put window, downloads and {number} evaluations of "
                f"{time_text(scenario.deployment.evaluation)} take {time_text(needed_s)}, "
                f"a window is {time_text(scenario.window_s)}"
            )


def _evaluations(scenario: Scenario, peers: Sequence[PeerSpec]) -> Iterator[str]:
    """Too few evaluations for the indicator average to mean anything."""
    rules, rounds = scenario.gauntlet, scenario.planned_rounds
    number = min(rules.evaluated_per_window, scenario.peers)
    each = rounds * number / scenario.peers
    needed = 1 / (1 - rules.indicator_decay) if rules.indicator_decay < 1 else float("inf")
    if not isinstance(scenario.selection, GauntletSelection) or each >= needed:
        return
    best = 1 - rules.indicator_decay**each
    reach = (
        f"the indicator threshold of {rules.indicator_threshold:g} cannot be reached"
        if best < rules.indicator_threshold
        else f"the indicator average reaches {best:.2f} at most, and needs about {needed:.0f} to settle"
    )
    yield f"{number} of {scenario.peers} evaluated over {rounds} rounds: {each:.1f} evaluations a peer, {reach}"


def _overlap_rule(scenario: Scenario, peers: Sequence[PeerSpec]) -> Iterator[str]:
    first, rounds = scenario.gauntlet.overlap.from_round, scenario.planned_rounds
    copies = sum(isinstance(peer.behavior, Copycat) for peer in peers)
    if copies and first >= rounds:
        who = f"{copies} peers copy" if copies > 1 else "a peer copies"
        yield f"{who}, but the overlap check acts from round {first} on and the run ends after {rounds}"


def _pay(scenario: Scenario, peers: Sequence[PeerSpec]) -> Iterator[str]:
    """Runs that are over before the chain has paid for a second weight vector."""
    chain, every, timeline = scenario.chain, scenario.gauntlet.weights.set_every_windows, scenario.timeline
    if not isinstance(timeline, Windowed):  # how many blocks a round takes is not known
        return
    blocks = (scenario.planned_rounds + 1) * timeline.blocks_per_window
    first_set = (every + 1) * timeline.blocks_per_window
    hidden = 0 if chain.commit_reveal == "none" else chain.commit_reveal
    first_paid = (first_set // chain.tempo + 1 + hidden) * chain.tempo
    if first_paid > blocks:
        yield (
            f"the run ends with block {blocks}, before the first weights are paid for at block {first_paid} "
            f"(set every {every} windows, epochs of {chain.tempo} blocks): only the closing epoch pays by them"
        )


def _places(scenario: Scenario, peers: Sequence[PeerSpec]) -> Iterator[str]:
    """A preset of the scoring beside places that its release did not have."""
    preset = scenario.gauntlet.preset
    if isinstance(scenario.selection, GauntletSelection) and preset in OLDER_PLACES:
        places = (scenario.selection.gather, scenario.selection.reserve)
        if places[1] != OLDER_PLACES[preset][1]:
            yield f"preset {preset} had {_places_text(OLDER_PLACES[preset])}, this scenario has {_places_text(places)}"


def _places_text(places: tuple[int, int]) -> str:
    return f"{places[0]} places and {places[1]} in reserve"


def _inner_optimizer(scenario: Scenario, peers: Sequence[PeerSpec]) -> Iterator[str]:
    if scenario.plan.sends == "gradient" and scenario.training.inner != Training().inner:
        kind = scenario.protocol.kind
        yield f"training.inner is not used: {kind} sends gradients, and its outer optimizer is the only one"


def _warm_up(scenario: Scenario, peers: Sequence[PeerSpec]) -> Iterator[str]:
    plan, rounds = scenario.plan, scenario.planned_rounds
    if plan.sends == "gradient":
        stepped, schedule, steps = "outer", plan.outer.schedule, rounds
    else:
        stepped, schedule, steps = "inner", scenario.training.inner.schedule, rounds * plan.inner_steps
    warm_up = getattr(schedule, "warmup_steps", 0)
    if warm_up >= steps:
        yield f"the {stepped} learning rate never reaches its peak: {warm_up} warm-up steps, but the run has {steps}"


def _faults(scenario: Scenario, peers: Sequence[PeerSpec]) -> Iterator[str]:
    if scenario.faults:
        yield from fault_warnings(scenario, {f"peer:{peer.uid}": peer.uplink_bits_per_s for peer in peers})


def _memory(scenario: Scenario, peers: Sequence[PeerSpec]) -> Iterator[str]:
    needed = MEMORY_ROWS * 4 * scenario.model.num_parameters * scenario.peers
    if needed > MUCH_MEMORY_BYTES:
        rows = f"{scenario.peers} peers of {scenario.model.num_parameters:,} parameters"
        yield f"needs about {needed / 1e9:.0f} GB of memory for {rows}"


def _gather_s(scenario: Scenario, peer: PeerSpec) -> float:
    """Seconds to download what a peer has not itself, on a link of its own."""
    return gather_s(scenario, peer, _num_gathered(scenario))


def _num_gathered(scenario: Scenario) -> int:
    """Payloads of others in a full gather; most peers are not on the list themselves."""
    return min(scenario.selection.places(scenario.peers)[0], scenario.peers - 1)


def _steps_that_fit(scenario: Scenario, peer: PeerSpec) -> int:
    """Inner steps that a window has room for, beside what of an exchange does not overlap with them."""
    return int((scenario.window_s - _exchange_s(scenario, peer)) / step_seconds(scenario, peer) + 1e-9)


def _exchange_s(scenario: Scenario, peer: PeerSpec) -> float:
    """Seconds of a window that a peer's exchange takes from its inner steps."""
    deployment, step_s = scenario.deployment, step_seconds(scenario, peer)
    on_links_s = upload_s(scenario, peer) + min(_gather_s(scenario, peer), scenario.timeline.gather_timeout)
    hidden_s = (scenario.plan.overlap_steps or 0) * step_s if not scenario.plan.outer_delay else float("inf")
    work_s = deployment.compression + deployment.decoding * scenario.selection.places(scenario.peers)[0]
    return max(0.0, on_links_s - hidden_s) + work_s / peer.speed


def _median_peer(peers: Sequence[PeerSpec], key: Callable[[PeerSpec], float]) -> PeerSpec:
    return sorted(peers, key=key)[len(peers) // 2]


_CHECKS: tuple[Callable[[Scenario, Sequence[PeerSpec]], Iterator[str]], ...] = (
    _empty_cohorts,
    _inner_steps,
    _timelines,
    _machines,
    _uploads,
    _gathers,
    network_warnings,
    _trunks,
    _selection,
    _validators,
    _evaluations,
    _overlap_rule,
    _pay,
    _places,
    _inner_optimizer,
    _warm_up,
    _faults,
    _memory,
)
_OF_THE_STORE = (_uploads, _gathers, network_warnings, _validators, _evaluations, _overlap_rule)
_OF_PAYLOADS = (_inner_steps, _machines, _timelines, _uploads, _gathers, network_warnings, _validators)
