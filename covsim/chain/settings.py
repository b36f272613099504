"""The `chain:` section of a scenario: slots, weights, consensus, emission, and what is logged."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from covsim.chain.yuma import ConsensusRule, Yuma2, consensus_rules
from covsim.choice import OneOf
from covsim.units import Share

Logged = Literal["payload_hashes", "verdicts"]


class ChainSettings(BaseModel):
    """How the chain counts, pays and remembers. Blocks come by the timeline; defaults are those of the live network."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    tempo: int = Field(default=360, ge=1, le=10_000_000, description="blocks of an epoch; each ends with a payment")
    emission_per_block: float = Field(default=1.0, gt=0, le=1e12, description="tokens that a block emits, for all")
    owner_share: Share = Field(default=0.18, description="part of the emission that the owner gets")
    peer_share: Share = Field(default=0.41, description="part that peers get by incentive; validators get the rest")
    consensus: Annotated[ConsensusRule, OneOf(consensus_rules, bare="kind")] = Field(
        default=Yuma2(), description="from weights to incentive and dividends"
    )
    commit_reveal: Annotated[int, Field(ge=1, le=1000)] | Literal["none"] = Field(
        default=1, description="epochs for which weights stay hidden, or none"
    )
    weights: Literal["u16", "float"] = Field(
        default="u16", description="weights in 16 bits, the largest 65535, as on the live chain, or as they are"
    )
    rate_limit: int = Field(default=100, ge=0, le=10_000_000, description="blocks between two weight settings")
    activity_cutoff: int = Field(
        default=5000, ge=1, le=100_000_000, description="blocks after which a validator's weights no longer count"
    )
    permits: int = Field(default=64, ge=1, le=4096, description="validators, by stake, whose weights count")
    slots: int = Field(default=256, ge=2, le=200_000, description="places for peers, validators and the owner together")
    registration_cost: float = Field(default=0.0, ge=0, le=1e12, description="tokens that a slot costs after block 0")
    immunity: int = Field(
        default=4096, ge=0, le=100_000_000, description="blocks for which a newcomer cannot lose its slot to another"
    )
    log: tuple[Logged, ...] = Field(
        default=("payload_hashes", "verdicts"), max_length=2, description="what is written to the chain beside weights"
    )

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.owner_share + self.peer_share > 1:
            raise ValueError(f"owner_share {self.owner_share} and peer_share {self.peer_share} are more than all")
        return self
