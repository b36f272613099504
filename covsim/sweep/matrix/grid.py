"""The cells of a matrix, and the scenario of each under a seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from covsim.behaviors import Honest
from covsim.scenario import Scenario, ScenarioError, load
from covsim.scenario.schema import LONGEST_NAME
from covsim.scenario.shipped import find
from covsim.scenario.sizes import cohort_sizes
from covsim.sweep.matrix.settings import CLEAN, Matrix, PartSettings
from covsim.units import format_share


@dataclass(frozen=True)
class Cell:
    """One place in the matrix, by the names that the file gives; `share` is of all peers."""

    behavior: str
    aggregator: str
    selection: str
    share: float

    @property
    def twin(self) -> Cell:
        """The same place with the attackers honest."""
        return Cell(CLEAN, self.aggregator, self.selection, self.share)


class Grid:
    """A matrix laid out over its base scenario.

    Each part is read once, through the schema of scenarios, and put into the base in every combination.

    Args:
        matrix: what to lay out.
        path: the matrix's file, from whose folder the base is looked for.

    Raises:
        ScenarioError: the base cannot be used.
        ValueError: a part does not fit it, in one line with the part's place in the matrix.
    """

    def __init__(self, matrix: Matrix, path: Path) -> None:
        self.matrix, self._path = matrix, path
        self._file = find(matrix.base, path.parent)[0]
        self._base = load(self._file)
        cohort = matrix.cohort
        if cohort not in self._base.cohorts:
            raise ValueError(f"{path}: cohort: {matrix.base} has no cohort {cohort!r}")
        self._behaviors = {
            name: self._with(f"behaviors.{name}", f"cohorts.{cohort}.behavior", entrant.behavior)
            .cohorts[cohort]
            .behavior
            for name, entrant in matrix.behaviors.items()
        } | {CLEAN: Honest()}
        self._aggregators = {
            name: self._with(f"aggregators.{name}", "aggregate", part).aggregate
            for name, part in matrix.aggregators.items()
        }
        self._selections = {
            name: self._with(f"selections.{name}", "selection", part).selection
            for name, part in matrix.selections.items()
        }
        self._crowds = {share: self._crowd(share) for share in matrix.shares}
        self._names = {cell: self._name(cell) for cell in (*self.cells(), *self.twins())}

    def cells(self) -> Iterator[Cell]:
        """Every cell in the order of the file, without the clean twins."""
        return self._combined(self.matrix.behaviors)

    def twins(self) -> Iterator[Cell]:
        """The clean twins, one for each aggregator, selection and share."""
        return self._combined({CLEAN: None})

    def attackers(self, share: float) -> int:
        """How many peers a share of all is."""
        return cohort_sizes(self._base.peers, self._crowds[share].cohorts)[self.matrix.cohort]

    def scenario(self, cell: Cell, seed: int) -> Scenario:
        """What to run for a cell. Its clean twin has the same peers on the same links, under the same seed."""
        cohorts = dict(self._crowds[cell.share].cohorts)
        attacking = cohorts[self.matrix.cohort]
        cohorts[self.matrix.cohort] = attacking.model_copy(update={"behavior": self._behaviors[cell.behavior]})
        return self._base.model_copy(
            update={
                "name": self._names[cell],
                "seed": seed,
                "cohorts": cohorts,
                "aggregate": self._aggregators[cell.aggregator],
                "selection": self._selections[cell.selection],
                "expect": None,
            }
        )

    def _combined(self, behaviors: Mapping[str, Any]) -> Iterator[Cell]:
        matrix = self.matrix
        for selection, share, behavior, aggregator in product(
            matrix.selections, matrix.shares, behaviors, matrix.aggregators
        ):
            yield Cell(behavior, aggregator, selection, share)

    def _name(self, cell: Cell) -> str:
        """'matrix-sign_flip-mean-gauntlet-6of24', the folder of the cell's runs."""
        size = f"{self.attackers(cell.share)}of{self._base.peers}"
        name = "-".join((self.matrix.name, cell.behavior, cell.aggregator, cell.selection, size))
        if len(name) > LONGEST_NAME:
            raise ValueError(f"{self._path}: {name}: names of a run have at most {LONGEST_NAME} characters")
        return name

    def _crowd(self, share: float) -> Scenario:
        crowd = self._with("shares", f"cohorts.{self.matrix.cohort}.share", format_share(share))
        exact = share * crowd.peers
        if abs(exact - round(exact)) > 1e-6:
            raise ValueError(f"{self._path}: shares: {format_share(share)} of {crowd.peers} peers are not whole peers")
        return crowd

    def _with(self, place: str, key: str, part: PartSettings) -> Scenario:
        """The base with one part in it; a mistake is said with its place in the matrix."""
        try:
            return load(self._file, {key: part})
        except ScenarioError as error:
            first = error.problems[0]
            below = first.path.removeprefix(key).strip(".")
            where = ".".join(filter(None, (place, below)))
            raise ValueError(f"{self._path}: {where}: {first.message}") from None
