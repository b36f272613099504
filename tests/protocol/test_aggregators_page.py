"""docs/aggregators.md: its tables have every kind, its examples work, and its figures are what runs give."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from byzfl_parts import byzfl

from covsim.digest import Digest
from covsim.events import Event, HeldOutMeasured
from covsim.nodes.seam import Computed
from covsim.protocol.aggregators import aggregators, pre_aggregators
from covsim.protocol.base import Decoded, Layout
from covsim.registry import Registry
from covsim.scenario import Scenario, load, loads, resolved_text
from covsim.scenario.metrics import metrics
from covsim.scenario.plugins import SECTIONS, load_plugins
from covsim.scenario.registries import REGISTRIES
from covsim.simulation import Simulation

Play = Callable[..., tuple[list[Event], Digest]]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "aggregators.md").read_text(encoding="utf-8")
METHODS = PAGE.partition("## The methods")[2].partition("\n### ")[0]
BASE = str(ROOT / "scenarios" / "matrix-base.yaml")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def rows(text: str) -> list[list[str]]:
    """The cells of tables whose first cell is one name in code letters."""
    lines = re.findall(r"^\| `\w+` \|.*\|$", text, re.MULTILINE)
    return [[cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in lines]


@pytest.fixture
def _registries() -> Iterator[None]:
    """Takes out again what a test has registered."""
    before = [registry.items() for registry in REGISTRIES.values()]
    yield
    for registry, parts in zip(REGISTRIES.values(), before, strict=True):
        registry.put_back(parts)
    for model in [part for registry in REGISTRIES.values() for _, part in registry.items()] + list(SECTIONS):
        model.model_rebuild(force=True)


def test_the_tables_have_every_kind_and_its_convention() -> None:
    known: dict[str, Any] = {**dict(aggregators.items()), **dict(pre_aggregators.items())}
    written = rows(METHODS)
    assert sorted(row[0] for row in written) == sorted(known)
    for kind, _, needs, unsent, _ in written:
        fields = known[kind].model_fields
        assert (unsent == "unsent") == ("unsent" in fields), kind
        assert (unsent == "over") == ("over" in fields), kind
        assert (needs != "-") == ("f" in fields), kind


def test_the_counterparts_are_all_of_byzfl() -> None:
    for module in ("aggregators.aggregators", "aggregators.preaggregators"):
        theirs = {name for name, part in vars(byzfl(module)).items() if isinstance(part, type)}
        assert theirs <= {row[4].strip("`") for row in rows(METHODS)}


def test_what_is_needed_is_what_is_tolerated() -> None:
    """Just enough payloads for f = 4 are not too few, and one fewer is."""
    enough = {"n > 2f": 9, "n >= 2f + 3": 11, "n > f": 5, "n >= 2f": 8}
    for kind, _, needs, *_ in rows(METHODS):
        registry: Registry[Any] = aggregators if kind in list(aggregators) else pre_aggregators
        if needs != "-":
            least, method = enough[needs.partition(",")[0]], registry[kind].model_validate({"f": 4})
            assert (method.tolerated(least), method.tolerated(least - 1)) == (4, 3), kind


def test_the_examples_are_valid() -> None:
    (example,) = blocks("yaml")
    scenario = load(BASE, [example.strip().replace(": ", "=", 1)])
    assert [part.kind for part in scenario.aggregate.before] == ["arc", "nnm"]  # type: ignore[attr-defined]
    assert "aggregate.short_rounds" in PAGE
    assert "aggregate.short_rounds" in metrics(["honest"])


@pytest.mark.usefixtures("_registries")
def test_one_of_ones_own_works_as_printed(tiny: Scenario, play: Play, tmp_path: Path) -> None:
    """By hand, and in a whole run behind mixed payloads."""
    (code,) = blocks("python")
    (tmp_path / "largest.py").write_text(code)
    load_plugins([str(tmp_path / "largest.py")])
    one, ones = torch.zeros(1, dtype=torch.int64), torch.ones(1)
    said = [(1, 2.0), (1, -3.0), (3, 1.5)]
    payloads = [Decoded(one + place, value * ones, (0, 1), one, ones.double(), ones) for place, value in said]
    method = aggregators["largest"].model_validate({"kind": "largest"})
    assert method.combine(payloads, Layout(((4,),))).tolist() == [0.0, -3.0, 0.0, 1.5]
    mine = loads(resolved_text(tiny), overrides=["aggregate={kind: largest, before: [nnm]}"])
    assert type(mine.aggregate) is aggregators["largest"]
    _, digest = play(mine)
    assert digest.learning != play(tiny)[1].learning


# The figures ----------------------------------------------------------------------------------------------------------


def final_loss(*overrides: str) -> float:
    """The last held-out loss of the scenario that the page prints, with some settings changed."""
    (command,) = blocks("bash")
    words = command.replace("\\\n", " ").split("'")[0].split()
    scenario = load(BASE, [*words[3:], *overrides])
    losses: dict[int, float] = {}

    def note(event: Event) -> None:
        if isinstance(event, HeldOutMeasured) and event.node == "validator:lead":
            losses[event.round] = event.loss

    simulation = Simulation(scenario, Computed(), (note,))
    while not simulation.finished:
        simulation.step()
    simulation.finish()
    return losses[31]


def published(label: str, column: int) -> tuple[float, float]:
    """A cell of the table: mean and half of its interval."""
    row = next(row for row in rows(PAGE.partition("## What was not sent")[2]) if row[0] == label)
    mean, half = row[column].split(" ± ")
    return float(mean), float(half)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "unsent", "k", "column"),
    [("median", "zero_filled", 4, 4), ("median", "senders", 4, 3), ("caf", "senders", 64, 1)],
)
def test_cells_of_the_table_again(kind: str, unsent: str, k: int, column: int) -> None:
    """Three of them, over the seeds that were published."""
    f = "" if kind == "median" else ", f: 25 %"
    aggregate = f"aggregate={{kind: {kind}, unsent: {unsent}{f}}}"
    losses = [final_loss(f"protocol.k={k}", aggregate, f"seed={seed}") for seed in (1, 2, 3)]
    mean, half = published(kind, column)
    assert sum(losses) / 3 == pytest.approx(mean, abs=0.02 + half / 3)


@pytest.mark.slow
def test_zero_filled_medians_hardly_learn() -> None:
    """Reduced: one seed of what the page says in words."""
    zero_filled, senders = (
        final_loss(f"aggregate={{kind: median, unsent: {each}}}") for each in ("zero_filled", "senders")
    )
    assert zero_filled > senders + 1
