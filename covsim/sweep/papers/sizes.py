"""A1 to A3, A10, A11: payload sizes by formula against published figures. Nothing is run."""

from __future__ import annotations

import math
from collections.abc import Mapping

from covsim.protocol.codec import payload_bytes
from covsim.protocol.compressors import Dct, Dense, TopK
from covsim.protocol.indices import IndexCoding
from covsim.protocol.values import BinMean, Fp4, Fp16, Fp32
from covsim.protocol.wire import Packing
from covsim.scenario.deployment import COVENANT_72B, Groups, num_parameters
from covsim.sweep.papers.verdicts import Verdict, ruled

TARGETS = ("A1", "A2", "A3", "A10", "A11")

DEMO_1208M: Groups = ((1, (49_152, 2048)), (22 * 4, (2048, 2048)), (22 * 2, (2048, 8192)))
"""1.208 billion parameters, as many as DeMo's authors measured. No source lists their tensors: these are 22 layers of
matrices whose sides 64 divides, and one tied embedding."""

DEMO_PUBLISHED: Mapping[int, float] = {1: 3.44e6, 2: 6.89e6, 4: 13.79e6, 8: 27.58e6, 16: 55.16e6, 32: 110.32e6}
"""Bytes of a step by k (2411.19870)."""

DENSE_1B: Groups = ((24 * 4, (2048, 2048)), (24 * 2, (2048, 8192)), (1, (32_000, 2048)), (49, (2048,)))
"""About a billion parameters; the ratio of two dense payloads does not depend on the shapes."""


def judge() -> list[Verdict]:
    """A row per target."""
    return [_payload(), _as_deployed(), _index_bound(), _demo(), _four_bits()]


def _sparse(indices: IndexCoding = "bits12", packing: Packing = "packed") -> int:
    return payload_bytes(COVENANT_72B, TopK(), BinMean(), indices, packing)


def _payload() -> Verdict:
    ours = _sparse()
    return _gate(
        "A1", "payload of 72,747,327,488 parameters", "Covenant-72B", ours / 1e9, 1.989, 0.01, " GB", _ratio(ours)
    )


def _as_deployed() -> Verdict:
    ours = _sparse(packing="byte_per_value")
    return _gate("A2", "payload as deployed, a byte per code", "code", ours / 1e9, 2.84, 0.01, " GB", _ratio(ours))


def _ratio(sent: float) -> str:
    fp32 = 4 * num_parameters(COVENANT_72B) / sent
    coded = _sparse("entropy") / 1e9
    return f"; {fp32:.1f}x vs fp32, {fp32 / 2:.1f}x vs bf16; {coded:.3f} GB with entropy-coded positions, packed"


def _index_bound() -> Verdict:
    bound = math.log2(math.comb(4096, 64)) / 64
    few, many = (payload_bytes(((1, (64, 64 * n)),), TopK(), BinMean(), "entropy", "packed") for n in (1000, 2000))
    coded = 8 * (many - few) / 64_000 - 2
    beside = f"; Rice codes take {coded:.2f}, of which 0.125 name their parameter"
    return _gate(
        "A3", "entropy bound of an index, 64 of 4096", "Covenant-72B", bound, 7.36, 0.01 / 7.36, " bits", beside
    )


def _demo() -> Verdict:
    ours = {k: payload_bytes(DEMO_1208M, Dct(k=k), Fp32(), "int64", "packed") for k in DEMO_PUBLISHED}
    errors = [ours[k] / published - 1 for k, published in DEMO_PUBLISHED.items()]
    worst = max(errors, key=abs)
    return Verdict(
        id="A10",
        kind="gate",
        claim="DeMo traffic per step, 1.208 B parameters, k = " + ", ".join(map(str, ours)),
        source="2411.19870",
        expected=", ".join(f"{published / 1e6:.2f}" for published in DEMO_PUBLISHED.values()) + " MB",
        rule="each within 3 %",
        ours=", ".join(f"{sent / 1e6:.2f}" for sent in ours.values())
        + " MB: 8 + 4 bytes a coefficient; published are 11.7",
        error=f"{100 * worst:+.2f} % at worst",
        status=ruled(abs(worst) <= 0.03, abs(worst) > 0.03),
    )


def _four_bits() -> Verdict:
    every_step = payload_bytes(DENSE_1B, Dense(), Fp16(), "bits12", "packed")
    seldom = payload_bytes(DENSE_1B, Dense(), Fp4(), "bits12", "packed")
    claim = "traffic of 16 bits every step over 4 bits every 100 steps"
    return _gate("A11", claim, "2501.18512", 100 * every_step / seldom, 400.0, 0.02, "x", "")


def _gate(
    id: str, claim: str, source: str, ours: float, expected: float, tolerance: float, unit: str, beside: str
) -> Verdict:
    error = ours / expected - 1
    return Verdict(
        id=id,
        kind="gate",
        claim=claim,
        source=source,
        expected=f"{expected:g}{unit}",
        rule=f"within {100 * tolerance:.2g} %",
        ours=f"{ours:.4g}{unit}{beside}",
        error=f"{100 * error:+.2f} %",
        status=ruled(abs(error) <= tolerance, abs(error) > tolerance),
    )
