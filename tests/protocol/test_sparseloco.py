"""The protocol's settings, sizes and error feedback."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from covsim.protocol.base import protocols
from covsim.protocol.sparseloco import ErrorFeedback, SparseLoCo

LLAMA_LAYER = [
    (2, (8192, 8192)),  # query, output
    (2, (1024, 8192)),  # key, value
    (2, (28672, 8192)),  # gate, up
    (1, (8192, 28672)),  # down
    (2, (8192,)),  # norms
]
LLAMA_70B = [*((80 * count, shape) for count, shape in LLAMA_LAYER), (1, (8192,)), (2, (262144, 8192))]
NUM_PARAMETERS = 72_747_327_488

SHAPES = [(64, 48), (48,), (96, 32), (7, 9)]


def test_covenant_72b_payload() -> None:
    """Target A1: 1.989 GB per payload, 146.3 times less than fp32, 73.1 times less than bf16."""
    assert sum(count * math.prod(shape) for count, shape in LLAMA_70B) == NUM_PARAMETERS
    payload = SparseLoCo().payload_bytes(LLAMA_70B)
    assert payload == pytest.approx(1.989e9, rel=0.01)
    assert 4 * NUM_PARAMETERS / payload == pytest.approx(146.3, rel=0.01)
    assert 2 * NUM_PARAMETERS / payload == pytest.approx(73.1, rel=0.01)


def test_covenant_72b_payload_as_deployed() -> None:
    """Target A2: with a byte per code, 2.84 GB and 102 times."""
    payload = SparseLoCo(packing="byte_per_value").payload_bytes(LLAMA_70B)
    assert payload == pytest.approx(2.84e9, rel=0.01)
    assert 4 * NUM_PARAMETERS / payload == pytest.approx(102, rel=0.01)


def test_index_entropy_bound() -> None:
    """Target A3: choosing 64 of 4096 takes at least 7.36 bits per index; the wire spends 12."""
    bound = math.log2(math.comb(4096, 64)) / 64
    assert bound == pytest.approx(7.36, abs=0.01)
    one_chunk, two_chunks = (SparseLoCo().regular_bytes([(64, side)]) for side in (64, 128))
    bits_per_value = 8 * (two_chunks - one_chunk) / 64
    assert bits_per_value - 2 == 12 > bound


def test_registered_with_the_defaults_of_the_72b_run() -> None:
    protocol = protocols["sparseloco"].model_validate({})
    assert protocol.model_dump() == {
        "kind": "sparseloco",
        "inner_steps": 30,
        "k": 64,
        "bits": 2,
        "error_decay": 0.95,
        "chunks": "blocks",
        "packing": "packed",
        "outer": {"kind": "sgd", "lr": 0.65},
    }


@pytest.mark.parametrize("k", [4098, 65536, 0, 1, -2, 33])
def test_k_must_fit_a_chunk(k: int) -> None:
    with pytest.raises(ValidationError, match=f"even number from 2 to 4096, the size of a chunk; it is {k}"):
        SparseLoCo(k=k)


@pytest.mark.parametrize(
    "setting",
    [
        {"inner_steps": 0},
        {"inner_steps": 100_001},
        {"bits": 3},
        {"error_decay": -0.1},
        {"error_decay": 1.1},
        {"error_decay": math.nan},
        {"packing": "loose"},
        {"outer": {"kind": "sgd", "lr": 0}},
        {"momentum": 0.9},
    ],
)
def test_absurd_settings(setting: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SparseLoCo.model_validate(setting)


def feedback(decay: float = 0.95) -> ErrorFeedback:
    return ErrorFeedback(SparseLoCo(k=8).codec(SHAPES), decay)


def rows(num: int, seed: int) -> torch.Tensor:
    num_parameters = SparseLoCo().codec(SHAPES).num_parameters
    return torch.randn(num, num_parameters, generator=torch.Generator().manual_seed(seed)) * 1e-3


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.95, 1.0])
def test_error_feedback_conserves_mass(decay: float) -> None:
    """Decoded from the wire + buffer = decayed old buffer + pseudo-gradient; exactly, where nothing was sent."""
    codec = SparseLoCo(k=8).codec(SHAPES)
    errors = ErrorFeedback(codec, decay)
    old = torch.zeros(codec.num_parameters)
    for turn in range(6):
        update = rows(1, seed=turn)[0]
        decoded = codec.decode(errors.encode(3, update))
        buffer = errors.buffer(3)
        assert buffer is not None
        sent = torch.zeros_like(old).index_add(0, decoded.index, decoded.value)
        accumulated = decay * old + update
        assert torch.allclose(sent + buffer, accumulated, rtol=0, atol=1e-9)
        assert torch.equal(buffer[sent == 0], accumulated[sent == 0])
        old = buffer.clone()
    assert old.norm() > 0


def test_what_is_left_out_is_sent_later() -> None:
    """Without new updates and decay, rounds of top-k hand over the whole first update."""
    codec = SparseLoCo(k=64).codec([(16, 64)])
    errors = ErrorFeedback(codec, decay=1.0)
    update = torch.randn(1024, generator=torch.Generator().manual_seed(1))
    received = torch.zeros(1024)
    for turn in range(40):
        decoded = codec.decode(errors.encode(0, update if turn == 0 else torch.zeros(1024)))
        received.index_add_(0, decoded.index, decoded.value)
    assert (received - update).norm() < 0.1 * update.norm()


def test_a_batch_is_only_a_matter_of_speed() -> None:
    together, alone = feedback(), feedback()
    for turn, uids in enumerate([[4, 0, 9], [9, 4], [0], [7, 9, 4, 0]]):
        updates = rows(len(uids), seed=turn)
        assert together.encode_many(uids, updates) == [
            alone.encode(uid, row) for uid, row in zip(uids, updates, strict=True)
        ]
    assert together.state().keys() == alone.state().keys() == {0, 4, 7, 9}
    for uid, buffer in together.state().items():
        assert torch.equal(buffer, alone.state()[uid])


def test_the_callers_rows_stay_as_they_are() -> None:
    errors, updates = feedback(), rows(2, seed=1)
    before = updates.clone()
    errors.encode_many([0, 1], updates)
    errors.encode_many([0, 1], updates)
    assert torch.equal(updates, before)


def test_state_restores_the_buffers() -> None:
    errors = feedback()
    errors.encode_many([1, 2], rows(2, seed=1))
    saved = errors.state()
    assert all(buffer.untyped_storage().nbytes() == 4 * len(buffer) for buffer in saved.values())
    expected = errors.encode_many([1, 2], rows(2, seed=2))
    errors.restore(saved)
    assert errors.encode_many([1, 2], rows(2, seed=2)) == expected
    resumed = feedback()
    resumed.restore(saved)
    assert resumed.encode_many([1, 2], rows(2, seed=2)) == expected
    assert feedback().encode_many([1, 2], rows(2, seed=2)) != expected


def test_one_uid_cannot_encode_twice_at_once() -> None:
    with pytest.raises(AssertionError, match="one row per uid"):
        feedback().encode_many([1, 1], rows(2, seed=1))
