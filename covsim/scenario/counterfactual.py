"""Who is taken out of a scenario, or made honest in it, while everything else stays as it is.

Written by hand seldom: clean twins and `covsim attribute` write it. A uid that is absent keeps its number, so nobody
else's links, machine, shard or luck moves; it never joins, and nothing is simulated of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from covsim.registry import did_you_mean

Whom = Annotated[list[Annotated[int, Field(ge=0, lt=100_000)] | str], Field(max_length=100_000)]
"""Uids, and names of cohorts."""


class Counterfactual(BaseModel):
    """The `counterfactual:` section: what would have been, had these peers not come or not cheated."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    absent: Whom = Field([], description="uids and cohorts that never take part; their uids stay unused")
    honest: Whom = Field([], description="uids and cohorts whose script is the honest one, whatever their cohort says")

    def check(self, num_peers: int, cohorts: Mapping[str, object]) -> None:
        """Do nothing if everybody who is named exists.

        Raises:
            ValueError: a uid or a cohort does not, or somebody is to be both.
        """
        for who in (*self.absent, *self.honest):
            if isinstance(who, str) and who not in cohorts:
                raise ValueError(f"no cohort is called {who!r}{did_you_mean(who, cohorts)}")
            if isinstance(who, int) and who >= num_peers:
                raise ValueError(f"uid {who} does not exist; {num_peers} peers have the uids 0 to {num_peers - 1}")
        both = [who for who in self.absent if who in self.honest]
        if both:
            raise ValueError(f"{both[0]} cannot be both absent and honest")

    def takes_out(self, uid: int, cohort: str) -> bool:
        """True for a peer that is absent, by its uid or its cohort."""
        return uid in self.absent or cohort in self.absent

    def makes_honest(self, uid: int, cohort: str) -> bool:
        """True for a peer that is made honest, by its uid or its cohort."""
        return uid in self.honest or cohort in self.honest
