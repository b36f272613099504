"""The tables and the summary of a run's folder, as the figures read them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from covsim.report import style


@dataclass(frozen=True)
class RunTables:
    """What the figures need of a run's folder."""

    rounds: pd.DataFrame
    peers: pd.DataFrame
    summary: dict[str, Any]

    @property
    def cohorts(self) -> list[tuple[str, str]]:
        """(cohort, behavior) of every cohort: the honest first, then by name."""
        pairs = self.peers[["cohort", "behavior"]].drop_duplicates().itertuples(index=False, name=None)
        return sorted(pairs, key=lambda pair: (pair[1] != "honest", pair[0]))

    def color(self, behavior: str) -> str:
        """The color of a behavior in all figures of this run."""
        return style.color_of(behavior, [other for _, other in self.cohorts])

    def number(self, key: str) -> float:
        """An entry of the summary; NaN where it holds none."""
        value = self.summary.get(key)
        return math.nan if value is None else float(value)

    def uids(self, cohort: str) -> list[int]:
        """The peers of a cohort, in order."""
        own = self.peers.loc[self.peers["cohort"] == cohort, "uid"]
        return sorted(own.unique().tolist())


def read_run(folder: Path) -> RunTables:
    """Read the folder of a finished run."""
    return RunTables(
        pd.read_parquet(folder / "rounds.parquet"),
        pd.read_parquet(folder / "peers.parquet"),
        json.loads((folder / "summary.json").read_text(encoding="utf-8")),
    )
