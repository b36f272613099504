"""One node as a process: the very code of a simulation's peer or validator, on the wall clock and over real requests.

python -m covsim.emulation.node FOLDER NAME HOST PORT STORE_URL BUCKET PREFIX [--standby]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import simpy
import torch

from covsim.emulation.carrier import Carrier, Place
from covsim.emulation.control import Caller, Lost
from covsim.emulation.driver import Driver, WallClock
from covsim.emulation.dying import die_with_parent
from covsim.emulation.early import EarlyBehavior, EarlyTrainer, Effort, Foresight
from covsim.emulation.remote import (
    RemoteBoard,
    RemoteChain,
    RemoteSamples,
    RemoteShelf,
    SharedConspiracy,
    lineage_bytes,
)
from covsim.emulation.s3_store import S3Store
from covsim.events import Event, HeldOutMeasured, NodeJoined, TaskMeasured
from covsim.gauntlet.sync import sample_positions
from covsim.learning.trainer import Trainer
from covsim.nodes.commons import Commons
from covsim.nodes.conspiracy import Conspiracy
from covsim.nodes.encoder import Encoder
from covsim.nodes.examination import Examination, held_out_loss
from covsim.nodes.faulting import Interrupted
from covsim.nodes.mishaps import Mishap, Mishaps
from covsim.nodes.pace import Pace
from covsim.nodes.peer import Peer
from covsim.nodes.purse import Purses
from covsim.nodes.roster import Roster
from covsim.nodes.seam import Computed
from covsim.nodes.trained import trained_learning
from covsim.nodes.validator import Validator
from covsim.protocol.lineage import Lineage
from covsim.randomness import Streams
from covsim.scenario import Scenario, load, population
from covsim.scenario.strikes import timeline_with_faults
from covsim.simulation import MAX_ROUNDS, charges_of, shelf_of
from covsim.world.clock import alarm
from covsim.world.network import Resource


class Node:
    """A process's share of a run.

    Args:
        scenario: what is run.
        name: `peer:<uid>` or `validator:<name>`.
        caller: makes the line to the chain process, given what takes pushed messages.
        carrier: of the store.
        standby: whether this process is to take a peer's place when it is told to.
    """

    def __init__(
        self,
        scenario: Scenario,
        name: str,
        caller: Callable[[Callable[[tuple[Any, ...]], None]], Caller],
        carrier: Carrier,
        standby: bool,
    ) -> None:
        self.scenario, self.name = scenario, name
        self.driver = Driver(simpy.Environment())
        self._caller = caller(self._told)
        self._silent = self._standby = standby
        self._begins_at_s = 0.0
        self._efforts: list[Effort] = []
        self._streams = Streams(scenario.seed)
        self._is_away = False
        self._spoiling: list[AbstractContextManager[None]] = []
        self._specs = population(scenario)
        self._build_commons(carrier)
        kind, _, label = name.partition(":")
        self.peer = self._build_peer(int(label)) if kind == "peer" else None
        self.validator = self._build_validator(label) if kind == "validator" else None

    # Construction ---------------------------------------------------------------------------------------------------

    def _build_commons(self, carrier: Carrier) -> None:
        scenario, env, caller, streams = self.scenario, self.driver.env, self._caller, self._streams
        clock = timeline_with_faults(scenario).clock(env)
        clock.on_open(self._window_opened)
        learning = self.learning = trained_learning(scenario, streams, replaying=False)
        trainer = self._trainer = EarlyTrainer(cast(Trainer, learning.trainer), self._efforts.append)
        own_uid = int(self.name.partition(":")[2]) if self.name.startswith("peer:") else None
        shelf = self._shelf = RemoteShelf(caller, shelf_of(scenario, learning.lineages.root))
        self._conspiracy = SharedConspiracy(caller, env, self._specs, own_uid)
        self._store = S3Store(
            self.driver,
            carrier,
            scenario.store,
            scenario.emulation.bytes_per_byte,
            scenario.timeline.poll,
            streams,
            self.emit,
            checkpoint=lambda: lineage_bytes(self.lineage),
            on_checkpoint=shelf.take,
        )
        places = sample_positions(
            tuple(scenario.model.shapes.values()),
            scenario.gauntlet.sync.samples_per_tensor,
            streams.numpy("sync sample"),
        )
        plan = learning.exchange.plan
        remote: dict[str, Any] = {
            "store": self._store,
            "board": RemoteBoard(caller),
            "samples": RemoteSamples(caller, torch.from_numpy(places)),
            "shelf": shelf,
            "chain": RemoteChain(caller, env, clock, scenario.chain),
            "conspiracy": cast(Conspiracy, self._conspiracy),
        }
        self.commons = Commons(
            env=env,
            clock=clock,
            roster=Roster(self._specs, first_free=scenario.peers),
            purses=Purses(scenario.economics, scenario.planned_rounds),
            streams=streams,
            seam=Computed(),
            trainer=trainer,
            encoder=Encoder(trainer, learning.exchange),
            exchange=learning.exchange,
            lineages=learning.lineages,
            charges=charges_of(scenario, learning.exchange.regular_bytes),
            emit=self.emit,
            inner_steps=plan.inner_steps,
            tokens_per_step=scenario.tokens_per_step,
            num_rounds=scenario.stop.rounds or MAX_ROUNDS,
            poll_s=scenario.timeline.poll * 1e-6,  # the store itself polls
            gather_timeout_s=scenario.timeline.gather_timeout,
            trusts_reserves=scenario.gauntlet.quirks.reserve_unchecked,
            trusts_everybody=scenario.gauntlet.past.partial_unchecked,
            quorum=scenario.selection.quorum,
            leader=scenario.validators_by_stake[0],
            own_sequences=scenario.gauntlet.own_sequences,
            mishaps=Mishaps(),
            **remote,
        )

    def _build_peer(self, uid: int) -> Peer:
        spec = next(spec for spec in self._specs if spec.uid == uid)
        pace = Pace.of(self.scenario, spec, self._streams)
        foresight = Foresight(self.commons, pace, self._trainer)
        return Peer(self.commons, replace(spec, behavior=EarlyBehavior.of(spec.behavior, foresight)), pace)

    def _build_validator(self, label: str) -> Validator:
        scenario, settings = self.scenario, self.scenario.validators[label]
        examination = self._examination()
        behavior = Interrupted.of(settings.behavior, lambda: self._is_away) if scenario.faults else settings.behavior
        return Validator(
            self.commons,
            examination,
            label,
            behavior,
            scenario.validators_by_stake.index(label),
            (Resource(f"{self.name} up", settings.uplink), Resource(f"{self.name} down", settings.downlink)),
            lineages=dict,  # it sees no theta but its own, so how far others are behind stays unknown
            colleagues=lambda: [self.validator] if self.validator is not None else [],
        )

    def _examination(self) -> Examination:
        scenario, roster = self.scenario, self.commons.roster
        return Examination(
            measures=self.learning.measures,
            rules=scenario.gauntlet,
            selection=scenario.selection,
            held_out_every=scenario.data.held_out_every,
            honest=roster.honest,
            cohorts=roster.cohorts,
            judge_of=self.learning.judge_of,
        )

    # Running --------------------------------------------------------------------------------------------------------

    @property
    def lineage(self) -> Lineage:
        """The history that the node is on."""
        node = self.peer or self.validator
        assert node is not None
        return node.lineage

    def run(self) -> None:
        """Announce the node, wait for the start, play to the end, and stay until told that it is over."""
        node = self.peer or self.validator
        assert node is not None
        if not self._standby:
            self._announce()
        self._caller.tell("report", self.name, "standby" if self._standby else "ready", os.getpid())
        self.driver.wait()
        if self.driver.clock is None:
            return
        self.driver.env.process(self._life(node))
        self.driver.run()

    def _life(self, node: Peer | Validator) -> Any:
        yield alarm(self.driver.env, self._begins_at_s)
        if self.peer is not None and self._standby:
            self.driver.most_lag_s = 0.0  # until now it has run after the time
            self.peer.crash()  # as everybody knows by now
            self._silent = False
            self.peer.come_back()
        yield from node.run()
        self._caller.tell("report", self.name, "done", self._numbers())

    def _announce(self) -> None:
        if self.peer is not None:
            if self.peer.takes_part:
                self.peer.announce()
            return
        assert self.validator is not None
        settings = self.scenario.validators[self.validator.label]
        self.emit(NodeJoined(0.0, self.name, -1, "validators", "validator", settings.uplink, settings.downlink, 0.0))

    def emit(self, event: Event) -> None:
        """Tell whoever watches the run."""
        if not self._silent:
            self._caller.tell("event", event)

    def _numbers(self) -> dict[str, Any]:
        """How well the process has kept up."""
        return {
            "most_lag_s": self.driver.most_lag_s,
            "most_lag_at_s": self.driver.most_lag_at_s,
            "training_wall_s": self._trainer.wall_s,
            "efforts": [(effort.round, effort.work_s, effort.waited_s) for effort in self._efforts],
            "lineage": self.lineage.key,
        }

    def _window_opened(self, window: int) -> None:
        node = self.peer or self.validator
        if node is None:
            return
        commons, needed = self.commons, node.oldest_wanted - 1
        commons.decoded.forget_before(needed)
        self._conspiracy.forget_before(needed + 1)
        self._store.forget_before(needed)

    # What it is told ------------------------------------------------------------------------------------------------

    def _told(self, message: tuple[Any, ...]) -> None:
        """A message has come, in the thread of the line."""
        if message[0] == "lost":
            os._exit(1)  # nobody is left to whom anything could be said
        self.driver.inject(lambda: self._obey(*message))

    def _obey(self, kind: str, *content: Any) -> None:
        if kind == "start":
            self.driver.clock = content[0]
        elif kind == "begin":
            self._take_over(*content)
        elif kind == "said":
            self._conspiracy.hear(*content)
        elif kind == "away":
            self._is_away = bool(content[0])
        elif kind == "mishap":
            self._spoil(*content)
        elif kind == "cut_off":
            self._cut_off(*content)
        elif kind == "first_list":
            self._publish_first_list()
        elif kind == "measure":
            self._measure(*content)
        elif kind == "stand":
            self._caller.tell("report", self.name, "stands", self._numbers())
        elif kind == "over":
            self.driver.stop()
        else:
            raise AssertionError(f"{self.name} is told something strange: {kind}")

    def _take_over(self, clock: WallClock, round: int) -> None:
        """Be from now on the peer whose process was killed in a round."""
        assert self.peer is not None
        self._caller.call("take_over", self.name)
        self.driver.clock, self._begins_at_s = clock, clock.now_s()
        self.peer.body.round = round

    def _spoil(self, mishap: Mishap, begins: bool) -> None:
        assert self.peer is not None
        if begins:
            self._spoiling.append(self.commons.mishaps.spoiling([self.peer.uid], mishap))
            self._spoiling[-1].__enter__()
        else:
            self._spoiling.pop().__exit__(None, None, None)

    def _cut_off(self, directions: list[str], is_cut: bool) -> None:
        assert self.peer is not None
        self._store.sees = not is_cut or "down" not in directions
        links = [link for link, way in ((self.peer.uplink, "up"), (self.peer.downlink, "down")) if way in directions]
        if not is_cut:
            self._store.conditions.mend(links)
            return
        self._store.conditions.cut(links)
        for link in links:
            self._store.cut(link)

    def _publish_first_list(self) -> None:
        """What the leader does before the start."""
        assert self.validator is not None
        self.validator.publish_first_list()
        root = self.learning.lineages.root
        loss = held_out_loss(self.commons, self._examination(), root, "initial")
        self.emit(HeldOutMeasured(0.0, self.name, -1, root.key, loss))
        self._caller.tell("report", self.name, "listed", None)

    def _measure(self, last_round: int, time_s: float, with_tasks: bool) -> None:
        """The end of a run: the loss of this node's theta, and what else the leader is asked."""
        self._store.cut_all()
        lineage, measures = self.lineage, self.learning.measures
        loss = held_out_loss(self.commons, self._examination(), lineage, f"final {lineage.key}")
        self.emit(HeldOutMeasured(time_s, self.name, last_round, lineage.key, loss))
        if with_tasks:
            for task in self.scenario.tasks:
                accuracy = measures.accuracy(task, lineage)
                self.emit(TaskMeasured(time_s, self.name, last_round, task.kind, accuracy))
        content = self.learning.content(lineage)
        self._caller.tell("report", self.name, "measured", (loss, content))


def main() -> None:
    """Play a node's part until the run is over or the line is lost."""
    parser = argparse.ArgumentParser()
    for name in ("folder", "name", "host", "port", "endpoint", "bucket", "prefix"):
        parser.add_argument(name)
    parser.add_argument("--standby", action="store_true")
    given = parser.parse_args()
    die_with_parent()
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    folder = Path(given.folder)
    scenario = load(folder / "resolved.yaml")
    key = bytes.fromhex((folder / "control.key").read_text(encoding="ascii"))
    place = Place(given.endpoint or None, given.bucket, given.prefix, scenario.emulation.store == "local")
    node = Node(
        scenario,
        given.name,
        lambda told: Caller((given.host, int(given.port)), key, given.name + "+" * given.standby, told),
        Carrier(place, patience_s=5.0),
        given.standby,
    )
    try:
        node.run()
    except Lost:
        os._exit(1)


if __name__ == "__main__":
    main()
