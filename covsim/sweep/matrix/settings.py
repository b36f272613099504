"""What a matrix file says: who attacks, who defends, in which scenario, over how many seeds, what is looked at twice.

A matrix file is YAML like a scenario, and no scenario: it names one, `base`, and lists the parts that are put into it
in turn. Parts are merged over those of the base, as an override on the command line would be, and are checked by the
scenario's own schema when the grid is laid out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from covsim.gauntlet.settings import RuleName
from covsim.scenario import ScenarioError, reader
from covsim.scenario.lookup import is_named_map
from covsim.scenario.messages import CONTRADICTION, problems
from covsim.scenario.overrides import Overrides, override
from covsim.scenario.schema import Name
from covsim.scenario.sections import Section
from covsim.scenario.shipped import shipped_folder
from covsim.units import Share

CLEAN = "clean"
"""The twin of every cell, in which the attackers are honest; no behavior of a matrix may be called so."""

PartSettings = str | dict[str, Any]
"""A part as scenarios have it: a bare name where the scenario takes one, or a mapping."""

MOST_ENTRIES = 100


def _not_too_many(entries: dict[str, Any]) -> dict[str, Any]:
    if not 0 < len(entries) <= MOST_ENTRIES:
        raise ValueError(f"holds {len(entries)} entries; a matrix has 1 to {MOST_ENTRIES}")
    return entries


class Entrant(Section):
    """A behavior of the matrix."""

    behavior: PartSettings = Field(description="what the attacking cohort plays")
    rules: list[RuleName] = Field(
        [],
        max_length=20,
        description="scoring rules aimed at it: where one of them could never act, a cell says nothing",
    )


class Seeds(Section):
    """Over how many runs a cell is judged."""

    first: int = Field(1, ge=0, lt=2**62, description="the first seed; others follow it one by one")
    screen: int = Field(2, ge=2, le=100, description="seeds of every cell")
    confirm: int = Field(
        5, ge=3, le=100, description="seeds of the cells that are interesting, the first ones included"
    )

    @model_validator(mode="after")
    def _confirms_with_more(self) -> Self:
        if self.confirm <= self.screen:
            raise ValueError(f"confirm takes more seeds than screen, {self.screen}")
        return self


class Interesting(Section):
    """What makes a cell interesting after the screening: any one seed over any of these."""

    loss_over: Share = Field(0.05, gt=0, description="held-out loss above the clean twin's of the same seed")
    pay_over: float = Field(0.5, gt=0, le=100, description="pay of an attacker; 1 is the mean pay of an honest peer")
    spread_over: Share = Field(0.05, gt=0, description="difference between two seeds' loss against clean")


class Matrix(Section):
    """Behaviors x aggregators x selections x shares of attackers, in one scenario."""

    version: Literal[1] = Field(description="of this format")
    name: Name = Field(description="names the folder of the runs, the tables and the figures")
    description: str = Field("", max_length=10_000, description="what the matrix is for")
    base: str = Field(
        min_length=1, max_length=1000, description="the scenario: a file beside this one, or a shipped name"
    )
    cohort: Name = Field("attackers", description="the base's cohort that attacks")
    behaviors: Annotated[dict[Name, Entrant], AfterValidator(_not_too_many)] = Field(description="rows, by name")
    aggregators: Annotated[dict[Name, PartSettings], AfterValidator(_not_too_many)] = Field(
        description="columns, by name"
    )
    selections: Annotated[dict[Name, PartSettings], AfterValidator(_not_too_many)] = Field(
        description="one figure for each and share, by name"
    )
    shares: list[Share] = Field(min_length=1, max_length=20, description="attackers, of all peers")
    seeds: Seeds = Field(Seeds(), description="runs of a cell")
    interesting: Interesting = Field(Interesting(), description="which cells are confirmed with more seeds")

    @model_validator(mode="after")
    def _clean_is_taken(self) -> Self:
        if CLEAN in self.behaviors:
            message = f"{CLEAN} is the twin in which the attackers are honest; call the behavior otherwise"
            raise PydanticCustomError(CONTRADICTION, message, {"path": ("behaviors", CLEAN), "message": message})
        return self

    @model_validator(mode="after")
    def _shares_differ(self) -> Self:
        if len(set(self.shares)) < len(self.shares) or min(self.shares) <= 0:
            raise PydanticCustomError(
                CONTRADICTION, "shares", {"path": ("shares",), "message": "must be above 0 % and differ"}
            )
        return self


def find_matrix(name: str) -> Path:
    """The file that a name means: one that exists, or the matrix that ships with covsim under it."""
    path = Path(name)
    shipped = shipped_folder() / f"{name.removesuffix('.yaml')}.yaml"
    return path if path.exists() or not shipped.exists() else shipped


def read_matrix(path: Path, overrides: Overrides = ()) -> Matrix:
    """Read a matrix file, changed as asked. Parts are checked when the grid is laid out.

    Raises:
        ScenarioError: one line per mistake, `file:line:col: path: what is wrong`.
    """
    tree = override(reader.read_file(path, str(path)), overrides, lambda key: is_named_map(Matrix, key))
    try:
        return Matrix.model_validate_json(json.dumps(tree.plain()), strict=True)
    except ValidationError as error:
        raise ScenarioError(problems(error, Matrix, tree)) from None
