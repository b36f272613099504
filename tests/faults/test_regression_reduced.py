"""Convergence under attack and faults, at a size for every day: each siege holds, and its companion does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from sieges import BASE, FOLDER, REDUCED, SIEGES, Siege, twin

from covsim.scenario import load
from covsim.scenario.shipped import shipped_scenarios
from covsim.testing import ClaimFailed


@pytest.mark.parametrize("siege", SIEGES, ids=str)
def test_it_holds(siege: Siege, runs: Path) -> None:
    """Would catch a defense that no longer acts, a fault that leaves damage behind, and a model that learns worse."""
    assert siege.judge(REDUCED, runs).outcome == "pass"


@pytest.mark.parametrize("siege", SIEGES, ids=str)
def test_its_companion_does_not_hold(siege: Siege, runs: Path) -> None:
    """The test above can fail: the same claim, without the defense or with more of the harm."""
    with pytest.raises(ClaimFailed) as failure:
        siege.judge(REDUCED, runs, siege.companion_off(REDUCED))
    assert not failure.value.report.findings[0].missing, "a loss that is no number would fail any claim"


def test_every_scenario_is_tested() -> None:
    """Would catch a file of the folder that nobody runs."""
    shipped = {name.removeprefix("regression/") for name in shipped_scenarios() if name.startswith("regression/")}
    assert shipped - {"base"} == {siege.scenario for siege in SIEGES}


@pytest.mark.parametrize(
    "name", ["flippers", "alie", "alie-strong", "lazy", "copycats", "sybils", "partition", "store-outage"]
)
def test_most_are_compared_with_the_base(name: str) -> None:
    """Would catch a scenario that differs from the base in more than what attacks it."""
    assert twin(FOLDER / f"{name}.yaml", ()) == load(BASE)


@pytest.mark.parametrize("siege", SIEGES, ids=str)
def test_the_page_has_its_bound(siege: Siege) -> None:
    """Would catch a bound that was changed here and not in the table of docs/testing.md."""
    page = FOLDER.parents[1] / "docs" / "testing.md"
    row = next(line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{siege}` |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[3] == siege.bound.removesuffix(" %")
    assert cells[6].startswith(siege.companion)
