"""What a long run's chain costs: 1,000 epochs of 20 validators and 256 peers, beside its signatures alone, in one run.

Every epoch each validator signs a commitment and the weights that it will show, over a ramp of 30 peers and the burn;
the chain checks them, seals two blocks, shows the weights of the epoch before, and runs the consensus.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from small_chain import SEED, Network

from covsim.chain.accounts import Account, is_signed
from covsim.chain.extrinsics import Weights
from covsim.chain.stances import quantized
from covsim.chain.verification import read

EPOCHS, VALIDATORS, PEERS, PAID, TEMPO = 1000, 20, 256, 30, 360
SIGNATURES = EPOCHS * (2 * VALIDATORS + 2)  # of commitments, reveals and blocks


def founded(rule: str) -> Network:
    slots = 1 + PEERS + VALIDATORS
    network = Network(tempo=TEMPO, slots=slots, commit_reveal=1, rate_limit=100, consensus=rule)
    return network.found(PEERS, {f"validator {number}": 1.0 / (1 + number) for number in range(VALIDATORS)})


def ramps() -> list[Weights]:
    """Weights as a validator of the live network sets them, a few dozen to choose from."""
    luck = np.random.default_rng(1)
    ramp = np.linspace(2, 1, PAID)
    kinds = []
    for _ in range(64):
        peers = sorted(luck.choice(PEERS, PAID, replace=False).tolist())
        paid = zip((1 + peer for peer in peers), luck.permutation(ramp).tolist(), strict=True)
        kinds.append(quantized(((0, ramp.sum()), *paid)))
    return kinds


def lived(rule: str, epochs: int) -> Network:
    """A chain on which all validators set weights in every epoch."""
    network, weights = founded(rule), ramps()
    for epoch in range(epochs):
        height = epoch * TEMPO + 200
        for number in range(VALIDATORS):
            mine = weights[(epoch * 7 + number) % len(weights)]
            network.commit(f"validator {number}", mine, height, round=epoch)
        network.seal(height)
        network.seal((epoch + 1) * TEMPO)
    return network


def seconds_of_signatures(count: int) -> float:
    """Signing so many messages of a commitment's length, and checking each."""
    account, message = Account.derive(SEED, "plain"), bytes(220)
    started = time.perf_counter()
    for _ in range(count):
        assert is_signed(account.public, message, account.sign(message))
    return time.perf_counter() - started


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["yuma2", "yuma3"])
def test_a_thousand_epochs_of_a_full_chain(benchmark: BenchmarkFixture, rule: str) -> None:
    """Aim: well under 20 s on one core, of which the signatures alone are a good part."""
    network = benchmark.pedantic(lived, (rule, EPOCHS), rounds=1)
    chain = network.chain
    assert len(chain.epochs) == EPOCHS
    assert all(not any(sealed.block.outcomes) for sealed in chain.blocks)
    assert sum(share.incentive for share in chain.epochs[-1].shares) == pytest.approx(1)
    burned = sum(epoch.burned for epoch in chain.epochs)
    assert sum(chain.balances.values()) + burned == pytest.approx(EPOCHS * TEMPO)
    if benchmark.stats:  # none where benchmarks are switched off
        signatures = min(seconds_of_signatures(SIGNATURES // 10) for _ in range(3)) * 10
        benchmark.extra_info["over_signatures"] = round(benchmark.stats.stats.min / signatures, 2)


@pytest.mark.slow
def test_reading_a_ledger_beside_making_it(benchmark: BenchmarkFixture) -> None:
    """Every line parsed, every signature checked, every epoch paid again."""
    epochs = EPOCHS // 10
    started = time.perf_counter()
    network = lived("yuma2", epochs)
    making = time.perf_counter() - started
    data = b"".join(sealed.block.line() + b"\n" for sealed in network.chain.blocks)
    ledger = benchmark.pedantic(read, (data, network.settings, SEED), rounds=3)
    assert ledger.faults == ()
    assert len(ledger.blocks) == 1 + 2 * epochs
    if benchmark.stats:
        benchmark.extra_info["reading_over_making"] = round(benchmark.stats.stats.min / making, 2)
        benchmark.extra_info["bytes_an_epoch"] = len(data) // epochs
