"""The network against SimGrid on any topology; skipped where SimGrid is absent (Debian 12: python3-simgrid, 3.32).

A flow of weight n is n communications there, each of a part of the bytes; a cap is a link of their own. (SimGrid 3.32
has rates of communications, but its Python refuses them on those between hosts.)
"""

import importlib.util
import json
import math
import random
import subprocess
import sys

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from covsim.world.network import Network, NetworkSettings, Resource

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("simgrid") is None, reason="SimGrid (Debian: python3-simgrid) is not installed"
)

# SimGrid keeps one engine per process, so each case has a process of its own. Its models of TCP are switched off.
SIMGRID_PROGRAM = """
import json, sys
from simgrid import Actor, Engine, LinkInRoute, NetZone, this_actor, Comm

case = json.load(sys.stdin)
engine = Engine(["case", "--log=root.thres:critical"])
for setting in ("model:CM02", "bandwidth-factor:1", "latency-factor:1", "weight-S:0", "crosstraffic:0", "TCP-gamma:0"):
    Engine.set_config("network/" + setting)
zone = NetZone.create_full_zone("zone")
links = [zone.create_link(f"link{i}", rate / 8).seal() for i, rate in enumerate(case["rates"])]
ends, times = [], {}
for i, flow in enumerate(case["flows"]):
    source, sink = (zone.create_host(f"{end}{i}", 1e9).seal() for end in ("source", "sink"))
    route = [LinkInRoute(links[r]) for r in flow["path"]]
    if flow["cap"] is not None:
        route.append(LinkInRoute(zone.create_link(f"cap{i}", flow["cap"] / 8).seal()))
    zone.add_route(source.netpoint, sink.netpoint, None, None, route, False)
    ends.append((source, sink))
zone.seal()

def send(i, flow):
    this_actor.sleep_for(flow["start_s"])
    parts = [Comm.sendto_init(*ends[i]) for _ in range(flow["weight"])]
    for part in parts:
        part.set_payload_size(flow["num_bytes"] // flow["weight"])
        part.start()
    for part in parts:
        part.wait()
    times[i] = Engine.clock

for i, flow in enumerate(case["flows"]):
    Actor.create(f"flow{i}", ends[i][0], send, i, flow)
engine.run()
print(json.dumps([times[i] for i in range(len(case["flows"]))]))
"""


@pytest.mark.parametrize("seed", range(5))
def test_random_topologies_finish_when_simgrid_says(seed):
    case = random_case(random.Random(seed))
    assert covsim_times(case) == pytest.approx(simgrid_times(case), rel=1e-5)


@st.composite
def cases(draw):
    """Up to 50 flows that start when they like, most of them over the first links, which they share."""
    rates = draw(st.lists(st.sampled_from([20e6, 50e6, 110e6, 500e6, 1e9, 10e9]), min_size=2, max_size=12))
    links = st.integers(0, len(rates) - 1)
    shared = st.integers(0, min(2, len(rates) - 1))
    flow = st.fixed_dictionaries(
        {
            "path": st.tuples(shared, links, links).map(lambda path: list(dict.fromkeys(path))),
            "start_s": st.just(0.0) | st.floats(0, 20),
            "num_bytes": st.integers(125_000, 62_500_000).map(lambda number: 8 * number),  # whole parts of a weight
            "weight": st.sampled_from([1, 1, 1, 2, 8]),
            "cap": st.none() | st.sampled_from([10e6, 60e6, 400e6]),
        }
    )
    return {"rates": rates, "flows": draw(st.lists(flow, min_size=draw(st.sampled_from([1, 20, 50])), max_size=50))}


@given(cases())
@settings(deadline=None, max_examples=40)
def test_any_flows_with_caps_and_weights_agree_within_a_thousandth(case):
    assert covsim_times(case) == pytest.approx(simgrid_times(case), rel=1e-3)


def random_case(rng):
    """40 flows of 1 to 100 MB over paths of 1 to 3 of 12 links."""
    return {
        "rates": [rng.choice([50e6, 110e6, 500e6, 1e9, 10e9]) for _ in range(12)],
        "flows": [
            {
                "path": rng.sample(range(12), rng.randint(1, 3)),
                "start_s": rng.choice([0.0, rng.uniform(0, 10)]),
                "num_bytes": rng.randint(1_000_000, 100_000_000),
                "weight": 1,
                "cap": None,
            }
            for _ in range(40)
        ],
    }


def covsim_times(case):
    env = simpy.Environment()
    network = Network(env, NetworkSettings())
    links = [Resource(f"link {i}", rate) for i, rate in enumerate(case["rates"])]
    times = {}

    def send(i, flow):
        yield env.timeout(flow["start_s"])
        cap = math.inf if flow["cap"] is None else flow["cap"]
        path = [links[r] for r in flow["path"]]
        yield network.transfer(path, flow["num_bytes"], weight=float(flow["weight"]), cap_bits_per_s=cap).done
        times[i] = env.now

    for i, flow in enumerate(case["flows"]):
        env.process(send(i, flow))
    env.run()
    return [times[i] for i in range(len(times))]


def simgrid_times(case):
    command = [sys.executable, "-c", SIMGRID_PROGRAM]
    ended = subprocess.run(command, input=json.dumps(case), capture_output=True, text=True, check=True, timeout=60)
    return json.loads(ended.stdout.splitlines()[-1])
