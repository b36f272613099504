"""What compression costs beside torch's own top-k of the same chunks, in one run; never in seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from pytest_benchmark.fixture import BenchmarkFixture

from covsim.protocol.sparseloco import SparseLoCo

NUM_PEERS = 70
SHAPES = [(256, 1024), (768, 256), (1024, 512), (256,), (64, 256)]  # 999,680 parameters


def best_of(tries: int, *works: Callable[[], object]) -> list[float]:
    """Seconds of each piece of work, the best of some tries in turn, so that all see the same machine."""
    best = [float("inf")] * len(works)
    for _ in range(tries):
        for place, work in enumerate(works):
            started = time.perf_counter()
            work()
            best[place] = min(best[place], time.perf_counter() - started)
    return best


def test_compression_beside_top_k(benchmark: BenchmarkFixture) -> None:
    """Aim: at most 1.5 times the plain top-k."""
    codec = SparseLoCo().codec(SHAPES)
    rows = torch.randn(NUM_PEERS, codec.num_parameters, generator=torch.Generator().manual_seed(1))

    def plain_top_k() -> object:
        chunks = rows[:, : codec.num_parameters // 4096 * 4096].reshape(-1, 4096)
        return chunks.gather(1, chunks.abs().topk(64, sorted=False).indices)

    ours, plain = best_of(4, lambda: codec.compress(rows), plain_top_k)
    benchmark.extra_info["compress_over_top_k"] = round(ours / plain, 2)
    (payload,), sent = codec.compress(rows[:1])
    decoded = benchmark(codec.decode, payload)
    assert torch.equal(sent[0][decoded.index], decoded.value)
