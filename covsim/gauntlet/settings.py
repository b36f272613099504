"""The constants of the Gauntlet: the `gauntlet:` section of a scenario. Defaults are those of `templar` v2.1.28."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from covsim.units import Share


class Rules(BaseModel):
    """A group of constants; frozen, and strict about names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class OverlapRules(Rules):
    """What happens to the later uploader of two payloads whose top-k indices agree too much."""

    from_round: int = Field(default=20, ge=0, le=1_000_000, description="first round in which the check acts")
    among: Literal["gathered", "evaluated"] = Field(
        default="gathered", description="whose payloads are compared; deployed: those that entered the gather"
    )
    halve: Share = Field(default=0.4, description="overlap from which final score and indicator are halved")
    reset: Share = Field(default=0.5, description="overlap from which the peer starts over")
    exclude: Share = Field(default=0.6, description="overlap from which it also is excluded")

    @model_validator(mode="after")
    def _levels_rise(self) -> Self:
        if not 0 < self.halve <= self.reset <= self.exclude:
            raise ValueError(
                f"overlap levels must rise: 0 < halve {self.halve} <= reset {self.reset} <= exclude {self.exclude}"
            )
        return self


class SlashingRules(Rules):
    """Factors on final score and indicator average, and when they apply."""

    misses: tuple[Share, ...] = Field(
        default=(0.75, 0.5, 0.0),
        min_length=1,
        max_length=32,
        description="factor after 1, 2, 3... missed gathers in a row; the last one stays",
    )
    quorum: Share = Field(default=0.4, description="a gather below this share of its list zeroes all who missed it")
    absence_window: int = Field(default=8, ge=1, le=64, description="gathers remembered per peer")
    absence_share: Share = Field(default=0.5, description="share of them missed that excludes")
    excluded_windows: int = Field(default=20, ge=0, le=100_000, description="windows that an exclusion lasts")
    evaluated_missing: Share = Field(default=0.75, description="factor when an evaluated peer sent nothing in time")
    negative_window: int = Field(default=8, ge=1, le=64, description="evaluations remembered per peer")
    negative_limit: int = Field(default=4, ge=0, le=64, description="more negative ones than this are slashed")
    negative_factor: Share = Field(default=0.25, description="factor per window while that is so")
    negative_streak: int = Field(default=3, ge=1, le=64, description="negative evaluations in a row that bench a peer")
    bad_window_rank: int = Field(
        default=5, ge=1, le=1_000, description="no negative rule acts when the score of this rank is below 0"
    )
    inactive_factor: Share = Field(default=0.75, description="factor on the final score per inactive window")
    inactive_windows: int = Field(
        default=3, ge=0, le=100_000, description="inactive windows until the peer starts over"
    )
    zero_below: float = Field(default=1e-4, ge=0, le=1, description="a slashed final score below this becomes 0")
    penalty_score: float = Field(
        default=-99.0, ge=-1e6, lt=0, description="what a missing or invalid submission scores in the match"
    )


class WeightRules(Rules):
    """How the weight that is not burned is shared among peers with a positive final score."""

    gather_share: Share = Field(default=0.75, gt=0, description="share of the places on the gather list")
    ramp: float = Field(default=2.0, ge=1, le=1_000, description="weight of the first of them over that of the last")
    reserve_ratio: Share = Field(default=0.5, description="weight of a reserve place over the one before it")
    burn: Share = Field(default=0.5, description="share burned; all of it when nobody is positive")


class GauntletSettings(Rules):
    """Every constant of the scoring. `preset` names the version that the defaults are taken from."""

    preset: Literal["v2.1.28"] = Field(default="v2.1.28", description="version of the deployed rules")
    evaluated_per_window: int = Field(default=20, ge=1, le=100_000, description="peers evaluated per window, at most")
    bins: int = Field(default=5, ge=1, le=1_000, description="bins by rating, when each can fill an evaluation")
    own_sequences: int = Field(default=8, ge=1, le=100_000, description="sequences of the peer's own pool per loss")
    random_sequences: int = Field(default=8, ge=1, le=100_000, description="sequences of a random pool per loss")
    trial_factor: float = Field(default=0.2, gt=0, le=100, description="trial step over outer step (c)")
    mu: float = Field(default=25.0, ge=-1e6, le=1e6, description="rating of a newcomer")
    sigma: float = Field(default=25 / 3, gt=0, le=1e6, description="uncertainty of a newcomer's rating")
    beta: float = Field(default=7.0, gt=0, le=1e6, description="PlackettLuce: spread of one performance")
    tau: float = Field(default=0.1, ge=0, le=1e6, description="PlackettLuce: uncertainty added per match")
    ties: Literal["shared", "drawn"] = Field(
        default="shared", description="equal scores share a rank, as openskill rates them, or are put in a drawn order"
    )
    indicator_decay: Share = Field(default=0.95, description="weight of the past in the indicator average")
    indicator_threshold: Share = Field(default=0.10, description="a lower indicator average counts as 0")
    indicator_grace_windows: int = Field(
        default=10, ge=0, le=1_000_000, description="windows before the threshold acts"
    )
    overlap: OverlapRules = Field(default=OverlapRules(), description="copied payloads")
    slashing: SlashingRules = Field(default=SlashingRules(), description="missing, invalid and harmful payloads")
    weights: WeightRules = Field(default=WeightRules(), description="from final scores to pay")
