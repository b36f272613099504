"""The store: stamps, visibility, sharing, failing reads, outages, cuts and the account of bytes."""

import gc
import math

import pytest
import simpy
from pydantic import ValidationError

from covsim.events import ReadFailed, Transferred
from covsim.randomness import Streams
from covsim.world.network import Network, NetworkSettings, Resource
from covsim.world.store import ObjectStore, StoreSettings, Traffic

MB = 1e6
LATENCY_S = 0.25


class Stage:
    """A store with its simulation, the events it emitted, and a log of what actors did."""

    def __init__(self, seed=1, **store_settings):
        self.env = simpy.Environment()
        self.network = Network(self.env, NetworkSettings(latency=f"{LATENCY_S} s"))
        self.events = []
        self.log = []
        settings = StoreSettings(**store_settings)
        self.store = ObjectStore(self.env, self.network, settings, Streams(seed), self.events.append)

    def put(self, node, key, megabytes, at_s=0.0, rate=8 * MB, data=b"payload"):
        return self.play(self.store.put(node, Resource(f"{node} up", rate), key, data, megabytes * MB), node, at_s)

    def get(self, node, key, at_s=0.0, rate=8 * MB, purpose="gather"):
        return self.play(self.store.get(node, Resource(f"{node} down", rate), key, purpose=purpose), node, at_s)

    def play(self, script, node, at_s):
        def actor():
            yield self.env.timeout(at_s)
            stored = yield from script
            self.log.append((node, self.env.now, stored.key if stored else None))
            return stored

        return self.env.process(actor())

    def at(self, time_s, action):
        self.env.timeout(time_s - self.env.now).callbacks.append(lambda _: action())

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


def test_an_object_lands_whole_with_the_stamp_of_its_last_byte():
    stage = Stage()
    uploading = stage.put("peer:3", "round-1/3", 4, at_s=10)
    seen = []
    stage.at(14.2, lambda: seen.append(stage.store.stat("round-1/3")))
    stage.env.run()
    stored = uploading.value
    assert seen == [None]
    assert stage.store.stat("round-1/3") is stored
    assert (stored.stored_s, stored.owner, stored.data, stored.charged_bytes) == (14.25, "peer:3", b"payload", 4 * MB)
    assert stage.events == [Transferred(14.25, "peer:3", "round-1/3", "submit", "up", 4 * MB, 10, True)]


def test_a_second_put_replaces_the_first_with_its_own_stamp():
    stage = Stage()
    stage.put("peer:3", "key", 1, data=b"early")
    stage.put("peer:3", "key", 1, at_s=5, data=b"late")
    stage.env.run(until=4)
    assert (stage.store.stat("key").data, stage.store.stat("key").stored_s) == (b"early", 1.25)
    stage.env.run()
    assert (stage.store.stat("key").data, stage.store.stat("key").stored_s) == (b"late", 6.25)


def test_a_reader_gets_what_lay_there_when_it_began():
    stage = Stage()
    stage.put("peer:3", "key", 1, data=b"early")
    stage.put("peer:3", "key", 1, at_s=2, data=b"late")
    reading = stage.get("peer:4", "key", at_s=2, rate=0.8 * MB)
    stage.env.run()
    assert (reading.value.data, reading.value.stored_s) == (b"early", 1.25)


def test_arrival_fires_when_the_object_lands_and_at_once_if_it_lies_there():
    stage = Stage()
    stage.put("peer:3", "key", 1)

    def wait(name, at_s):
        yield stage.env.timeout(at_s)
        stored = yield stage.store.arrival("key")
        stage.log.append((name, stage.env.now, stored.key))

    for name, at_s in [("early", 0), ("also early", 1), ("late", 3)]:
        stage.env.process(wait(name, at_s))
    stage.env.run()
    assert stage.store.arrival("key").triggered
    assert not stage.store.arrival("other").triggered
    assert sorted(stage.log) == [
        ("also early", 1.25, "key"),
        ("early", 1.25, "key"),
        ("late", 3, "key"),
        ("peer:3", 1.25, "key"),
    ]


def test_nothing_there_costs_one_latency_and_no_retry():
    stage = Stage(retries=5)
    reading = stage.get("peer:4", "nowhere")
    stage.env.run()
    assert (reading.value, stage.env.now, stage.events) == (None, LATENCY_S, [])


def test_an_object_above_the_limit_is_refused_and_moves_nothing():
    stage = Stage(max_object="3 MB")
    refused, taken = stage.put("peer:3", "large", 3.1), stage.put("peer:4", "just", 3)
    stage.env.run()
    assert (refused.value, stage.store.stat("large")) == (None, None)
    assert taken.value.stored_s == 3.25
    assert [event.key for event in stage.events] == ["just"]


@pytest.mark.parametrize(("settings", "expected_s"), [({}, 1.25), ({"ingress": "8 Mb/s", "egress": "4 Mb/s"}, 2.25)])
def test_uploads_share_the_ingress_and_downloads_the_egress(settings, expected_s):
    stage = Stage(**settings)
    for uid in range(2):
        stage.put(f"peer:{uid}", f"key {uid}", 1)
    stage.env.run()
    assert [at_s for _, at_s, _ in stage.log] == pytest.approx([expected_s] * 2)
    stage.log.clear()
    start_s = stage.env.now
    for uid in range(2):
        stage.get(f"peer:{uid}", f"key {1 - uid}", rate=math.inf)
    stage.env.run()
    # Unlimited at both ends, a download takes the latency alone; two halves of 4 Mb/s take 4 s.
    assert [at_s - start_s for _, at_s, _ in stage.log] == pytest.approx([4.25 if settings else 0.25] * 2)


# Failing reads.


def test_a_failed_attempt_costs_a_latency_and_a_delay():
    stage = Stage(read_failure="100 %", retries=2, retry_delay="3 s")
    stage.put("peer:3", "key", 1)
    reading = stage.get("peer:4", "key", at_s=10)
    stage.env.run()
    assert reading.value is None
    assert stage.of(ReadFailed) == [
        ReadFailed(10.25, "peer:4", "key", 0),
        ReadFailed(13.5, "peer:4", "key", 1),
        ReadFailed(16.75, "peer:4", "key", 2),
    ]
    assert stage.env.now == 16.75
    assert stage.store.downloads == Traffic()


def test_reads_fail_at_the_given_rate_and_by_the_streams_alone():
    def failures(seed, readers):
        stage = Stage(seed, read_failure="30 %", retries=0)
        stage.put("peer:0", "key", 0)
        for uid in readers:
            stage.get(f"peer:{uid}", "key", at_s=1)
        stage.env.run()
        return {event.node for event in stage.of(ReadFailed)}

    failed = failures(1, range(2000))
    assert len(failed) / 2000 == pytest.approx(0.3, abs=0.03)
    assert failures(1, reversed(range(2000))) == failed
    assert failures(2, range(2000)) != failed
    # Who else reads does not move the luck of a node.
    assert failures(1, range(0, 2000, 2)) == {node for node in failed if int(node.split(":")[1]) % 2 == 0}


def test_a_retry_can_succeed_and_purposes_have_their_own_luck():
    stage = Stage(read_failure="50 %", retries=10)
    stage.put("peer:0", "key", 0)
    for uid in range(200):
        stage.get(f"peer:{uid}", "key", at_s=1, purpose="gather")
    stage.env.run()
    attempts = [event.attempt for event in stage.of(ReadFailed)]
    assert 70 < attempts.count(0) < 130
    assert 30 < attempts.count(1) < 70
    assert all(key == "key" for _, _, key in stage.log)
    unlucky = {event.node for event in stage.of(ReadFailed) if event.attempt == 0}
    stage.events.clear()
    for uid in range(200):
        stage.get(f"peer:{uid}", "key", purpose="evaluate")
    stage.env.run()
    assert {event.node for event in stage.of(ReadFailed) if event.attempt == 0} != unlucky


# Outages.

OUTAGE = {"outages": [{"at": "10 s", "lasts": "5 s"}], "retries": 2, "retry_delay": "1 s"}


def test_a_read_that_begins_in_an_outage_fails_and_is_tried_again():
    stage = Stage(**OUTAGE)
    stage.put("peer:3", "key", 1)
    lucky = stage.get("peer:4", "key", at_s=13)
    unlucky = stage.get("peer:5", "key", at_s=10)
    stage.env.run()
    assert stage.of(ReadFailed) == [
        ReadFailed(10.25, "peer:5", "key", 0),
        ReadFailed(11.5, "peer:5", "key", 1),
        ReadFailed(12.75, "peer:5", "key", 2),
        ReadFailed(13.25, "peer:4", "key", 0),
        ReadFailed(14.5, "peer:4", "key", 1),
    ]
    assert (unlucky.value, lucky.value.key) == (None, "key")
    assert stage.log[1:] == [("peer:5", 12.75, None), ("peer:4", 16.75, "key")]


def test_an_outage_is_half_open_and_hides_that_there_is_nothing():
    stage = Stage(**OUTAGE | {"retries": 0})
    for at_s in (math.nextafter(10, 0), 10, math.nextafter(15, 0), 15):
        stage.get(f"peer:{at_s}", "nowhere", at_s=at_s)
    stage.env.run()
    assert [event.time_s for event in stage.of(ReadFailed)] == pytest.approx([10.25, 15.25])


def test_an_upload_that_begins_in_an_outage_is_tried_again_and_given_up():
    stage = Stage(**OUTAGE)
    lucky, unlucky = stage.put("peer:4", "lucky", 1, at_s=12.5), stage.put("peer:3", "unlucky", 1, at_s=10)
    stage.env.run()
    assert stage.log == [("peer:3", 12.75, None), ("peer:4", 16.25, "lucky")]
    assert (unlucky.value, stage.store.stat("unlucky")) == (None, None)
    assert lucky.value.stored_s == 16.25
    # Failed attempts move no bytes and are no transfers; the upload began when it got through.
    assert stage.events == [Transferred(16.25, "peer:4", "lucky", "submit", "up", 1 * MB, 15, True)]


def test_transfers_under_way_outlast_an_outage():
    stage = Stage(**OUTAGE)
    stage.put("peer:0", "old", 4)
    uploading, reading = stage.put("peer:3", "key", 4, at_s=9), stage.get("peer:4", "old", at_s=9.5)
    seen = []
    stage.at(13.5, lambda: seen.append(stage.store.stat("key")))
    stage.env.run()
    assert uploading.value.stored_s == 13.25
    assert seen == [uploading.value], "what lands meanwhile is there, and asking is answered"
    assert reading.value.key == "old"
    assert stage.of(ReadFailed) == []


def test_outages_follow_one_another_and_leave_the_luck_of_readers_alone():
    def failures(**settings):
        stage = Stage(read_failure="30 %", retries=0, **settings)
        stage.put("peer:0", "key", 0)
        for uid in range(300):
            stage.get(f"peer:{uid}", "key", at_s=1 + uid / 100)
        stage.env.run()
        return {int(event.node.split(":")[1]) for event in stage.of(ReadFailed)}

    outages = [
        {"at": "2 s", "lasts": "500 ms"},
        {"at": "2500 ms", "lasts": "500 ms"},
        {"at": "3500 ms", "lasts": "9 s"},
    ]
    assert failures(outages=outages) == failures() | set(range(100, 200)) | set(range(250, 300))


def test_an_upload_can_be_interrupted_between_two_attempts():
    stage = Stage(**OUTAGE)
    uploading = stage.put("peer:3", "key", 1, at_s=14)
    uploading.defused = True
    stage.at(14.5, uploading.interrupt)
    stage.env.run()
    assert (stage.store.stat("key"), stage.events) == (None, [])


# Cuts.


def test_an_interrupted_upload_stores_nothing_and_its_bytes_are_lost():
    stage = Stage()
    uploading = stage.put("peer:3", "key", 4)
    uploading.defused = True
    stage.at(2.25, uploading.interrupt)
    stage.env.run()
    assert isinstance(uploading.value, simpy.Interrupt)
    assert stage.store.stat("key") is None
    assert stage.events == [Transferred(2.25, "peer:3", "key", "submit", "up", pytest.approx(2 * MB), 0, False)]
    assert stage.store.uploads == Traffic(pytest.approx(2 * MB), 0, pytest.approx(2 * MB))


def test_an_interrupted_download_leaves_the_link_to_the_others():
    stage = Stage()
    stage.put("peer:0", "key", 4)
    link = Resource("shared down", 8 * MB)
    first = stage.play(stage.store.get("peer:1", link, "key"), "first", 10)
    stage.play(stage.store.get("peer:1", link, "key"), "second", 10)
    first.defused = True
    stage.at(12.25, first.interrupt)
    stage.env.run()
    assert stage.log[1:] == [("second", pytest.approx(10.25 + 2 + 3), "key")]
    assert stage.store.downloads == Traffic(pytest.approx(5 * MB), 4 * MB, pytest.approx(1 * MB))


def test_an_interrupt_at_the_instant_of_the_last_byte_comes_too_late():
    stage = Stage()

    def cut():
        uploading.interrupt()

    stage.at(4.25, cut)  # scheduled before the completion of that instant, so the cut wins
    uploading = stage.put("peer:3", "cut", 4)
    uploading.defused = True
    stage.env.run()
    assert stage.store.stat("cut") is None

    stage = Stage()
    told = []
    script = stage.store.put("peer:3", Resource("up", 8 * MB), "landed", b"", 4 * MB, landed=told.append)
    uploading = stage.play(script, "peer:3", 0.0)
    uploading.defused = True
    stage.env.run(until=4)
    stage.at(4.25, cut)  # behind it, when every byte has arrived
    stage.env.run()
    assert isinstance(uploading.value, simpy.Interrupt)
    assert stage.store.stat("landed").stored_s == 4.25
    assert told == [stage.store.stat("landed")]  # nobody waits any more, but it was uploaded
    assert [event.complete for event in stage.events] == [True]


def test_closing_a_script_cuts_its_transfer():
    stage = Stage()
    script = stage.store.put("peer:3", Resource("up", 8 * MB), "key", b"", 4 * MB)
    next(script)
    stage.env.run(until=1.25)
    script.close()
    stage.env.run()
    assert stage.store.uploads == Traffic(pytest.approx(1 * MB), 0, pytest.approx(1 * MB))
    assert stage.store.stat("key") is None


def test_the_end_of_a_run_accounts_for_what_is_under_way_in_order():
    stage = Stage()
    stage.put("peer:0", "key", 1)
    stage.get("peer:2", "key", at_s=4)
    stage.get("peer:1", "key", at_s=4.5)
    stage.put("peer:3", "other", 9, at_s=4.9)
    stage.env.run(until=5)
    stage.events.clear()
    stage.store.cut_all()
    cut = [(event.node, event.time_s, event.num_bytes, event.complete) for event in stage.events]
    assert cut == [
        ("peer:2", 5, pytest.approx(0.75 * MB), False),
        ("peer:1", 5, pytest.approx(0.25 * MB), False),
        ("peer:3", 5, 0, False),
    ]
    stage.store.cut_all()
    stage.env.run()
    assert len(stage.events) == 3


def test_an_abandoned_simulation_emits_nothing_when_it_is_collected():
    stage = Stage()
    stage.put("peer:0", "key", 4)
    stage.env.run(until=2)
    events = stage.events
    del stage
    gc.collect()
    assert events == []


def test_bytes_sent_are_received_or_lost():
    stage = Stage(read_failure="20 %", ingress="40 Mb/s", egress="100 Mb/s")
    for uid in range(10):
        stage.put(f"peer:{uid}", f"key {uid}", 1 + uid, at_s=0.1 * uid)
    readers = [stage.get(f"peer:{uid}", f"key {(uid * 3) % 10}", at_s=12 + uid / 7) for uid in range(10)]
    for uid in (2, 5):
        readers[uid].defused = True
        stage.at(13, readers[uid].interrupt)
    stage.env.run(until=18)
    stage.store.cut_all()
    for traffic, direction in [(stage.store.uploads, "up"), (stage.store.downloads, "down")]:
        ended = [event for event in stage.of(Transferred) if event.direction == direction]
        assert traffic.sent_bytes == pytest.approx(traffic.received_bytes + traffic.lost_bytes)
        assert traffic.sent_bytes == pytest.approx(sum(event.num_bytes for event in ended))
        assert traffic.received_bytes == pytest.approx(sum(event.num_bytes for event in ended if event.complete))
    assert stage.store.downloads.lost_bytes > 0
    for event in stage.of(Transferred):
        assert event.num_bytes <= (event.time_s - event.started_s - LATENCY_S) * 1 * MB * (1 + 1e-9) + 1e-6


def test_forgetting_frees_objects_and_idle_arrivals_but_no_waiter():
    stage = Stage()
    stage.put("peer:0", "round 1", 1)
    stage.put("peer:0", "round 2", 1)
    waiting = stage.env.process(_wait_for(stage.store.arrival("round 1 late")))
    stage.store.arrival("round 1 never")
    stage.env.run(until=2)
    stage.store.forget(lambda key: key.startswith("round 1"))
    assert stage.store.stat("round 1") is None
    assert stage.store.stat("round 2") is not None
    assert list(stage.store._arrivals) == ["round 1 late"]
    stage.put("peer:9", "round 1 late", 1)
    stage.env.run()
    assert waiting.value == "round 1 late"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"ingress": "0 b/s"}, "greater than 0"),
        ({"egress": 1e9}, "needs a unit"),
        ({"read_failure": "120 %"}, "not a share"),
        ({"retries": -1}, "greater than or equal to 0"),
        ({"max_object": "0 B"}, "greater than 0"),
        ({"speed": 1}, "Extra inputs"),
        ({"outages": [{"at": "2 s", "lasts": "9 s"}, {"at": "5 s", "lasts": "1 s"}]}, "must not overlap: one at 5 s"),
        ({"outages": [{"at": "2 s", "lasts": "9 s"}, {"at": "1 s", "lasts": "1 s"}]}, "must be sorted: one at 1 s"),
        ({"outages": [{"at": "2 s", "lasts": "-9 s"}]}, "is not a duration"),
        ({"outages": [{"at": "2 s", "lasts": "9 s", "why": "rain"}]}, "Extra inputs"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, complaint):
    with pytest.raises(ValidationError, match=complaint):
        StoreSettings(**changes)


def _wait_for(event):
    stored = yield event
    return stored.key
