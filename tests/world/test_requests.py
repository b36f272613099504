"""What a request costs: places, jitter, overhead, ranges, waits after failures, and links that regions share."""

import math
import statistics

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from covsim.events import ReadFailed, RequestRefused, Transferred
from covsim.randomness import Streams
from covsim.world.latency import LognormalJitter, UniformJitter
from covsim.world.network import Network, NetworkSettings, Resource
from covsim.world.requests import ExponentialBackoff, Ranges
from covsim.world.store import ObjectStore, StoreSettings

MB = 1e6


class Stage:
    """A store with its network; objects are there from the start, and everybody has 8 Mb/s unless said otherwise."""

    def __init__(self, network=None, **store):
        self.env = simpy.Environment()
        self.network = Network(self.env, NetworkSettings(**(network or {})))
        self.events = []
        self.store = ObjectStore(self.env, self.network, StoreSettings(**store), Streams(1), self.events.append)

    def keep(self, key, megabytes):
        self.store.keep(key, "somebody", b"", megabytes * MB, 0.0)

    def get(self, node, key, *, region=None, rate=8 * MB, at_s=0.0):
        link = Resource(f"{node} down", rate)
        self.network.ways.place(link, region)
        return self.play(lambda: self.store.get(node, link, key), at_s)

    def put(self, node, megabytes, *, region=None, rate=8 * MB, at_s=0.0):
        link = Resource(f"{node} up", rate)
        self.network.ways.place(link, region)
        return self.play(lambda: self.store.put(node, link, f"of {node}", b"", megabytes * MB), at_s)

    def play(self, begin, at_s):
        def actor():
            yield self.env.timeout(at_s)
            stored = yield from begin()
            return stored and self.env.now

        return self.env.process(actor())

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


# Places.


def test_each_pays_the_latency_of_its_way():
    stage = Stage({"latency": "3 s", "latencies": {"eu": {"eu": "100 ms", "us": "500 ms"}}}, region="eu")
    ways = [stage.put(f"peer:{region}", 1, region=region) for region in ("eu", "us", None)]
    stage.env.run()
    assert [way.value for way in ways] == pytest.approx([1.1, 1.5, 4.0])


def test_a_table_says_both_ways_with_one_value():
    settings = NetworkSettings(latencies={"eu": {"us": "40 ms"}})
    assert settings.latency_between("us", "eu") == settings.latency_between("eu", "us") == 0.04
    assert settings.latency_between(None, "eu") == settings.latency
    with pytest.raises(ValidationError, match="latencies says two things of eu and us"):
        NetworkSettings(latencies={"eu": {"us": "40 ms"}, "us": {"eu": "50 ms"}})


def test_a_way_that_the_table_does_not_have_is_an_error():
    settings = NetworkSettings(latencies={"europe": {"us": "40 ms"}})
    with pytest.raises(ValueError, match=r"network.latencies has no entry for us and us$"):
        settings.latency_between("us", "us")
    with pytest.raises(ValueError, match=r"no entry for europa and us \(did you mean 'europe'\?\)"):
        settings.latency_between("europa", "us")


def test_peers_of_a_region_share_its_links():
    # Four of 8 Mb/s leave a region over 16 Mb/s; who is where the store is, does not.
    stage = Stage({"latency": "0 s", "regions": {"us": {"uplink": "16 Mb/s"}}}, region="eu")
    away = [stage.put(f"peer:{i}", 1, region="us") for i in range(4)]
    home = stage.put("peer:9", 1, region="eu")
    stage.env.run()
    assert [way.value for way in away] == pytest.approx([2.0] * 4)
    assert home.value == pytest.approx(1.0)


def test_a_trunk_is_shared_each_way_apart():
    stage = Stage({"latency": "0 s", "trunks": {"eu": {"us": "8 Mb/s"}}}, region="eu")
    stage.keep("key", 1)
    up = [stage.put(f"peer:{i}", 1, region="us") for i in range(2)]
    down = stage.get("peer:1", "key", region="us")
    stage.env.run()
    assert [way.value for way in up] == pytest.approx([2.0, 2.0])
    assert down.value == pytest.approx(1.0)
    with pytest.raises(ValidationError, match="trunks join two regions, and eu is one"):
        NetworkSettings(trunks={"eu": {"eu": "1 Gb/s"}})


def test_a_region_without_limits_shares_nothing():
    stage = Stage({"latency": "0 s", "regions": {"us": {"downlink": "16 Mb/s"}}}, region="eu")
    away = [stage.put(f"peer:{i}", 1, region="us") for i in range(4)]
    stage.env.run()
    assert [way.value for way in away] == pytest.approx([1.0] * 4)


# One request and another.


def test_overhead_costs_time_and_no_bytes():
    stage = Stage({"latency": "250 ms", "request_overhead": "500 ms"})
    way = stage.put("peer:1", 1)
    stage.env.run()
    assert way.value == pytest.approx(1.75)
    assert [event.num_bytes for event in stage.of(Transferred)] == [1 * MB]


def test_lognormal_jitter_has_the_latency_as_its_median():
    drawn = [(number + 0.5) / 10_001 for number in range(10_001)]
    latencies = [LognormalJitter(sigma=0.4).of(0.05, each) for each in drawn]
    assert statistics.median(latencies) == pytest.approx(0.05)
    assert statistics.stdev(map(math.log, latencies)) == pytest.approx(0.4, rel=0.01)
    assert LognormalJitter(sigma=3).of(0.05, 0.0) > 0


def test_uniform_jitter_adds_up_to_a_limit():
    assert [UniformJitter(most="20 ms").of(0.05, drawn) for drawn in (0, 0.5)] == pytest.approx([0.05, 0.06])


def test_the_mean_of_jitter_is_that_of_what_it_draws():
    """Against the mean over all numbers that can be drawn. Catches a median that is taken for a mean."""
    drawn = [(number + 0.5) / 100_000 for number in range(100_000)]
    for jitter in (LognormalJitter(sigma=0.8), UniformJitter(most="200 ms")):
        assert jitter.mean_of(0.05) == pytest.approx(statistics.fmean(jitter.of(0.05, x) for x in drawn), rel=1e-3)
        network = NetworkSettings(latencies={"eu": {"us": "50 ms"}}, jitter=jitter, request_overhead="1 s")
        assert network.request_between("us", "eu") == pytest.approx(1 + jitter.mean_of(0.05))


def test_requests_differ_by_jitter_and_the_same_run_has_the_same():
    def ends():
        stage = Stage({"latency": "250 ms", "jitter": {"kind": "lognormal", "sigma": 0.5}})
        ways = [stage.put(f"peer:{i}", 1) for i in range(20)]
        stage.env.run()
        return [way.value for way in ways]

    assert ends() == ends()
    assert len(set(ends())) == 20
    assert min(ends()) > 1


# Ranges.


@pytest.mark.parametrize(
    ("megabytes", "expected"),
    [
        (1, (1.0, 10 * MB, 1)),
        (64, (1.0, 10 * MB, 1)),
        (65, (2.0, 20 * MB, 1)),
        (512, (8.0, 80 * MB, 1)),
        (513, (8.0, 80 * MB, 2)),
        (1989.5, (8.0, 80 * MB, 4)),
        (0, (1.0, 10 * MB, 1)),
    ],
)
def test_ranges_are_a_weight_a_cap_and_turns(megabytes, expected):
    flow = Ranges(size="64 MB", parallel=8, per_connection="10 Mb/s").flow(megabytes * MB)
    assert (flow.weight, flow.cap_bits_per_s, flow.num_turns) == expected


def test_a_download_in_ranges_is_capped_and_pays_for_its_turns():
    # 4 MB in 1 MB ranges, two at a time at 2 Mb/s each: 8 s, after two turns of 0.75 s; the link could do it in 1 s.
    ranges = {"size": "1 MB", "parallel": 2, "per_connection": "2 Mb/s"}
    stage = Stage({"latency": "250 ms", "request_overhead": "500 ms"}, ranges=ranges)
    stage.keep("key", 4)
    way = stage.get("peer:1", "key", rate=32 * MB)
    stage.env.run()
    assert way.value == pytest.approx(2 * 0.75 + 8)


def test_more_connections_get_more_of_a_store_that_is_full():
    # 8 MB over 8 connections, 1 MB over one: 9 share 9 Mb/s, so that both are done after 8 s.
    stage = Stage({"latency": "0 s"}, egress="9 Mb/s", ranges={"size": "1 MB", "parallel": 8})
    stage.keep("large", 8)
    stage.keep("small", 1)
    ways = [stage.get("peer:1", "large", rate=1000 * MB), stage.get("peer:2", "small", rate=1000 * MB)]
    stage.env.run()
    assert [way.value for way in ways] == pytest.approx([8.0, 8.0])


def test_uploads_are_not_cut_into_ranges():
    stage = Stage({"latency": "0 s"}, ranges={"size": "1 MB", "parallel": 1, "per_connection": "1 Mb/s"})
    way = stage.put("peer:1", 1)
    stage.env.run()
    assert way.value == pytest.approx(1.0)


@given(st.floats(0, 1e13), st.integers(1, 10**9), st.integers(1, 64))
def test_turns_and_connections_hold_all_ranges(num_bytes, size, parallel):
    flow = Ranges(size=f"{size} B", parallel=parallel).flow(num_bytes)
    num_ranges = max(1, math.ceil(num_bytes / size))
    assert 1 <= flow.weight <= parallel
    assert (flow.num_turns - 1) * parallel < num_ranges <= flow.num_turns * parallel


# After a failure.


def failing(**store):
    stage = Stage({"latency": "1 s"}, outages=[{"at": "0 s", "lasts": "1 h"}], retries=3, retry_delay="10 s", **store)
    stage.keep("key", 1)
    stage.get("peer:1", "key")
    stage.env.run(until=500)
    return [event.time_s for event in stage.of(ReadFailed)]


def test_waits_are_the_same_each_time_unless_they_grow():
    assert failing() == [1, 12, 23, 34]
    assert failing(backoff={"kind": "exponential", "spread": 0}) == [1, 12, 33, 74]
    assert failing(backoff={"kind": "exponential", "spread": 0, "longest": "15 s"}) == [1, 12, 28, 44]


def test_spread_waits_lie_in_their_part():
    gaps = [later - earlier - 1 for earlier, later in zip(*[iter(failing(backoff="exponential"))] * 2, strict=True)]
    for attempt, gap in zip((0, 2), gaps, strict=True):
        assert 0.5 * 10 * 2**attempt <= gap <= 10 * 2**attempt


@given(st.integers(0, 1000), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_never_longer_than_its_limit(attempt, drawn):
    assert 0 <= ExponentialBackoff(base=10, longest="1 min").wait_s(1.0, attempt, drawn) <= 60
    assert ExponentialBackoff(base=10, spread=1).wait_s(0.0, attempt, drawn) == 0


def test_a_standing_limit_refuses_what_is_too_much():
    stage = Stage({"latency": "0 s"}, rate_limit=2, retries=0)
    stage.keep("key", 1)
    ways = [stage.get(f"peer:{i}", "key") for i in range(5)]
    stage.env.run()
    assert [way.value is not None for way in ways] == [True, True, False, False, False]
    assert len(stage.of(RequestRefused)) == 3


@pytest.mark.parametrize(
    "settings",
    [
        {"rate_limit": 0},
        {"rate_limit": -1},
        {"ranges": {"parallel": 0}},
        {"ranges": {"per_connection": "0 b/s"}},
        {"ranges": {"size": "0 B"}},
        {"backoff": {"kind": "exponential", "base": 0.5}},
        {"ingress": "0 b/s"},
    ],
)
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(ValidationError):
        StoreSettings(**settings)
