"""B1 to B3: transfers over shared links, against SimGrid 3.32 with network factors 1 and cross traffic 0.

The figures stand here, so that nothing need be installed to check them.
"""

from __future__ import annotations

from collections.abc import Sequence

from covsim.sweep.papers.verdicts import Verdict, ruled
from covsim.world.fairness import Resource
from covsim.world.finish_times import Flow, finish_times

TARGETS = ("B1", "B2", "B3")
NEAR = 1e-3
"""How far off a finish time may be, relative to SimGrid's."""


def judge() -> list[Verdict]:
    """A row per target."""
    return [uploads("B1", 100e9, 1.625), uploads("B2", 10e9, 5.625), unequal()]


def uploads(id: str, store_bits_per_s: float, expected_s: float) -> Verdict:
    """70 peers send 100 MB each at 500 Mb/s, 25 ms away from a store of so much ingress."""
    store = Resource("store", store_bits_per_s)
    flows = [Flow((Resource(f"peer {uid}", 500e6), store), 100e6, latency_s=0.025) for uid in range(70)]
    claim = f"70 peers x 100 MB up at 500 Mb/s each, 25 ms, store {store_bits_per_s / 1e9:g} Gb/s"
    return _gate(id, claim, [expected_s] * 70, finish_times(flows), f"all at {expected_s:g} s")


def unequal() -> Verdict:
    """Two fast senders and a slow one share a receiver: the slow one keeps all its rate."""
    server = Resource("server", 500e6)
    flows = [Flow((Resource(name, rate), server), 62.5e6) for name, rate in (("a", 500e6), ("b", 500e6), ("c", 50e6))]
    claim = "62.5 MB each from a, b at 500 and c at 50 Mb/s to a server of 500 Mb/s"
    return _gate("B3", claim, [20 / 9, 20 / 9, 10.0], finish_times(flows), "a, b 2.222222 s; c 10.0 s")


def _gate(id: str, claim: str, expected: Sequence[float], ours: Sequence[float], spelled: str) -> Verdict:
    worst = max((own / published - 1 for own, published in zip(ours, expected, strict=True)), key=abs)
    shown = ", ".join(f"{own:.6f}" for own in ours) if len(ours) < 10 else f"{min(ours):.6f} to {max(ours):.6f}"
    return Verdict(
        id=id,
        kind="gate",
        claim=claim,
        source="SimGrid 3.32",
        expected=spelled,
        rule=f"each within {100 * NEAR:g} %",
        ours=f"{shown} s",
        error=f"{100 * worst:+.1e} % at worst",
        status=ruled(abs(worst) <= NEAR, abs(worst) > NEAR),
    )
