"""How values are written: a code each, and per group of values what all its codes share.

A group is one tensor or one chunk. A value format is one class here or in a package of its own; the wire carries its
name, its codes and its headers, and knows no format.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from covsim.protocol.invalid import InvalidPayload, refuse
from covsim.protocol.quantize import MAX_SCALE, MIN_SCALE, binned, group_count, group_sum, quantize
from covsim.registry import Part, Registry

Group = Annotated[
    Literal["tensor", "chunk"], Field(description="whose values share one header: a whole tensor's, or one chunk's")
]
Bits = Annotated[Literal[2, 4, 8], Field(description="bits of a value")]
Floats = NDArray[np.float32]
Headers = NDArray[np.void]
Array = TypeVar("Array", Tensor, Floats)

_MAX_HALF = float(np.finfo(np.float16).max)


class Encoded(NamedTuple):
    """R groups of C x k values, encoded.

    Attributes:
        header: the fields of `ValueFormat.header` by name, each [R] or [R, length of the field].
        code: of each value [R, C, k]; uint8, or int16 and int32 for the bits of codes of 16 and 32.
        decoded: what a receiver computes, bit for bit [R, C, k], float32.
    """

    header: Mapping[str, Tensor]
    code: Tensor
    decoded: Tensor


class ValueFormat(Part):
    """A way to write the values of a group."""

    kind: str

    @property
    @abstractmethod
    def code_bits(self) -> int:
        """Bits of a code: 1, 2, 4, 8, 16 or 32."""

    @property
    @abstractmethod
    def header(self) -> np.dtype[np.void]:
        """What is written once per group: named little-endian fields without gaps; none is possible."""

    @property
    @abstractmethod
    def per_chunk(self) -> bool:
        """True if a group is a chunk, False if it is a tensor."""

    @abstractmethod
    def encode(self, values: Tensor, used: Tensor | None = None) -> Encoded:
        """Encode R groups of values [R, C, k], float32; a group's result must not depend on the others.

        Values that are not `used` (bool [R, C, k]; by default all are) are 0 and must take no part. Groups that are not
        finite are encoded so that `decode` refuses them.
        """

    @abstractmethod
    def decode(self, headers: Headers, codes: NDArray[Any], group_of: NDArray[np.int64]) -> Floats:
        """The values [n] of codes [n] of the groups `group_of` [n], headers one per group [G].

        Raises InvalidPayload for whatever `encode` cannot have written.
        """


value_formats: Registry[ValueFormat] = Registry("value format")


@value_formats.register
class BinMean(ValueFormat):
    """Bins of equal width around the mean, each value decoded as the mean of its bin.

    Source: one-covenant/templar, `_quantize_values`.
    """

    kind: Literal["bin_mean"] = "bin_mean"
    bits: Bits = 2
    group: Group = "tensor"

    @property
    def code_bits(self) -> int:
        """As set."""
        return self.bits

    @property
    def header(self) -> np.dtype[np.void]:
        """Mean, bin width, the code of the mean, and the means of the bins beside it."""
        return np.dtype([("mean", "<f4"), ("scale", "<f4"), ("offset", "<f4"), ("table", "<f4", (2**self.bits,))])

    @property
    def per_chunk(self) -> bool:
        """As set."""
        return self.group == "chunk"

    def encode(self, values: Tensor, used: Tensor | None = None) -> Encoded:
        """As `quantize` has it."""
        mean, scale, table, code, decoded = quantize(values, self.bits, used)
        offset = torch.full_like(mean, 2 ** (self.bits - 1))
        return Encoded({"mean": mean, "scale": scale, "offset": offset, "table": table}, code, decoded)

    def decode(self, headers: Headers, codes: NDArray[Any], group_of: NDArray[np.int64]) -> Floats:
        """Look up the codes. The width of the bins is only checked."""
        refuse(headers["offset"] != 2 ** (self.bits - 1), f"{self.group} {{}} has another offset than expected")
        _refuse_mean_or_scale(headers, self.group)
        refuse(~np.isfinite(headers["table"]).all(axis=1), f"{self.group} {{}} has a table that is not finite")
        with np.errstate(over="ignore"):
            levels = headers["table"] + headers["mean"][:, None]
        return _look_up(levels, codes, group_of, self.group)


@value_formats.register
class Uniform(ValueFormat):
    """Bins of equal width around the mean, each value decoded as the center of its bin.

    Source: textbook uniform quantization; bins as in one-covenant/templar, but without its table of their means.
    """

    kind: Literal["uniform"] = "uniform"
    bits: Bits = 2
    group: Group = "tensor"

    @property
    def code_bits(self) -> int:
        """As set."""
        return self.bits

    @property
    def header(self) -> np.dtype[np.void]:
        """Mean and bin width."""
        return np.dtype([("mean", "<f4"), ("scale", "<f4")])

    @property
    def per_chunk(self) -> bool:
        """As set."""
        return self.group == "chunk"

    def encode(self, values: Tensor, used: Tensor | None = None) -> Encoded:
        """Code c stands for (c - 2^(bits - 1)) scale + mean."""
        mean, scale, _, code = binned(values, self.bits, used)
        steps = torch.arange(2**self.bits, device=values.device).float() - 2 ** (self.bits - 1)
        decoded = _centers(steps, scale, mean).gather(1, code.flatten(1)).view_as(values)
        return Encoded({"mean": mean, "scale": scale}, code.to(torch.uint8), decoded)

    def decode(self, headers: Headers, codes: NDArray[Any], group_of: NDArray[np.int64]) -> Floats:
        """Look up the codes among the centers."""
        _refuse_mean_or_scale(headers, self.group)
        refuse(headers["scale"] < 0, f"{self.group} {{}} has a negative scale")
        steps = np.arange(2**self.bits, dtype=np.float32) - np.float32(2 ** (self.bits - 1))
        with np.errstate(over="ignore"):
            levels = _centers(steps, headers["scale"], headers["mean"])
        return _look_up(levels, codes, group_of, self.group)


@value_formats.register
class Sign(ValueFormat):
    """The sign of each value times the mean absolute value of its group, in 1 bit.

    Source: 1-bit SGD and scaled signSGD (arXiv 1901.09847).
    """

    kind: Literal["sign"] = "sign"
    group: Group = "tensor"

    @property
    def code_bits(self) -> int:
        """One."""
        return 1

    @property
    def header(self) -> np.dtype[np.void]:
        """The mean absolute value."""
        return np.dtype([("size", "<f4")])

    @property
    def per_chunk(self) -> bool:
        """As set."""
        return self.group == "chunk"

    def encode(self, values: Tensor, used: Tensor | None = None) -> Encoded:
        """Code 1 is negative; 0 counts as positive, and so does everything in a group of size 0."""
        total, num = group_sum(values.abs().double()), group_count(values, used)
        size = (total / num.clamp(min=1)).float()
        negative = (values < 0) & (size != 0)[:, None, None]
        decoded = torch.where(negative, 0 - size[:, None, None], size[:, None, None])
        return Encoded({"size": size}, negative.to(torch.uint8), decoded)

    def decode(self, headers: Headers, codes: NDArray[Any], group_of: NDArray[np.int64]) -> Floats:
        """Plus or minus the size."""
        _refuse_size(headers, codes, group_of, self.group)
        return _look_up(np.stack([headers["size"], 0 - headers["size"]], axis=1), codes, group_of, self.group)


@value_formats.register
class Fp4(ValueFormat):
    """Floats of a sign and 3 exponent bits, E3M0: 0 and seven powers of two, times the largest value of the group.

    Source: Streaming DiLoCo (arXiv 2501.18512), which sends outer gradients so.
    """

    kind: Literal["fp4"] = "fp4"
    group: Group = "tensor"

    @property
    def code_bits(self) -> int:
        """Four."""
        return 4

    @property
    def header(self) -> np.dtype[np.void]:
        """The largest absolute value."""
        return np.dtype([("size", "<f4")])

    @property
    def per_chunk(self) -> bool:
        """As set."""
        return self.group == "chunk"

    def encode(self, values: Tensor, used: Tensor | None = None) -> Encoded:
        """Exponent e > 0 stands for 2^(e - 7), e = 0 for 0; the nearest is taken, of two equally near the larger."""
        size = values.abs().amax(dim=(1, 2))
        shares = (values.abs() / torch.where(size == 0, 1.0, size)[:, None, None]).nan_to_num_(0.0)
        mantissa, exponent = torch.frexp(shares)  # shares = mantissa 2^exponent, 1/2 <= mantissa < 1
        power = (exponent + 6 + (mantissa >= 0.75).int()).clamp_(1, 7)
        power = torch.where(shares >= 2**-7, power, 0)
        code = torch.where((values < 0) & (power > 0), power + 8, power).long()
        powers = torch.from_numpy(_E3M0).to(values.device)
        decoded = _scaled_levels(powers, size).gather(1, code.flatten(1)).view_as(values)
        return Encoded({"size": size}, code.to(torch.uint8), decoded)

    def decode(self, headers: Headers, codes: NDArray[Any], group_of: NDArray[np.int64]) -> Floats:
        """Look up the codes; zero has no sign."""
        _refuse_size(headers, codes, group_of, self.group)
        refuse(codes == 8, "code {} is a negative zero")
        return _look_up(_scaled_levels(_E3M0, headers["size"]), codes, group_of, self.group)


@value_formats.register
class Fp16(ValueFormat):
    """IEEE half precision; finite values beyond its range become its largest.

    Source: IEEE 754.
    """

    kind: Literal["fp16"] = "fp16"

    @property
    def code_bits(self) -> int:
        """Sixteen."""
        return 16

    @property
    def header(self) -> np.dtype[np.void]:
        """Nothing."""
        return np.dtype([])

    @property
    def per_chunk(self) -> bool:
        """There are no headers to share."""
        return False

    def encode(self, values: Tensor, used: Tensor | None = None) -> Encoded:
        """The nearest half; zero has no sign."""
        inside = torch.where(values.isfinite(), values.clamp(-_MAX_HALF, _MAX_HALF), values)
        halves = inside.half() + 0.0
        return Encoded({}, halves.view(torch.int16), halves.float())

    def decode(self, headers: Headers, codes: NDArray[Any], group_of: NDArray[np.int64]) -> Floats:
        """As they are."""
        return _plain_floats(codes.view("<f2"))


@value_formats.register
class Fp32(ValueFormat):
    """IEEE single precision: the values as they are.

    Source: IEEE 754.
    """

    kind: Literal["fp32"] = "fp32"

    @property
    def code_bits(self) -> int:
        """Thirty-two."""
        return 32

    @property
    def header(self) -> np.dtype[np.void]:
        """Nothing."""
        return np.dtype([])

    @property
    def per_chunk(self) -> bool:
        """There are no headers to share."""
        return False

    def encode(self, values: Tensor, used: Tensor | None = None) -> Encoded:
        """The bits of each value; zero has no sign."""
        unsigned_zero = values + 0.0
        return Encoded({}, unsigned_zero.view(torch.int32), unsigned_zero)

    def decode(self, headers: Headers, codes: NDArray[Any], group_of: NDArray[np.int64]) -> Floats:
        """As they are."""
        return _plain_floats(codes.view("<f4"))


_MAGNITUDES = np.array([0, *(2.0 ** (exponent - 7) for exponent in range(1, 8))], dtype=np.float32)
_E3M0 = np.concatenate([_MAGNITUDES, -_MAGNITUDES])


def _centers(steps: Array, scale: Array, mean: Array) -> Array:
    """Bin centers of each group [G, 2^bits]: the same two roundings for sender and receiver."""
    return steps * scale[:, None] + mean[:, None]


def _scaled_levels(powers: Array, size: Array) -> Array:
    """The sixteen values of each group [G, 16], zero without sign."""
    return powers * size[:, None] + 0.0


def _look_up(levels: Floats, codes: NDArray[Any], group_of: NDArray[np.int64], noun: str) -> Floats:
    """The level of each code [n], of groups that have all their levels [G, L] finite."""
    refuse(~np.isfinite(levels).all(axis=1), f"{noun} {{}} has values that are not finite")
    values: Floats = levels.ravel()[group_of * levels.shape[1] + codes]
    return values


def _plain_floats(values: NDArray[Any]) -> Floats:
    refuse(~np.isfinite(values), "value {} is not finite")
    refuse((values == 0) & np.signbit(values), "value {} is a negative zero")
    return values.astype(np.float32)


def _refuse_mean_or_scale(headers: Headers, noun: str) -> None:
    refuse(~np.isfinite(headers["mean"]), f"{noun} {{}} has a mean that is not finite")
    refuse(~np.isfinite(headers["scale"]), f"{noun} {{}} has a scale that is not finite")
    width = np.abs(headers["scale"])
    refuse(width < np.float32(MIN_SCALE), f"{noun} {{}} has a scale under {MIN_SCALE:g}")
    refuse(width > np.float32(MAX_SCALE), f"{noun} {{}} has a scale over {MAX_SCALE:g}")


def _refuse_size(headers: Headers, codes: NDArray[Any], group_of: NDArray[np.int64], noun: str) -> None:
    """A size is finite and has no sign, and a group of size 0 has only codes of 0."""
    size = headers["size"]
    refuse(~np.isfinite(size), f"{noun} {{}} has a size that is not finite")
    refuse(np.signbit(size), f"{noun} {{}} has a negative size")
    if ((size == 0)[group_of] & (codes != 0)).any():
        raise InvalidPayload(f"a {noun} of size 0 has values")
