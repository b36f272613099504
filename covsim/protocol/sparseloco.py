"""SparseLoCo: the k largest values of every chunk, in 2 bits each, with error feedback (arXiv 2508.15706).

For peer r in a round, with its error buffer e and its pseudo-gradient Delta:

    a      = beta e + Delta           accumulate
    hatD   = Q(TopK_chunk(a))         compress: this is sent
    e'     = a - hatD                 what was left out, the quantization error too, stays for later
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import Field, field_validator
from torch import Tensor

from covsim.protocol import wire
from covsim.protocol.base import Codec, Protocol, Shape, protocols
from covsim.protocol.block_codec import BlockCodec
from covsim.protocol.chunks import MAX_CHUNK, cut
from covsim.protocol.outer import Sgd
from covsim.protocol.wire import Packing


@protocols.register
class SparseLoCo(Protocol):
    """Exchange sparse, quantized pseudo-gradients after every H inner steps."""

    kind: Literal["sparseloco"] = "sparseloco"
    inner_steps: int = Field(default=30, ge=1, le=100_000, description="inner steps H between two exchanges")
    k: int = Field(default=64, description="values sent of each chunk of 64 x 64, an even number")
    bits: Literal[2] = Field(default=2, description="bits of a sent value")
    error_decay: float = Field(default=0.95, ge=0, le=1, description="beta: what the error buffer keeps per round")
    chunks: Literal["blocks"] = Field(default="blocks", description="how tensors are cut; blocks of up to 64 x 64")
    packing: Packing = Field(default="packed", description="codes share bytes, or have one each as once deployed")
    outer: Sgd = Field(default=Sgd(), description="how the combined pseudo-gradient moves theta")

    @field_validator("k")
    @classmethod
    def _k_fits_a_chunk(cls, k: int) -> int:
        if not 2 <= k <= MAX_CHUNK or k % 2:
            raise ValueError(f"k must be an even number from 2 to {MAX_CHUNK}, the size of a chunk; it is {k}")
        return k

    def codec(self, shapes: Sequence[Shape]) -> BlockCodec:
        """The codec for a model of these tensors. Raises ValueError for tensors of 0 or more than 2 dimensions."""
        return BlockCodec(shapes, self.k, self.bits, self.packing)

    def payload_bytes(self, groups: Iterable[tuple[int, Shape]]) -> int:
        """Bytes of a regular payload for `count` tensors of each `shape`, by formula, at any size."""
        grids = [(count, cut(shape, self.k)) for count, shape in groups]
        return wire.payload_bytes(
            num_tensors=sum(count for count, _ in grids),
            num_positions=sum(count * grid.num_positions for count, grid in grids),
            num_values=sum(count * grid.num_values for count, grid in grids),
            bits=self.bits,
            packing=self.packing,
        )


class ErrorFeedback:
    """The error buffers e of all uids: what compression left out of a peer's updates so far.

    A buffer changes when its peer compresses, whether or not the upload then lands.

    Args:
        codec: what compresses.
        decay: beta, what the buffer keeps per round.
    """

    def __init__(self, codec: Codec, decay: float) -> None:
        self._codec = codec
        self._decay = decay
        self._buffers: dict[int, Tensor] = {}

    def encode(self, uid: int, pseudo_gradient: Tensor) -> bytes:
        """The payload of one peer for its pseudo-gradient [N]."""
        return self.encode_many([uid], pseudo_gradient[None])[0]

    def encode_many(self, uids: Sequence[int], pseudo_gradients: Tensor) -> list[bytes]:
        """The payloads of P different peers for their pseudo-gradients [P, N]."""
        assert len(set(uids)) == len(uids) == len(pseudo_gradients), "one row per uid"
        accumulated = self._accumulate(uids, pseudo_gradients)
        payloads, sent = self._codec.compress(accumulated)
        left_out = accumulated.sub_(sent)
        self._buffers.update(zip(uids, left_out, strict=True))
        return payloads

    def buffer(self, uid: int) -> Tensor | None:
        """The error buffer of a uid [N]; None before its first payload."""
        return self._buffers.get(uid)

    def state(self) -> dict[int, Tensor]:
        """Copies of all buffers, by uid; each in memory of its own, while those kept here may be rows of a batch."""
        return {uid: buffer.clone() for uid, buffer in self._buffers.items()}

    def restore(self, state: Mapping[int, Tensor]) -> None:
        """Put back what `state` gave."""
        self._buffers = dict(state)

    def _accumulate(self, uids: Sequence[int], pseudo_gradients: Tensor) -> Tensor:
        """a = beta e + Delta [P, N]; e is 0 before a peer's first payload."""
        accumulated = pseudo_gradients.clone()
        for row, uid in enumerate(uids):
            if uid in self._buffers:
                accumulated[row] += self._decay * self._buffers[uid]
        return accumulated
