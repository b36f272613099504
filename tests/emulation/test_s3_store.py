"""A node's store over real requests to a local S3 server: the verbs of the simulated one, judged by LastModified."""

import json
import math
import subprocess
import sys
import threading
import time

import pytest
import simpy

from covsim.emulation.carrier import Carrier, Place
from covsim.emulation.driver import Driver, WallClock
from covsim.emulation.s3_store import S3Store
from covsim.emulation.store_server import BUCKET
from covsim.events import ReadFailed, Transferred
from covsim.randomness import Streams
from covsim.world.network import Resource
from covsim.world.store import StoreSettings

LINK = Resource("peer:1 up", 1e9)
SCALE = 0.1


@pytest.fixture(scope="module")
def server():
    """A store server, and what gives it orders."""
    command = [sys.executable, "-m", "covsim.emulation.store_server", "127.0.0.1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        port = json.loads(process.stdout.readline())["port"]

        def order(**what):
            process.stdin.write(json.dumps(what) + "\n")
            process.stdin.flush()
            time.sleep(0.1)

        yield f"http://127.0.0.1:{port}", order
        process.stdin.close()
        assert process.wait(10) == 0, "it ends with its standard input"


class Bench:
    """A driver and a store of a node; every bench has keys of its own."""

    count = 0

    def __init__(self, endpoint, retries=0, beside=None):
        if beside is None:
            Bench.count += 1
        self.driver, self.events = Driver(simpy.Environment()), []
        unix_s = math.floor(time.time())
        own = WallClock(time.monotonic() - (time.time() - unix_s), SCALE, unix_s)
        self.driver.clock = own if beside is None else beside.driver.clock
        self.env = self.driver.env
        self.checkpoints = {}
        self.store = S3Store(
            self.driver,
            Carrier(Place(endpoint, BUCKET, f"bench-{Bench.count}/", True), 5.0),
            StoreSettings(retries=retries, retry_delay="2 s"),
            0.5,
            0.5,
            Streams(0),
            self.events.append,
            checkpoint=lambda: b"theta",
            on_checkpoint=self.checkpoints.__setitem__,
        )

    def play(self, *scripts):
        """Run scripts side by side to their ends; returns what they return."""
        processes = [self.env.process(script) for script in scripts]

        def life():
            yield self.env.all_of(processes)
            self.driver.stop()

        self.env.process(life())
        self.driver.run()
        return [process.value for process in processes]


def test_what_is_put_is_got_padding_and_all(server):
    """Would catch a payload that comes back padded, a size that is not the charged one, and transfers not accounted."""
    bench = Bench(server[0])
    store = bench.store

    def script():
        put = yield from store.put("peer:1", LINK, "round-0/uid-1", b"payload", 1000.0)
        got = yield from store.get("peer:2", LINK, "round-0/uid-1")
        return put, got

    ((put, got),) = bench.play(script())
    assert put.data == got.data == b"payload"
    assert put.charged_bytes == got.charged_bytes == 1000.0
    moved = [event for event in bench.events if isinstance(event, Transferred)]
    assert [(event.direction, event.num_bytes, event.complete) for event in moved] == [
        ("up", 1000.0, True),
        ("down", 1000.0, True),
    ]
    assert all(0 <= event.started_s < event.time_s for event in moved)


def test_a_stamp_is_the_servers_whole_second_that_holds_the_arrival(server):
    """Would catch a stamp of the uploader's own clock, and one that is rounded up over a window's edge."""
    bench = Bench(server[0])
    (put,) = bench.play(bench.store.put("peer:1", LINK, "round-0/uid-1", b"x", 100.0))
    wall_s = put.stored_s * SCALE
    assert wall_s == pytest.approx(round(wall_s), abs=1e-6)
    arrived_s = next(event.time_s for event in bench.events if isinstance(event, Transferred))
    assert 0 <= arrived_s * SCALE - wall_s < 1.05


def test_who_waits_sees_an_object_within_a_poll_of_its_landing(server):
    """Would catch a poll that never looks again, and an arrival that fires before anything lies there."""
    bench = Bench(server[0])
    reader, landed = Bench(server[0], beside=bench), []

    def writer():
        yield bench.env.timeout(4.0)
        yield from bench.store.put("peer:1", LINK, "round-0/uid-1", b"x", 100.0)
        landed.append(bench.env.now)

    def waiter():
        stored = yield reader.store.arrival("round-0/uid-1", "peer:2")
        return stored.key, reader.env.now

    found = []
    thread = threading.Thread(target=lambda: found.extend(reader.play(waiter())))
    thread.start()
    bench.play(writer())
    thread.join(10)
    ((key, seen_s),) = found
    assert key == "round-0/uid-1"
    assert landed[0] - 0.1 <= seen_s <= landed[0] + 0.5 + 3.0  # a poll, and what a listing takes


def test_during_an_outage_requests_fail_and_are_tried_again(server):
    """Would catch an outage that nobody notices, retries without end, and a download that stays failed afterwards."""
    bench = Bench(server[0], retries=3)
    store, order = bench.store, server[1]

    def script():
        yield from store.put("peer:1", LINK, "round-0/uid-1", b"x", 100.0)
        order(down=True)
        began_s = bench.env.now
        refused = yield from store.get("peer:2", LINK, "round-0/uid-1")
        lasted_s = bench.env.now - began_s
        order(down=False)
        return refused, lasted_s, (yield from store.get("peer:2", LINK, "round-0/uid-1"))

    ((refused, lasted_s, got),) = bench.play(script())
    assert refused is None
    assert [event.attempt for event in bench.events if isinstance(event, ReadFailed)] == [0, 1, 2, 3]
    assert lasted_s >= 3 * 2.0
    assert got.data == b"x"


def test_a_wrong_clock_of_the_server_shows_in_its_stamps(server):
    """Would catch a clock skew that is announced and not there."""
    bench = Bench(server[0])
    server[1](ahead_s=3.0)
    (put,) = bench.play(bench.store.put("peer:1", LINK, "round-0/uid-1", b"x", 100.0))
    server[1](ahead_s=0.0)
    arrived_s = next(event.time_s for event in bench.events if isinstance(event, Transferred))
    assert 2.0 < put.stored_s * SCALE - arrived_s * SCALE <= 3.05


def test_what_is_not_there_is_none_and_no_failure(server):
    """Would catch a missing object that is retried as if the store had failed."""
    bench = Bench(server[0], retries=3)
    (got,) = bench.play(bench.store.get("peer:2", LINK, "round-0/uid-9"))
    assert got is None
    assert bench.store.stat("round-0/uid-9") is None
    assert not [event for event in bench.events if isinstance(event, ReadFailed)]


def test_what_is_too_large_is_refused_without_a_transfer(server):
    """Would catch a limit of the store that real requests pass by."""
    bench = Bench(server[0])
    assert bench.play(bench.store.put("peer:1", LINK, "round-0/uid-1", b"x", 1e18)) == [None]
    assert not bench.events


def test_a_checkpoint_carries_the_theta_of_who_puts_it(server):
    """Would catch a checkpoint whose bytes travel and whose content does not."""
    bench = Bench(server[0])
    store = bench.store

    def script():
        yield from store.put("validator:lead", LINK, "round-0/checkpoint-lead", b"", 400.0, purpose="checkpoint")
        return (yield from store.get("peer:2", LINK, "round-0/checkpoint-lead", purpose="checkpoint"))

    (got,) = bench.play(script())
    assert bench.checkpoints == {"round-0/checkpoint-lead": b"theta"}
    assert got.charged_bytes == 400.0


def test_who_is_cut_off_fails_and_is_mended(server):
    """Would catch a partition that lets requests through, and one that stays for ever."""
    bench = Bench(server[0], retries=0)
    store = bench.store

    def script():
        store.conditions.cut([LINK])
        refused = yield from store.put("peer:1", LINK, "round-0/uid-1", b"x", 100.0)
        store.conditions.mend([LINK])
        return refused, (yield from store.put("peer:1", LINK, "round-0/uid-1", b"x", 100.0))

    ((refused, put),) = bench.play(script())
    assert refused is None
    assert put.data == b"x"
