"""The `emulation:` section: how a scenario is set to real processes, sockets and seconds. A simulation ignores it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from covsim.scenario.sections import Section
from covsim.units import Seconds

StoreUrl = Annotated[str, StringConstraints(pattern=r"^(local|s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w./-]*)?)$")]
"""`local`, or the bucket and the prefix of objects."""

Endpoint = Annotated[str, StringConstraints(pattern=r"^https?://[\w.:\[\]-]+$", max_length=200)]


class Emulation(Section):
    """How fast the wall clock goes, how large objects are on the wire, and what carries them."""

    seconds_per_second: float = Field(
        0.1, gt=0, le=1000, description="wall-clock seconds that a simulated second takes; nodes must keep up with it"
    )
    bytes_per_byte: float = Field(
        1.0, gt=0, le=1, description="bytes on the wire for each byte that the scenario charges; links are scaled alike"
    )
    store: StoreUrl = Field(
        "local", description="where objects lie: a local server that is started and ended, or s3://bucket/prefix"
    )
    endpoint: Endpoint | None = Field(
        None, description="of a store that is not local; keys come from the environment (AWS_ACCESS_KEY_ID, ...)"
    )
    links: Literal["auto", "kernel", "user", "open"] = Field(
        "auto", description="what shapes links: the kernel, a proxy, nothing; auto takes the first of these that works"
    )
    most_lag: Seconds = Field(
        1.0, gt=0, le=3600, description="simulated seconds that a node may be behind before the results say so"
    )

    @model_validator(mode="after")
    def _endpoint_has_a_store(self) -> Self:
        if self.endpoint is not None and self.store == "local":
            raise ValueError("an endpoint needs a store that is not local")
        return self
