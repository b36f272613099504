"""What the README claims stands in the published tables, and a reduced contrast shows the same when it is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from covsim.events import HeldOutMeasured
from covsim.scenario import Scenario, clean_twin, load, with_seed
from covsim.sweep.interval import interval

PUBLISHED = Path(__file__).parents[2] / "results" / "published"


def by_arm(name: str, metric: str) -> dict[str, list[float]]:
    table = pd.read_csv(PUBLISHED / f"{name}.csv")
    return {str(arm): rows.sort_values("seed")[metric].tolist() for arm, rows in table.groupby("arm")}


def worse_than_twin(losses: dict[str, list[float]], arm: str) -> list[float]:
    """Relative excess over the clean twin of the same seed."""
    return [own / twin - 1 for own, twin in zip(losses[arm], losses[f"{arm}, clean"], strict=True)]


def test_contrast_gauntlet_holds_and_random_selection_does_not() -> None:
    """Three seeds give no narrow interval of either mean, so single seeds count: Gauntlet within 5 %, random beyond."""
    losses = by_arm("contrast", "loss.final")
    assert all(len(of_seeds) == 3 for of_seeds in losses.values())
    held, lost = worse_than_twin(losses, "gauntlet"), worse_than_twin(losses, "random")
    assert max(held) < 0.05
    assert min(lost) > 2 * max(held)
    assert max(by_arm("contrast", "pay_per_peer.flippers")["gauntlet"]) < 0.25
    assert (PUBLISHED / "contrast.png").stat().st_size > 10_000


def test_flagship_cheats_earn_less_than_the_honest() -> None:
    for cohort in ("lazy", "flippers", "copycats"):
        of_seeds = by_arm("flagship", f"pay_per_peer.{cohort}")["ties shared"]
        assert len(of_seeds) == 5
        assert interval(of_seeds).high < 1


def test_flagship_learns_more_than_bigrams() -> None:
    losses = by_arm("flagship", "loss.final")["ties shared"]
    assert interval(losses).high < 2.36
    assert min(by_arm("flagship", "lineages.final")["ties shared"]) >= 2


def reduced(name: str, seed: int) -> Scenario:
    """The contrast with 24 peers, a third of the steps and shorter rounds."""
    scenario = load(
        f"contrast/{name}",
        {
            "peers": 24,
            "cohorts.flippers.count": 6,
            "stop.rounds": 8,
            "protocol.inner_steps": 12,
            "deployment.inner_step": "100 s",
            "selection.gather": 8,
            "selection.reserve": 4,
            "gauntlet.evaluated_per_window": 20,
        },
    )
    return with_seed(scenario, seed)


@pytest.mark.slow
def test_reduced_contrast(play: Any) -> None:
    """Same flippers, same links: random selection without a clip ends worse than Gauntlet, relative to its twin."""
    excess: dict[str, list[float]] = {}
    for name in ("gauntlet", "random"):
        for seed in (1, 2, 3):
            own, twin = (_final_loss(play, each) for each in (reduced(name, seed), clean_twin(reduced(name, seed))))
            excess.setdefault(name, []).append(own / twin - 1)
    differences = [lost - held for held, lost in zip(excess["gauntlet"], excess["random"], strict=True)]
    assert interval(differences).low > 0, excess


def _final_loss(play: Any, scenario: Scenario) -> float:
    events, _ = play(scenario)
    losses = [event.loss for event in events if isinstance(event, HeldOutMeasured) and event.node == "validator:lead"]
    return sum(losses[-3:]) / 3
