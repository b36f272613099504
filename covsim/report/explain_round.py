"""One round of one peer, with everything that the tables hold of it: by validator, stage by stage of the Gauntlet."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from covsim.gauntlet.settings import RULES
from covsim.report.explain import WIDTH, measured
from covsim.report.explain_tables import (
    PLACE,
    STATUS,
    CannotExplain,
    PeerTables,
    Row,
    change,
    improvement,
    number,
    percent,
    rating,
    rules_that_acted,
    seconds,
    shortfall,
    size,
    tokens,
)
from covsim.report.ranks import Rank

STAGES: dict[str, tuple[str, ...]] = {
    "slash": RULES[: RULES.index("indicator")],
    "remember": ("indicator",),
    "slash harm": ("bad_window", "mostly_negative", "negative_streak"),
    "rate": ("penalty_score",),
    "score": ("indicator_threshold", "sync_score", "slash_kept"),
    "hold down": ("no_improvement",),
}
"""The stages of `gauntlet.gauntlet` in which rules act, in that order, with those rules."""

_COLUMN = 13


def story_of_round(peer: PeerTables, round: int, validator: str | None = None) -> str:
    """What happened to a peer in a round. Raises CannotExplain for one that the run did not play."""
    names = peer.only(validator)
    if round not in peer.peers:
        raise CannotExplain(f"round {round} was not played; the run has rounds {min(peer.peers)} to {max(peer.peers)}")
    row = peer.peers[round]
    lines = [f"uid {peer.uid} in round {round}: cohort {row['cohort']}, behavior {row['behavior']}"]
    lines += [_entry(*line) for line in _work(peer, round)]
    for name in names:
        lines += ["", *_by_validator(peer, round, name)]
    return "\n".join(lines)


def _work(peer: PeerTables, round: int) -> Iterator[tuple[str, str]]:
    """What the peer did, where it stood, and what it was paid; the same for all validators."""
    row = peer.peers[round]
    if row["steps"] is not None:
        yield "trained", f"{row['steps']} of {row['wanted']} inner steps"
    if row["simulated_s"] is not None:
        spans = (f"{span} {seconds(row[f'{span}_s'])}" for span in ("compute", "upload", "download", "idle"))
        yield "time", ", ".join(spans)
    for sent in peer.submissions.get(round, []):
        when = _in_window(peer, round, sent["simulated_s"])
        yield "payload", f"{size(sent['num_bytes'])}, {when}, {'on time' if sent['on_time'] else 'not on time'}"
    if round not in peer.submissions:
        yield "payload", shortfall(row) or "nothing lay complete in the store"
    yield "place", f"{PLACE[row['place']]}{', entered the model' if row['contributed'] else ''}"
    for epoch in peer.epochs.get(round, []):
        agreed = f"consensus {number(epoch['consensus'])}" if epoch["consensus"] is not None else "no consensus"
        yield "epoch", f"ended at height {epoch['height']}: {agreed}, paid {tokens(epoch['tokens'])}"
    yield "pay", f"{tokens(row['payout'])}, cost {number(row['cost'])}, profit {number(row['profit'])}"


def _by_validator(peer: PeerTables, round: int, name: str) -> Iterator[str]:
    verdict, row = peer.verdicts.get((round, name)), peer.seen.get((round, name))
    if verdict is None:
        yield f"{name}: {_not_judged(peer, round, name)}"
    else:
        yield f"{name}, done {seconds(verdict['simulated_s'])} after the start:"
        if row is not None:
            yield from (_entry(*line) for line in _evidence(peer, round, row))
        yield from (_entry(*line) for line in _stages(verdict, peer.ranks.get((round, name))))
    if (round, name) in peer.set_in:
        weight = peer.weights.get((round, name), 0.0)
        yield _entry("set", f"weight {number(weight)} was handed to the chain")


def _not_judged(peer: PeerTables, round: int, name: str) -> str:
    """Why there is no verdict."""
    if (round, name) not in peer.judged:
        return "judged nobody in this round"
    active = peer.seen.get((round, name), {}).get("active")
    return "active, but neither drawn nor asked" if active else "not active, and no rule acted on it"


def _evidence(peer: PeerTables, round: int, row: Row) -> Iterator[tuple[str, str]]:
    """The stages in which evidence is made: gather, draw, fetch, measure, compare."""
    if row["on_gather_list"] or row["asked_as_reserve"]:
        asked = "on the list" if row["on_gather_list"] else "a reserve"
        yield "gather", f"asked, {asked}: {'its payload entered' if row['gathered'] else 'in vain'}"
    else:
        yield "gather", "not asked"
    active = "" if row["active"] else "; not active"
    yield "draw", f"{'drawn for evaluation' if row['evaluated'] else 'not drawn for evaluation'}{active}"
    stamps = [f"stamped {_in_window(peer, round, row['stored_s'])}"] if row["stored_s"] is not None else []
    if row["previous_stored_s"] is not None:
        stamps.append(f"in the round before {_in_window(peer, round - 1, row['previous_stored_s'])}")
    problem = [row["problem"]] if row["problem"] else []
    yield "fetch", ", ".join([STATUS[row["status"]], *problem, *stamps])
    yield "measure", "; ".join(_losses(row)) or "nothing"
    compared = [text for text in measured(row) if not text.startswith("own data")]
    if row["overlap_stored_s"] is not None:
        compared.insert(1, f"stamped {_in_window(peer, round, row['overlap_stored_s'])}")
    yield "compare", ", ".join(compared) or "nothing"


def _losses(row: Row) -> Iterator[str]:
    for data in ("own", "random"):
        share = improvement(row, data)
        if share is not None:
            losses = f"{row[f'{data}_before']:.6g} -> {row[f'{data}_after']:.6g}"
            yield f"{data} data {losses} nats per token ({percent(share)})"


def _stages(verdict: Row, rank: Rank | None) -> Iterator[tuple[str, str]]:
    """What each stage made of it; a number before and after is that of the whole window."""
    acted = rules_that_acted(verdict)
    numbers = dict(_numbers(verdict, rank))
    for stage, rules in STAGES.items():
        of_stage = [reason for reason in acted if reason.partition(":")[0] in rules]
        said = [*([numbers[stage]] if stage in numbers else []), *of_stage]
        for position, text in enumerate(said or ["no rule acted"]):
            yield stage if position == 0 else "", text
    yield "weigh", f"worth {number(verdict['weight'])} of all pay"


def _numbers(verdict: Row, rank: Rank | None) -> Iterator[tuple[str, str]]:
    average = change(verdict["indicator_average_before"], verdict["indicator_average"])
    measured_it = "not measured"
    if verdict["indicator"] is not None and verdict["gradient_score"] is not None:
        measured_it = f"indicator {verdict['indicator']:+.0f}, gradient score {number(verdict['gradient_score'])}"
    yield "remember", f"{measured_it}, indicator average {average}"
    mu, sigma = (change(verdict[f"{name}_before"], verdict[name]) for name in ("mu", "sigma"))
    played = "played no match" if rank is None else f"rank {rank} in the match"
    yield "rate", f"{played}, mu {mu}, sigma {sigma}, rating {change(rating(verdict, '_before'), rating(verdict))}"
    yield "score", f"final score {change(verdict['final_score_before'], verdict['final_score'])}"


def _in_window(peer: PeerTables, round: int, time_s: float) -> str:
    """Where a stamp lies against the opening of the window in which the round's payloads count."""
    opened_s = peer.opened_s.get(round)
    if opened_s is None:
        return f"{seconds(time_s)} after the start"
    side = "after" if time_s >= opened_s else "before"
    return f"{seconds(abs(time_s - opened_s))} {side} its window opened"


def _entry(stage: str, text: str) -> str:
    lines: Sequence[str] = textwrap.wrap(text, WIDTH - _COLUMN - 2, break_long_words=False, break_on_hyphens=False)
    return "\n".join(f"  {stage if i == 0 else '':{_COLUMN}}{line}" for i, line in enumerate(lines or [""]))
