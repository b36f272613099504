"""The network against SimGrid on random topologies; skipped where SimGrid is absent (Debian: python3-simgrid)."""

import importlib.util
import json
import random
import subprocess
import sys

import pytest
import simpy

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
    zone.add_route(source.netpoint, sink.netpoint, None, None, route, False)
    ends.append((source, sink))
zone.seal()

def send(i, start_s, num_bytes):
    this_actor.sleep_for(start_s)
    Comm.sendto(*ends[i], num_bytes)
    times[i] = Engine.clock

for i, flow in enumerate(case["flows"]):
    Actor.create(f"flow{i}", ends[i][0], send, i, flow["start_s"], flow["num_bytes"])
engine.run()
print(json.dumps([times[i] for i in range(len(case["flows"]))]))
"""


@pytest.mark.parametrize("seed", range(5))
def test_random_topologies_finish_when_simgrid_says(seed):
    case = random_case(random.Random(seed))
    assert covsim_times(case) == pytest.approx(simgrid_times(case), rel=1e-5)


def random_case(rng):
    """40 flows of 1 to 100 MB over paths of 1 to 3 of 12 links."""
    return {
        "rates": [rng.choice([50e6, 110e6, 500e6, 1e9, 10e9]) for _ in range(12)],
        "flows": [
            {
                "path": rng.sample(range(12), rng.randint(1, 3)),
                "start_s": rng.choice([0.0, rng.uniform(0, 10)]),
                "num_bytes": rng.randint(1_000_000, 100_000_000),
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
        yield network.transfer([links[r] for r in flow["path"]], flow["num_bytes"]).done
        times[i] = env.now

    for i, flow in enumerate(case["flows"]):
        env.process(send(i, flow))
    env.run()
    return [times[i] for i in range(len(times))]


def simgrid_times(case):
    command = [sys.executable, "-c", SIMGRID_PROGRAM]
    ended = subprocess.run(command, input=json.dumps(case), capture_output=True, text=True, check=True, timeout=60)
    return json.loads(ended.stdout.splitlines()[-1])
