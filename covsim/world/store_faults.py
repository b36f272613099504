"""Faults of the object store: down, refusing, slow, losing, with a false clock, or under two names."""

from contextlib import nullcontext
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from covsim.units import Rate, Seconds, Share
from covsim.world.faults import UNTIL_THE_END, Fault, FaultVerbs, Harm, Label, Targets, faults

_DAY_S = 86_400.0


@faults.register
class StoreOutage(Fault):
    """The store answers nobody: every request fails and is tried again; transfers under way go on.

    The same as an entry of `store.outages`, with a label and events.

    Source: one-covenant/templar #613 and #681, where an outage slashed the innocent.
    """

    strikes: ClassVar[Literal["store"]] = "store"
    kind: Literal["store_outage"] = "store_outage"

    def harm(self, verbs: FaultVerbs, targets: Targets) -> Harm:
        with verbs.store_down():
            yield UNTIL_THE_END


@faults.register
class StoreRateLimit(Fault):
    """The store refuses what is more than so many requests a second, of all nodes together; they back off and retry.

    Source: HTTP 429 and 503 of S3-like stores; the wait doubles with each refusal and is spread (AWS Architecture Blog,
    "Exponential Backoff and Jitter", 2015, equal jitter).
    """

    strikes: ClassVar[Literal["store"]] = "store"
    kind: Literal["store_rate_limit"] = "store_rate_limit"
    requests_per_s: float = Field(gt=0, le=1e9, description="Requests a second that are let through.")

    def harm(self, verbs: FaultVerbs, targets: Targets) -> Harm:
        with verbs.rate_limited(self.requests_per_s):
            yield UNTIL_THE_END


@faults.register
class SlowReads(Fault):
    """Every download that begins gets so much at most, after a delay; what began slow stays slow.

    Source: a store that serves from cold storage.
    """

    strikes: ClassVar[Literal["store"]] = "store"
    kind: Literal["slow_reads"] = "slow_reads"
    limit: Rate = Field(gt=0, le=1e18, description="The most that one download gets.")
    delay: Seconds = Field(default=0.0, ge=0, le=_DAY_S, description="Wait before its first byte.")

    def harm(self, verbs: FaultVerbs, targets: Targets) -> Harm:
        with verbs.slow_reads(self.limit, self.delay):
            yield UNTIL_THE_END


@faults.register
class LostObject(Fault):
    """What peers upload is acknowledged and lost.

    Source: a write that a store confirmed before it was safe.
    """

    kind: Literal["lost_object"] = "lost_object"

    def harm(self, verbs: FaultVerbs, targets: Targets) -> Harm:
        with verbs.damaged_uploads(targets, "lost"):
            yield UNTIL_THE_END


@faults.register
class TruncatedObject(Fault):
    """Of what peers upload only the beginning is kept: it is there, on time, and cannot be decoded.

    Source: one-covenant/templar #469, where partial uploads passed for whole ones.
    """

    kind: Literal["truncated_object"] = "truncated_object"
    keeps: Share = Field(default=0.5, lt=1, description="Part of the bytes that is kept.")

    def harm(self, verbs: FaultVerbs, targets: Targets) -> Harm:
        with verbs.damaged_uploads(targets, "truncated", self.keeps):
            yield UNTIL_THE_END


@faults.register
class ClockSkew(Fault):
    """The store's clock is wrong, and so are its stamps, by which uploads count as early, on time or late.

    Source: the put window of one-covenant/templar goes by the store's `LastModified`.
    """

    strikes: ClassVar[Literal["store"]] = "store"
    kind: Literal["clock_skew"] = "clock_skew"
    ahead: Seconds | None = Field(default=None, gt=0, le=_DAY_S, description="How far ahead it goes.")
    behind: Seconds | None = Field(default=None, gt=0, le=_DAY_S, description="How far behind it goes.")

    @model_validator(mode="after")
    def _is_wrong_one_way(self) -> Self:
        if (self.ahead is None) == (self.behind is None):
            raise ValueError("give ahead or behind")
        return self

    def harm(self, verbs: FaultVerbs, targets: Targets) -> Harm:
        with verbs.store_clock((self.ahead or 0.0) - (self.behind or 0.0)):
            yield UNTIL_THE_END


@faults.register
class VersionSplit(Fault):
    """Some peers run a release that writes and looks for objects under other names; the validators stay with the rest.

    Each side finds only its own payloads; what those peers send, no validator sees.

    Source: one-covenant/templar names its objects by version, so a release splits the network until all have it.
    """

    kind: Literal["version_split"] = "version_split"
    version: Label = Field(default="next", description="What the other names end in.")
    restarts: bool = Field(default=False, description="Restart the peers when it is over, so that they catch up.")

    @property
    def makes_catch_up(self) -> bool:
        return self.restarts

    def harm(self, verbs: FaultVerbs, targets: Targets) -> Harm:
        after = verbs.restarted_after(targets) if self.restarts else nullcontext()
        with after, verbs.renamed(targets, self.version):
            yield UNTIL_THE_END
