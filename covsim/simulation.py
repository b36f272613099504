"""The composition root: builds every part of a scenario, connects them, and lets the clock run.

Nothing here decides anything about the protocol; to see what happens in a round, read `behaviors/honest.py`, then
`nodes/body.py` and `nodes/peer.py`, then `nodes/validator.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import simpy
from torch import Tensor

from covsim.behaviors.base import ValidatorBehavior
from covsim.chain.extrinsics import CloseRun
from covsim.chain.signatures import Signatures
from covsim.events import (
    HeldOutMeasured,
    NodeJoined,
    RunStopped,
    TaskMeasured,
    WindowOpened,
)
from covsim.learning.tasks import Task
from covsim.nodes.board import Board, SyncSamples
from covsim.nodes.bundles import Bundles
from covsim.nodes.chain_node import ChainNode, Member
from covsim.nodes.collective import Collectives
from covsim.nodes.commons import Charges, Commons, round_of_key
from covsim.nodes.company import Company
from covsim.nodes.conspiracy import Conspiracy
from covsim.nodes.encoder import Encoder
from covsim.nodes.examination import Examination, held_out_loss
from covsim.nodes.faulting import Faulting
from covsim.nodes.learning import Learning
from covsim.nodes.mishaps import Mishaps
from covsim.nodes.pace import Pace
from covsim.nodes.peer import Peer
from covsim.nodes.player import Player, Rows
from covsim.nodes.purse import Purses
from covsim.nodes.roster import Roster
from covsim.nodes.seam import Seam
from covsim.nodes.shelf import Shelf
from covsim.nodes.siting import Siting
from covsim.nodes.stop_watch import StopWatch
from covsim.nodes.synthetic import synthetic_learning
from covsim.nodes.trained import trained_learning
from covsim.nodes.validator import Validator
from covsim.observing import Backlog, Observer, Observers, Sorted
from covsim.protocol.lineage import Lineage
from covsim.randomness import Streams
from covsim.scenario.deployment import BYTES_PER_PARAMETER, num_parameters
from covsim.scenario.learning import Synthetic
from covsim.scenario.population import population
from covsim.scenario.schema import Scenario
from covsim.scenario.strikes import Strikes, timeline_with_faults
from covsim.world.clock import Clock
from covsim.world.network import Network, Resource
from covsim.world.store import ObjectStore

MAX_ROUNDS = 100_000
"""Nobody plays more rounds than this, whatever a scenario's other ends are."""


class Simulation:
    """One execution of a scenario.

    Args:
        scenario: what to run.
        seam: answers the clock's questions to the tensors; `nodes.seam.Computed()` keeps no tape.
        observers: see every event, in order.
        learning: what answers for training instead of what the scenario says: the records of an earlier run.
        signatures: what accounts have signed before, where many executions say the same and no ledger is written.
    """

    def __init__(
        self,
        scenario: Scenario,
        seam: Seam,
        observers: Sequence[Observer | Sorted] = (),
        learning: Learning | None = None,
        signatures: Signatures | None = None,
    ) -> None:
        self.scenario = scenario
        self.env = simpy.Environment()
        self.num_steps = 0
        self._specs = population(scenario)
        self._stop = StopWatch(scenario, self._specs, self.env)
        self.purses = Purses(scenario.economics, scenario.planned_rounds)
        own: list[Observer | Sorted] = [self._stop]
        if any(cohort.membership.reads_profits for cohort in scenario.cohorts.values()):
            own.append(self.purses)
        self._backlog: Backlog | None = None
        if scenario.compute.rounds == "together":
            self._backlog = Backlog(Observers(observers), acting=Observers(own))
        self._emit = self._backlog.emit if self._backlog else Observers((*observers, *own)).emit
        self._streams = Streams(scenario.seed)
        self._take_learning(learning or _learning(scenario, self._streams, seam.replaying))
        self._build_world(seam, signatures)
        self._build_nodes()
        self._announce()

    # Running --------------------------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """True when a stop condition is reached."""
        return self._stop.reason is not None

    @property
    def quiescent(self) -> bool:
        """True between two steps at which a checkpoint can be taken: no payload is half asked for."""
        return self._encoder.idle

    def step(self) -> None:
        """Let the next thing happen."""
        self.env.step()
        self.num_steps += 1

    def go_on(self, most_steps: int) -> None:
        """Let so many things happen one after the other, fewer if the run ends."""
        step, stop, steps = self.env.step, self._stop, 0
        while steps < most_steps and stop.reason is None:
            step()
            steps += 1
        self.num_steps += steps

    def finish(self, tape_sha256: Callable[[], str] = lambda: "") -> None:
        """Measure every lineage that is still alive, close the chain over the run, and announce the end.

        Args:
            tape_sha256: asked when the tensors have given their last answer; the chain keeps it.
        """
        assert self._stop.reason is not None
        self.commons.store.cut_all()
        if self._backlog is not None:
            self._backlog.end(self.env.now, included=self._stop.reason != "simulated")
        last = self._stop.rounds_settled - 1
        losses = {}
        for node, lineage in self._distinct_lineages().items():
            losses[node] = held_out_loss(self.commons, self._examination, lineage, f"final {lineage.key}")
            self._emit(HeldOutMeasured(self.env.now, node, last, lineage.key, losses[node]))
        for task in self.scenario.tasks:
            accuracy = self._accuracy(task)
            self._emit(TaskMeasured(self.env.now, self.lead.name, last, task.kind, accuracy))
        loss, theta = losses[self.lead.name], hashlib.sha256(self.final_content).hexdigest()
        end = CloseRun(theta, tape_sha256(), loss, self._stop.rounds_settled)
        self.commons.chain.submit(self.lead.name, end)
        self.commons.chain.close()
        self._emit(RunStopped(self.env.now, self._stop.rounds_settled, self._stop.reason))
        if self._backlog is not None:
            self._backlog.end(self.env.now)

    def _accuracy(self, task: Task) -> float:
        """How well the lead validator's theta does at a task, through the seam."""
        measures, lineage = self.learning.measures, self.lead.lineage
        return self.commons.seam.numbers(f"task {task.kind}", lambda: [measures.accuracy(task, lineage)])[0]

    @property
    def final_theta(self) -> Tensor:
        """The lead validator's parameters [N], of a run that trains."""
        theta: Tensor = self.lead.lineage.theta
        return theta

    @property
    def final_content(self) -> bytes:
        """The lead validator's parameters, as little-endian float32; without any, what names its history."""
        return self.learning.content(self.lead.lineage)

    @property
    def training_wall_s(self) -> float:
        """Wall-clock seconds spent in inner steps."""
        return self.trainer.wall_s

    # The tensors that a tape cannot rebuild -------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Moments, error buffers and the values of living updates, as plain data."""
        assert self.quiescent
        buffers = self.exchange.buffers
        return {"trainer": self.trainer.state(), "feedback": {} if buffers is None else buffers.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what `state` returned at this very step of an earlier execution."""
        self.trainer.restore(state["trainer"])
        if self.exchange.buffers is not None:
            self.exchange.buffers.restore(state["feedback"])

    # Construction ---------------------------------------------------------------------------------------------------

    def _take_learning(self, learning: Learning) -> None:
        self.learning = learning
        self.trainer, self.exchange, self.lineages = learning.trainer, learning.exchange, learning.lineages
        self.plan = self.exchange.plan
        self._encoder = Encoder(self.trainer, self.exchange)

    def _build_world(self, seam: Seam, signatures: Signatures | None) -> None:
        scenario = self.scenario
        clock = timeline_with_faults(scenario).clock(self.env)
        clock.on_open(lambda window: self._open_window(clock, window))
        network = self._network = Network(self.env, scenario.network)
        self.charges = charges_of(scenario, self.exchange.regular_bytes)
        self.commons = Commons(
            env=self.env,
            clock=clock,
            store=ObjectStore(self.env, network, scenario.store, self._streams, self._emit),
            board=Board(),
            samples=SyncSamples(),
            shelf=shelf_of(scenario, self.lineages.root),
            roster=Roster(self._specs, first_free=scenario.peers),
            chain=ChainNode(self.env, clock, scenario.chain, self._streams, self._emit, signatures),
            purses=self.purses,
            streams=self._streams,
            seam=seam,
            trainer=self.trainer,
            encoder=self._encoder,
            exchange=self.exchange,
            lineages=self.lineages,
            charges=self.charges,
            emit=self._emit,
            inner_steps=self.plan.inner_steps,
            tokens_per_step=scenario.tokens_per_step,
            num_rounds=scenario.stop.rounds or MAX_ROUNDS,
            poll_s=scenario.timeline.poll,
            gather_timeout_s=scenario.timeline.gather_timeout,
            trusts_reserves=scenario.gauntlet.quirks.reserve_unchecked,
            trusts_everybody=scenario.gauntlet.past.partial_unchecked,
            quorum=scenario.selection.quorum,
            conspiracy=Conspiracy(
                self.env, any(c.behavior.knowledge == "omniscient" for c in scenario.cohorts.values())
            ),
            leader=scenario.validators_by_stake[0],
            own_sequences=scenario.gauntlet.own_sequences,
            mishaps=Mishaps(),
        )

    def _build_nodes(self) -> None:
        scenario, commons = self.scenario, self.commons
        if scenario.topology.direct:
            commons.collectives = Collectives(commons, self._network, scenario.topology, scenario.adds_on_the_way)
        if scenario.compute.transfers == "bundled":
            commons.bundles = Bundles(commons, scenario.network.latency)
        self.peers, self._company = self._population(commons.bundles)
        strikes = Strikes(scenario, commons.clock.opens_at)
        siting = Siting(scenario, self.env, self._network, self._streams, self._emit)
        siting.of_peers(self.peers)
        struck = [peer for peer in self.peers if isinstance(peer, Peer)]
        faulting = Faulting(commons, siting.rates, strikes, struck) if scenario.faults else None
        self._examination = Examination(
            measures=self.learning.measures,
            rules=scenario.gauntlet,
            selection=scenario.selection,
            held_out_every=scenario.data.held_out_every,
            honest=commons.roster.honest,
            cohorts=commons.roster.cohorts,
            judge_of=self.learning.judge_of,
        )
        self.validators = [
            Validator(
                commons,
                self._examination,
                name,
                _as_faults_let(faulting, name, scenario.validators[name].behavior),
                rank,
                (
                    Resource(f"validator:{name} up", scenario.validators[name].uplink),
                    Resource(f"validator:{name} down", scenario.validators[name].downlink),
                ),
                lineages=self._distinct_lineages,
                colleagues=lambda: self.validators,
            )
            for rank, name in enumerate(scenario.validators_by_stake)
        ]
        siting.of_validators(self.validators)
        self.lead = self.validators[0]

    def _population(self, bundles: Bundles | None) -> tuple[Sequence[Peer | Player], Company | None]:
        """All peers, each a process of its own, or as one company."""
        commons, streams = self.commons, self._streams
        paces = [(spec, Pace.of(self.scenario, spec, streams)) for spec in self._specs]
        if self._backlog is None or bundles is None:
            return [Peer(commons, spec, pace) for spec, pace in paces], None
        rows, latency_s = Rows(self._backlog), self.scenario.network.latency
        players = [Player(commons, spec, pace, rows, latency_s) for spec, pace in paces]
        return players, Company(commons, bundles, players, self._stop.are_done)

    def _announce(self) -> None:
        """Say who takes part, publish the first list, measure where learning starts, and let everybody begin."""
        scenario = self.scenario
        for peer in self.peers:
            if peer.takes_part:
                peer.announce()
        for name, settings in scenario.validators.items():
            self._emit(
                NodeJoined(
                    0.0, f"validator:{name}", -1, "validators", "validator", settings.uplink, settings.downlink, 0.0
                )
            )
        self._found_the_chain()
        self.lead.publish_first_list()
        root = self.lineages.root
        loss = held_out_loss(self.commons, self._examination, root, "initial")
        self._emit(HeldOutMeasured(0.0, self.lead.name, -1, root.key, loss))
        if self._company is not None:
            self._company.start()
        for node in (*self.peers, *self.validators):
            if not isinstance(node, Player):
                self.env.process(node.run())
        self.env.process(self.commons.chain.run())

    def _found_the_chain(self) -> None:
        """Block 0: everybody who is there from the start has a slot."""
        peers = [peer.member for peer in self.peers if peer.takes_part]
        validators = [
            Member(validator.name, -1, "validator", self.scenario.validators[validator.label].stake)
            for validator in self.validators
        ]
        self.commons.chain.found([*peers, *validators])

    def _open_window(self, clock: Clock, window: int) -> None:
        if self._backlog is not None:
            self._backlog.show_before(self.env.now)
        self._emit(WindowOpened(self.env.now, window, clock.first_block(window)))
        commons = self.commons
        readers = [peer.oldest_wanted for peer in self.peers if peer.wants_payloads]
        needed = min([*readers, *(validator.oldest_wanted for validator in self.validators)]) - 1
        commons.decoded.forget_before(needed)
        if commons.bundles is not None:
            commons.bundles.forget_before(needed)
        commons.samples.forget_before(needed)
        commons.conspiracy.forget_before(needed + 1)
        kept = min(needed, commons.shelf.newest.round) if commons.shelf.wanted else needed
        if commons.collectives is not None:
            commons.collectives.forget_before(kept)
        commons.store.forget(lambda key: round_of_key(key) < kept)

    def _distinct_lineages(self) -> dict[str, Lineage]:
        """Every history that a node is on, under the name of the first such node; the leader's comes first."""
        nodes: list[Peer | Player | Validator] = [*self.validators, *(peer for peer in self.peers if peer.takes_part)]
        first: dict[str, Peer | Player | Validator] = {}
        for node in nodes:
            first.setdefault(node.lineage.key, node)
        return {node.name: node.lineage for node in first.values()}


def charges_of(scenario: Scenario, regular_model_bytes: float) -> Charges:
    """What the deployment charges for the model's payloads, whose regular length is given."""
    return Charges(regular_model_bytes, scenario.payload_bytes, scenario.deployment.evaluation)


def shelf_of(scenario: Scenario, root: Lineage) -> Shelf:
    """How often checkpoints are kept, and how large they are."""
    size = BYTES_PER_PARAMETER * num_parameters(scenario.charged_tensors)
    return Shelf(root, scenario.checkpoints.every, size, wanted=can_miss_rounds(scenario))


def can_miss_rounds(scenario: Scenario) -> bool:
    """Whether anybody may ever have to catch up."""
    peers = any(cohort.membership.catches_up for cohort in scenario.cohorts.values())
    validators = any(validator.behavior.catches_up for validator in scenario.validators.values())
    return peers or validators or any(fault.makes_catch_up for fault in scenario.faults)


def _as_faults_let(faulting: Faulting | None, name: str, behavior: ValidatorBehavior) -> ValidatorBehavior:
    """A validator's script, which it follows while no fault keeps it away."""
    return behavior if faulting is None else faulting.behavior_of(name, behavior)


def _learning(scenario: Scenario, streams: Streams, replaying: bool) -> Learning:
    """What the scenario says that learning is."""
    if isinstance(scenario.learning, Synthetic):
        return synthetic_learning(scenario, scenario.learning, streams)
    return trained_learning(scenario, streams, replaying)


def theta_sha256(theta: Tensor) -> str:
    """Of parameters [N], as little-endian float32."""
    return hashlib.sha256(theta.cpu().numpy().astype("<f4").tobytes()).hexdigest()
