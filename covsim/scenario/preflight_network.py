"""What links, places and the store's limits make hopeless, found by arithmetic before a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from covsim.scenario.population import PeerSpec
from covsim.scenario.rounded import rate_text, size_text, time_text
from covsim.scenario.schema import Scenario


def network_warnings(scenario: Scenario, peers: Sequence[PeerSpec]) -> Iterator[str]:
    """Every warning about the `network:` and `store:` sections and links that vary.

    For scenarios whose payloads pass the store, and have a size that is known before the run.
    """
    yield from _places(scenario)
    yield from _requests(scenario)
    yield from _connections(scenario)
    yield from _regional_uplinks(scenario, peers)
    yield from _varying(scenario, peers)


def _places(scenario: Scenario) -> Iterator[str]:
    """Tables that nobody uses."""
    network = scenario.network
    if scenario.store.region is None:
        for name in ("latencies", "regions", "trunks"):
            if getattr(network, name):
                yield f"network.{name} is not used: the store has no region"
        return
    inhabited = {scenario.store.region, *_regions(scenario)}
    for region in sorted(set(network.regions) - inhabited):
        yield f"network.regions.{region} is not used: nobody is in {region}"
    yield from idle_trunks(scenario)


def idle_trunks(scenario: Scenario) -> Iterator[str]:
    """Trunks that end where nobody is, or between places of which neither is the store's."""
    home = None if scenario.topology.direct else scenario.store.region
    inhabited = set(_regions(scenario)) | ({home} if home is not None else set())
    for one, other in sorted((one, other) for one, others in scenario.network.trunks.items() for other in others):
        empty = [region for region in (one, other) if region not in inhabited]
        if empty:
            yield f"network.trunks.{one}.{other} is not used: nobody is in {' or '.join(empty)}"
        elif home is not None and home not in (one, other):
            yield f"network.trunks.{one}.{other} is not used: nothing goes but to and from {home}, where the store is"


def _regions(scenario: Scenario) -> Iterator[str]:
    regions = [cohort.region for cohort in scenario.cohorts.values()]
    regions += [validator.region for validator in scenario.validators.values()]
    yield from (region for region in regions if region is not None)


def _requests(scenario: Scenario) -> Iterator[str]:
    """Requests that take longer than there is time, or are more than the store lets through."""
    put_window = scenario.timeline.put_window
    slowest_s = max(request_s(scenario, region) for region in {None, *_regions(scenario)})
    if slowest_s >= put_window:
        took, lasts = time_text(slowest_s), time_text(put_window)
        yield f"a request takes {took} from the farthest place, the put window is {lasts}"
    if scenario.store.rate_limit is not None:
        allowed = scenario.store.rate_limit * put_window
        if scenario.peers > allowed:
            yield (
                f"store.rate_limit lets {allowed:.3g} requests through in a put window of {time_text(put_window)}, "
                f"and {scenario.peers} peers upload in it"
            )


def request_s(scenario: Scenario, region: str | None) -> float:
    """Seconds that a request from a place to the store takes on average before its first byte."""
    return scenario.network.request_between(region, scenario.store.region)


def upload_s(scenario: Scenario, peer: PeerSpec) -> float:
    """Seconds of a peer's upload over a link of its own."""
    place = scenario.cohorts[peer.cohort].region
    return request_s(scenario, place) + scenario.payload_bytes * 8 / peer.uplink_bits_per_s


def gather_s(scenario: Scenario, peer: PeerSpec, number: int) -> float:
    """Seconds in which a peer downloads so many payloads at a time, all there, over a link of its own."""
    request, size = request_s(scenario, scenario.cohorts[peer.cohort].region), scenario.payload_bytes
    if scenario.store.ranges is None or not number:
        return request + number * size * 8 / peer.downlink_bits_per_s
    flow = scenario.store.ranges.flow(size)
    rate = min(peer.downlink_bits_per_s, number * flow.cap_bits_per_s)
    return flow.num_turns * request + number * size * 8 / rate


def _connections(scenario: Scenario) -> Iterator[str]:
    """Downloads that are too slow on any link, for want of connections."""
    if scenario.store.ranges is None:
        return
    limit, size = scenario.timeline.gather_timeout, scenario.payload_bytes
    flow = scenario.store.ranges.flow(size)
    wait_s = flow.num_turns * request_s(scenario, None)
    download_s = wait_s + size * 8 / flow.cap_bits_per_s
    if download_s > limit:
        yield (
            f"nobody can download a payload: {size_text(size)} in ranges take {time_text(download_s)} "
            f"over {flow.weight:.0f} connections, a gather is given up after {time_text(limit)}"
        )


def _regional_uplinks(scenario: Scenario, peers: Sequence[PeerSpec]) -> Iterator[str]:
    """Regions out of which all uploads together do not come within the put window."""
    home, limit = scenario.store.region, scenario.timeline.put_window
    if home is None:
        return
    for region in sorted(set(_regions(scenario)) - {home}):
        links = scenario.network.regions.get(region)
        there = sum(scenario.cohorts[peer.cohort].region == region for peer in peers)
        if links is None or links.uplink is None or not there:
            continue
        needed_s = there * scenario.payload_bytes * 8 / links.uplink
        if needed_s > limit:
            yield (
                f"region {region} cannot send all its uploads: {there} x {size_text(scenario.payload_bytes)} take "
                f"{time_text(needed_s)} at {rate_text(links.uplink)}, the put window is {time_text(limit)}"
            )


def _varying(scenario: Scenario, peers: Sequence[PeerSpec]) -> Iterator[str]:
    """Cohorts whose uplinks, at their worst, are too slow for the put window, and are not so at their best."""
    limit, bits = scenario.timeline.put_window, scenario.payload_bytes * 8
    for name, cohort in sorted(scenario.cohorts.items()):
        if cohort.uplink_varies is None:
            continue
        uplinks = [peer.uplink_bits_per_s for peer in peers if peer.cohort == name]
        lowest = sorted(rate * cohort.uplink_varies.lowest(rate) for rate in uplinks if bits / rate < limit)
        late = [rate for rate in lowest if bits / rate >= limit]
        if late:
            rate = late[len(late) // 2]
            yield (
                f"{len(late)} of {len(uplinks)} peers of {name} cannot land when their uplink is at its lowest: "
                f"{size_text(scenario.payload_bytes)} takes {time_text(bits / rate)} at {rate_text(rate)}, "
                f"the put window is {time_text(limit)}"
            )
