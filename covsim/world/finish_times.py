"""When transfers over shared resources end: the network by itself, without a run."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import simpy

from covsim.world.network import Network, NetworkSettings, Path


@dataclass(frozen=True)
class Flow:
    """A transfer to be made.

    Attributes:
        path: what it takes, all at once.
        num_bytes: its size.
        starts_s: when it is asked for.
        latency_s: how long until its first byte flows.
    """

    path: Path
    num_bytes: float
    starts_s: float = 0.0
    latency_s: float = 0.0


def finish_times(flows: Sequence[Flow]) -> list[float]:
    """The second at which each flow is complete, in the order given.

    Raises ValueError for a size, a start or a latency that is negative.
    """
    env = simpy.Environment()
    network = Network(env, NetworkSettings())
    ended = [math.nan] * len(flows)
    for number, flow in enumerate(flows):
        env.process(_send(network, flow, number, ended))
    env.run()
    return ended


def _send(network: Network, flow: Flow, number: int, ended: list[float]) -> Generator[simpy.Event, Any, None]:
    yield network.env.timeout(flow.starts_s)
    yield network.transfer(flow.path, flow.num_bytes, flow.latency_s).done
    ended[number] = network.env.now
