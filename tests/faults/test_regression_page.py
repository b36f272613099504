"""The published losses of the regression suite are those of its seeds, and the page shows them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from sieges import FULL, SIEGES, Siege

ROOT = Path(__file__).parents[2]
TABLE = pd.read_csv(ROOT / "results" / "published" / "regression.csv")
PAGE = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")


def losses(siege: Siege, side: str) -> pd.Series[float]:
    """Above the twin's, in percent, by seed."""
    rows = TABLE[(TABLE["scenario"] == siege.scenario) & (TABLE["side"] == side)]
    return 100 * rows.set_index("seed")["above"]


@pytest.mark.parametrize("siege", SIEGES, ids=str)
@pytest.mark.parametrize("side", ["holds", "companion"])
def test_published_under_the_seeds_of_the_full_tests(siege: Siege, side: str) -> None:
    assert tuple(losses(siege, side).index) == (siege.seeds or FULL.seeds)


@pytest.mark.parametrize("siege", SIEGES, ids=str)
def test_the_page_shows_mean_and_spread(siege: Siege) -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{siege.scenario}` | "))
    cells = [cell.strip() for cell in row.split("|")]
    for cell, side in ((cells[6], "holds"), (cells[9], "companion")):
        seen = losses(siege, side)
        mean, spread = (float(number) for number in cell.split(", "))
        assert mean == pytest.approx(seen.mean(), abs=0.5 if abs(mean) >= 50 else 0.051)
        assert spread == pytest.approx(seen.std(), abs=0.5 if abs(mean) >= 50 else 0.051)


def test_the_page_names_the_bounds() -> None:
    for siege in SIEGES:
        assert f"| {siege.bound.removesuffix(' %')} |" in next(
            line for line in PAGE.splitlines() if line.startswith(f"| `{siege.scenario}` | ")
        )
