"""Other rules over recorded evidence: what they would have paid, and whom they would have selected. Nothing is trained.

Open loop: evidence is of the run as it was. What would have been trained after a different selection is not known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from covsim.chain.economics import EconomicsSettings
from covsim.events import (
    EpochSettled,
    Evaluated,
    Event,
    Exchanged,
    ListPublished,
    NodeJoined,
    Registered,
    RunStopped,
    Scored,
    Submitted,
    Trained,
    Transferred,
    ValidatorSettled,
    WindowOpened,
)
from covsim.nodes.purse import Purses
from covsim.nodes.rescoring import Joining, Stamps, Turn, rescore
from covsim.record.events_file import read_events
from covsim.record.evidence_file import BadEvidence, read_evidence, turns_of
from covsim.record.other_rules import CannotRescore, with_rules
from covsim.record.runner import CannotResume, scenario_of
from covsim.scenario import Scenario
from covsim.scenario.loading import loads
from covsim.scenario.resolve import yaml_text

__all__ = ["OPEN_LOOP", "CannotRescore", "Case", "Outcome", "compared", "open_case", "outcome", "with_rules"]

OPEN_LOOP = (
    "OPEN LOOP: the evidence is of the run as it was; "
    "what would have been trained after a different selection is not known"
)

NUMBERS = ("mu", "sigma", "ordinal", "final_score", "tokens", "profit", "selected_rounds")
"""What is compared of every peer."""


@dataclass(frozen=True)
class Case:
    """Something to be scored: its scenario, turns, peers and end; and what was recorded, None for bare evidence.

    Attributes:
        stamps: by (round, uid), when a payload first lay in the store; None where it is not known.
        work: what cost peers something, and when windows opened, in the order of time; empty where it is not known.
    """

    scenario: Scenario
    turns: Sequence[Turn]
    joined: Sequence[Joining]
    end_s: float
    recorded: Outcome | None
    stamps: Stamps | None = None
    work: Sequence[Event] = ()


@dataclass(frozen=True)
class Outcome:
    """What rules led to: all validators' verdicts, lists, payments and slots, in the order of time; and the prices."""

    verdicts: tuple[Evaluated, ...]
    lists: tuple[ListPublished, ...]
    epochs: tuple[EpochSettled, ...]
    slots: tuple[Registered, ...]
    prices: EconomicsSettings

    @classmethod
    def of(cls, events: Iterable[Event], prices: EconomicsSettings) -> Outcome:
        """Sort out the events of a run or of a rescoring."""
        kept: dict[type[Event], list[Any]] = {Evaluated: [], ListPublished: [], EpochSettled: [], Registered: []}
        for event in events:
            if type(event) in kept:
                kept[type(event)].append(event)
        verdicts, lists, epochs, slots = map(tuple, kept.values())
        return cls(verdicts, lists, epochs, slots, prices)


_WORK = (WindowOpened, Trained, Transferred, Exchanged)
_KINDS = (
    *(Evaluated, ListPublished, EpochSettled, NodeJoined, Registered, RunStopped, Scored, Submitted, ValidatorSettled),
)


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
    opened_s = [event.time_s for event in case.work if isinstance(event, WindowOpened)]
    rescore(scenario, case.turns, case.joined, case.end_s, [events.append], case.stamps, opened_s)
    return Outcome.of(events, scenario.economics)


def compared(case: Case, before: Outcome, after: Outcome) -> pd.DataFrame:
    """A row per peer: cohort, and rating, final score, tokens, profit and selected rounds before and after.

    Rating and score are the leading validator's, as its last verdict left them; NaN for who never had one. The one that
    leads is that of the highest recorded stake, before and after. Profit is NaN where it is not known what work cost:
    of bare evidence, and where traffic has a price and single transfers were not recorded.
    """
    lead, rounds = case.scenario.validators_by_stake[0], 1 + max((turn.round for turn in case.turns), default=-1)
    sides = {"before": _by_peer(case, before, lead, rounds), "after": _by_peer(case, after, lead, rounds)}
    rows = []
    for _, joining in sorted({joining.uid: joining for joining in case.joined}.items()):
        row: dict[str, Any] = {"uid": joining.uid, "cohort": joining.cohort}
        for name in NUMBERS:
            row |= {f"{name}_{side}": numbers[name].get(joining.uid, math.nan) for side, numbers in sides.items()}
        rows.append(row)
    frame = pd.DataFrame(rows)
    paid = [f"{name}_{side}" for name in ("tokens", "selected_rounds") for side in sides]
    return frame.fillna(dict.fromkeys(paid, 0.0))


def _by_peer(case: Case, found: Outcome, lead: str, rounds: int) -> dict[str, dict[int, float]]:
    numbers: dict[str, dict[int, float]] = {name: {} for name in NUMBERS}
    numbers["profit"] = _profits(case, found)
    for verdict in found.verdicts:
        if verdict.validator == lead:
            numbers["mu"][verdict.uid], numbers["sigma"][verdict.uid] = verdict.mu, verdict.sigma
            numbers["ordinal"][verdict.uid] = verdict.mu - 3 * verdict.sigma
            numbers["final_score"][verdict.uid] = verdict.final_score
    for epoch in found.epochs:
        for uid, tokens in epoch.paid:
            numbers["tokens"][uid] = numbers["tokens"].get(uid, 0.0) + tokens
    for published, num_rounds in _rounds_in_force(found.lists, rounds):
        for uid in published.selected:
            numbers["selected_rounds"][uid] = numbers["selected_rounds"].get(uid, 0.0) + num_rounds
    return numbers


def _rounds_in_force(lists: Sequence[ListPublished], rounds: int) -> Iterator[tuple[ListPublished, int]]:
    """Each list with the number of rounds in whose exchange, a window after the round's, it was the newest in force."""
    begins = [max(0, published.effective_window - 1) for published in lists]
    for published, first, end in zip(lists, begins, [*begins[1:], rounds], strict=True):
        yield published, max(0, min(end, rounds) - first)


def _profits(case: Case, found: Outcome) -> dict[int, float]:
    """By uid, what tokens were worth minus what work cost, at the prices of an outcome; empty where it is not known.

    An epoch that ends as a window opens is paid in that window, as the table of epochs has it.
    """
    traffic_counts = found.prices.upload_per_gb or found.prices.download_per_gb
    if not case.work or (traffic_counts and case.scenario.record.level != "transfers"):
        return {}
    purses = Purses(found.prices, case.scenario.planned_rounds)
    for event in sorted([*case.work, *found.slots, *found.epochs], key=lambda event: event.time_s):
        purses.observe(event)
    return {each.uid: math.fsum(purses.profits(each.uid, sorted(purses.accounts[each.uid]))) for each in case.joined}


def _of_run(folder: Path) -> Case:
    try:
        scenario = scenario_of(folder)
    except CannotResume as error:
        raise CannotRescore(f"{folder}: no run to score again here (it has no readable resolved.yaml)") from error
    if scenario.topology.direct:
        raise CannotRescore(
            f"{folder}: over a {scenario.topology.kind} nothing was measured that could be judged again"
        )
    table, log = folder / "evidence.parquet", folder / "events.jsonl.gz"
    if not table.is_file() or not log.is_file():
        raise CannotRescore(f"{folder}: it has no evidence; it was recorded at level {scenario.record.level}, or cut")
    try:
        events = list(read_events(log, (*_WORK, *_KINDS)))
    except KeyError as error:
        raise CannotRescore(f"{log}: an event has no {error}; another version of covsim has written it") from error
    stamps: dict[tuple[int, int], float] = {}
    for event in events:
        if isinstance(event, Submitted):
            stamps.setdefault((event.round, event.uid), event.stored_s)
    peers = {event.uid: event.cohort for event in events if isinstance(event, NodeJoined) and event.uid >= 0}
    registered = [event for event in events if isinstance(event, Registered) and event.uid >= 0]
    return Case(
        scenario=scenario,
        turns=_all_turns(turns_of(read_evidence(table)), events),
        joined=[Joining(event.uid, peers[event.uid], event.time_s) for event in registered],
        end_s=next(event.time_s for event in events if isinstance(event, RunStopped)),
        recorded=Outcome.of(events, scenario.economics),
        stamps=stamps,
        work=[event for event in events if isinstance(event, _WORK)],
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
