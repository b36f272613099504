"""A peer's story in plain words, from the tables of a run's folder: who it is, how it did, and what happened when.

What validators saw, what moved, and which rules acted is told round by round. A round is one entry, with a line for
each validator that had the peer before it; rounds in which none had are folded. `explain_round` tells all of one round.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby

from covsim.report.explain_tables import (
    PLACE,
    STATUS,
    PeerTables,
    Row,
    change,
    improvement,
    number,
    percent,
    played,
    rating,
    rules_that_acted,
    shortfall,
    tokens,
)

WIDTH = 120  # columns of a terminal after which lines go on below


def story(peer: PeerTables, validator: str | None = None) -> str:
    """Everything that happened to a peer. Raises CannotExplain if there is no such validator."""
    names = peer.only(validator)
    lines = [*headline(peer, names), ""]
    for quiet, rounds in groupby(sorted(peer.peers), key=partial(_quiet, peer, names)):
        if quiet:
            lines.append(_folded(peer, list(rounds), quiet))
            continue
        for round in rounds:
            lines += _round(peer, round, names)
    return "\n".join(lines)


def headline(peer: PeerTables, names: Sequence[str]) -> Iterator[str]:
    """Who the peer is, how often it was there, what it earned, and how it is rated in the end."""
    rows = list(peer.peers.values())
    first = rows[0]
    rate = " and ".join(f"{first[f'{way}link_bits_per_s'] / 1e6:.4g} Mb/s {way}" for way in ("up", "down"))
    machine = f"{number(first['seconds_per_step'])} s per inner step"
    yield f"uid {peer.uid}: cohort {first['cohort']}, behavior {first['behavior']}; {rate}, {machine}"
    counts = [
        f"played {sum(map(played, rows))} of {len(rows)} rounds",
        f"on time {sum(bool(row['on_time']) for row in rows)}",
        f"on the list {sum(row['place'] == 'selected' for row in rows)}",
        f"in reserve {sum(row['place'] == 'reserve' for row in rows)}",
        f"entered the model {sum(bool(row['contributed']) for row in rows)}",
    ]
    yield ", ".join(counts)
    paid, cost, profit = (math.fsum(row[name] for row in rows) for name in ("payout", "cost", "profit"))
    yield f"{tokens(paid)}, cost {number(cost)}, profit {number(profit)}"
    yield _wrapped(f"final rating: {'; '.join(_final_rating(peer, name) for name in names)}", 2)


def _final_rating(peer: PeerTables, name: str) -> str:
    """By one validator, as its last verdict on the peer left it."""
    rounds = [round for round, judge in peer.verdicts if judge == name]
    if not rounds:
        return f"{name} never judged it"
    last = peer.verdicts[max(rounds), name]
    spread = f"mu {number(last['mu'])} - 3 x sigma {number(last['sigma'])}"
    return f"{name} {number(rating(last))} ({spread}), final score {number(last['final_score'])}"


def _quiet(peer: PeerTables, names: Sequence[str], round: int) -> str:
    """What there is to say of a round in which no validator had the peer before it; empty if one had."""
    if any((round, name) in peer.verdicts for name in names):
        return ""
    return ", ".join(["not evaluated", *_whereabouts(peer.peers[round])])


def _whereabouts(row: Row) -> list[str]:
    """Place, whether the payload entered, and what was wrong with taking part."""
    entered = ["entered the model"] if row["contributed"] else []
    short = [shortfall(row)] if shortfall(row) else []
    return [PLACE[row["place"]], *entered, *short]


def _folded(peer: PeerTables, rounds: Sequence[int], quiet: str) -> str:
    """One line for quiet rounds in a row, with what was paid in them."""
    span = f"round {rounds[0]}" if len(rounds) == 1 else f"rounds {rounds[0]} to {rounds[-1]}"
    paid = math.fsum(peer.peers[round]["payout"] for round in rounds)
    return _wrapped(f"{span}: {quiet}{f'; paid {tokens(paid)}' if paid else ''}", 2)


def _round(peer: PeerTables, round: int, names: Sequence[str]) -> Iterator[str]:
    row = peer.peers[round]
    paid = f"; paid {tokens(row['payout'])}" if row["payout"] else ""
    yield _wrapped(f"round {round}: {', '.join(_whereabouts(row))}{paid}", 2)
    for name in names:
        verdict = peer.verdicts.get((round, name))
        if verdict is not None:
            ranked = [f"rank {peer.ranks[round, name]}"] if (round, name) in peer.ranks else []
            said = [seen(peer.seen.get((round, name))), *ranked, moved(verdict), *rules_that_acted(verdict)]
            yield _wrapped(f"  {name}: {'; '.join(said)}", 6)


def seen(row: Row | None) -> str:
    """What a validator saw of the peer in a round: one row of evidence in words."""
    if row is None:
        return STATUS["unseen"]
    status = STATUS[row["status"]]
    said = [f"{status} ({row['problem']})" if row["problem"] else status]
    if not row["evaluated"]:
        said.append("not evaluated")
    if row["asked_as_reserve"]:
        said.append("stood in as a reserve" if row["gathered"] else "asked in vain to stand in")
    elif row["on_gather_list"] and not row["gathered"]:
        said.append("asked in vain")
    return ", ".join([*said, *measured(row)])


def measured(row: Row) -> Iterator[str]:
    """Improvements, overlap and distance, as far as they were measured."""
    own, random = improvement(row, "own"), improvement(row, "random")
    if own is not None and random is not None:
        yield f"own data {percent(own)}, random data {percent(random)}"
    if row["overlap"] is not None:
        yield f"overlap {number(row['overlap'])} with uid {row['overlap_with']}"
    if row["steps_behind"] is not None:
        yield f"{number(row['steps_behind'])} steps behind"
    elif row["evaluated"] or row["on_gather_list"] or row["asked_as_reserve"]:
        yield "no sync sample"


def moved(verdict: Row) -> str:
    """What a window did to the peer's standing, and what the validator found it worth."""
    average = change(verdict["indicator_average_before"], verdict["indicator_average"])
    score = change(verdict["final_score_before"], verdict["final_score"])
    ordinal = change(rating(verdict, "_before"), rating(verdict))
    return f"rating {ordinal}, indicator average {average}, final score {score}, weight {number(verdict['weight'])}"


def _wrapped(line: str, hang: int) -> str:
    return textwrap.fill(line, WIDTH, subsequent_indent=" " * hang, break_long_words=False, break_on_hyphens=False)
