"""What consensus costs: a thousand epochs of 20 validators and 256 peers, beside sorting their weights, in one run."""

from __future__ import annotations

import time

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from covsim.chain.yuma import ConsensusRule, EpochResult, Yuma2, Yuma3

EPOCHS, VALIDATORS, PEERS = 1000, 20, 256


@pytest.mark.parametrize("rule", [Yuma2(), Yuma3()], ids=lambda rule: rule.kind)
def test_a_thousand_epochs(benchmark: BenchmarkFixture, rule: ConsensusRule) -> None:
    """Bonds are handed on from epoch to epoch; the sort is what consensus cannot do without."""
    rng = np.random.default_rng(1)
    stakes = rng.pareto(1.2, VALIDATORS) + 1
    weights = rng.random((16, VALIDATORS, PEERS)) ** 4

    def run() -> EpochResult:
        bonds = np.zeros((VALIDATORS, PEERS))
        for epoch in range(EPOCHS):
            result = rule.epoch(stakes, weights[epoch % len(weights)], bonds)
            bonds = result.bonds
        return result

    def sort() -> float:
        started = time.perf_counter()
        for epoch in range(EPOCHS):
            np.argsort(-weights[epoch % len(weights)], axis=0, kind="stable")
        return time.perf_counter() - started

    sorting = min(sort() for _ in range(3))
    result = benchmark.pedantic(run, rounds=3)
    if benchmark.stats:  # none where benchmarks are switched off
        benchmark.extra_info["epochs_over_sorting"] = round(benchmark.stats.stats.min / sorting, 2)
    assert result.incentive.sum() == pytest.approx(1)
    assert result.dividends.sum() == pytest.approx(1)
