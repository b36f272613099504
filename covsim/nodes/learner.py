"""What a peer knows, says and learns, whatever moves its clock: the verbs of `PeerVerbs` that cost nothing."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, MutableMapping, Sequence
from functools import lru_cache
from typing import Any, cast

from covsim.behaviors.base import Batches, Scalar, Update
from covsim.learning import corpus
from covsim.learning import update as lazy
from covsim.nodes.board import SyncSample
from covsim.nodes.chain_node import peer_name
from covsim.nodes.commons import Commons, own_sample
from covsim.nodes.pace import Pace, Work
from covsim.protocol.base import Claims, InvalidPayload
from covsim.protocol.forgery import FLAWS, LEFT_OUT, Flaw
from covsim.protocol.lineage import Lineage
from covsim.world.slow import Stint


class Learner(ABC):
    """A peer but for its clock: `Body` lives on that of the simulation, `Player` keeps its own.

    Args:
        uid: its name on the chain.
        pace: of its machine.
    """

    def __init__(self, commons: Commons, uid: int, pace: Pace) -> None:
        self.uid = uid
        self.name = peer_name(uid)
        self.round = 0
        self.notes: MutableMapping[str, Any] = {}
        self._commons = commons
        self._plan = commons.exchange.plan
        self._work = Work(commons, pace)
        self._lineage: Lineage = commons.lineages.root
        self._claims = Claims()
        self._own: lazy.Update | None = None  # weights [N] that differ from the lineage's theta
        self._past: list[Lineage] = []  # histories, oldest first, as far back as a script has asked for
        self._reach = 0  # how far that is, in rounds that moved theta

    @property
    @abstractmethod
    def now_s(self) -> float:
        """The time of what it does."""

    def show_sample(self) -> None:
        """Show from which theta the peer trains its round."""
        self._publish_sample(self.round, self._lineage)

    # What a script may know -----------------------------------------------------------------------------------------

    @property
    def inner_steps(self) -> int:
        return self._commons.inner_steps

    def assigned_batches(self) -> Batches:
        return corpus.Batches("assigned", self.uid, self.round)

    def random_batches(self) -> Batches:
        return corpus.Batches("random", self.uid, self.round)

    def expected_batches(self) -> Batches:
        commons = self._commons
        address = own_sample(commons.leader, self.round, self.uid)
        sample = corpus.Sample(commons.own_sequences, commons.inner_steps, address)
        return corpus.Batches("assigned", self.uid, self.round, sample)

    @property
    def fellows(self) -> Sequence[int]:
        return self._commons.conspiracy.fellows(self.uid)

    def chance(self, name: str) -> float:
        return self._commons.streams.uniform("chance", self.uid, self.round, name)

    def noise(self, scale: float, name: str = "noise") -> Update:
        if not 0 <= scale < math.inf:
            raise ValueError(f"noise has a finite standard deviation from 0 up, not {scale}")
        address, like = ("noise", self.uid, self.round, name), self._lineage.theta
        return cast(Update, lazy.Update(lambda: self._commons.exchange.noise_like(like, scale, address)))

    def last_change(self, rounds: int = 1) -> Update:
        before, now = self._remembered(rounds).theta, self._lineage.theta
        return cast(Update, lazy.Update.of(before) - lazy.Update.of(now))

    def read(self, payload: bytes) -> Update | None:
        commons, round, like = self._commons, self.round, self._lineage.theta
        try:
            _, decoded = commons.decoded.read(payload, round)
        except InvalidPayload:
            return None
        return cast(Update, lazy.Update(lambda: commons.exchange.dense_like(like, round, decoded)))

    def combine(self, updates: Sequence[Update], function: Callable[[Any], Any]) -> Update:
        return cast(Update, lazy.Update.combined(cast(Sequence[lazy.Update], updates), function))

    def forge(self, payload: bytes, flaw: str) -> bytes:
        if flaw not in (*FLAWS, LEFT_OUT):
            raise ValueError(f"unknown flaw {flaw!r}; there are {', '.join(FLAWS)}")
        try:
            return self._commons.exchange.forge(self.round, payload, cast(Flaw, flaw))
        except InvalidPayload:
            return payload

    def observe(self, scalar: Scalar) -> float:
        label = f"observe uid={self.uid} round={self.round}"
        return self._commons.seam.numbers(label, lambda: [cast(lazy.Scalar, scalar).value()])[0]

    # What a script may say ------------------------------------------------------------------------------------------

    def tell(self, key: str, value: Any) -> None:
        self._commons.conspiracy.tell(self.uid, self.round, key, value)

    # What inner steps bring -----------------------------------------------------------------------------------------

    def _result(self, round: int, batches: corpus.Batches, stints: Sequence[Stint], rounds_behind: int) -> lazy.Update:
        """The update that the inner steps of a round bring, not computed yet; its payload will claim them."""
        commons, (*before, rest) = self._commons, stints
        tokens = self._claims.tokens + self._work.tokens(rest)
        for stint in before:
            tokens += self._work.tokens(stint)
        base = self._base(rounds_behind)
        self._claims = _claims(min(tokens, commons.exchange.most_tokens), base.depth)
        theta = lazy.Update.of(base.theta)
        if self._plan.sends == "gradient":
            gradient = commons.trainer.gradient(self.uid, round, theta, self._work.named(batches, rest))
            return gradient if rest.steps else theta - theta
        done = sum([stint.steps for stint in before])
        trained = self._trained(round, batches, rest, done, base)
        if self._plan.keeps_own_weights:
            self._own = trained
        return theta - trained

    def _base(self, rounds_behind: int) -> Lineage:
        """The history to train from; a stale one is what the peer's sync sample shows from then on."""
        if not rounds_behind and not self._reach:  # nobody has ever asked for an older one
            return self._lineage
        base = self._remembered(rounds_behind)
        if rounds_behind:
            self._publish_sample(self.round, base)
        return base

    def _remembered(self, rounds_behind: int) -> Lineage:
        """The history of some rounds ago, or the oldest that is remembered.

        What nobody has asked for is not remembered: who asks for the first time gets the present. Rounds in which theta
        stayed where it was do not count.
        """
        if rounds_behind < 0:
            raise ValueError(f"nobody knows the theta of {-rounds_behind} rounds ahead")
        self._reach = max(self._reach, rounds_behind)
        self._remember()
        return self._past[max(0, len(self._past) - 1 - rounds_behind)] if rounds_behind else self._lineage

    def _remember(self) -> None:
        """Keep the present history for later, and let go of those that are too old."""
        if self._reach and not (self._past and self._past[-1] is self._lineage):
            self._past.append(self._lineage)
        del self._past[: -self._reach - 1]

    def _trained(self, round: int, batches: corpus.Batches, stint: Stint, skip: int, base: Lineage) -> lazy.Update:
        """The weights [N] after some inner steps, not computed yet; `skip` steps of the round lie before them."""
        start, named = base.theta if self._own is None else self._own, self._work.named(batches, stint)
        return self._commons.trainer.train(self.uid, round, start, named, stint.steps, skip)

    def _publish_sample(self, round: int, lineage: Lineage) -> None:
        """Show from which theta the peer trains a round."""
        self._commons.samples.publish(round, self.uid, SyncSample(self.now_s, lineage))


@lru_cache(maxsize=1024)
def _claims(tokens: int, base: int) -> Claims:
    """What a payload claims; the same for most peers of a round."""
    return Claims(tokens, base=base)
