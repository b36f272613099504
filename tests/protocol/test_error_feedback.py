"""What compression leaves out is carried over: nothing is lost, and nothing is sent twice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from covsim.learning.model import Gpt
from covsim.protocol.aggregators import Mean
from covsim.protocol.base import Claims
from covsim.protocol.composed import Composed
from covsim.protocol.error_feedback import ErrorBuffers, ErrorFeedback
from covsim.protocol.exchange import Exchange
from covsim.protocol.lineage import root_lineage
from covsim.protocol.outer import Sgd
from covsim.protocol.plan import Plan, protocols
from covsim.protocol.sparseloco import SparseLoCo
from covsim.randomness import Streams

TENSORS = list(Gpt(layers=2, width=16, context=8).shapes.items())
N = sum(math.prod(shape) for _, shape in TENSORS)

DEFAULTS = {kind: part.model_validate({}).plan() for kind, part in protocols.items()}
WITH_FEEDBACK = {kind: plan for kind, plan in DEFAULTS.items() if plan.error_feedback is not None} | {
    "layers in turn": Composed.model_validate({"fragments": {"kind": "layers", "num": 3}}).plan(),
    "random shares": Composed.model_validate({"fragments": {"kind": "random", "share": 0.2}}).plan(),
    "random_k": Composed.model_validate({"compressor": "random_k"}).plan(),
    "threshold": Composed.model_validate({"compressor": "threshold"}).plan(),
    "signs": SparseLoCo(bits=1).plan(),
    "half precision": Composed.model_validate({"compressor": "dense", "values": "fp16"}).plan(),
}


def exchange_of(plan: Plan) -> Exchange:
    """The plan at work on the small model."""
    return Exchange(plan, TENSORS, Mean(clip="none"), total_rounds=100, most_tokens=10**9, streams=Streams(3))


def rows(num: int, seed: int) -> Tensor:
    return torch.randn(num, N, generator=torch.Generator().manual_seed(seed)) * 1e-3


def encode(exchange: Exchange, round: int, uids: Sequence[int], updates: Tensor) -> list[bytes]:
    return exchange.encode(round, uids, updates, [Claims()] * len(uids))


def receiver_of(plan: Plan) -> Exchange:
    """Somebody who subtracts from theta what payloads say."""
    return exchange_of(replace(plan, outer=Sgd(lr=1.0)))


def applied(receiver: Exchange, round: int, payload: bytes) -> Tensor:
    """What a receiver of a payload subtracts from theta [N]; 0 outside the fragment of the round."""
    theta, _ = receiver.outer_step(root_lineage(torch.zeros(N)), [receiver.decode(round, payload)], round)
    return -theta


def fragment(plan: Plan, round: int) -> Tensor:
    """True at the coordinates that a round exchanges [N]."""
    index = plan.fragments.fragment(round, TENSORS, Streams(3)).index
    chosen = torch.zeros(N, dtype=torch.bool)
    chosen[slice(None) if index is None else index] = True
    return chosen


def buffer_of(exchange: Exchange, uid: int) -> Tensor:
    assert exchange.buffers is not None
    buffer = exchange.buffers.buffer(uid)
    return torch.zeros(N) if buffer is None else buffer.clone()


def with_decay(plan: Plan, decay: float) -> Plan:
    assert plan.error_feedback is not None
    return replace(plan, error_feedback=plan.error_feedback.model_copy(update={"decay": decay}))


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", list(WITH_FEEDBACK))
def test_mass_is_conserved(name: str, decay: float) -> None:
    """Decoded from the wire + buffer = decayed old buffer + pseudo-gradient, where the round exchanges anything."""
    plan = with_decay(WITH_FEEDBACK[name], decay)
    exchange, receiver, old = exchange_of(plan), receiver_of(plan), torch.zeros(N)
    for round in range(7):
        (update,) = rows(1, seed=round)
        (payload,) = encode(exchange, round, [3], update[None])
        buffer, sent, exchanged = buffer_of(exchange, 3), applied(receiver, round, payload), fragment(plan, round)
        assert sent.norm() > 0
        torch.testing.assert_close((sent + buffer)[exchanged], (decay * old + update)[exchanged], rtol=0, atol=2e-8)
        assert torch.equal(buffer[~exchanged], old[~exchanged])
        old = buffer
    assert old.norm() > 0


def test_what_is_not_sent_stays_to_the_last_bit() -> None:
    plan = WITH_FEEDBACK["sparseloco"]
    exchange, receiver, old = exchange_of(plan), receiver_of(plan), torch.zeros(N)
    for round in range(4):
        (update,) = rows(1, seed=round)
        (payload,) = encode(exchange, round, [3], update[None])
        unsent = applied(receiver, round, payload) == 0
        buffer = buffer_of(exchange, 3)
        assert unsent.sum() > N / 2
        assert torch.equal(buffer[unsent], (0.95 * old + update)[unsent])
        old = buffer


@pytest.mark.parametrize("name", ["sparseloco", "demo", "layers in turn", "random_k", "signs"])
def test_what_is_left_out_is_sent_later(name: str) -> None:
    """Without new updates and decay, round after round hands over more of the first update."""
    plan = with_decay(WITH_FEEDBACK[name], 1.0)
    exchange, receiver, received = exchange_of(plan), receiver_of(plan), torch.zeros(N)
    (update,) = rows(1, seed=1)
    missing = []
    for turn in range(60):
        # Layers in turn see the update when it is theirs, as a peer that keeps its own weights would have it.
        fresh = update if turn < getattr(plan.fragments, "num", 1) else torch.zeros(N)
        (payload,) = encode(exchange, turn, [0], fresh[None])
        received += applied(receiver, turn, payload)
        missing.append(((received - update).norm() / update.norm()).item())
    assert missing[10] < 0.8
    assert missing[-1] < 0.25


def test_without_feedback_the_rest_is_dropped() -> None:
    plan = Composed(error_feedback="none").plan()
    exchange, receiver = exchange_of(plan), receiver_of(plan)
    assert exchange.buffers is None
    (update,) = rows(1, seed=1)
    first, second = (encode(exchange, round, [3], update[None])[0] for round in (0, 1))
    assert torch.equal(*(applied(receiver, 0, payload) for payload in (first, second)))


@pytest.mark.parametrize("name", list(WITH_FEEDBACK))
def test_a_batch_is_only_a_matter_of_speed(name: str) -> None:
    """Payloads and buffers are those of each peer alone, to the last bit."""
    together, alone = exchange_of(WITH_FEEDBACK[name]), exchange_of(WITH_FEEDBACK[name])
    for round, uids in enumerate([[4, 0, 9], [9, 4], [0], [7, 9, 4, 0]]):
        updates = rows(len(uids), seed=round)
        assert encode(together, round, uids, updates) == [
            encode(alone, round, [uid], row[None])[0] for uid, row in zip(uids, updates, strict=True)
        ]
    for uid in (0, 4, 7, 9):
        assert torch.equal(buffer_of(together, uid), buffer_of(alone, uid))


@pytest.mark.parametrize("name", list(WITH_FEEDBACK))
def test_the_callers_rows_stay_as_they_are(name: str) -> None:
    exchange, updates = exchange_of(WITH_FEEDBACK[name]), rows(2, seed=1)
    before = updates.clone()
    encode(exchange, 0, [0, 1], updates)
    encode(exchange, 1, [0, 1], updates)
    assert torch.equal(updates, before)


FEEDBACK_IN_TURN: dict[str, Any] = {
    "whole": {},
    "layers": {"fragments": {"kind": "layers", "num": 3}},
}


@pytest.mark.parametrize("settings", FEEDBACK_IN_TURN.values(), ids=FEEDBACK_IN_TURN)
@pytest.mark.parametrize("commit", ["compressed", "landed"])
def test_when_a_buffer_gives_up_what_was_sent(commit: str, settings: dict[str, Any]) -> None:
    """By the rule `landed` a failed upload keeps its mass; by `compressed` it is lost with the upload."""
    plan = Composed.model_validate({"error_feedback": {"commit": commit}, **settings}).plan()
    exchange, receiver = exchange_of(plan), receiver_of(plan)
    assert exchange.buffers is not None
    encode(exchange, 0, [1, 2], rows(2, seed=0))
    exchange.buffers.settle(1, landed=True)
    exchange.buffers.settle(2, landed=True)
    old, updates, exchanged = {uid: buffer_of(exchange, uid) for uid in (1, 2)}, rows(2, seed=1), fragment(plan, 1)
    sent = dict(zip((1, 2), encode(exchange, 1, [1, 2], updates), strict=True))
    exchange.buffers.settle(1, landed=True)
    exchange.buffers.settle(2, landed=False)
    for uid, update in zip((1, 2), updates, strict=True):
        accumulated = torch.where(exchanged, 0.95 * old[uid] + update, old[uid])
        kept = uid == 2 and commit == "landed"
        expected = accumulated if kept else accumulated - applied(receiver, 1, sent[uid])
        torch.testing.assert_close(buffer_of(exchange, uid), expected, rtol=0, atol=1e-9)


def test_mass_of_a_failed_upload_is_sent_with_the_next() -> None:
    """A peer whose first upload fails sends what one sends that had a null round: all of it counts again, decayed."""
    plan = Composed.model_validate({"error_feedback": {"commit": "landed", "decay": 0.5}}).plan()
    exchange, fresh = exchange_of(plan), exchange_of(plan)
    assert exchange.buffers is not None
    first, second = rows(1, seed=1), rows(1, seed=2)
    encode(exchange, 0, [1], first)
    exchange.buffers.settle(1, landed=False)
    (retry,) = encode(exchange, 1, [1], second)
    (expected,) = encode(fresh, 1, [1], 0.5 * first + second)
    assert retry == expected


def test_an_upload_is_settled_once() -> None:
    exchange = exchange_of(SparseLoCo(error_commit="landed").plan())
    assert exchange.buffers is not None
    encode(exchange, 0, [1], rows(1, seed=1))
    exchange.buffers.settle(1, landed=True)
    before = buffer_of(exchange, 1)
    exchange.buffers.settle(1, landed=False)
    exchange.buffers.settle(99, landed=False)
    assert torch.equal(buffer_of(exchange, 1), before)
    assert exchange.buffers.buffer(99) is None


@pytest.mark.parametrize("name", ["sparseloco", "demo", "layers in turn", "random_k"])
def test_state_restores_the_buffers(name: str) -> None:
    exchange, resumed, empty = (exchange_of(WITH_FEEDBACK[name]) for _ in range(3))
    assert exchange.buffers is not None
    assert resumed.buffers is not None
    for round in range(3):
        encode(exchange, round, [1, 2], rows(2, seed=round))
    saved = exchange.buffers.state()
    assert saved.keys() == {"buffers", "unsettled"}
    assert saved["buffers"].keys() == {1, 2}
    assert all(buffer.untyped_storage().nbytes() == 4 * N for buffer in saved["buffers"].values())
    expected = encode(exchange, 3, [1, 2], rows(2, seed=9))
    exchange.buffers.restore(saved)
    assert encode(exchange, 3, [1, 2], rows(2, seed=9)) == expected
    resumed.buffers.restore(saved)
    assert encode(resumed, 3, [1, 2], rows(2, seed=9)) == expected
    assert encode(empty, 3, [1, 2], rows(2, seed=9)) != expected


def test_state_restores_uploads_that_are_under_way() -> None:
    exchange, resumed = (exchange_of(SparseLoCo(error_commit="landed").plan()) for _ in range(2))
    assert exchange.buffers is not None
    assert resumed.buffers is not None
    updates = rows(2, seed=1)
    encode(exchange, 0, [1, 2], updates)
    exchange.buffers.settle(2, landed=True)
    resumed.buffers.restore(exchange.buffers.state())
    for uid in (1, 2):
        resumed.buffers.settle(uid, landed=False)
    assert torch.equal(buffer_of(resumed, 1), updates[0])
    assert torch.equal(buffer_of(resumed, 2), buffer_of(exchange, 2))


def test_buffers_by_hand() -> None:
    """Two coordinates of four are exchanged at a time."""
    buffers = ErrorBuffers(ErrorFeedback(decay=0.5))
    assert buffers.buffer(7) is None
    for where, delta, sent, expected_a, expected_e in [
        ([0, 1], [8.0, 4.0], [6.0, 0.0], [8.0, 4.0], [2.0, 4.0, 0.0, 0.0]),
        ([2, 3], [1.0, 1.0], [0.0, 1.5], [1.0, 1.0], [2.0, 4.0, 1.0, -0.5]),
        ([1, 3], [0.0, 1.0], [2.0, 0.0], [2.0, 0.75], [2.0, 0.0, 1.0, 0.75]),
    ]:
        place = torch.tensor(where)
        accumulated = buffers.accumulate([7], torch.tensor([delta]), place)
        assert accumulated.tolist() == [expected_a]
        buffers.keep([7], accumulated, torch.tensor([sent]), 4, place)
        buffer = buffers.buffer(7)
        assert buffer is not None
        assert buffer.tolist() == expected_e


@pytest.mark.parametrize("setting", [{"decay": -0.1}, {"decay": 1.1}, {"decay": math.nan}, {"commit": "uploaded"}])
def test_absurd_settings(setting: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ErrorFeedback.model_validate(setting)
