"""docs/gauntlet.md names functions, scenarios and values that exist, and all rules."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from covsim.gauntlet.settings import RULES, GauntletSettings
from covsim.scenario.shipped import shipped_scenarios

PAGE = (Path(__file__).parents[2] / "docs" / "gauntlet.md").read_text(encoding="utf-8")
PRESETS = ("paper", "v0.2", "v1.0", "v2.1.0", "v2.1.28")


def rows() -> list[list[str]]:
    table = PAGE.partition("<!-- presets: begin -->")[2].partition("<!-- presets: end -->")[0]
    lines = [line for line in table.strip().splitlines() if line.startswith("| ") and not line.startswith("| setting")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(f"{part:g}" for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def stated(name: str, preset: str) -> str:
    settings: Any = GauntletSettings.model_validate({"preset": preset})
    if name.startswith("rule "):
        return "off" if name.split("`")[1] in settings.off else "on"
    for key in name.strip("`").split("."):
        settings = getattr(settings, key, None)
    return shown(settings)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_presets_are_as_the_page_says(row: list[str]) -> None:
    assert row[1:] == [stated(row[0], preset) for preset in PRESETS]


def test_every_rule_that_a_preset_has_off_is_on_the_page() -> None:
    off = {rule for preset in PRESETS for rule in GauntletSettings.model_validate({"preset": preset}).off}
    assert off == {row[0].split("`")[1] for row in rows() if row[0].startswith("rule ")}


def test_functions_exist() -> None:
    named = re.findall(r"`(covsim\.gauntlet\.[a-z_]+)\.([A-Za-z_]+)`", PAGE)
    assert len(named) > 20
    for module, name in named:
        assert callable(getattr(importlib.import_module(module), name)), f"{module}.{name}"


def test_every_rule_has_a_row() -> None:
    assert {rule for rule in RULES if f"\n| `{rule}` |" not in PAGE} == set()


def test_scenarios_exist() -> None:
    parties = PAGE.partition("## Whom a run depends on")[2]
    named = re.findall(
        r"`([a-z-]+)`", "".join(line.rsplit("|", 2)[1] for line in parties.splitlines() if line[:2] == "| ")
    )
    assert len(named) >= 8
    assert {name for name in named if f"gauntlet/{name}" not in shipped_scenarios()} == set()
