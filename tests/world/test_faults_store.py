"""Faults of the store: limits and how who is refused comes back, cuts, slow reads, damage, a false clock, two names."""

from itertools import pairwise

import pytest
import simpy

from covsim.events import ObjectDamaged, ReadFailed, RequestRefused, Transferred
from covsim.randomness import Streams
from covsim.world.conditions import Conditions, RateLimit, Renamed, SlowReads, Spoiled
from covsim.world.network import Network, NetworkSettings, Resource
from covsim.world.pauses import pause_of
from covsim.world.store import ObjectStore, StoreSettings

MB = 1e6
LATENCY_S = 0.25


class Stage:
    """A store with links of 8 Mb/s, the events it emitted, and when its requests ended."""

    def __init__(self, seed=1, **settings):
        self.env = simpy.Environment()
        self.events = []
        self.ended = {}
        network = Network(self.env, NetworkSettings(latency=f"{LATENCY_S} s"))
        self.store = ObjectStore(self.env, network, StoreSettings(**settings), Streams(seed), self.events.append)
        self.links = {}

    def link(self, name):
        return self.links.setdefault(name, Resource(name, 8 * MB))

    def put(self, node, key, megabytes=1, at_s=0.0, data=b"0123456789"):
        return self.play(self.store.put(node, self.link(f"{node} up"), key, data, megabytes * MB), (node, key), at_s)

    def get(self, node, key, at_s=0.0):
        return self.play(self.store.get(node, self.link(f"{node} down"), key), (node, key), at_s)

    def play(self, script, name, at_s):
        def actor():
            yield self.env.timeout(at_s)
            stored = yield from script
            self.ended[name] = self.env.now
            return stored

        return self.env.process(actor())

    def at(self, time_s, action):
        self.env.timeout(time_s - self.env.now).callbacks.append(lambda _: action())

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


# Rate limits.


def test_a_limit_lets_through_one_seconds_worth_at_once_and_then_its_rate():
    limit = RateLimit(5, now_s=0)
    assert [limit.grants(0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert [limit.grants(0.2), limit.grants(0.3), limit.grants(0.4)] == [True, False, True]
    assert [limit.grants(100) for _ in range(7)] == [True] * 5 + [False] * 2, "it never holds more than a second's"


def test_a_limit_below_one_a_second_still_lets_something_through():
    limit = RateLimit(0.1, now_s=0)
    assert [limit.grants(s) for s in (0, 5, 9.9, 10, 11)] == [True, False, False, True, False]


def test_who_is_refused_backs_off_twice_as_long_each_time():
    stage = Stage(retries=3, retry_delay="8 s")
    stage.store.conditions.limits.append(RateLimit(1e-9, now_s=0))
    stage.put("peer:0", "first")
    stage.put("peer:1", "second")
    stage.env.run()
    refused = stage.of(RequestRefused)
    assert [(event.node, event.direction, event.attempt) for event in refused] == [
        ("peer:1", "up", i) for i in range(4)
    ]
    waits = [later.time_s - earlier.time_s - LATENCY_S for earlier, later in pairwise(refused)]
    for attempt, wait_s in enumerate(waits):
        assert 8 * 2**attempt / 2 <= wait_s <= 8 * 2**attempt
    assert stage.store.stat("first") is not None
    assert stage.store.stat("second") is None


def test_who_is_refused_together_does_not_come_back_together():
    """Without spread, all would be refused together again and again."""
    stage = Stage(retries=1, retry_delay="10 s")
    limit = RateLimit(1, now_s=0)
    stage.store.conditions.limits.append(limit)
    for uid in range(20):
        stage.put(f"peer:{uid}", f"key {uid}", 0)
    stage.env.run()
    again = [event.time_s for event in stage.of(RequestRefused) if event.attempt == 1]
    landed = sum(stage.store.stat(f"key {uid}") is not None for uid in range(20))
    assert landed == 20 - len(again)
    assert 4 <= landed <= 8, "one at once, and about one a second of the five over which the others are spread"


def test_the_wait_of_one_does_not_depend_on_who_else_asks():
    def refused_at(others):
        stage = Stage(retries=1, retry_delay="10 s")
        stage.store.conditions.limits.append(RateLimit(1e-9, now_s=0))
        stage.put("peer:0", "first")
        for uid in (*others, 7):
            stage.put(f"peer:{uid}", f"key {uid}")
        stage.env.run()
        return [event.time_s for event in stage.of(RequestRefused) if event.node == "peer:7"]

    assert refused_at([]) == refused_at([1, 2, 3])


# Cuts.


def test_a_cut_link_breaks_what_is_under_way_and_refuses_what_begins():
    stage = Stage(retries=1, retry_delay="1 s")
    conditions, up, down = stage.store.conditions, stage.link("peer:3 up"), stage.link("peer:3 down")
    uploading = stage.put("peer:3", "under way", 4)
    later = stage.put("peer:3", "later", 1, at_s=3)
    stage.put("peer:4", "other", 1)
    reading = stage.get("peer:3", "other", at_s=2.5)

    def cut():
        conditions.cut([up])
        stage.store.cut(up)

    stage.at(2.25, cut)
    stage.env.run()
    assert (uploading.value, later.value) == (None, None)
    assert stage.ended[("peer:3", "under way")] == 2.25
    assert stage.ended[("peer:3", "later")] == 3 + LATENCY_S + 1 + LATENCY_S
    assert reading.value is not None, "the other way is open"
    lost = next(event for event in stage.of(Transferred) if not event.complete)
    assert (lost.node, lost.num_bytes) == ("peer:3", pytest.approx(2 * MB))
    assert not conditions.is_cut(down)


def test_a_cut_read_fails_and_is_tried_again():
    stage = Stage(retries=2, retry_delay="1 s")
    stage.put("peer:0", "key", 1)
    down = stage.link("peer:3 down")
    stage.store.conditions.cut([down])
    reading = stage.get("peer:3", "key", at_s=10)
    stage.at(12, lambda: stage.store.conditions.mend([down]))
    stage.env.run()
    assert [event.time_s for event in stage.of(ReadFailed)] == [10.25, 11.5]
    assert reading.value.key == "key"


def test_two_cuts_of_a_link_must_both_be_mended():
    conditions, link = Conditions(), Resource("link", 1)
    conditions.cut([link])
    conditions.cut([link])
    conditions.mend([link])
    assert conditions.is_down(link, 0)
    conditions.mend([link])
    assert not conditions.is_down(link, 0)


def test_an_outage_without_an_end_holds_until_it_is_taken_out():
    conditions = Conditions([pause_of(5, 1)])
    endless = pause_of(10, float("inf"))
    conditions.outages.append(endless)
    link = Resource("link", 1)
    assert [conditions.is_down(link, s) for s in (4, 5, 6, 10, 1e12)] == [False, True, False, True, True]
    conditions.outages.remove(endless)
    assert not conditions.is_down(link, 10)


# Slow reads.


def test_slow_reads_have_a_limit_each_and_a_delay():
    stage = Stage()
    stage.put("peer:0", "key", 1)
    slow = SlowReads(bits_per_s=1 * MB, delay_s=3)
    stage.at(5, lambda: stage.store.conditions.slow_reads.append(slow))
    stage.at(8, lambda: stage.store.conditions.slow_reads.remove(slow))
    for node, at_s in (("peer:1", 2), ("peer:2", 6), ("peer:3", 6), ("peer:4", 10)):
        stage.get(node, "key", at_s=at_s)
    stage.put("peer:5", "new", 1, at_s=6)
    stage.env.run()
    # 8 Mb: 1 s on the link, 8 s at the limit, which each has for itself; what began slow stays slow.
    expected = {"peer:1": 3.25, "peer:2": 17.25, "peer:3": 17.25, "peer:4": 11.25}
    assert {node: stage.ended[node, "key"] for node in expected} == pytest.approx(expected)
    assert stage.ended["peer:5", "new"] == pytest.approx(7.25), "uploads are as fast as ever"


# Damage.


def test_a_lost_object_is_acknowledged_and_not_there():
    stage = Stage()
    stage.store.conditions.spoiled.append(Spoiled(frozenset({"peer:3"}), "lost"))
    lost, kept = stage.put("peer:3", "lost", 1), stage.put("peer:4", "kept", 1)
    waiting = stage.store.arrival("lost")
    stage.env.run()
    assert (lost.value.key, lost.value.charged_bytes) == ("lost", 1 * MB)
    assert (stage.store.stat("lost"), waiting.triggered) == (None, False)
    assert stage.store.stat("kept") is kept.value
    assert stage.of(ObjectDamaged) == [ObjectDamaged(1.25, "peer:3", "lost", "lost", 0.0)]


def test_a_truncated_object_is_shorter_in_bytes_and_in_what_it_costs_to_read():
    stage = Stage()
    trouble = Spoiled(frozenset({"peer:3"}), "truncated", keeps=0.25)
    stage.store.conditions.spoiled.append(trouble)
    uploading = stage.put("peer:3", "key", 4, data=b"0123456789")
    reading = stage.get("peer:4", "key", at_s=10)
    stage.at(20, lambda: stage.store.conditions.spoiled.remove(trouble))
    again = stage.put("peer:3", "key", 4, at_s=21)
    stage.env.run()
    assert (uploading.value.data, reading.value.data) == (b"0123456789", b"01")
    assert stage.ended["peer:4", "key"] == pytest.approx(10 + LATENCY_S + 1)
    assert stage.store.stat("key") is again.value, "a later upload is whole"


def test_a_lost_object_leaves_what_lay_there():
    stage = Stage()
    first = stage.put("peer:3", "key", 1)
    spoiled = Spoiled(frozenset({"peer:3"}), "lost")
    stage.at(5, lambda: stage.store.conditions.spoiled.append(spoiled))
    stage.put("peer:3", "key", 1, at_s=6)
    stage.env.run()
    assert stage.store.stat("key") is first.value


# The clock, and names.


def test_stamps_follow_the_stores_clock_and_times_do_not():
    stage = Stage()
    stage.store.conditions.clock_offsets_s += [100.0, -30.0]
    uploading = stage.put("peer:3", "key", 1, at_s=10)
    stage.env.run()
    assert uploading.value.stored_s == 81.25
    assert [event.time_s for event in stage.of(Transferred)] == [11.25]


def test_renamed_nodes_find_only_each_other():
    stage = Stage()
    stage.store.conditions.renamed.append(Renamed(frozenset({"peer:3", "peer:4"}), "next"))
    stage.put("peer:3", "key 3", 1)
    stage.put("peer:5", "key 5", 1)
    found = {(node, key): stage.get(node, key, at_s=5) for node in ("peer:4", "peer:6") for key in ("key 3", "key 5")}
    stage.env.run()
    assert {pair: reading.value is not None for pair, reading in found.items()} == {
        ("peer:4", "key 3"): True,
        ("peer:4", "key 5"): False,
        ("peer:6", "key 3"): False,
        ("peer:6", "key 5"): True,
    }
    assert stage.store.stat("key 3") is None, "who asks for nobody asks for the names of the rest"
    assert stage.store.stat("key 3", "peer:4") is not None
    assert stage.store.arrival("key 3", "peer:4").triggered
    assert not stage.store.arrival("key 3", "peer:6").triggered
