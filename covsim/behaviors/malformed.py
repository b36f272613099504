"""Bytes that are meant to break whoever reads them."""

from typing import Literal

from pydantic import Field

from covsim.behaviors.base import Behavior, PeerVerbs, Script, behaviors

Flaw = Literal[
    "truncated",
    "empty",
    "oversized",
    "nan",
    "infinite",
    "huge",
    "wrong_indices",
    "duplicate_indices",
    "wrong_shape",
    "wrong_version",
    "bad_checksum",
]


@behaviors.register
class Malformed(Behavior):
    """Train nothing, and submit a payload of noise that is invalid in one way, drawn anew each round.

    `huge` is valid in form, with values beyond all measure; all others must be refused by whoever decodes them.
    Source: one-covenant/templar, #469, and fuzzing in general.
    """

    kind: Literal["malformed"] = "malformed"
    flaws: tuple[Flaw, ...] = Field(
        Flaw.__args__,  # type: ignore[attr-defined]
        min_length=1,
        max_length=100,
        description="what may be wrong with a payload; one that is named twice is drawn twice as often",
    )

    def play_round(self, peer: PeerVerbs) -> Script:
        payload = yield from peer.encode(peer.noise(0.01))
        flaw = self.flaws[int(peer.chance("flaw") * len(self.flaws))]
        yield from peer.submit_payload(peer.forge(payload, flaw))
        yield from peer.sync()
