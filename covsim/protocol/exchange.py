"""A plan set to work on one model: encode, decode, combine and step, trial, merge, each for the fragment of a round."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from covsim.protocol.aggregators import Aggregator, Limits, clipped, limits, prepared, reads_weights
from covsim.protocol.base import Claims, Decoded, Layout
from covsim.protocol.codec import TensorCodec
from covsim.protocol.error_feedback import ErrorBuffers
from covsim.protocol.forgery import Flaw, forge
from covsim.protocol.fragments import Fragment, NamedShapes
from covsim.protocol.lineage import Lineage
from covsim.protocol.outer import OuterState
from covsim.protocol.plan import Plan
from covsim.randomness import Label, Streams


@dataclass(frozen=True, eq=False)
class _Part:
    """The fragment of a round and what encodes it."""

    fragment: Fragment
    codec: TensorCodec

    @property
    def where(self) -> Tensor | None:
        """Places in theta [n]; None for all of it."""
        return self.fragment.index


class Exchange:
    """What everybody does with updates under a plan.

    Args:
        plan: the protocol.
        tensors: the model's tensors by name, in the order of theta [N].
        aggregate: combines payloads.
        total_rounds: planned outer steps; schedules run over them.
        most_tokens: more than a payload may claim to have been trained on.
        streams: the run's random streams.

    Raises:
        ValueError: the plan cannot cut tensors of these shapes.
    """

    def __init__(
        self,
        plan: Plan,
        tensors: NamedShapes,
        aggregate: Aggregator,
        total_rounds: int,
        most_tokens: int,
        streams: Streams,
    ) -> None:
        self.plan, self.most_tokens = plan, most_tokens
        self.layout = Layout.of(shape for _, shape in tensors)
        self.buffers = None if plan.error_feedback is None else ErrorBuffers(plan.error_feedback)
        self._tensors, self._aggregate, self._streams = tensors, aggregate, streams
        self._total_rounds = total_rounds
        self._codecs = [
            TensorCodec(shapes, plan.compressor, plan.values, plan.indices, plan.packing, number, most_tokens)
            for number, shapes in enumerate(plan.fragments.shapes(tensors))
        ]
        self._parts: dict[int, _Part] = {}

    @property
    def regular_bytes(self) -> float:
        """Length of a regular payload: the mean over the fragments."""
        return sum(codec.regular_bytes for codec in self._codecs) / len(self._codecs)

    def outer_rate(self, depth: int) -> float:
        """Alpha of the outer step that follows `depth` earlier ones."""
        return self.plan.outer.learning_rate(depth, self._total_rounds)

    # A peer sends ---------------------------------------------------------------------------------------------------

    def encode(
        self,
        round: int,
        uids: Sequence[int],
        pseudo_gradients: Tensor,
        claims: Sequence[Claims],
        feedback: bool = True,
    ) -> list[bytes]:
        """The payloads of P different peers for their pseudo-gradients [P, N]; their error buffers move on.

        Without `feedback` the payloads say what they are given, and no error buffer is read or changed.
        """
        assert len(set(uids)) == len(uids) == len(pseudo_gradients) == len(claims), "one row per uid"
        part = self._part(round)
        if self.plan.outer_rate_twice:
            rates = [self.outer_rate(claim.base) for claim in claims]
            pseudo_gradients = pseudo_gradients * pseudo_gradients.new_tensor(rates)[:, None]
        rows = pseudo_gradients if part.where is None else pseudo_gradients[:, part.where]
        seeded = [claim._replace(seed=self._seed(uid, round)) for uid, claim in zip(uids, claims, strict=True)]
        if self.buffers is None or not feedback:
            return part.codec.compress(rows.contiguous(), seeded)[0]
        accumulated = self.buffers.accumulate(uids, rows, part.where)
        payloads, sent = part.codec.compress(accumulated, seeded)
        self.buffers.keep(uids, accumulated, sent, self.layout.num_parameters, part.where)
        return payloads

    def encode_values(
        self, round: int, uids: Sequence[int], values: Sequence[Tensor], claims: Sequence[Claims], feedback: bool
    ) -> list[bytes]:
        """The same for P single pseudo-gradients [N]."""
        return self.encode(round, uids, torch.stack(list(values)), claims, feedback)

    def forge(self, round: int, payload: bytes, flaw: Flaw | Literal["missing_tensors"]) -> bytes:
        """A valid payload of a round made wrong in one way, or partial; see `forgery`.

        Raises InvalidPayload for one that is not valid.
        """
        return forge(self._part(round).codec, payload, flaw)

    def without_tensors(self, round: int, payload: bytes, tensors: Collection[int]) -> bytes:
        """A partial payload: one of a round without some tensors, numbered as in the round's fragment.

        Raises InvalidPayload, and ValueError if nothing would be left or there are no such tensors.
        """
        return self._part(round).codec.without_tensors(payload, tensors)

    # Others read it -------------------------------------------------------------------------------------------------

    def decode(self, round: int, payload: bytes, allow_missing: bool = False) -> Decoded:
        """What a payload of a round says, at its places in theta. Raises InvalidPayload.

        A partial payload is refused unless `allow_missing`; what is missing from it contributes nothing.
        """
        part = self._part(round)
        decoded = part.codec.decode(payload, allow_missing)
        return decoded if part.where is None else replace(decoded, index=part.where[decoded.index])

    def dense(self, round: int, payload: Decoded) -> Tensor:
        """What a payload of a round says, as a pseudo-gradient [N]: 0 where it says nothing."""
        part, nothing = self._part(round), payload.value.new_zeros(self.layout.num_parameters)
        said = self._to_theta(part, nothing.index_copy(0, payload.index, payload.value))
        return said if part.where is None else _put(nothing, part.where, said)

    def dense_like(self, theta: Tensor, round: int, payload: Decoded) -> Tensor:
        """The same in the type and at the place of a theta [N]."""
        return self.dense(round, payload).to(theta)

    def noise_like(self, theta: Tensor, scale: float, address: tuple[Label, ...]) -> Tensor:
        """Independent normal numbers [N] of a standard deviation, like a theta [N]; drawn from the stream there."""
        if scale == 0:
            return torch.zeros_like(theta)
        drawn = torch.randn(len(theta), generator=self._streams.torch(*address))
        return (scale * drawn).to(theta)

    def outer_step(self, lineage: Lineage, payloads: Sequence[Decoded], round: int) -> tuple[Tensor, OuterState]:
        """theta' [N] and the outer memory after the payloads of a round, in the order given."""
        part, outer, rate = self._part(round), self.plan.outer, self.outer_rate(lineage.depth)
        combined = self._combined([self._discounted(each, lineage) for each in payloads], round)
        theta, state, where = lineage.theta, lineage.outer, part.where
        delta = self._to_theta(part, combined.to(theta.device))
        if where is None:
            return outer.step(theta, state, delta, rate)
        moved, memory = outer.step(theta[where], tuple(each[where] for each in state), delta, rate)
        kept = tuple(_put(whole, where, values) for whole, values in zip(state, memory, strict=True))
        return _put(theta, where, moved), kept

    def trial_theta(
        self, lineage: Lineage, payload: Decoded, round: int, factor: float, limits: Limits | None
    ) -> Tensor:
        """A validator's trial step with one payload: theta' [N] = theta - factor alpha direction(clip(hatD)).

        `limits` are what `clip_norms` gives; without them there is no clip.
        """
        part = self._part(round)
        sent = self._discounted(payload, lineage)
        for limit in limits or ():
            sent = clipped(sent, limit)
        theta: Tensor = lineage.theta
        dense = torch.zeros_like(theta)
        dense[sent.index.to(theta.device)] = sent.value.to(theta.device)
        direction = self.plan.outer.direction(self._to_theta(part, dense))
        step = factor * self.outer_rate(lineage.depth)
        if part.where is None:
            return theta - step * direction
        return _put(theta, part.where, theta[part.where] - step * direction)

    def clip_norms(self, lineage: Lineage, payloads: Sequence[Decoded]) -> Limits | None:
        """What limits the norms of a payload that is applied to a lineage beside these; None: nothing does."""
        return limits(self._aggregate, [self._discounted(each, lineage) for each in payloads]) or None

    def merge(self, own: Tensor, theta: Tensor, round: int) -> Tensor:
        """A peer's own weights [N] when they meet the theta [N] that came of a round's exchange."""
        where, mixing = self._part(round).where, self.plan.mixing
        if where is None:
            return theta if mixing == 0 else torch.lerp(theta, own, mixing)
        met = theta[where] if mixing == 0 else torch.lerp(theta[where], own[where], mixing)
        return _put(own, where, met)

    @property
    def reads_weights(self) -> bool:
        """True if payloads are combined by what the gather list says of their senders."""
        return reads_weights(self._aggregate)

    # Inside ---------------------------------------------------------------------------------------------------------

    @property
    def selects(self) -> bool:
        """Whether payloads differ in whose values they hold; dense ones all hold the same."""
        return any(codec.selects for codec in self._codecs)

    def regular_bytes_of(self, round: int) -> int:
        """Length of a regular payload of a round."""
        return self._codecs[round % len(self._codecs)].regular_bytes

    def _part(self, round: int) -> _Part:
        """The fragment of a round with its codec; the latest few are kept."""
        if round not in self._parts:
            fragment = self.plan.fragments.fragment(round, self._tensors, self._streams)
            codec = self._codecs[fragment.number % len(self._codecs)]
            while len(self._parts) >= _KEPT_PARTS:
                del self._parts[next(iter(self._parts))]
            self._parts[round] = _Part(fragment, codec.for_fragment(fragment.number))
        return self._parts[round]

    def _combined(self, payloads: Sequence[Decoded], round: int) -> Tensor:
        """What the payloads of a round amount to [N]."""
        ready = prepared(
            self._aggregate, payloads, self.layout, lambda place: self._streams.numpy("aggregate", place, round)
        )
        return self._aggregate.combine(ready, self.layout)

    def _to_theta(self, part: _Part, combined: Tensor) -> Tensor:
        """From the space of values [N] to the fragment's part of theta [n]."""
        return part.codec.to_theta(combined if part.where is None else combined[part.where])

    def _discounted(self, payload: Decoded, lineage: Lineage) -> Decoded:
        asynchrony = self.plan.asynchrony
        if asynchrony is None:
            return payload
        factor = asynchrony.discount(lineage.depth - payload.claims.base)
        return payload.scaled(torch.full_like(payload.norms, factor))

    def _seed(self, uid: int, round: int) -> int:
        """The seed of a payload's random positions."""
        return int(self._streams.numpy("positions", uid, round).integers(2**63)) if self.plan.compressor.draw else 0


_KEPT_PARTS = 16


def _put(whole: Tensor, where: Tensor, values: Tensor) -> Tensor:
    """A copy of a vector [N] with new values [n] at some places."""
    return whole.index_copy(0, where.to(whole.device), values)
