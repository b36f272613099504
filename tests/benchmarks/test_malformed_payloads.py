"""10,000 malformed payloads through the decoder, where there is no torch: each is refused, and how long that takes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import covsim.protocol
from covsim.learning.model import Gpt

ROUNDS = 10_000

PROGRAM = """
import json, sys, time, types
import numpy as np

room = types.ModuleType("covsim.protocol")  # its door plate would load the rest of it, and torch
room.__path__ = [sys.argv[1]]
sys.modules["covsim.protocol"], sys.modules["torch"] = room, None

from covsim.protocol.chunks import ChunkMap, clamped_even, cut
from covsim.protocol.claims import Claims
from covsim.protocol.forgery import FLAWS, spoiled
from covsim.protocol.invalid import InvalidPayload
from covsim.protocol.wire import Message, WireFormat, Writing

class BinMean:
    code_bits, per_chunk = 2, False
    header = np.dtype([("mean", "<f4"), ("scale", "<f4"), ("offset", "<f4"), ("table", "<f4", (4,))])

grids = [cut(shape) for shape in json.loads(sys.argv[2])]
chunks = ChunkMap([grid.keeping(clamped_even(64, grid.chunk_size)) for grid in grids])
wire = WireFormat(chunks, Writing("topk", "bin_mean", BinMean(), "bits12", "packed"))
luck = np.random.default_rng(1)
payloads = []
for _ in range(16):
    positioned = np.flatnonzero(chunks.positioned)
    drawn = [np.sort(luck.choice(chunks.size[k], chunks.kept[k], replace=False)) for k in positioned]
    headers = np.ones(len(grids), dtype=BinMean.header)
    positions = np.concatenate(drawn).astype(np.uint16)
    codes = luck.integers(0, 4, chunks.full.num_values).astype(np.uint8)
    message = Message(headers[None], chunks.full.counts, positions[None], codes[None])
    payloads += wire.encode(message, [Claims(tokens=1)])
    wire.decode(payloads[-1])

flaws = [flaw for flaw in FLAWS if flaw != "huge"]
forged = [(flaw, spoiled(wire, payload, flaw)) for payload in payloads for flaw in flaws]
refused, rounds = dict.fromkeys(flaws, 0), int(sys.argv[3])
began = time.perf_counter()
for number in range(rounds):
    flaw, payload = forged[number % len(forged)]
    try:
        message, _, _ = wire.decode(payload)
        finite = np.isfinite(message.headers["mean"]).all()  # what a value format asks next
        refused[flaw] += not finite
    except InvalidPayload:
        refused[flaw] += 1
spent_s = time.perf_counter() - began
assert sys.modules["torch"] is None
print(json.dumps({"refused": refused, "spent_s": spent_s}))
"""


@pytest.mark.benchmark(group="malformed payloads")
def test_ten_thousand_malformed_payloads(benchmark: BenchmarkFixture) -> None:
    shapes = [list(shape) for shape in Gpt(width=64).shapes.values()]
    arguments = [covsim.protocol.__path__[0], json.dumps(shapes), str(ROUNDS)]

    def play() -> dict[str, object]:
        done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], check=True, capture_output=True, text=True)
        answer: dict[str, object] = json.loads(done.stdout)
        return answer

    found = benchmark.pedantic(play, rounds=1)
    benchmark.extra_info.update(found)
    assert sum(found["refused"].values()) == ROUNDS  # type: ignore[attr-defined]
    assert min(found["refused"].values()) >= ROUNDS // 10 - 100  # type: ignore[attr-defined]
    print(f"{ROUNDS} payloads refused in {found['spent_s']:.2f} s")
