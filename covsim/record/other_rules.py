"""Which settings of a run can be changed after the fact, and the scenario with others; what needs a run is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from covsim.scenario import Scenario
from covsim.scenario.loading import loads
from covsim.scenario.resolve import yaml_text

SECTIONS = ("gauntlet", "selection", "chain", "economics", "validators")
"""What can be changed after the fact; of validators the stakes only."""

EVIDENCE_BOUND = (
    "evaluated_per_window",
    "bins",
    "active_windows",
    "own_sequences",
    "random_sequences",
    "trial_factor",
    "overlap.among",
    "quirks.overlap_by_previous_stamps",
    "quirks.reserve_unchecked",
    "quirks.empty_gather_judged",
    "sync.samples_per_tensor",
    "sync.average_decay",
    "sync.deadline",
)
"""Settings of the Gauntlet that decide what evidence there is."""


_PRESET = "gauntlet.preset"


class CannotRescore(ValueError):
    """There is nothing to score again, or not by these rules; the message is one line."""


def with_rules(scenario: Scenario, overrides: Sequence[str]) -> Scenario:
    """The scenario with other rules; a preset stands for its rules, with what evidence depends on as it was.

    Raises:
        CannotRescore: an override needs a run of its own.
        ScenarioError: an override is wrong.
    """
    paths = [_path(text) for text in overrides]
    for path in paths:
        _check_path(path)
    given = scenario.model_dump(mode="json", exclude_none=True)
    if _PRESET in paths:
        given["gauntlet"] = {"preset": scenario.gauntlet.preset} | _kept(given["gauntlet"])
    changed = loads(yaml_text(given), "the run's scenario", overrides)
    _check_effect(scenario, changed)
    if changed.gauntlet.preset != scenario.gauntlet.preset and _PRESET not in paths:  # it would act on nothing
        raise CannotRescore(f"{_PRESET}: write {_PRESET}={changed.gauntlet.preset}, apart from the rest of gauntlet")
    return changed


def _path(override: str) -> str:
    return override.lstrip("+~").partition("=")[0].strip()


def _check_path(path: str) -> None:
    """Refuse by its path what needs a run."""
    section, _, rest = path.partition(".")
    bound = any(rest == name or name.startswith(f"{rest}.") for name in EVIDENCE_BOUND)
    if section not in SECTIONS:
        raise CannotRescore(f"{path}: the run would have to be made again; here only {', '.join(SECTIONS)} can change")
    if section == "gauntlet" and rest and bound:
        raise _gathered_with(path)
    if section == "validators" and not rest.endswith(".stake"):
        raise CannotRescore(f"{path}: of a validator only the stake can change after the fact")


def _check_effect(before: Scenario, after: Scenario) -> None:
    """Refuse by its effect what needs a run: a whole section given at once may hold anything."""
    old, new = before.gauntlet.model_dump(), after.gauntlet.model_dump()
    for name in EVIDENCE_BOUND:
        if _at(old, name) != _at(new, name):
            raise _gathered_with(f"gauntlet.{name}")
    for name in after.validators.keys() - before.validators.keys():
        raise CannotRescore(f"validators.{name}: no such validator took part, so there is no evidence of its own")


def _gathered_with(path: str) -> CannotRescore:
    return CannotRescore(f"{path}: the evidence was gathered with it; run the scenario again with another value")


def _kept(gauntlet: Mapping[str, Any]) -> dict[str, Any]:
    """What evidence depends on, out of a section of the Gauntlet's settings."""
    kept: dict[str, Any] = {}
    for name in EVIDENCE_BOUND:
        section, _, key = name.rpartition(".")
        (kept.setdefault(section, {}) if section else kept)[key] = _at(gauntlet, name)
    return kept


def _at(settings: Mapping[str, Any], path: str) -> Any:
    value: Any = settings
    for key in path.split("."):
        value = value[key]
    return value
