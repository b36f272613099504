"""The constants of the Gauntlet: the `gauntlet:` section of a scenario.

Defaults are those of `templar` v2.1.28. `preset` names another version, whose values (`presets`) stand in for the
defaults of whatever a scenario does not give.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from covsim.choice import OneOf
from covsim.gauntlet.presets import PRESETS, filled, with_tuples
from covsim.gauntlet.weights import Ramp, WeightRule, weight_rules
from covsim.registry import did_you_mean
from covsim.units import Share

RULES = (
    "inactive",
    "long_inactive",
    "overlap_halve",
    "overlap_reset",
    "overlap_exclude",
    "sync_behind",
    "gather_absence",
    "gather_quorum",
    "gather_miss",
    "evaluated_missing",
    "evaluated_invalid",
    "indicator",
    "bad_window",
    "mostly_negative",
    "negative_streak",
    "penalty_score",
    "indicator_threshold",
    "sync_score",
    "slash_kept",
    "no_improvement",
)
"""The rules by the names under which they report, in the order in which they act; `gauntlet.STAGES` are their code."""

ALWAYS_ON = ("no_improvement",)
"""What no scenario can turn off: nothing is earned without a measurement."""


def _may_be_off(rule: str) -> str:
    if rule in ALWAYS_ON:
        raise ValueError(f"{rule} cannot be turned off: without a measurement nobody earns; see quirks")
    if rule not in RULES:
        raise ValueError(f"no rule of the Gauntlet is called {rule!r}{did_you_mean(rule, RULES)}")
    return rule


RuleName = Annotated[
    str,
    AfterValidator(_may_be_off),
    WithJsonSchema({"type": "string", "enum": [rule for rule in RULES if rule not in ALWAYS_ON]}),
]


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


class SyncRules(Rules):
    """How far a peer's theta may lie from the validator's, in outer steps, and what being behind costs."""

    samples_per_tensor: int = Field(default=2, ge=1, le=1_000, description="elements of each tensor that peers publish")
    cap: float = Field(default=3.0, gt=0, le=1_000, description="steps behind at which the sync score is 0")
    exponent: float = Field(default=2.5, ge=0, le=100, description="sync score = (1 - steps behind / cap) ^ exponent")
    max_behind: float = Field(
        default=2.0, ge=0, le=1_000, description="steps behind from which a listed peer is slashed"
    )
    slash: Share = Field(
        default=0.75, description="factor on final score and indicator average of a listed peer behind"
    )
    average_decay: Share = Field(
        default=0.8, description="weight of the past in the average outer step that is the unit of steps behind"
    )
    deadline: Literal["none", "put_window"] = Field(
        default="none", description="samples count whenever they appear, as deployed, or until the put window closes"
    )


class ScoreRules(Rules):
    """The factors of the final score."""

    rating: Literal["ordinal", "mu", "gradient"] = Field(
        default="ordinal",
        description="mu - 3 sigma, or mu; or no rating but the moving average of gradient scores, as before OpenSkill",
    )
    gradient_decay: Share = Field(default=0.9, description="weight of the past in the average of gradient scores")
    gradient_cap: float | None = Field(
        default=None, gt=0, le=1, description="the most that a single gradient score counts in that average"
    )
    indicator: Literal["positive", "signed"] = Field(
        default="positive", description="the indicator average counts as 0 when negative, or with its sign"
    )
    sync: bool = Field(default=True, description="the sync score is a factor")


class Quirks(Rules):
    """What the deployed code does and hardly meant to. Each can be switched off, alone."""

    slash_overwritten: bool = Field(
        default=True, description="a slash on the final score is lost when the score is computed anew in that window"
    )
    overlap_by_previous_stamps: bool = Field(
        default=True, description="the stamps of the round before tell which of two payloads alike is the copy"
    )
    reserve_unchecked: bool = Field(default=True, description="a reserve's payload may leave out tensors")
    benched_in_bad_windows: bool = Field(
        default=True, description="a streak of negative evaluations benches also in a window that is bad for all"
    )
    empty_gather_judged: bool = Field(
        default=True, description="a round whose gather brought nothing is judged: all who were asked lose everything"
    )
    rank_without_improvement: bool = Field(
        default=True, description="who improves nothing may rise by doing less harm than others in the match"
    )


class PastRules(Rules):
    """What code did before it was mended, and no preset has: `docs/incidents.md`. All are off."""

    partial_unchecked: bool = Field(default=False, description="any payload may leave out tensors")
    slash_spares_average: bool = Field(
        default=False, description="a slash leaves the indicator average alone, so that the next match undoes it"
    )
    slash_raises_negative: bool = Field(
        default=False, description="a factor acts on a negative final score, too, and so raises it"
    )


class GauntletSettings(Rules):
    """Every constant of the scoring. `preset` names the version that fills in what is not given, key by key."""

    preset: Literal["paper", "v0.2", "v1.0", "v2.1.0", "v2.1.28"] = Field(
        default="v2.1.28", description="version of the rules that fills in what is not given"
    )
    off: tuple[RuleName, ...] = Field(
        default=(),
        max_length=len(RULES),
        description="rules that do not act; what they remember is kept",
    )
    evaluated_per_window: int = Field(default=20, ge=1, le=100_000, description="peers evaluated per window, at most")
    active_windows: int = Field(
        default=2, ge=1, le=100_000, description="a peer counts as active for so many windows after its last upload"
    )
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
    indicator_start: float = Field(default=0.0, ge=-1, le=1, description="indicator average of a newcomer")
    indicator_decay: Share = Field(default=0.95, description="weight of the past in the indicator average")
    indicator_threshold: Share = Field(default=0.10, description="a lower indicator average counts as 0")
    indicator_grace_windows: int = Field(
        default=10, ge=0, le=1_000_000, description="windows before the threshold acts"
    )
    overlap: OverlapRules = Field(default=OverlapRules(), description="copied payloads")
    slashing: SlashingRules = Field(default=SlashingRules(), description="missing, invalid and harmful payloads")
    sync: SyncRules = Field(default=SyncRules(), description="peers whose theta is not the validator's")
    score: ScoreRules = Field(default=ScoreRules(), description="what the final score is made of")
    weights: Annotated[WeightRule, OneOf(weight_rules, default="ramp")] = Field(
        default=Ramp(), description="from final scores to pay"
    )
    quirks: Quirks = Field(default=Quirks(), description="oddities of the deployed code")
    past: PastRules = Field(default=PastRules(), description="faults of older code, for incidents")

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, given: Any) -> Any:
        """Fill in what the preset says; leave anything malformed to the fields' own checks."""
        name = given.get("preset") if isinstance(given, dict) else None
        known = filled(given, PRESETS[name]) if isinstance(name, str) and name in PRESETS else given
        return with_tuples(known)  # what passes here is no longer JSON, where a list may stand for a tuple

    def acts(self, rule: str) -> bool:
        """False for a rule that is switched off."""
        assert rule in RULES, rule
        return rule not in self.off
