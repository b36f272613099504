"""Other rules over recorded evidence: what they would have paid, and whom they would have selected. Nothing is trained.

Open loop: evidence is of the run as it was. What would have been trained after a different selection is not known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from covsim.events import (
    EpochSettled,
    Evaluated,
    Event,
    ListPublished,
    NodeJoined,
    Registered,
    RunStopped,
    Scored,
    ValidatorSettled,
)
from covsim.nodes.rescoring import Joining, Turn, rescore
from covsim.record.events_file import read_events
from covsim.record.evidence_file import BadEvidence, read_evidence, turns_of
from covsim.record.runner import CannotResume, scenario_of
from covsim.scenario import Scenario
from covsim.scenario.loading import loads
from covsim.scenario.resolve import yaml_text

OPEN_LOOP = (
    "OPEN LOOP: the evidence is of the run as it was; "
    "what would have been trained after a different selection is not known"
)

SECTIONS = ("gauntlet", "selection", "chain", "validators")
"""What can be changed after the fact."""

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


class CannotRescore(ValueError):
    """There is nothing to score again, or not by these rules; the message is one line."""


@dataclass(frozen=True)
class Case:
    """Something to be scored: its scenario, turns, peers and end; and what was recorded, None for bare evidence."""

    scenario: Scenario
    turns: Sequence[Turn]
    joined: Sequence[Joining]
    end_s: float
    recorded: Outcome | None


@dataclass(frozen=True)
class Outcome:
    """What rules led to: verdicts of every validator, gather lists and payments, in the order of time."""

    verdicts: tuple[Evaluated, ...]
    lists: tuple[ListPublished, ...]
    epochs: tuple[EpochSettled, ...]

    @classmethod
    def of(cls, events: Iterable[Event]) -> Outcome:
        """Sort out the events of a run or of a rescoring."""
        kept: dict[type[Event], list[Any]] = {Evaluated: [], ListPublished: [], EpochSettled: []}
        for event in events:
            if type(event) in kept:
                kept[type(event)].append(event)
        return cls(tuple(kept[Evaluated]), tuple(kept[ListPublished]), tuple(kept[EpochSettled]))


def open_case(path: Path) -> Case:
    """A run's folder, or a file of bare evidence. Raises CannotRescore or BadEvidence."""
    if path.is_dir():
        return _of_run(path)
    if not path.is_file():
        raise CannotRescore(f"{path}: no run and no evidence file is there")
    return _of_evidence(path)


def outcome(case: Case, scenario: Scenario) -> Outcome:
    """What a scenario's rules make of a case's evidence."""
    events: list[Event] = []
    rescore(scenario, case.turns, case.joined, case.end_s, [events.append])
    return Outcome.of(events)


def with_rules(scenario: Scenario, overrides: Sequence[str]) -> Scenario:
    """The scenario with other rules; a preset stands for its rules, with what evidence depends on as it was.

    Raises:
        CannotRescore: an override needs a run of its own.
        ScenarioError: an override is wrong.
    """
    for text in overrides:
        _check_override(text)
    given = scenario.model_dump(mode="json", exclude_none=True)
    preset = next((text.partition("=")[2] for text in overrides if text.startswith("gauntlet.preset=")), None)
    if preset is not None:
        given["gauntlet"] = {"preset": scenario.gauntlet.preset} | _kept(given["gauntlet"])
    return loads(yaml_text(given), "the run's scenario", overrides)


def compared(case: Case, before: Outcome, after: Outcome) -> pd.DataFrame:
    """A row per peer: cohort, and rating, final score, tokens and selected rounds before and after.

    Rating and score are the leading validator's, as its last verdict left them; NaN for who never had one.
    """
    lead, rounds = case.scenario.validators_by_stake[0], 1 + max((turn.round for turn in case.turns), default=-1)
    sides = {"before": _by_peer(before, lead, rounds), "after": _by_peer(after, lead, rounds)}
    rows = []
    for joining in sorted(case.joined, key=lambda joining: joining.uid):
        row: dict[str, Any] = {"uid": joining.uid, "cohort": joining.cohort}
        for name in ("mu", "sigma", "ordinal", "final_score", "tokens", "selected_rounds"):
            row |= {f"{name}_{side}": numbers[name].get(joining.uid, math.nan) for side, numbers in sides.items()}
        rows.append(row)
    frame = pd.DataFrame(rows)
    paid = [f"{name}_{side}" for name in ("tokens", "selected_rounds") for side in sides]
    return frame.fillna(dict.fromkeys(paid, 0.0))


def _by_peer(found: Outcome, lead: str, rounds: int) -> dict[str, dict[int, float]]:
    numbers: dict[str, dict[int, float]] = {
        name: {} for name in ("mu", "sigma", "ordinal", "final_score", "tokens", "selected_rounds")
    }
    for verdict in found.verdicts:
        if verdict.validator == lead:
            numbers["mu"][verdict.uid], numbers["sigma"][verdict.uid] = verdict.mu, verdict.sigma
            numbers["ordinal"][verdict.uid] = verdict.mu - 3 * verdict.sigma
            numbers["final_score"][verdict.uid] = verdict.final_score
    for epoch in found.epochs:
        for uid, tokens in epoch.paid:
            numbers["tokens"][uid] = numbers["tokens"].get(uid, 0.0) + tokens
    for round in range(rounds):
        in_force = [published for published in found.lists if published.effective_window <= round + 1]
        for uid in in_force[-1].selected if in_force else ():
            numbers["selected_rounds"][uid] = numbers["selected_rounds"].get(uid, 0.0) + 1
    return numbers


def _of_run(folder: Path) -> Case:
    try:
        scenario = scenario_of(folder)
    except CannotResume as error:
        raise CannotRescore(f"{folder}: no run to score again here (it has no readable resolved.yaml)") from error
    table, log = folder / "evidence.parquet", folder / "events.jsonl.gz"
    if not table.is_file() or not log.is_file():
        raise CannotRescore(f"{folder}: it has no evidence; it was recorded at level {scenario.record.level}, or cut")
    kinds = (Evaluated, ListPublished, EpochSettled, NodeJoined, Registered, RunStopped, Scored, ValidatorSettled)
    events = list(read_events(log, kinds))
    peers = {event.uid: event.cohort for event in events if isinstance(event, NodeJoined) and event.uid >= 0}
    registered = {event.uid: event.time_s for event in events if isinstance(event, Registered) and event.uid >= 0}
    return Case(
        scenario=scenario,
        turns=_all_turns(turns_of(read_evidence(table)), events),
        joined=[Joining(uid, peers[uid], time_s) for uid, time_s in registered.items()],
        end_s=next(event.time_s for event in events if isinstance(event, RunStopped)),
        recorded=Outcome.of(events),
    )


def _all_turns(judged: Sequence[Turn], events: Sequence[Event]) -> list[Turn]:
    """The turns of a run in the order in which they ended, those without evidence too."""
    evidence = {(turn.validator, turn.round): turn for turn in judged}
    scored = {(event.validator, event.round): event for event in events if isinstance(event, Scored)}
    active: dict[str, frozenset[int]] = {}
    turns = []
    for event in events:
        if not isinstance(event, ValidatorSettled):
            continue
        key = (event.validator, event.round)
        known = scored.get(key)
        if known is not None:
            active[event.validator] = frozenset(known.active)
        turns.append(
            Turn(
                validator=event.validator,
                round=event.round,
                time_s=event.time_s,
                evidence=None if known is None else (evidence[key].evidence if key in evidence else ()),
                active=active.get(event.validator, frozenset()),
                num_drawn=0 if known is None else known.evaluated,
                evaluation_s=0.0 if known is None else known.evaluation_s,
            )
        )
    return turns


def _of_evidence(path: Path) -> Case:
    """Bare evidence: its validators have equal stakes, its peers were there from the start, rules are the defaults."""
    frame = read_evidence(path)
    if frame.empty:
        raise BadEvidence(f"{path}: it has no rows")
    turns, uids = turns_of(frame), sorted(set(frame["uid"]))
    scenario = loads(
        yaml_text(
            {
                "version": 1,
                "name": "evidence",
                "stop": {"rounds": int(frame["round"].max()) + 1},
                "peers": uids[-1] + 1,
                "cohorts": {"all": {"share": "rest"}},
                "validators": {str(name): {"stake": 1.0} for name in sorted(set(frame["validator"]))},
                "chain": {"slots": uids[-1] + 2 + int(frame["validator"].nunique())},
            }
        ),
        str(path),
    )
    return Case(
        scenario=scenario,
        turns=turns,
        joined=[Joining(uid, "all", 0.0) for uid in uids],
        end_s=float(frame["simulated_s"].max()),
        recorded=None,
    )


def _check_override(text: str) -> None:
    path = text.lstrip("+~").partition("=")[0].strip()
    section, _, rest = path.partition(".")
    bound = next((name for name in EVIDENCE_BOUND if rest == name or name.startswith(f"{rest}.")), None)
    if section not in SECTIONS:
        raise CannotRescore(f"{path}: the run would have to be made again; here only {', '.join(SECTIONS)} can change")
    if section == "gauntlet" and rest and bound is not None:
        raise CannotRescore(f"{path}: the evidence was gathered with it; run the scenario again with another value")
    if section == "validators" and not rest.endswith(".stake"):
        raise CannotRescore(f"{path}: of a validator only the stake can change after the fact")


def _kept(gauntlet: Mapping[str, Any]) -> dict[str, Any]:
    """What evidence depends on, out of a section of the Gauntlet's settings."""
    kept: dict[str, Any] = {}
    for name in EVIDENCE_BOUND:
        section, _, key = name.rpartition(".")
        source = gauntlet[section] if section else gauntlet
        (kept.setdefault(section, {}) if section else kept)[key] = source[key]
    return kept
