"""Speed of the batched inner loop, beside the best plain torch loop over peers and beside sgemm, in one run.

The plain loop is tried with torch's two best optimizers, with two threads inside each operation, and with two workers.

Seconds mean nothing on a machine that others use; so the three take turns, each counts by its fastest turn, and what
is reported are GFLOP/s and ratios. `make benchmark` prints the table; the ratios are in the benchmark's `extra_info`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import torch
from plain_gpt import PlainGpt
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from covsim.learning.inner_loop import AdamW, OptimizerState, run_inner_steps
from covsim.learning.model import VOCABULARY, Gpt
from covsim.learning.workers import side_by_side
from covsim.schedules import Constant

P, S, B = 24, 3, 4
PLAIN_PEERS = 6  # enough for a rate: the plain loop takes peers one by one
ADAMW = AdamW(lr=1e-3, schedule=Constant())


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def flop_of_a_step(model: Gpt) -> int:
    """Matrix products of one peer's step, forward and backward; attention counted without the causal half."""
    M, d = B * model.context, model.width
    weights = model.layers * 12 * d * d + VOCABULARY * d
    return 6 * M * weights + 3 * model.layers * 4 * M * model.context * d


def batched(model: Gpt, theta: Tensor, tokens: Tensor) -> Tensor:
    """All peers through the product's loop, in chunks, from fresh moments; where they end [P, N]."""

    def run(part: slice) -> Tensor:
        state = OptimizerState.zeros(*theta[part].shape)
        return run_inner_steps(model, ADAMW, theta[part], state, tokens[part], [0] * len(theta[part]), S)

    return torch.cat(side_by_side(run, P, 12))


def plain(model: Gpt, theta: Tensor, tokens: Tensor, **how: bool) -> Tensor:
    """One peer after the other through an ordinary module and torch's optimizer; where they end [P, N]."""
    ends = []
    for row, batches in zip(theta, tokens, strict=True):
        module = PlainGpt(model, row)
        optimizer = torch.optim.AdamW(module.parameters(), 1e-3, (0.9, 0.95), 1e-8, weight_decay=0.1, **how)
        for batch in batches:
            optimizer.zero_grad()
            module(batch).backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
        ends.append(module.flat())
    return torch.stack(ends)


def seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


@pytest.mark.slow
@pytest.mark.parametrize("width", [32, 64])
def test_inner_loop(benchmark: BenchmarkFixture, width: int) -> None:
    model = Gpt(width=width)
    generator = torch.Generator().manual_seed(1)
    theta = torch.stack([model.initial(generator) for _ in range(P)])
    tokens = torch.randint(0, 256, (P, S, B, model.context + 1), generator=generator)
    square = torch.randn(1024, 1024, generator=generator)

    some = model, theta[:PLAIN_PEERS], tokens[:PLAIN_PEERS]
    torch.testing.assert_close(batched(model, theta, tokens)[:PLAIN_PEERS], plain(*some), rtol=0, atol=2e-4)

    def plain_part(part: slice) -> Tensor:
        return plain(model, theta[part], tokens[part], fused=True)

    others: dict[str, Callable[[], object]] = {
        "plain, fused": lambda: plain(*some, fused=True),
        "plain, foreach": lambda: plain(*some, foreach=True),
        "plain, two workers": lambda: side_by_side(plain_part, PLAIN_PEERS, PLAIN_PEERS),
        "sgemm": lambda: square @ square,
    }
    fastest = dict.fromkeys(others, float("inf"))

    def take_turns() -> None:
        for name, other in others.items():
            fastest[name] = min(fastest[name], seconds(other))

    benchmark.pedantic(batched, (model, theta, tokens), setup=take_turns, rounds=10)
    if benchmark.disabled:
        return
    flop = flop_of_a_step(model) * S / 1e9
    loop = flop * P / benchmark.stats.stats.min
    best_plain = flop * PLAIN_PEERS / min(fastest[name] for name in fastest if name.startswith("plain"))
    sgemm = 2 * 1024**3 / fastest["sgemm"] / 1e9
    benchmark.extra_info |= {"GFLOP/s": round(loop, 1), "plain GFLOP/s": round(best_plain, 1)}
    benchmark.extra_info |= {"sgemm GFLOP/s": round(sgemm, 1)}
    benchmark.extra_info |= {"ratio to plain": round(loop / best_plain, 2), "ratio to sgemm": round(loop / sgemm, 2)}
