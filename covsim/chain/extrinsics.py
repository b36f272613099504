"""Extrinsics: what an account can say on the chain, in one canonical spelling, signed.

The spelling is JSON with sorted keys and no spaces, so that equal calls have equal bytes. A number that JSON cannot
hold is null and comes back as NaN.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, TypeAlias

from covsim.chain.accounts import Account, is_signed

Weights: TypeAlias = tuple[tuple[int, float], ...]
"""(slot, weight); whole numbers up to 65535 on a chain that keeps 16 bits."""

VerdictRow: TypeAlias = tuple[int, str, float, float, float, float, float]
"""uid, status, gradient score, indicator average, mu, sigma, final score."""


class Said:
    """What all calls have. They keep their spelling: much of a long run's chain would else be spelling again."""

    @cached_property
    def spelled(self: Call) -> bytes:  # type: ignore[misc]
        """The call in its canonical spelling."""
        try:
            return canonical(_unchanged(self))
        except ValueError:  # there is a number in it that JSON cannot hold
            return canonical(plain(self))


@dataclass(frozen=True)
class Register(Said):
    """Ask for a slot. `role` is `peer`, `validator` or `owner`; stake counts for validators."""

    name: str
    role: str
    stake: float


@dataclass(frozen=True)
class CommitBucket(Said):
    """Say where one's payloads can be read."""

    location: str


@dataclass(frozen=True)
class PayloadHash(Said):
    """Stand by a payload: its round and the SHA-256 of its bytes."""

    round: int
    sha256: str


@dataclass(frozen=True)
class SetWeights(Said):
    """Set weights, open for all to see at once."""

    round: int
    weights: Weights


@dataclass(frozen=True)
class CommitWeights(Said):
    """Set weights that stay hidden: the digest of a `RevealWeights`."""

    round: int
    digest: str


@dataclass(frozen=True)
class RevealWeights(Said):
    """Show the weights that were committed to."""

    round: int
    weights: Weights
    salt: str

    @property
    def digest(self) -> str:
        """What the commitment to it says."""
        return hashlib.sha256(self.spelled).hexdigest()


@dataclass(frozen=True)
class LogVerdicts(Said):
    """A validator's final scores of all peers after a round, and its verdicts in it."""

    round: int
    final_scores: tuple[tuple[int, float], ...]
    places: tuple[int, int]
    verdicts: tuple[VerdictRow, ...]


@dataclass(frozen=True)
class CloseRun(Said):
    """What a run amounts to: hashes of its final theta and of its tape, and the held-out loss of that theta."""

    theta_sha256: str
    tape_sha256: str
    loss: float
    rounds: int


Call: TypeAlias = (
    Register | CommitBucket | PayloadHash | SetWeights | CommitWeights | RevealWeights | LogVerdicts | CloseRun
)

_KINDS: dict[str, type[Any]] = {
    "register": Register,
    "commit_bucket": CommitBucket,
    "payload_hash": PayloadHash,
    "set_weights": SetWeights,
    "commit_weights": CommitWeights,
    "reveal_weights": RevealWeights,
    "log_verdicts": LogVerdicts,
    "close_run": CloseRun,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}

_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True, check_circular=False
)


@dataclass(frozen=True, slots=True)
class Signed:
    """A call and who stands for it. The nonce counts an account's calls, so that none can be played twice."""

    public: str
    nonce: int
    call: Call
    signature: str

    @property
    def message(self) -> bytes:
        """What is signed: call, nonce and public key in their canonical spelling."""
        return b'{"call":%b,"nonce":%d,"public":%b}' % (self.call.spelled, self.nonce, canonical(self.public))

    @property
    def spelled(self) -> bytes:
        """The canonical spelling of `plain`: the message with the signature behind it."""
        return b'%b,"signature":%b}' % (self.message[:-1], canonical(self.signature))

    @property
    def is_genuine(self) -> bool:
        """True if the holder of the public key signed this very call."""
        return is_signed(self.public, self.message, self.signature)

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"call": plain(self.call), "nonce": self.nonce, "public": self.public, "signature": self.signature}


def sign(account: Account, nonce: int, call: Call) -> Signed:
    """The call, signed."""
    unsigned = Signed(account.public, nonce, call, "")
    return Signed(account.public, nonce, call, account.sign(unsigned.message))


def kind_of(call: Call) -> str:
    """The name of a call's kind."""
    return _NAMES[type(call)]


def plain(call: Call) -> dict[str, Any]:
    """A call as JSON has it."""
    return {name: _listed(value) for name, value in _unchanged(call).items()}


def signed_of(value: Mapping[str, Any]) -> Signed:
    """The extrinsic that `Signed.plain` wrote down. Raises ValueError for anything else."""
    if not isinstance(value, dict) or set(value) != {"call", "nonce", "public", "signature"}:
        raise ValueError("an extrinsic has call, nonce, public and signature")
    if not isinstance(value["public"], str) or not isinstance(value["signature"], str) or not _is_whole(value["nonce"]):
        raise ValueError("public key and signature are texts, the nonce is a whole number")
    return Signed(value["public"], value["nonce"], _call_of(value["call"]), value["signature"])


def canonical(value: Any) -> bytes:
    """The one spelling of a JSON value. Raises ValueError for a number that JSON cannot hold."""
    return _ENCODER.encode(value).encode()


def _unchanged(call: Call) -> dict[str, Any]:
    """A call's kind and fields, with tuples and numbers as they are."""
    return {"kind": kind_of(call)} | {item.name: getattr(call, item.name) for item in fields(call)}


def _call_of(value: Any) -> Call:
    kind = _KINDS.get(str(value.get("kind"))) if isinstance(value, dict) else None
    if kind is None:
        raise ValueError("the call is of no known kind")
    names = [item.name for item in fields(kind)]
    if set(value) != {"kind", *names}:
        raise ValueError(f"a call of kind {value['kind']} has {', '.join(names)}")
    call: Call = kind(**{item.name: _read(item.type, item.name, value[item.name]) for item in fields(kind)})
    return call


_MOST_EXACT = 2**53
"""Whole numbers up to here are floats too."""

_SHAPES: dict[str, tuple[type, ...] | str] = {
    "weights": (int, float),
    "final_scores": (int, float),
    "places": "pair",
    "verdicts": (int, str, float, float, float, float, float),
}


def _read(annotation: Any, name: str, value: Any) -> Any:
    """A field's value from JSON. Raises ValueError for one of another type."""
    shape = _SHAPES.get(name)
    if shape == "pair":
        return tuple(_scalar(int, name, entry) for entry in _list(name, value, 2))
    if shape is not None:
        rows = _list(name, value)
        return tuple(
            tuple(_scalar(kind, name, entry) for kind, entry in zip(shape, _list(name, row, len(shape)), strict=True))
            for row in rows
        )
    return _scalar({"str": str, "int": int, "float": float}[str(annotation)], name, value)


def _list(name: str, value: Any, length: int | None = None) -> list[Any]:
    if not isinstance(value, list) or (length is not None and len(value) != length):
        raise ValueError(f"{name} is not a list as it should be")
    return value


def _scalar(kind: Any, name: str, value: Any) -> Any:
    if kind is float and value is None:
        return math.nan
    good = isinstance(value, kind) or (kind is float and isinstance(value, int) and abs(value) <= _MOST_EXACT)
    if not good or isinstance(value, bool):
        raise ValueError(f"{name} has {value!r} where a {kind.__name__} belongs")
    return value


def _listed(value: Any) -> Any:
    """Tuples as lists, and None for a number that JSON cannot hold."""
    if isinstance(value, tuple):
        return [_listed(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
