"""What the seconds of a round follow from: a scenario as arrays over peers, of which a few numbers can be turned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from covsim.gauntlet.selection import FixedSelection, GauntletSelection
from covsim.protocol import Plan
from covsim.protocol.codec import payload_bytes
from covsim.randomness import Streams
from covsim.scenario.deployment import Groups, num_parameters
from covsim.scenario.population import PeerSpec, population
from covsim.scenario.preflight_network import request_s
from covsim.scenario.schema import Scenario
from covsim.sweep.plan.direct import Direct, direct_exchange
from covsim.sweep.plan.sharing import Flags, Floats, Shared
from covsim.world.barrier import Barrier
from covsim.world.fairness import Resource
from covsim.world.latency import Ways
from covsim.world.layers import Layered
from covsim.world.requests import Ranges
from covsim.world.slow import SmallerBatch

SAMPLES = 8
"""Rounds that are looked at where machines or links vary from round to round."""


class CannotPlan(ValueError):
    """A scenario or a question of which a plan can say nothing; one line that says why."""


@dataclass(frozen=True)
class Listed:
    """The gather list: how many places and reserves, and how the peers on it come to be there.

    Attributes:
        places, reserve: as the selection has them.
        prefers_on_time: whether it comes to hold those who are on time.
        uids: who is always on it; None if that is not fixed.
    """

    places: int
    reserve: int
    prefers_on_time: bool
    uids: tuple[int, ...] | None


@dataclass(frozen=True)
class Setting:
    """What a round's seconds follow from. P peers, S sampled rounds, V validators; seconds, bytes, bits per second.

    Attributes:
        payload_bytes: of a regular payload; a round's is `size_shares` [S] times that, where fragments take turns.
        step_s: seconds of an inner step [S, P], preempted time among them.
        uplink, downlink: what a link carries [S, P].
        wait_s: of one request, mean latency and overhead [P].
        up_shared, down_shared: links between regions, and the store's own as the last one.
        barrier: opens the windows; None where the calendar does.
        never_cut: whether a peer ends all its steps, however late [P].
        floors: part of a step's time that a smaller batch does not go below [P]; 1 for who takes none.
    """

    scenario: Scenario
    peers: Sequence[PeerSpec]
    inner_steps: int
    payload_bytes: float
    dense_bytes: float
    size_shares: Floats
    step_s: Floats
    compression_s: Floats
    decoding_s: Floats
    evaluation_s: float
    never_cut: Flags
    floors: Floats
    uplink: Floats
    downlink: Floats
    wait_s: Floats
    up_shared: tuple[Shared, ...]
    down_shared: tuple[Shared, ...]
    reader_links: Floats
    barrier: Barrier | None
    window_s: float
    put_window_s: float
    gather_timeout_s: float
    listed: Listed
    direct: tuple[Direct, ...] | None

    @classmethod
    def of(cls, scenario: Scenario) -> Setting:
        """That of a scenario. Raises CannotPlan."""
        _check(scenario)
        peers = population(scenario)
        sizes = _size_shares(scenario)
        samples = len(sizes) * math.ceil(SAMPLES / len(sizes)) if _varies(scenario) else len(sizes)
        own = np.array([[peer.uplink_bits_per_s, peer.downlink_bits_per_s] for peer in peers]).T
        speed = np.array([peer.speed for peer in peers])
        deployment, shares = scenario.deployment, _shares(scenario, peers, own, samples)
        paths = _Paths(scenario, peers)
        setting = cls(
            scenario=scenario,
            peers=peers,
            inner_steps=scenario.plan.inner_steps,
            payload_bytes=scenario.payload_bytes,
            dense_bytes=4.0 * num_parameters(scenario.charged_tensors),
            size_shares=np.resize(sizes, samples),
            step_s=scenario.inner_step_s / speed * _paces(scenario, peers, samples),
            compression_s=deployment.compression / speed,
            decoding_s=deployment.decoding / speed,
            evaluation_s=deployment.evaluation,
            never_cut=np.array([not peer.when_slow.is_cut for peer in peers]),
            floors=np.array([p.when_slow.floor if isinstance(p.when_slow, SmallerBatch) else 1.0 for p in peers]),
            uplink=own[0] * shares[0],
            downlink=own[1] * shares[1],
            wait_s=paths.wait_s,
            up_shared=paths.up,
            down_shared=paths.down,
            reader_links=np.array([scenario.validators[name].downlink for name in scenario.validators_by_stake]),
            barrier=scenario.timeline if isinstance(scenario.timeline, Barrier) else None,
            window_s=scenario.window_s,
            put_window_s=scenario.timeline.put_window,
            gather_timeout_s=scenario.timeline.gather_timeout,
            listed=_listed(scenario, peers),
            direct=None,
        )
        return setting._with_exchange()

    @property
    def num_peers(self) -> int:
        """P."""
        return len(self.peers)

    @property
    def samples(self) -> int:
        """S."""
        return len(self.step_s)

    def payload_of(self, sample: int) -> float:
        """Bytes of a payload in a sampled round."""
        return self.payload_bytes * float(self.size_shares[sample])

    @property
    def rounds(self) -> int:
        """Of the run that is planned."""
        return self.scenario.planned_rounds

    @property
    def ranges(self) -> Ranges | None:
        """How downloads are cut."""
        return self.scenario.store.ranges

    # What can be turned ---------------------------------------------------------------------------------------------

    def with_bandwidth(self, factor: float, direction: str = "both") -> Setting:
        """Every peer's links so many times as fast; only `up` or `down` if asked."""
        up, down = (factor if direction in ("both", way) else 1.0 for way in ("up", "down"))
        changed = replace(self, uplink=self.uplink * up, downlink=self.downlink * down)
        return changed if self.direct is None else changed._with_exchange()

    def with_inner_steps(self, number: int) -> Setting:
        """Another H."""
        return replace(self, inner_steps=number)

    def with_k(self, k: int) -> Setting:
        """Another number of values sent of each chunk. Raises CannotPlan where the protocol has none, or not that."""
        protocol = self.scenario.protocol
        if not hasattr(protocol, "k"):
            raise CannotPlan(f"{protocol.kind} has no k")
        try:
            plan = type(protocol).model_validate({**protocol.model_dump(), "k": k}).plan()
            return replace(self, payload_bytes=plan.payload_bytes(self.scenario.charged_tensors))
        except ValueError as problem:
            raise CannotPlan(f"k={k} does not fit {protocol.kind}: {problem}") from None

    def with_gather(self, places: int) -> Setting:
        """Another number of places on the gather list. Raises CannotPlan where there is no such setting."""
        if not hasattr(self.scenario.selection, "gather"):
            raise CannotPlan(f"selection {getattr(self.scenario.selection, 'kind', '')} has no gather count")
        return replace(self, listed=replace(self.listed, places=min(places, self.num_peers)))

    def with_machines(self, factor: float) -> Setting:
        """Every machine so many times as fast."""
        parts = {name: getattr(self, name) / factor for name in ("step_s", "compression_s", "decoding_s")}
        return replace(self, **parts)

    def with_shared(self, name: str, factor: float) -> Setting:
        """A shared link so many times as fast."""

        def turned(links: Sequence[Shared]) -> tuple[Shared, ...]:
            return tuple(replace(x, bits_per_s=x.bits_per_s * factor) if x.name == name else x for x in links)

        return replace(self, up_shared=turned(self.up_shared), down_shared=turned(self.down_shared))

    def _with_exchange(self) -> Setting:
        if not self.scenario.topology.direct:
            return self
        exchanges = tuple(
            direct_exchange(self.scenario, self.peers, up, down)
            for up, down in zip(self.uplink, self.downlink, strict=True)
        )
        return replace(self, direct=exchanges)


def _check(scenario: Scenario) -> None:
    if isinstance(scenario.timeline, Layered):
        raise CannotPlan("a layered timeline is timed by running it, which takes seconds: covsim run")
    if scenario.plan.asynchrony is not None:
        raise CannotPlan(f"{scenario.protocol.kind} has no common round to plan: run it, with learning=synthetic")
    if scenario.plan.outer_delay:
        raise CannotPlan("exchanges that last several rounds are not planned: run it, with learning=synthetic")
    if scenario.plan.stays_home:
        raise CannotPlan(f"{scenario.protocol.kind} is one machine: nothing travels")
    if not scenario.size_is_known:
        raise CannotPlan(
            "a payload's size depends on a module of yours, which only a run loads: name deployment.tensors"
        )


def _listed(scenario: Scenario, peers: Sequence[PeerSpec]) -> Listed:
    places, reserve = scenario.selection.places(len(peers))
    fixed = scenario.selection.uids if isinstance(scenario.selection, FixedSelection) else None
    return Listed(min(places, len(peers)), reserve, isinstance(scenario.selection, GauntletSelection), fixed)


def _size_shares(scenario: Scenario) -> Floats:
    """Payloads of a cycle of fragments over their mean; fragments are those of the model."""
    plan = scenario.plan
    if plan.fragments.whole or not scenario.model.known_before_run:
        return np.ones(1)
    fragments = plan.fragments.shapes(tuple(scenario.model.shapes.items()))
    sizes = np.array([_bytes_of(plan, tuple((1, shape) for shape in shapes)) for shapes in fragments])
    shares: Floats = sizes / sizes.mean()
    return shares


def _bytes_of(plan: Plan, groups: Groups) -> float:
    return payload_bytes(groups, plan.compressor, plan.values, plan.indices, plan.packing)


def _paces(scenario: Scenario, peers: Sequence[PeerSpec], samples: int) -> Floats:
    """What step times are multiplied by [S, P]: the engine's own draws of the first rounds, and preempted time."""
    streams = Streams(scenario.seed)
    away = np.array([_preempted(peer) for peer in peers])
    if not _varies(scenario):
        return np.tile(away, (samples, 1))
    drawn = [[p.unsteadiness.step_factor(streams, p.uid, n) for p in peers] for n in range(samples)]
    paces: Floats = np.array(drawn) * away
    return paces


def _preempted(peer: PeerSpec) -> float:
    gone = peer.unsteadiness.preemption
    return 1.0 if gone is None else 1.0 + gone.lasts / gone.every


def _varies(scenario: Scenario) -> bool:
    return any(
        not all(each is None for each in (c.step_noise, c.slowdowns, c.uplink_varies, c.downlink_varies))
        for c in scenario.cohorts.values()
    )


def _shares(scenario: Scenario, peers: Sequence[PeerSpec], own: Floats, samples: int) -> Floats:
    """Which part of their rate links carry [2, S, P], by the engine's own courses, in the middle of sampled rounds."""
    shares = np.ones((2, samples, len(peers)))
    streams = Streams(scenario.seed)
    every_s = scenario.window_s if scenario.timeline.foresees else scenario.plan.inner_steps * scenario.inner_step_s
    for way, direction in enumerate(("uplink", "downlink")):
        for place, peer in enumerate(peers):
            variation = getattr(scenario.cohorts[peer.cohort], f"{direction}_varies")
            if variation is not None:
                generator = streams.numpy(f"{direction} varies", peer.uid)
                course = variation.course(float(own[way, place]), generator)
                shares[way, :, place] = [course.at((n + 1.5) * every_s).factor for n in range(samples)]
    return shares


class _Paths:
    """Between each peer and the store: what a request waits, and which links all share."""

    def __init__(self, scenario: Scenario, peers: Sequence[PeerSpec]) -> None:
        ways, store = Ways(scenario.network), Resource("store", math.inf)
        ways.place(store, scenario.store.region)
        regions = [scenario.cohorts[peer.cohort].region for peer in peers]
        of_region = {region: Resource(str(region), math.inf) for region in set(regions)}
        for region, link in of_region.items():
            ways.place(link, region)
        self.wait_s = np.array([request_s(scenario, region) for region in regions])
        everybody = np.ones(len(peers), dtype=bool)
        settings = scenario.store
        up = [ways.between(of_region[region], store) for region in regions]
        down = [ways.between(store, of_region[region]) for region in regions]
        self.up = (*_grouped(up), Shared("store ingress", settings.ingress or math.inf, everybody))
        self.down = (*_grouped(down), Shared("store egress", settings.egress or math.inf, everybody))


def _grouped(paths: Sequence[tuple[Resource, ...]]) -> list[Shared]:
    links = {link: None for path in paths for link in path}
    return [
        Shared(f"link {x.name}", x.capacity_bits_per_s, np.array([any(y is x for y in path) for path in paths]))
        for x in links
    ]
