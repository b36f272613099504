"""Convergence under attack as a test: `assert_converges`, `assert_unprofitable`, `assert_recovers`.

    from covsim.testing import assert_converges, assert_unprofitable

    def test_twenty_percent_of_flippers():
        assert_converges("contrast/gauntlet", margin="5 %", seeds=3)
        assert_unprofitable("contrast/gauntlet", "flippers", at_most=0.25)

Each runs the scenario under some seeds, each run beside its clean twin of the same seed where the claim compares with
it, and ends as pass, fail or inconclusive. Runs lie where `covsim run` puts them and are not run twice.

A clean twin is the same scenario on the same streams with the cheaters honest (or absent, `twin="absent"`), validators
that score as the rules say, nobody who comes and goes by chance, and no faults, stalls or outages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, Unpack

import pandas as pd

from covsim.record.runner import Run
from covsim.registry import did_you_mean
from covsim.sweep.assertion import Asked, ClaimFailed, Inconclusive, OnInconclusive, Options, Report, ScenarioLike
from covsim.sweep.finding import Finding
from covsim.sweep.local import FailedRuns
from covsim.sweep.trials import Losses, Trial, losses
from covsim.units import parse_share

__all__ = [
    "ClaimFailed",
    "FailedRuns",
    "Finding",
    "Inconclusive",
    "OnInconclusive",
    "Options",
    "Report",
    "ScenarioLike",
    "assert_converges",
    "assert_recovers",
    "assert_unprofitable",
]

Theta = Literal["lead", "worst"]
"""Whose held-out loss: the lead validator's theta, or of all histories that nodes are on the one with the highest."""

LAST_ROUNDS = 3
"""A loss is a mean over so many rounds, because single rounds jump."""

_COLUMN_OF: dict[Theta, str] = {"lead": "loss", "worst": "loss_highest"}


def assert_converges(
    scenario: ScenarioLike,
    *,
    to: float | None = None,
    within: int | str | None = None,
    margin: float | str | None = None,
    versus: Literal["clean"] | ScenarioLike = "clean",
    theta: Theta = "lead",
    seeds: int | Sequence[int] = 3,
    confidence: float = 0.95,
    **options: Unpack[Options],
) -> Report:
    """Fail unless the held-out loss, mean of three rounds, comes down as far as it should.

    Args:
        scenario: what to run.
        to: nats per token that the loss ends at, or below.
        within: when it must be there: rounds, or simulated time such as `"20 h"`; by default at the end of the run.
        margin: how far above the loss of the other run it may be, relative to it: `"5 %"` or 0.05.
        versus: the other run: the clean twin, or any scenario, under the same seeds.
        theta: whose loss.
        seeds: so many from the scenario's own on, or which.
        confidence: of the one-sided bounds by which the claim passes or fails.
        options: see `Options`.

    Raises:
        ClaimFailed: it does not converge so.
        Inconclusive: the seeds cannot tell.
        ValueError: the arguments make no claim, or the scenario cannot be loaded.
        FailedRuns: a run ended with an error.
    """
    __tracebackhide__ = True
    if to is None and margin is None:
        raise ValueError("say what converging means: to=, a loss in nats per token, or margin= above the clean twin")
    if margin is None and versus != "clean":
        raise ValueError("versus= needs a margin, such as margin='5 %'")
    asked = Asked(scenario, seeds, confidence, **options)
    ends = asked.last_round(within)
    allowed = None if margin is None else _share(margin, "margin")
    if to is not None and to <= 0:
        raise ValueError(f"a loss is positive; to={to} is never reached")
    done = asked.run(None if allowed is None else versus)
    seen = [_around_end(losses(trial.run, _COLUMN_OF[theta]), ends) for trial in done]
    when = "" if within is None else f" within {within} rounds" if isinstance(within, int) else f" within {within}"
    findings = []
    if to is not None:
        shown = [f"loss {loss:.4g}   {trial.run.folder}" for loss, trial in zip(seen, done, strict=True)]
        findings.append(Finding(f"held-out loss{when}", to, tuple(seen), tuple(shown), confidence))
    if allowed is not None:
        other = [_around_end(losses(trial.twin, _COLUMN_OF[theta]), ends) for trial in done if trial.twin is not None]
        findings.append(_compared(f"held-out loss{when}, above the other's", seen, other, allowed, confidence, done))
    return asked.conclude("converges", findings, done)


def assert_unprofitable(
    scenario: ScenarioLike,
    cohort: str,
    *,
    of: Literal["tokens", "profit"] = "tokens",
    at_most: float = 1.0,
    versus: Literal["peers", "clean"] = "peers",
    seeds: int | Sequence[int] = 3,
    confidence: float = 0.95,
    **options: Unpack[Options],
) -> Report:
    """Fail unless a cohort's peers earn no more than honest ones do.

    Args:
        scenario: what to run.
        cohort: whose peers.
        of: the tokens of a peer, or its profit: their worth minus what its work cost, at the prices of `economics`.
        at_most: how many times an honest peer's tokens; profits, which may be negative, are compared as they are.
        versus: honest peers of the same run, or the same peers in the clean twin, where they are honest.
        seeds, confidence, options: as for `assert_converges`.

    Raises:
        ClaimFailed: it pays, or nobody honest was paid anything so that nothing can be said.
        Inconclusive: the seeds cannot tell.
        ValueError: the arguments make no claim.
        FailedRuns: a run ended with an error.
    """
    __tracebackhide__ = True
    asked = Asked(scenario, seeds, confidence, **options)
    cohorts = asked.scenario.cohorts
    if cohort not in cohorts:
        raise ValueError(f"no cohort is called {cohort!r}{did_you_mean(cohort, cohorts)}")
    if of == "profit" and at_most != 1:
        raise ValueError("a multiple of a profit, which may be negative, says nothing; leave at_most out")
    if at_most < 0:
        raise ValueError(f"nobody earns less than nothing; at_most={at_most} cannot hold")
    honest = [name for name, each in cohorts.items() if each.behavior.kind == "honest" and name != cohort]
    if versus == "peers" and not honest:
        raise ValueError("there are no honest peers to compare with; versus='clean' compares with the clean twin")
    if versus == "clean":
        asked.need_honest_twin(cohort)
    done = asked.run("clean" if versus == "clean" else None)
    key = f"{of}_per_peer"
    own = [_earned(trial.run, key, [cohort], asked.sizes) for trial in done]
    if versus == "clean":
        other = [_earned(trial.twin, key, [cohort], asked.sizes) for trial in done if trial.twin is not None]
    else:
        other = [_earned(trial.run, key, honest, asked.sizes) for trial in done]
    nothing = of == "tokens"  # where the honest earn nothing, earning no more proves nothing
    values = [math.nan if nothing and b <= 0 else a - at_most * b for a, b in zip(own, other, strict=True)]
    than = "the same peers, honest" if versus == "clean" else "an honest peer"
    times = "" if at_most == 1 else f"{at_most:g} times "
    shown = [f"{a:.4g}, {than} {b:.4g}   {trial.run.folder}" for a, b, trial in zip(own, other, done, strict=True)]
    claim = f"{of} of a peer of {cohort}, minus {times}those of {than}"
    found = Finding(claim, 0.0, tuple(values), tuple(shown), confidence)
    return asked.conclude(f"{cohort} unprofitable", [found], done)


def assert_recovers(
    scenario: ScenarioLike,
    *,
    within: int,
    margin: float | str,
    after: int | None = None,
    versus: Literal["clean"] | ScenarioLike = "clean",
    theta: Theta = "worst",
    seeds: int | Sequence[int] = 3,
    confidence: float = 0.95,
    **options: Unpack[Options],
) -> Report:
    """Fail unless some rounds after a fault the loss is back where it would have been without it.

    Compared are the means of the last rounds of the span, up to three, in both runs.

    Args:
        scenario: what to run.
        within: so many rounds after the fault the loss must be back.
        margin: how far above the other run's loss it may still be, relative to it.
        after: the first round without the fault; by default that in which the last of the scenario's faults is over.
        versus: the other run: the clean twin, or any scenario, under the same seeds.
        theta: whose loss; by default of all histories that nodes are on the one that is worst off.
        seeds, confidence, options: as for `assert_converges`.

    Raises:
        ClaimFailed: it does not recover so.
        Inconclusive: the seeds cannot tell.
        ValueError: the arguments make no claim.
        FailedRuns: a run ended with an error.
    """
    __tracebackhide__ = True
    asked = Asked(scenario, seeds, confidence, **options)
    allowed = _share(margin, "margin")
    if within < 1:
        raise ValueError(f"within is rounds, 1 or more, not {within}")
    first = asked.after(after)
    last = first + within - 1
    asked.must_have(last)
    done = asked.run(versus)
    pairs = [(losses(t.run, _COLUMN_OF[theta]), losses(t.twin, _COLUMN_OF[theta])) for t in done if t.twin is not None]
    own, other = ([each.around(last, first, LAST_ROUNDS) for each in side] for side in zip(*pairs, strict=True))
    claim = f"held-out loss {within} rounds from round {first} on, above the other's"
    found = _compared(claim, own, other, allowed, confidence, done)
    worst_off = [_harm(one, two, first) for one, two in pairs]
    shown = tuple(
        f"{text} (at worst {harm:+.2%} until then)" for text, harm in zip(found.shown, worst_off, strict=True)
    )
    found = Finding(claim, allowed, found.values, shown, confidence, percent=True)
    return asked.conclude("recovers", [found], done)


def _share(value: float | str, what: str) -> float:
    try:
        return parse_share(value)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None


def _around_end(of: Losses, end: int | float | None) -> float:
    """The loss of the last rounds up to an end: a round, a simulated second, or the run's own."""
    last = int(of.by_round.index[-1]) if end is None else of.last_round(end) if isinstance(end, float) else end
    return of.around(last, 0, LAST_ROUNDS)


def _compared(
    claim: str, own: Sequence[float], other: Sequence[float], bound: float, confidence: float, done: Sequence[Trial]
) -> Finding:
    """How far one loss is above another, relative to it and paired by seed."""
    values = tuple((a - b) / b if b > 0 else math.nan for a, b in zip(own, other, strict=True))
    shown = tuple(
        f"loss {a:.4g}, the other {b:.4g}: {100 * value:+.3g} %   {trial.run.folder}"
        for a, b, value, trial in zip(own, other, values, done, strict=True)
    )
    return Finding(claim, bound, values, shown, confidence, percent=True)


def _harm(own: Losses, other: Losses, until: int) -> float:
    """The largest relative distance above the other run, round by round, before a round."""
    apart = (own.by_round / other.by_round - 1).loc[: until - 1]
    return float(apart.max())


def _earned(run: Run, key: str, cohorts: Sequence[str], sizes: Mapping[str, int]) -> float:
    """Mean over all peers of some cohorts; NaN where a cohort that has peers has no number.

    A peer that registered anew has several uids, which the summary counts as so many; here they are one peer.
    """
    peers = pd.read_parquet(run.folder / "peers.parquet", columns=["uid", "cohort"])
    num_uids = peers.groupby("cohort")["uid"].nunique()
    total = num_peers = 0.0
    for cohort in cohorts:
        if sizes[cohort]:
            value = run.summary.get(f"{key}.{cohort}")
            total += int(num_uids[cohort]) * (float(value) if isinstance(value, int | float) else math.nan)
            num_peers += sizes[cohort]
    return total / num_peers if num_peers else math.nan
