"""How fast the store is, how reliable, and how it is asked: the `store:` section of a scenario."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from covsim.choice import OneOf
from covsim.units import Rate, Seconds, Share, Size
from covsim.world.faults import Label
from covsim.world.pauses import Pauses
from covsim.world.requests import Backoff, ConstantBackoff, ExponentialBackoff, Ranges, backoffs


class StoreSettings(BaseModel):
    """The `store:` section: how fast the store is, and how reliable."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    ingress: Rate | None = Field(
        default=None, gt=0, le=1e18, description="What all uploads have together; unlimited if not given."
    )
    egress: Rate | None = Field(
        default=None, gt=0, le=1e18, description="What all downloads have together; unlimited if not given."
    )
    read_failure: Share = Field(default=0.0, description="Chance that one attempt to read fails.")
    retries: int = Field(
        default=3, ge=0, le=1000, description="Further attempts after a read, or an upload in an outage, that failed."
    )
    retry_delay: Seconds = Field(default=1.0, ge=0, le=86_400, description="Wait before a further attempt.")
    backoff: Annotated[Backoff, OneOf(backoffs, bare="kind")] = Field(
        default=ConstantBackoff(), description="How that wait grows with each attempt that failed."
    )
    refused_backoff: Annotated[Backoff, OneOf(backoffs, bare="kind")] = Field(
        default=ExponentialBackoff(), description="The same for attempts that a rate limit refused."
    )
    rate_limit: float | None = Field(
        default=None, gt=0, le=1e9, description="Requests a second that are let through; all if not given."
    )
    ranges: Ranges | None = Field(
        default=None, description="How downloads are cut into ranges; in one piece if not given."
    )
    region: Label | None = Field(default=None, description="Where it is, for network.latencies and regional links.")
    max_object: Size = Field(default=5e12, gt=0, le=1e18, description="Largest object accepted, as charged.")
    outages: Pauses = Field(
        default=[], max_length=1000, description="When every request fails; transfers under way go on."
    )
