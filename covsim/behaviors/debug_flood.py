"""Honest work among a heap of files."""

from typing import Literal

from pydantic import Field

from covsim.behaviors.base import Behavior, PeerVerbs, Script, behaviors
from covsim.units import Share


@behaviors.register
class DebugFlood(Behavior):
    """Do the honest work, and then put many more objects into the store.

    They pass through its own uplink, before it gathers, so it pays for them in time as well as in bytes. Source: the
    debug files that peers of one-covenant/templar put beside their payloads.
    """

    kind: Literal["debug_flood"] = "debug_flood"
    puts: int = Field(100, ge=1, le=10_000, description="objects that it puts each round")
    size: Share = Field(0.01, gt=0, le=1, description="bytes of each, as part of a payload's; at least one byte")

    def play_round(self, peer: PeerVerbs) -> Script:
        update = yield from peer.train(peer.assigned_batches())
        yield from peer.submit(update)
        payload = yield from peer.encode(update)
        for place in range(self.puts):
            yield from peer.put(f"debug-{place}", payload[: max(1, round(self.size * len(payload)))])
        yield from peer.sync()
