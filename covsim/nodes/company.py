"""All peers of a run as one company: their rounds are worked out together, window by window, without a process each.

    a window opens      who waits for it begins its round; payloads of the round before are made, all in one batch, and
                        the ends of their uploads are known
    the lot is known    when the last listed payload lies in the store or was given up: the end of every gather is
                        known, outer steps are taken, rounds are settled, and the next ones begin

Objects come to lie in the store one by one where somebody watches for them (those on the list, its reserve, and late
ones), and all others just before the put window closes, when validators look. What players write lies in the backlog
until its time. `compute.rounds: together` asks for this; `scenario.bundling` says when it can be had.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from simpy.events import URGENT

from covsim.nodes.board import GatherList
from covsim.nodes.bundles import Bundles, Lot
from covsim.nodes.commons import Commons
from covsim.nodes.encoder import Ticket
from covsim.nodes.player import Came, Outcome, Player, Wish
from covsim.unserved import Unserved
from covsim.world.clock import alarm, on_event
from covsim.world.store import StoredObject


class Company:
    """Plays the rounds of all its players.

    Args:
        commons: the run's.
        bundles: what there is to gather.
        players: all peers, by uid.
        are_done: is told that so many of them are done with a round, at the time at which the last of them is.
    """

    def __init__(
        self, commons: Commons, bundles: Bundles, players: Sequence[Player], are_done: Callable[[int, int], None]
    ) -> None:
        self._commons, self._bundles, self._players, self._are_done = commons, bundles, players, are_done
        self._waiting: dict[int, list[Player]] = defaultdict(list)  # for a window to open, by the round they will play
        self._tickets: dict[int, list[tuple[Player, Ticket]]] = defaultdict(list)  # by round
        self._gathering: dict[int, list[Player]] = defaultdict(list)  # by round
        self._wanted: dict[int, GatherList] = {}  # the list of the window that is open, by round
        self._num_done: dict[int, int] = defaultdict(int)  # by round
        self._done_s: dict[int, float] = defaultdict(float)  # by round, when the last of them was

    def start(self) -> None:
        """Begin round 0 with everybody, and go on with every window that opens."""
        for player in self._players:
            self._ask(player, player.begin())
        self._commons.clock.on_open(self._open)

    def _open(self, window: int) -> None:
        """A window opens: the payloads of the round before are due, and those who waited for it begin."""
        for player in self._waiting.pop(window, ()):
            self._ask(player, player.begin())
        round = window - 1
        for earlier, listed in self._wanted.items():
            self._check_list(earlier, listed)
        wanted = self._commons.board.in_force(window)
        self._wanted = {round: wanted}
        self._make_payloads(round)
        if round in self._gathering:
            lot = self._bundles.lot(round, wanted)
            on_event(lot.known, lambda _: self._gather(round, wanted, lot))
        self._deliver(round)

    def _ask(self, player: Player, asked: Ticket | Wish | None) -> None:
        """Note what a player asks for; who is done with a round begins the next, if its window is open."""
        while asked is None:
            self._note_done(player)
            if player.round >= self._commons.num_rounds:
                return
            if self._commons.clock.opens_at(player.round) > self._commons.env.now:
                self._waiting[player.round].append(player)
                return
            asked = player.begin()
        if isinstance(asked, Ticket):
            self._tickets[player.round].append((player, asked))
        else:
            self._gathering[player.round].append(player)

    # Payloads -------------------------------------------------------------------------------------------------------

    def _make_payloads(self, round: int) -> None:
        """Answer all who ask for payloads of a round, until nobody does."""
        commons = self._commons
        while asked := self._tickets.pop(round, None):
            for _, ticket in asked:
                commons.encoder.open(ticket)
            for player, ticket in asked:
                label = f"{'payload' if ticket.feedback else 'encode'} uid={ticket.uid} round={round}"
                payload = commons.seam.payload(label, lambda ticket=ticket: commons.encoder.encode(ticket))  # type: ignore[misc]
                commons.encoder.close(ticket)
                self._ask(player, player.play(payload))

    def _deliver(self, round: int) -> None:
        """Bring uploads into the store, each in time for whoever may look for it."""
        env, clock = self._commons.env, self._commons.clock
        wanted, closes_s = self._commons.board.in_force(round + 1), clock.put_closes_at(round + 1)
        watched = {*wanted.selected, *wanted.reserve}
        unwatched: list[StoredObject] = []
        for player in self._players:
            if not player.uploads:
                continue
            for stored in player.uploads:
                if player.uid in watched or stored.stored_s >= closes_s:
                    on_event(alarm(env, stored.stored_s), lambda _, stored=stored: self._land([stored]))  # type: ignore[misc]
                else:
                    unwatched.append(stored)
            player.uploads = []
        if not unwatched:
            return
        unwatched.sort(key=lambda stored: stored.stored_s)
        on_event(alarm(env, closes_s, URGENT), lambda _: self._land(unwatched))

    def _land(self, objects: Sequence[StoredObject]) -> None:
        for stored in objects:
            self._commons.store.lies_here(stored)

    # Gathers --------------------------------------------------------------------------------------------------------

    def _gather(self, round: int, wanted: GatherList, lot: Lot) -> None:
        """Everybody's gather of a round, now that the lot is known."""
        while players := self._gathering.pop(round, None):
            for player, came in zip(players, self._came(wanted, lot, players), strict=True):
                self._ask(player, player.play(came))
            self._make_payloads(round)  # of scripts that send something after the gather
            self._deliver(round)

    def _check_list(self, round: int, wanted: GatherList) -> None:
        """Raise Unserved if another list came into force while the window of a round's payloads was open."""
        if self._commons.board.in_force(round + 1) is not wanted:
            raise Unserved(
                f"the gather list of window {round + 1} changed while it was open, and compute.rounds: together "
                "follows one list a window; take compute.rounds: single"
            )

    def _came(self, wanted: GatherList, lot: Lot, players: Sequence[Player]) -> list[Came]:
        """What came of each player's gather."""
        commons, known_s = self._commons, self._commons.env.now
        began_s = np.array([player.now_s for player in players])
        rates = np.array([player.downlink.capacity_bits_per_s for player in players]) / 8
        ends_s, idle_s, num_bytes = self._bundles.ends(lot, rates, began_s, np.array([each.uid for each in players]))
        until_s = began_s + commons.gather_timeout_s
        aborted = ends_s > until_s
        num_bytes[aborted] *= np.maximum(0.0, until_s - began_s)[aborted] / (ends_s - began_s)[aborted]
        over_s = np.where(aborted, until_s, np.maximum(ends_s, np.maximum(known_s, began_s)))
        outcomes = []
        for cut in (False, True):
            entered, word = self._bundles.came_of(lot, wanted, cut)
            outcomes.append(Outcome(word, entered, lot.uids if entered else (), lot.given_up, lot.next_reserve))
        columns = (over_s.tolist(), idle_s.tolist(), num_bytes.tolist(), aborted.tolist())
        return [Came(*values, outcomes[values[3]]) for values in zip(*columns, strict=True)]

    # Rounds ---------------------------------------------------------------------------------------------------------

    def _note_done(self, player: Player) -> None:
        """A player is done with its rounds until the one that it plays next."""
        for round in range(player.last_played, player.round):
            self._num_done[round] += 1
            self._done_s[round] = max(self._done_s[round], player.now_s)
            if self._num_done[round] == len(self._players):
                self._tell_done(round)

    def _tell_done(self, round: int) -> None:
        env, num = self._commons.env, self._num_done.pop(round)
        on_event(alarm(env, max(env.now, self._done_s.pop(round))), lambda _: self._are_done(round, num))
