"""Deployments by name, each from a source: tensors, layers, seconds of an inner step, seconds of an evaluation.

What no source states is assumed, and says so.
"""

from __future__ import annotations

from typing import Any

Groups = tuple[tuple[int, tuple[int, ...]], ...]
"""Tensors as (count, shape), enough to size a payload that nobody ever holds."""


def llama(layers: int, width: int, keys: int, hidden: int, vocabulary: int) -> Groups:
    """Llama's tensors: query and output, key and value, gate and up, down, norms; embeddings and head are not tied.

    Args:
        layers: transformer blocks.
        width: channels of the residual stream.
        keys: rows of the key and of the value projection, all heads together.
        hidden: channels inside the feed-forward block.
        vocabulary: tokens.
    """
    return (
        (2, (vocabulary, width)),
        (2 * layers, (width, width)),
        (2 * layers, (keys, width)),
        (2 * layers, (hidden, width)),
        (layers, (width, hidden)),
        (2 * layers + 1, (width,)),
    )


COVENANT_72B = llama(layers=80, width=8192, keys=1024, hidden=28_672, vocabulary=262_144)
"""72,747,327,488 parameters, Llama-3-70B's layers with Gemma 3's tokens. Source: Covenant-72B (arXiv 2603.08163)."""

TEMPLAR_8B = llama(layers=32, width=4096, keys=1024, hidden=14_336, vocabulary=32_000)
"""7,241,732,096 parameters, Llama-3-8B's layers with Llama 2's tokens. Source: templar v1.0, `hparams/8B.json`."""

TEMPLAR_1B = llama(layers=16, width=2048, keys=2048, hidden=8192, vocabulary=32_000)
"""1,204,881,408 parameters. Source: templar v0.2, `hparams.json`."""

INTELLECT_1_10B = llama(layers=42, width=4096, keys=1024, hidden=14_336, vocabulary=128_256)
"""10,211,381,248 parameters, Llama 3's shapes with 42 layers. Source: INTELLECT-1 (arXiv 2412.01152)."""

OPENDILOCO_150M = llama(layers=12, width=1024, keys=1024, hidden=2688, vocabulary=32_000)
"""214,983,680 parameters, 149 million of them in the layers. Source: OpenDiLoCo, `configs/config_150m.json`."""

OPENDILOCO_1100M = llama(layers=22, width=2048, keys=256, hidden=5632, vocabulary=32_000)
"""1,100,048,384 parameters, TinyLlama's shapes. Source: OpenDiLoCo, `configs/config_1b.json`."""

# Streaming DiLoCo's simulation states parameters and layers, no tensors; a dense payload's length depends on no more.
STREAMING_1B: Groups = ((1000, (1000, 1000)),)
STREAMING_10B: Groups = ((1000, (1000, 10_000)),)
STREAMING_100B: Groups = ((1000, (10_000, 10_000)),)


GPU_OF = {"covenant-72b": "B200", "intellect-1-10b": "H100", "opendiloco-150m": "H100", "opendiloco-1.1b": "H100"}
"""The GPU of a preset's machine, where its source names one; of `opendiloco-150m` it is assumed."""

PEAK_OF = {"B200": 2250e12, "H100": 989e12}
"""FLOP/s of one GPU in bf16, dense: of the SXM boards. Source: NVIDIA's data sheets of the H100 and the HGX B200."""


def _listed(groups: Groups) -> list[dict[str, Any]]:
    return [{"count": count, "shape": list(shape)} for count, shape in groups]


# No source states what an evaluation takes (one peer's trial step and its four losses): 8 s of 72.7 B parameters are
# assumed, and of the smaller models about as much less as they are smaller.
PRESETS: dict[str, dict[str, Any]] = {
    "covenant-72b": {
        "inner_step": "40 s",  # 20 min of compute for 30 inner steps, as the report gives it
        "evaluation": "8 s",
        "tensors": _listed(COVENANT_72B),
        "layers": 80,
        "tokens_per_step": 192 * 2048,  # as the report gives it
        "gpus": 8,  # B200s, as the report gives it
    },
    "templar-8b": {
        "inner_step": "8.6 s",  # assumed: 30 of them fill 80 % of a window of v1.0.20, 27 blocks
        "evaluation": "1 s",
        "tensors": _listed(TEMPLAR_8B),
        "layers": 32,
        "tokens_per_step": 192 * 2048,  # one-covenant/templar, from v1.0 on
    },
    "templar-1b": {
        "inner_step": "60 s",  # assumed: the one gradient of a window of v0.2.88, 8 blocks, on slow machines too
        "evaluation": "0.2 s",
        "tensors": _listed(TEMPLAR_1B),
        "layers": 16,
    },
    "intellect-1-10b": {
        "inner_step": "22.8 s",  # 38 min for 100 inner steps
        "evaluation": "1.1 s",
        "tensors": _listed(INTELLECT_1_10B),
        "layers": 42,
        "tokens_per_step": 128 * 8192,  # PrimeIntellect-ai/prime, `configs/10B/H100.toml`
        "gpus": 8,  # H100s: up to 14 nodes and 112 GPUs
    },
    "opendiloco-150m": {
        # No source states seconds: 40 % of an H100's dense bf16 peak (NVIDIA's data sheet) is assumed.
        "inner_step": {"kind": "flops", "peak": "989 TFLOP/s", "utilization": "40 %"},
        "evaluation": "0.02 s",
        "tensors": _listed(OPENDILOCO_150M),
        "layers": 12,
        "tokens_per_step": 512 * 1024,  # PrimeIntellect-ai/OpenDiloco, README; sequences of DiLoCo's length
        "gpus": 1,  # 8 replicas on 8 GPUs, there
    },
    "opendiloco-1.1b": {
        "inner_step": "8.1 s",  # 67.5 min for 500 inner steps
        "evaluation": "0.12 s",
        "tensors": _listed(OPENDILOCO_1100M),
        "layers": 22,
        "tokens_per_step": 2048 * 1024,  # there too
        "gpus": 8,  # H100s
    },
    # Parameters, layers and seconds of the simulation behind table 4 of Streaming DiLoCo (arXiv 2501.18512).
    # How many accelerators a replica has is not said; at 6 N D in 0.1 s it is a cluster. 25 B tokens in 24 k steps.
    "streaming-1b": {
        "inner_step": "0.1 s",
        "evaluation": "0.1 s",
        "tensors": _listed(STREAMING_1B),
        "layers": 24,
        "tokens_per_step": 2**20,
    },
    "streaming-10b": {"inner_step": "0.8 s", "evaluation": "1 s", "tensors": _listed(STREAMING_10B), "layers": 48},
    "streaming-100b": {"inner_step": "4.9 s", "evaluation": "10 s", "tensors": _listed(STREAMING_100B), "layers": 108},
    "same": {"inner_step": "1 s", "evaluation": "0.5 s", "tensors": []},
}
