"""What the regression tests ask: a scenario, how far its loss may lie above its twin's, and what must break that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from covsim.scenario import Scenario, clean_twin, load
from covsim.testing import Report, assert_converges, assert_recovers

FOLDER = Path(__file__).parents[2] / "scenarios" / "regression"
BASE = FOLDER / "base.yaml"

Companion = Literal["undefended", "more harm"]
"""A companion switches off what defends; where nothing has to, it deals more of the harm."""


@dataclass(frozen=True)
class Size:
    """How large the runs are, and under which seeds; bounds were chosen under others."""

    overrides: tuple[str, ...]
    seeds: tuple[int, ...]


FULL = Size((), (11, 12, 13))
REDUCED = Size(
    (
        "peers=15",
        "stop.rounds=14",
        "selection.gather=6",
        "selection.reserve=3",
        "gauntlet.evaluated_per_window=15",
        "data.held_out_sequences=32",
    ),
    (11,),
)
"""Fewer peers and rounds, so that a run takes about a second: a fifth of the peers are three. One seed has no interval
and is taken at its word."""


@dataclass(frozen=True)
class Siege:
    """A scenario in which some cheat or something fails, the bound of its loss, and a companion that must break it.

    Attributes:
        scenario: a file of scenarios/regression.
        bound: how far its loss may lie above that of the clean twin, relative to it; a mean of three rounds.
        companion: whether `off` switches a defense off.
        off: the overrides of the companion.
        reduced: what else the reduced size changes, in the scenario and in its companion.
        off_reduced: the companion at the reduced size, where it is another.
        harmless: what switches defenses off and alone breaks nothing, where the companion has to deal more harm.
        mended: what else is as it should be in the twin; who is slow is no cheater to `clean_twin`.
        by: rounds after which the lead's loss is looked at; None for the end of the run.
        within: rounds after the fault by which all histories must be back, instead.
        seeds: those of the full size, where three cannot tell, or the bound was chosen on them.
        reduced_bound: the bound at the reduced size, where it is another.
    """

    scenario: str
    bound: str
    companion: Companion
    off: tuple[str, ...]
    reduced: tuple[str, ...] = ()
    off_reduced: tuple[str, ...] | None = None
    harmless: tuple[str, ...] = ()
    mended: tuple[str, ...] = ()
    by: int | None = None
    within: int | None = None
    seeds: tuple[int, ...] = ()
    reduced_bound: str | None = None

    def __str__(self) -> str:
        return self.scenario

    def allowed(self, size: Size) -> str:
        """The bound at a size."""
        return self.reduced_bound if size is REDUCED and self.reduced_bound else self.bound

    def companion_off(self, size: Size) -> tuple[str, ...]:
        """The overrides of the companion at a size."""
        return self.off_reduced if size is REDUCED and self.off_reduced else self.off

    def judge(self, size: Size, out: Path, off: Sequence[str] = ()) -> Report:
        """Run it beside its twin, which runs under the same rules."""
        own, seeds = (self.reduced, size.seeds) if size is REDUCED else ((), self.seeds or size.seeds)
        path, overrides = FOLDER / f"{self.scenario}.yaml", [*size.overrides, *own, *off]
        options: dict[str, Any] = {
            "overrides": overrides,
            "versus": twin(path, [*overrides, *self.mended]),
            "seeds": seeds,
            "out": out,
            "jobs": 0,
            "margin": self.allowed(size),
        }
        if self.within is None:
            return assert_converges(path, within=self.by, **options)
        return assert_recovers(path, within=self.within, **options)


def twin(path: Path, overrides: Sequence[str]) -> Scenario:
    """The clean twin under the name of the base, so that scenarios which share a twin share its run."""
    base = load(BASE)
    clean = clean_twin(load(path, overrides))
    return clean.model_copy(update={"name": base.name, "description": base.description})


RANDOM = ("selection.kind=random", "aggregate.clip=none")
"""Peers drawn, whatever they do, and no clip."""

UNSEEN = ("gauntlet.off=[overlap_halve,overlap_reset,overlap_exclude]",)
"""Nobody compares payloads."""

NOBODY_STANDS_IN = ("selection.failover_windows=none",)

AS_LARGE = (
    "peers=20",
    "stop.rounds=20",
    "selection.gather=8",
    "selection.reserve=4",
    "gauntlet.evaluated_per_window=20",
)
"""As many peers and rounds as at full size, where fewer leave too much to luck."""


def suspects(**settings: str) -> tuple[str, ...]:
    """Overrides of the cohort that cheats, or is slow."""
    return tuple(f"cohorts.suspects.{key.replace('__', '.')}={value}" for key, value in settings.items())


SIEGES = (
    Siege("flippers", "5 %", "undefended", RANDOM, seeds=tuple(range(11, 21)), reduced=AS_LARGE),
    Siege("alie", "5 %", "more harm", (*suspects(behavior__z="20"), *RANDOM), harmless=RANDOM, reduced_bound="8 %"),
    Siege("alie-strong", "5 %", "undefended", RANDOM, reduced_bound="8 %"),
    # What lazy peers and copies cost is made up for by the end; it shows where the loss is steep.
    Siege(
        "lazy",
        "8 %",
        "more harm",
        (*suspects(share="80 %", behavior__share="10 %"), *RANDOM),
        harmless=RANDOM,
        by=6,
        reduced_bound="12 %",
    ),
    Siege(
        "copycats",
        "7 %",
        "more harm",
        (*suspects(share="80 %"), *UNSEEN, *RANDOM),
        harmless=(*UNSEEN, *RANDOM),
        by=6,
        seeds=(11, 12, 13, 14, 15),
        reduced_bound="12 %",
    ),
    Siege(
        "sybils",
        "7 %",
        "more harm",
        (*suspects(share="100 %", behavior__identities="20"), *UNSEEN, *RANDOM),
        harmless=(*UNSEEN, *RANDOM),
        by=6,
    ),
    Siege(
        "partition",
        "5 %",
        "more harm",
        ("faults=[{kind: partition, from_round: 4, to_round: 14, share: 90 %, restarts: false}]",),
        off_reduced=("faults=[{kind: partition, from_round: 4, to_round: 12, share: 90 %, restarts: false}]",),
        reduced=("stop.rounds=18",),
        within=6,
        seeds=(11, 12, 13, 14, 15),
        reduced_bound="10 %",
    ),
    # Without error feedback, what was trained while the store was down is lost.
    Siege("store-outage", "5 %", "undefended", ("protocol.error_decay=0",), reduced=AS_LARGE),
    Siege(
        "dead-leader",
        "15 %",
        "undefended",
        NOBODY_STANDS_IN,
        reduced=("selection.gather=9",),
        by=7,
        seeds=(11, 12, 13, 14, 15),
    ),
    Siege(
        "validators-offline",
        "30 %",
        "undefended",
        NOBODY_STANDS_IN,
        reduced=(*AS_LARGE, "selection.gather=12", "selection.reserve=2"),
        by=8,
        seeds=(21, 22, 23, 24, 25),  # the bound was widened after 11 to 15
    ),
    Siege(
        "churn",
        "6 %",
        "more harm",
        ("cohorts.honest.membership.leaves=90 %", "cohorts.suspects.membership.leaves=90 %"),
        reduced_bound="18 %",
    ),
    Siege(
        "stragglers",
        "5 %",
        "more harm",
        suspects(share="100 %", speed="0.1"),
        mended=suspects(speed="{kind: lognormal, sigma: 0.1}"),
        seeds=tuple(range(11, 19)),
        reduced_bound="15 %",
    ),
)
