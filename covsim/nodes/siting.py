"""Where nodes are and how their links vary: what a scenario says of its cohorts and validators, told to the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import simpy

from covsim.events import Event, LinkVaried
from covsim.nodes.peer import Peer
from covsim.nodes.player import Player
from covsim.nodes.validator import Validator
from covsim.randomness import Streams
from covsim.scenario.schema import Scenario
from covsim.scenario.sections import Cohort, ValidatorNode
from covsim.world.links import LinkRates, Told
from covsim.world.network import Network


class Siting:
    """Tells a network of the nodes of a scenario.

    A peer's links keep their place and course whatever its uid becomes; a course is drawn from the stream `("uplink
    varies", uid)` or `("downlink varies", uid)`, with the uid that the peer has at the start, or a validator's name.

    Attributes:
        rates: what the links carry; faults change it, too.
    """

    def __init__(
        self,
        scenario: Scenario,
        env: simpy.Environment,
        network: Network,
        streams: Streams,
        emit: Callable[[Event], None],
    ) -> None:
        self.rates = LinkRates(env, network)
        self._scenario, self._network, self._streams = scenario, network, streams
        self._env, self._emit = env, emit

    def of_peers(self, peers: Sequence[Peer | Player]) -> None:
        """Place the links of peers."""
        for peer in peers:
            self._place(self._scenario.cohorts[peer.spec.cohort], peer.spec.uid, peer)

    def of_validators(self, validators: Sequence[Validator]) -> None:
        """Place the links of validators."""
        for validator in validators:
            settings = self._scenario.validators[validator.label]
            self._place(settings, validator.label, validator)

    def _place(self, settings: Cohort | ValidatorNode, who: int | str, node: Peer | Player | Validator) -> None:
        for link, direction, variation in (
            (node.uplink, "up", settings.uplink_varies),
            (node.downlink, "down", settings.downlink_varies),
        ):
            self._network.ways.place(link, settings.region)
            if variation is not None:
                generator = self._streams.numpy(f"{direction}link varies", who)
                course = variation.course(link.capacity_bits_per_s, generator)
                self.rates.vary(link, course, self._tells(node, direction))

    def _tells(self, node: Peer | Player | Validator, direction: str) -> Told:
        """Says what a link of a node carries from now on, under the name that the node has by then."""

        def tell(bits_per_s: float, until_s: float) -> None:
            self._emit(LinkVaried(float(self._env.now), node.name, direction, bits_per_s, until_s))

        return tell
