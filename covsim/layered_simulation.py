"""The composition root of a layer-level timeline: peers, their links and what they exchange, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import simpy

from covsim.events import Event, NodeJoined, RunStopped, WindowOpened
from covsim.nodes.layered import Exchanges, LayeredPeer, LayerPlan
from covsim.scenario.population import PeerSpec, population
from covsim.scenario.schema import Scenario
from covsim.world.layers import FifoLink, Layered, Segments
from covsim.world.network import Network, Resource

Emit = Callable[[Event], None]


class LayeredSimulation:
    """One execution of a scenario whose timeline is layered.

    Args:
        scenario: what to run.
        observers: called with every event, in order.
    """

    def __init__(self, scenario: Scenario, observers: Sequence[Emit] = ()) -> None:
        self.scenario = scenario
        self.env = simpy.Environment()
        self.plan = LayerPlan.of(scenario)
        self._observers = tuple(observers)
        self._network = Network(self.env, scenario.network)
        self._rounds_begun = 0
        specs = population(scenario)
        exchanges = Exchanges(self.env, len(specs))
        self._running = [self.env.process(self._peer(spec, exchanges).run()) for spec in specs]

    def run(self, interrupted: Callable[[], bool] = lambda: False) -> bool:
        """Let everything happen; False if it was interrupted on the way."""
        everybody = simpy.AllOf(self.env, self._running)
        while not everybody.processed:
            if interrupted():
                return False
            self.env.step()
        self._emit(RunStopped(self.env.now, self.plan.num_rounds, "rounds"))
        return True

    def _peer(self, spec: PeerSpec, exchanges: Exchanges) -> LayeredPeer:
        scenario, timeline = self.scenario, self.scenario.timeline
        assert isinstance(timeline, Layered)
        step_s = scenario.inner_step_s / spec.speed
        links = spec.uplink_bits_per_s, spec.downlink_bits_per_s
        node = f"peer:{spec.uid}"
        self._emit(NodeJoined(0.0, node, spec.uid, spec.cohort, spec.behavior.kind, *links, step_s))
        path = Resource(f"{node} up", links[0]), Resource(f"{node} down", links[1])
        return LayeredPeer(
            env=self.env,
            uid=spec.uid,
            segments=Segments.of(step_s, self.plan.num_layers, timeline.forward_share),
            plan=self.plan,
            link=FifoLink(self._network, path, scenario.network.latency),
            exchanges=exchanges,
            begins=self._begins,
            emit=self._emit,
        )

    def _begins(self, round: int) -> None:
        """Somebody begins a round; with the first of all, the window in which the round's bytes count opens."""
        if round == self._rounds_begun:
            self._rounds_begun += 1
            self._emit(WindowOpened(self.env.now, round + 1, round))

    def _emit(self, event: Event) -> None:
        for observer in self._observers:
            observer(event)
