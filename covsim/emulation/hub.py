"""The chain process: keeps the block clock, the chain and what is public, and passes on what processes tell each other.

Everybody has one line to it. What is asked of it happens in its loop, behind all blocks that were due by then. Events
go to whoever watches; what is pushed goes to all nodes, or to one.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Listener
from pathlib import Path
from typing import Any

import simpy

from covsim.chain.ledger import Sealed
from covsim.emulation.control import Line, Lost
from covsim.emulation.driver import Driver, WallClock
from covsim.emulation.dying import die_with_parent
from covsim.events import Event, WindowOpened
from covsim.nodes.board import Board
from covsim.nodes.chain_node import ChainNode, Member
from covsim.randomness import Streams
from covsim.scenario import Scenario, load
from covsim.scenario.strikes import timeline_with_faults

WATCHER = "watcher"


class Hub:
    """What all processes share.

    Args:
        scenario: gives the chain its settings, and the clock its timeline.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.driver = Driver(simpy.Environment())
        self._lines: dict[str, Line] = {}
        env = self.driver.env
        self._clock = timeline_with_faults(scenario).clock(env)
        self._clock.on_open(self._opened)
        self._chain = ChainNode(env, self._clock, scenario.chain, Streams(scenario.seed), self._emit)
        self._unreachable: set[str] = set()
        self._chain.reachable = lambda node: node not in self._unreachable
        self._board = Board()
        self._samples: dict[tuple[int, int], tuple[Any, ...]] = {}
        self._checkpoint: tuple[Any, ...] | None = None
        chain, board = self._chain, self._board
        self._methods: dict[str, Callable[..., Any]] = {
            "chain.found": chain.found,
            "chain.register": chain.register,
            "chain.is_registered": chain.is_registered,
            "chain.peers": lambda: chain.peers,
            "chain.submit": chain.submit,
            "chain.may_set_weights": chain.may_set_weights,
            "chain.set_weights": chain.set_weights,
            "chain.weights_of_others": chain.weights_of_others,
            "chain.epochs": lambda: chain.chain.epochs[-1:],
            "chain.set_unreachable": self._set_unreachable,
            "chain.close": self._close_chain,
            "board.publish": board.publish,
            "board.in_force": board.in_force,
            "board.last_round": lambda: board.last_round,
            "samples.publish": self._publish_sample,
            "samples.of": lambda *of_round_and_uid: self._samples.get(of_round_and_uid),
            "shelf.newest": lambda: self._checkpoint,
            "shelf.add": self._add_checkpoint,
            "push": self._push,
            "start": self._start,
        }

    # The control network --------------------------------------------------------------------------------------------

    def listen(self, listener: Listener) -> None:
        """Take up everybody who knows the run's key, for ever; the body of a thread."""
        while True:
            try:
                line = Line(listener.accept())
            except Exception:  # somebody who does not know the key, or who was gone again
                continue
            threading.Thread(target=self._serve, args=(line,), daemon=True).start()

    def _serve(self, line: Line) -> None:
        name = ""
        try:
            _, name = line.receive()
            self._lines[name] = line
            self._tell_watcher("joined", name)
            while True:
                self._take(line, *line.receive())
        except Lost:
            if self._lines.get(name) is line:
                del self._lines[name]
            self._tell_watcher("left", name)
            if name == WATCHER:  # nobody is left for whom it would be
                self.driver.inject(self.driver.stop)

    def _take(self, line: Line, kind: str, method: str, arguments: tuple[Any, ...]) -> None:
        if method == "event":
            self._tell_watcher("event", *arguments)
        elif method == "report":
            self._tell_watcher("report", *arguments)
        elif method == "take_over":  # the process of a node was killed, and this is the next
            self._lines[arguments[0]] = line
            line.send("answer", True, None)
        else:
            answer = line if kind == "call" else None
            self.driver.inject(lambda: self._do(answer, method, arguments))

    def _do(self, line: Line | None, method: str, arguments: tuple[Any, ...]) -> None:
        answer: tuple[bool, Any]
        try:
            answer = True, self._methods[method](*arguments)
        except Exception as problem:  # it is the caller's to see to
            answer = False, problem
        try:
            if line is not None:
                line.send("answer", *answer)
            elif not answer[0]:
                raise answer[1]
        except Lost:
            return

    def _push(self, to: str | None, *message: Any) -> None:
        lines = [line for name, line in self._lines.items() if (name == to if to else name != WATCHER)]
        for line in lines:
            try:
                line.send(*message)
            except Lost:
                continue

    def _tell_watcher(self, *message: Any) -> None:
        line = self._lines.get(WATCHER)
        if line is not None:
            try:
                line.send(*message)
            except Lost:
                return

    def _emit(self, event: Event) -> None:
        self._tell_watcher("event", event)

    # What is shared -------------------------------------------------------------------------------------------------

    def _start(self, clock: WallClock) -> None:
        self.driver.clock = clock
        self.driver.env.process(self._chain.run())
        self._push(None, "start", clock)

    def _opened(self, window: int) -> None:
        self._emit(WindowOpened(self.driver.env.now, window, self._clock.first_block(window)))

    def _set_unreachable(self, node: str, is_cut: bool) -> None:
        if is_cut:
            self._unreachable.add(node)
        else:
            self._unreachable.discard(node)
            self._chain.hear_again()

    def _publish_sample(self, round: int, uid: int, *sample: Any) -> None:
        self._samples[round, uid] = sample

    def _add_checkpoint(self, round: int, *rest: Any) -> None:
        if self._checkpoint is None or round > self._checkpoint[0]:
            self._checkpoint = (round, *rest)

    def _close_chain(self, node: str, call: Any) -> list[Sealed]:
        """The end of a run: seal its last words, and hand out all blocks."""
        self._chain.submit(node, call)
        self._chain.close()
        return list(self._chain.chain.blocks)


def members_of(scenario: Scenario, peers: list[int]) -> list[Member]:
    """Everybody who has a slot from the start, in the order of a simulation."""
    validators = [
        Member(f"validator:{name}", -1, "validator", scenario.validators[name].stake)
        for name in scenario.validators_by_stake
    ]
    return [*(Member(f"peer:{uid}", uid, "peer") for uid in peers), *validators]


def main(folder: Path, host: str) -> None:
    """Serve the run in a folder, at an address of this machine, until its watcher is gone."""
    die_with_parent()
    hub = Hub(load(folder / "resolved.yaml"))
    key = bytes.fromhex((folder / "control.key").read_text(encoding="ascii"))
    with Listener((host, 0), backlog=64, authkey=key) as listener:
        threading.Thread(target=hub.listen, args=(listener,), daemon=True).start()
        print(json.dumps({"port": listener.address[1]}), flush=True)
        hub.driver.wait()
        if hub.driver.clock is not None:
            hub.driver.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
