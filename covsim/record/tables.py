"""The tables of a run's folder: one row per thing, `round` and `simulated_s` columns, SI base units in the names.

| table | a row is | it says |
|---|---|---|
| rounds | a settled round | loss on the lead validator's theta and over lineages, who took part, bytes, probes |
| peers | a peer in a settled round | steps, spans of time, place on the list, the lead validator's rating, tokens |
| submissions | a payload in the store | stamp, sizes, whether it counts |
| verdicts | what a validator concluded of a peer in a round | scores, rating, weight, reasons |
| evidence | what it had seen before it concluded (`docs/gauntlet.md`) | losses, stamps, overlaps, who was active |
| weights | a weight that a validator handed to the chain | share of all pay |
| epochs | a peer or validator in an epoch of the chain | tokens paid, consensus |
| faults | a strike of a fault, where there are faults (`record.faults`) | which fault, whom, from when to when |
| links | a change of a link that varies, where there are such (`record.links`) | what it carries, from when to when |
| transfers | a transfer over a link | who, what for, bytes, from when to when |

A column keeps its type whatever a run did; what did not happen is null.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from covsim.events import (
    BatchCut,
    EpochSettled,
    Evaluated,
    Event,
    Gathered,
    OuterStepTaken,
    Probed,
    RoundSettled,
    RoundSkipped,
    Scored,
    Submitted,
    Trained,
    Transferred,
    WeightsSet,
    WindowOpened,
)
from covsim.nodes.spent import IDLE
from covsim.record import views
from covsim.record.columns import Columns, values
from covsim.record.payout import payouts
from covsim.record.recorder import Recorder

_TEXT = [
    "cohort",
    "behavior",
    "lineage",
    "place",
    "status",
    "problem",
    "validator",
    "reasons",
    "payload_sha256",
    "node",
    "key",
    "purpose",
    "direction",
]
_BURNED = -1  # stands for the owner's slot in the uid column of weights
_SEEN = ["evaluated", "on_gather_list", "asked_as_reserve", "gathered"]
_FLAGS = ["on_time", "skipped", "contributed", "complete", "active", *_SEEN]
_WHOLE = ["round", "uid", "first_uid", "steps", "wanted", "batch", "overlap_with", "model_bytes", "height", "blocks"]
_LOSSES = ["own_before", "own_after", "random_before", "random_after"]
_EVIDENCE = [*_LOSSES, "overlap", "overlap_with", "overlap_stored_s", "steps_behind"]
_STANDING = ["indicator_average", "mu", "sigma", "final_score"]
_VERDICT = ["gradient_score", "indicator", *_STANDING, *(f"{name}_before" for name in _STANDING)]
_ROUND_OF_KEY = re.compile(r"round-([0-9]+)(?:/|$)")


def rounds(recorder: Recorder) -> pd.DataFrame:
    """A row per settled round; `simulated_s` is when the lead validator was done with it and measured its loss."""
    leading = views.leads(recorder)
    stepped = {
        round: lineage
        for node, round, lineage in values(recorder.of(OuterStepTaken), "node", "round", "lineage")
        if node == leading.get(round, recorder.lead_node)
    }
    measured = {point.measured.round: point for point in reversed(views.lead_losses(recorder))}  # the first counts
    spread = views.losses_of_lineages(recorder)
    columns: dict[str, dict[int, Any]] = {
        "simulated_s": {round: point.measured.time_s for round, point in measured.items()},
        "opened_s": {event.window - 1: event.time_s for event in recorder.of(WindowOpened)},
        "lineage": stepped,
        "loss": {round: point.measured.loss for round, point in measured.items()},
        "loss_lowest": {round: min(losses) for round, losses in spread.items()},
        "loss_highest": {round: max(losses) for round, losses in spread.items()},
        "bytes_so_far": {round: sum(point.traffic) for round, point in measured.items()},
    }
    for event in recorder.of(Probed):
        columns.setdefault(f"probe.{event.probe}", {})[event.round] = event.value
    counts = _counts_by_round(recorder)
    index = pd.Index(range(views.settled_rounds(recorder)), name="round")
    series = {name: pd.Series(column, index=index, dtype=_type(name)) for name, column in columns.items()}
    series |= {
        name: pd.Series([count.get(round, 0) for round in index], index=index, dtype=_type(name))
        for name, count in counts.items()
    }
    return _typed(pd.DataFrame(series, index=index).reset_index())


def peers(recorder: Recorder) -> pd.DataFrame:
    """A row per peer and settled round; null where a peer did nothing of the kind in that round.

    `first_uid` is the same in all rows of one who registered again, whatever its uid.
    """
    keys = ["round", "uid"]
    spans = [range(views.settled_rounds(recorder)), sorted(recorder.peers)]
    frame = pd.MultiIndex.from_product(spans, names=keys).to_frame(index=False)
    joined = ["uid", "cohort", "behavior", "uplink_bits_per_s", "downlink_bits_per_s", "seconds_per_step"]
    settled = ["time_s", "compute_s", "upload_s", "download_s", "idle_s", *IDLE]
    judged = [event for event in recorder.of(Evaluated) if event.validator == recorder.lead]
    num_rows = len(frame)
    frame = frame.merge(_frame(recorder.peers.values(), joined), on="uid", how="left")
    frame.insert(2, "first_uid", [recorder.first_uids.get(uid, uid) for uid in frame["uid"]])
    for part in (
        _frame(recorder.of(Trained), [*keys, "steps", "wanted"]).groupby(keys, as_index=False).sum(),
        _frame(recorder.of(BatchCut), [*keys, "batch"]).groupby(keys, as_index=False).min(),
        _frame(recorder.of(RoundSettled), [*keys, *settled]),
        _frame(recorder.of(Submitted), [*keys, "stored_s", "on_time"]).drop_duplicates(keys, keep="last"),
        _frame(judged, [*keys, "status", "indicator_average", "mu", "sigma", "final_score"]),
    ):
        frame = frame.merge(part, on=keys, how="left")
    assert len(frame) == num_rows, "a peer has two rows in one round"
    return _typed(_with_selection_and_pay(frame, recorder).rename(columns={"time_s": "simulated_s"}))


def submissions(recorder: Recorder) -> pd.DataFrame:
    """A row per payload that lay complete in the store; `simulated_s` is the store's stamp."""
    names = ["round", "stored_s", "uid", "on_time", "num_bytes", "model_bytes", "payload_sha256"]
    frame = _frame(recorder.of(Submitted), names).rename(columns={"stored_s": "simulated_s"})
    return _typed(frame.assign(cohort=[recorder.peers[uid].cohort for uid in frame["uid"]]))


def verdicts(recorder: Recorder) -> pd.DataFrame:
    """A row per validator, peer and round: what the scoring concluded, and which rules acted."""
    weights = {
        (scored.validator, scored.round, uid): weight
        for scored in recorder.of(Scored)
        for uid, weight in scored.weights
    }
    judged = recorder.of(Evaluated)
    frame = _frame(judged, ["round", "time_s", "validator", "uid", "status", *_VERDICT])
    return _typed(
        frame.assign(
            weight=[weights.get((event.validator, event.round, event.uid), 0.0) for event in judged],
            reasons=["; ".join(event.reasons) for event in judged],
        ).rename(columns={"time_s": "simulated_s"})
    )


def evidence(recorder: Recorder) -> pd.DataFrame:
    """A row per validator, peer and round: what the scoring saw, enough to replay other rules without training.

    Who was active and of whom nothing was seen has a row that says only that.
    """
    stamps = ["stored_s", "previous_stored_s"]
    names = ["round", "time_s", "validator", "uid", "status", "problem", *stamps, *_SEEN, *_EVIDENCE]
    judged = recorder.of(Evaluated)
    active = {(scored.validator, scored.round): scored.active for scored in recorder.of(Scored)}
    seen = {(event.validator, event.round, event.uid) for event in judged}
    frame = _frame(judged, names).assign(
        active=[event.uid in active.get((event.validator, event.round), ()) for event in judged]
    )
    silent = [
        {"round": scored.round, "time_s": scored.time_s, "validator": scored.validator, "uid": uid}
        for scored in recorder.of(Scored)
        for uid in scored.active
        if (scored.validator, scored.round, uid) not in seen
    ]
    rest = pd.DataFrame(silent, columns=["round", "time_s", "validator", "uid"]).assign(status="unseen", active=True)
    whole = pd.concat([frame, _typed(rest)]) if silent else frame
    whole[_SEEN] = whole[_SEEN].fillna(False)
    ordered = whole.sort_values(["round", "validator", "uid"], kind="stable", ignore_index=True)
    return _typed(ordered.rename(columns={"time_s": "simulated_s"}))


def weights(recorder: Recorder) -> pd.DataFrame:
    """A row per validator, setting and peer; uid -1 is what is burned."""
    rows = [
        (event.round, event.time_s, event.validator, uid, weight)
        for event in recorder.of(WeightsSet)
        for uid, weight in (*event.weights, (_BURNED, event.burned))
    ]
    return _typed(pd.DataFrame(rows, columns=["round", "simulated_s", "validator", "uid", "weight"]))


def epochs(recorder: Recorder) -> pd.DataFrame:
    """A row per epoch and node; `round` is that in whose window the epoch ended, `tokens` what it paid the node."""
    opened = [(event.time_s, event.window - 1) for event in recorder.of(WindowOpened)]
    rows: list[tuple[Any, ...]] = []
    for event in recorder.of(EpochSettled):
        round = max((round for time_s, round in opened if time_s <= event.time_s), default=-1)
        agreed = dict(event.consensus)
        head = (round, event.time_s, event.height, event.blocks)
        rows += [(*head, f"peer:{uid}", uid, tokens, agreed.get(uid, 0.0)) for uid, tokens in event.paid]
        rows += [(*head, f"validator:{name}", pd.NA, tokens, math.nan) for name, tokens in event.dividends]
        rows += [(*head, "owner", pd.NA, event.owner, math.nan), (*head, "burned", pd.NA, event.burned, math.nan)]
    names = ["round", "simulated_s", "height", "blocks", "node", "uid", "tokens", "consensus"]
    return _typed(pd.DataFrame(rows, columns=names))


def transfers(recorder: Recorder) -> pd.DataFrame:
    """A row per transfer; `simulated_s` is its end, `round` that of the object moved (-1 if it belongs to none)."""
    names = ["time_s", "node", "key", "purpose", "direction", "num_bytes", "started_s", "complete"]
    frame = _frame(recorder.of(Transferred), names).rename(columns={"time_s": "simulated_s"})
    frame.insert(0, "round", [_round_of(key) for key in frame["key"]])
    return _typed(frame)


def _counts_by_round(recorder: Recorder) -> dict[str, Mapping[int, float]]:
    """What is counted in a round; a round in which it did not happen has 0."""
    submitted, gathered = recorder.of(Submitted), recorder.of(Gathered)
    steps: dict[int, int] = defaultdict(int)
    for round, done in values(recorder.of(Trained), "round", "steps"):
        steps[round] += done
    return {
        "num_lineages": views.lineages(recorder),
        "num_submitted": Counter(round for (round,) in values(submitted, "round")),
        "num_on_time": Counter(round for round, on_time in values(submitted, "round", "on_time") if on_time),
        "num_contributing": {round: len(uids) for round, uids in views.contributors(recorder).items()},
        "num_skipped": Counter(event.round for event in recorder.of(RoundSkipped)),
        "num_aborted_gathers": Counter(
            round for round, outcome in values(gathered, "round", "outcome") if outcome == "aborted"
        ),
        "steps": steps,
        "bytes_up": {window - 1: traffic.up for window, traffic in recorder.traffic_of_window.items()},
        "bytes_down": {window - 1: traffic.down for window, traffic in recorder.traffic_of_window.items()},
    }


def _with_selection_and_pay(frame: pd.DataFrame, recorder: Recorder) -> pd.DataFrame:
    lists, gathered, paid = views.gather_lists(recorder), views.contributors(recorder), payouts(recorder)
    skipped = {(event.round, event.uid) for event in recorder.of(RoundSkipped)}
    num, balance = len(frame), recorder.purses.balance
    rounds, uids = frame["round"].tolist(), frame["uid"].tolist()

    def of_each(compute: Callable[..., Any], dtype: Any) -> NDArray[Any]:
        """A column, made without a list of as many objects."""
        return np.fromiter(map(compute, rounds, uids), dtype, num)

    balances = of_each(lambda played, uid: balance(uid, played), [("cost", "f8"), ("profit", "f8")])
    return frame.assign(
        skipped=of_each(lambda *key: key in skipped, bool),
        place=[views.place(lists.get(round), uid) for round, uid in zip(rounds, uids, strict=True)],
        contributed=of_each(lambda played, uid: uid in gathered.get(played, ()), bool),
        payout=of_each(lambda played, uid: paid.get(played, {}).get(uid, 0.0), float),
        cost=balances["cost"],
        profit=balances["profit"],
    )


def _frame(events: Iterable[Event], names: list[str]) -> pd.DataFrame:
    """Some fields of some events as columns."""
    if isinstance(events, Columns):
        return _typed(pd.DataFrame({name: events.array(name) for name in names}, columns=names))
    rows = list(events)
    return _typed(pd.DataFrame({name: [getattr(row, name) for row in rows] for name in names}, columns=names))


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with every column of its own type; whole numbers, flags and texts may be null."""
    return frame.astype({name: _type(name) for name in frame.columns})


def _type(name: str) -> str:
    if name in _TEXT:
        return "string"
    if name in _FLAGS:
        return "boolean"
    return "Int64" if name in _WHOLE or (name.startswith("num_") and name != "num_bytes") else "float64"


def _round_of(key: str) -> int:
    match = _ROUND_OF_KEY.match(key)
    return int(match[1]) if match else -1
