"""summary.json: what a run amounts to, in flat keys that claims and sweeps can name (`scenario.metrics` lists them).

Cohorts appear by name. Times are simulated seconds, sizes bytes of the deployment, losses nats per token of the model.
What was never reached or cannot be computed is NaN here and null in the file.

| key | meaning |
|---|---|
| `loss.initial`, `loss.final` | held-out, on the lead validator's theta; `final` is the mean of the last 3 rounds |
| `loss.spread`, `lineages.final` | highest minus lowest loss over the histories that nodes hold at the end; how many |
| `time_to_loss.<x>`, `bytes_to_loss.<x>` | when it was first measured at x or below, and all bytes moved until then |
| `time.compute_utilization` | compute over compute and communication, as the Covenant-72B report defines it |
| `time.compute_share` | compute over all time of all peers, idle time too |
| `late_share` | submissions that arrived after their put window, over all submissions |
| `participation.mean_contributing`, `.unique` | peers whose payloads entered the lead's theta: a round, ever |
| `participation.mean_submitting`, `.unique_submitting` | peers whose payloads came into the store, on time or not |
| `aggregate.short_rounds` | rounds in which the lead gathered too few for the `f` that the aggregate is set to |
| `payout_share.<cohort>` | of what is not burned |
| `pay_per_peer.<cohort>` | mean pay of its peers over the mean pay of honest peers |
| `selected_share.<cohort>` | its part of the places on the gather list, over all rounds |
| `evaluations_per_peer.<cohort>` | times a validator measured one of its peers: mean over peers and validators |
| `rounds_to_exclusion.<cohort>` | rounds until a peer was first excluded, mean over those that were |
| `tokens_per_peer.<cohort>`, `cost_per_peer.<c>`, `profit_per_peer.<c>` | means, at the prices of `economics` |
| `break_even_price.<cohort>` | price of a token at which its peers together would have earned what they spent |
| `left_share.<cohort>` | share of its peers that left |
| `chain.epochs`, `chain.blocks`, `chain.burned_share` | epochs settled, blocks paid for, share of all tokens burned |
| `honest_earning_zero` | share of the honest peers that were paid nothing |
| `task.<kind>` | share of the zero-shot questions that the lead validator's final theta answers right |
| `recovery_rounds.<fault>`, `faults`, `store.*` | what the scenario's faults did, see `record.faults` |
| `rules` | for every scoring rule: on how many it could have acted, how often it did, and the word for it |
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from covsim.digest import Digest
from covsim.events import (
    EpochSettled,
    Evaluated,
    NodeLeft,
    RoundSettled,
    RuleApplied,
    RunStopped,
    Submitted,
    TaskMeasured,
    UpdatesCompared,
    WindowOpened,
)
from covsim.record import views
from covsim.record.aggregation import aggregation
from covsim.record.columns import values
from covsim.record.faults import fault_summary
from covsim.record.payout import total_per_peer
from covsim.record.recorder import Recorder
from covsim.scenario.metrics import LOSS_LEVELS

if TYPE_CHECKING:
    from covsim.scenario import Scenario

FINAL_ROUNDS = 3
"""`loss.final` is a mean over so many rounds, because single rounds jump."""

EXCLUDING_RULES = ("overlap_exclude", "gather_absence")


def summary(
    recorder: Recorder,
    scenario: Scenario,
    *,
    digest: Digest,
    payload_bytes: float,
    compression_ratio: float,
    compression_ratio_model: float,
    training_wall_s: float,
    total_wall_s: float,
    tokens_are_bytes: bool,
    diagnostics: Mapping[str, float],
    faults: Sequence[str] = (),
) -> dict[str, Any]:
    """The content of summary.json.

    Args:
        recorder: has observed a whole run, up to its `RunStopped`.
        scenario: gives the run its name.
        digest: of the run's events and final parameters.
        payload_bytes: a regular payload of the deployment.
        compression_ratio: of the deployment, against its parameters in fp32.
        compression_ratio_model: the same for the model that is really trained.
        training_wall_s: real seconds spent in training.
        total_wall_s: real seconds of the run.
        tokens_are_bytes: whether a loss per token is one per byte.
        diagnostics: more figures, added to those that the events hold.
        faults: the labels of the scenario's faults.
    """
    trained = scenario.learning.kind == "trained"
    return {
        "scenario": scenario.name,
        **({} if trained else {"learning": scenario.learning.kind}),  # no loss of such a run was measured
        "rounds": views.settled_rounds(recorder),
        "digest.clock": digest.clock,
        "digest.learning": digest.learning,
        "network.payload_bytes": payload_bytes,
        "network.compression_ratio": compression_ratio,
        "network.compression_ratio_model": compression_ratio_model,
        "network.bytes_up": recorder.traffic.up,
        "network.bytes_down": recorder.traffic.down,
        "wall.training_s": training_wall_s,
        "wall.total_s": total_wall_s,
        **_loss(recorder, tokens_are_bytes),
        **_reached(recorder),
        **{f"task.{event.task}": event.accuracy for event in recorder.of(TaskMeasured)},
        **_time(recorder),
        **_participation(recorder),
        **aggregation(recorder, scenario),
        **_pay(recorder),
        **_economics(recorder),
        **_chain(recorder),
        **_scoring(recorder),
        **fault_summary(recorder, faults),
        "rules": _rules(recorder),
        "diagnostics": _diagnostics(recorder) | dict(diagnostics),
    }


def _loss(recorder: Recorder, tokens_are_bytes: bool) -> dict[str, Any]:
    measured = [point.measured for point in views.lead_losses(recorder)]
    last = views.losses_of_lineages(recorder)[views.settled_rounds(recorder) - 1] or [math.nan]
    final = _mean([event.loss for event in measured if event.round >= 0][-FINAL_ROUNDS:])
    return {
        "loss.initial": measured[0].loss if measured else math.nan,  # on a layered timeline nobody learns
        "loss.final": final,
        "loss.spread": max(last) - min(last),
        "bits_per_byte.final": final / math.log(2) if tokens_are_bytes else math.nan,
        "lineages.final": views.lineages_at_the_end(recorder),
    }


def _reached(recorder: Recorder) -> dict[str, float]:
    reached = {}
    points = views.lead_losses(recorder)
    for level in LOSS_LEVELS:
        first = next((point for point in points if point.measured.loss <= level), None)
        reached[f"time_to_loss.{level:g}"] = math.nan if first is None else first.measured.time_s
        reached[f"bytes_to_loss.{level:g}"] = math.nan if first is None else float(sum(first.traffic))
    return reached


def _time(recorder: Recorder) -> dict[str, float]:
    settled = recorder.of(RoundSettled)
    compute_s = math.fsum(chain.from_iterable(values(settled, "compute_s")))
    communication_s = math.fsum(
        chain.from_iterable(
            values(settled, "upload_s", "download_s", "idle_exchange_s", "idle_retry_s", "idle_arrival_s")
        )
    )
    all_s = math.fsum(ended_s - started_s for ended_s, started_s in values(settled, "time_s", "started_s"))
    (stopped,) = recorder.of(RunStopped)
    return {
        "time.simulated_s": stopped.time_s,
        "time.compute_utilization": _ratio(compute_s, compute_s + communication_s),
        "time.compute_share": _ratio(compute_s, all_s),
        "time.communication_s_per_round": _ratio(communication_s, len(settled)),
    }


def _participation(recorder: Recorder) -> dict[str, Any]:
    opened_s = {event.window: event.time_s for event in recorder.of(WindowOpened)}
    submitted = recorder.of(Submitted)
    late = [
        stored_s
        for on_time, stored_s, round in values(submitted, "on_time", "stored_s", "round")
        if not on_time and stored_s >= opened_s.get(round + 1, math.inf)
    ]
    entered = views.contributors(recorder).values()
    return {
        "late_share": _ratio(len(late), len(submitted)),
        "participation.mean_contributing": _mean([len(uids) for uids in entered]),
        "participation.unique": len({uid for uids in entered for uid in uids}),
        "participation.mean_submitting": _ratio(len(set(values(submitted, "round", "uid"))), len(entered)),
        "participation.unique_submitting": len(set(values(submitted, "uid"))),
    }


def _pay(recorder: Recorder) -> dict[str, float]:
    paid = total_per_peer(recorder)
    total = math.fsum(paid.values())
    honest = [paid[uid] for uid, peer in recorder.peers.items() if peer.behavior == "honest"]
    pay: dict[str, float] = {"honest_earning_zero": _ratio(honest.count(0.0), len(honest))}
    for cohort, uids in recorder.cohorts.items():
        earned = [paid[uid] for uid in uids]
        pay[f"payout_share.{cohort}"] = _ratio(math.fsum(earned), total)
        pay[f"pay_per_peer.{cohort}"] = _ratio(_mean(earned), _mean(honest))
    return pay


def _economics(recorder: Recorder) -> dict[str, float]:
    purses, left = recorder.purses, {event.uid for event in recorder.of(NodeLeft)}
    economics: dict[str, float] = {}
    for cohort, uids in recorder.cohorts.items():
        balances = [[purses.balance(uid, round) for round in list(purses.accounts[uid])] for uid in uids]
        spent = [math.fsum(cost for cost, _ in rounds) for rounds in balances]
        profit = [math.fsum(gain for _, gain in rounds) for rounds in balances]
        tokens = math.fsum(purses.earned(uid) for uid in uids)
        economics |= {
            f"tokens_per_peer.{cohort}": _ratio(tokens, len(uids)),
            f"cost_per_peer.{cohort}": _mean(spent),
            f"profit_per_peer.{cohort}": _mean(profit),
            f"break_even_price.{cohort}": _ratio(math.fsum(spent), tokens),
            f"left_share.{cohort}": _ratio(len(left & set(uids)), len(uids)),
        }
    return economics


def _chain(recorder: Recorder) -> dict[str, float]:
    settled = recorder.of(EpochSettled)
    burned = math.fsum(event.burned for event in settled)
    paid = math.fsum(tokens for event in settled for _, tokens in (*event.paid, *event.dividends))
    return {
        "chain.epochs": len(settled),
        "chain.blocks": sum(event.blocks for event in settled),
        "chain.burned_share": _ratio(burned, burned + paid + math.fsum(event.owner for event in settled)),
    }


def _scoring(recorder: Recorder) -> dict[str, float]:
    places = Counter(uid for published in views.gather_lists(recorder).values() for uid in published.selected)
    measured = Counter(event.uid for event in recorder.of(Evaluated) if not math.isnan(event.random_before))
    excluded = _first_exclusions(recorder)
    scoring: dict[str, float] = {}
    for cohort, uids in recorder.cohorts.items():
        until = [excluded[uid] + 1 for uid in uids if uid in excluded]
        evaluations = sum(measured[uid] for uid in uids)
        scoring[f"selected_share.{cohort}"] = _ratio(sum(places[uid] for uid in uids), places.total())
        scoring[f"evaluations_per_peer.{cohort}"] = _ratio(evaluations, len(uids) * len(recorder.stakes))
        scoring[f"rounds_to_exclusion.{cohort}"] = _mean(until)
    return scoring


def _first_exclusions(recorder: Recorder) -> dict[int, int]:
    """By uid, the first round in which a validator excluded the peer."""
    first: dict[int, int] = {}
    for event in recorder.of(Evaluated):
        if any(reason.startswith(EXCLUDING_RULES) for reason in event.reasons):
            first.setdefault(event.uid, event.round)
    return first


def _rules(recorder: Recorder) -> dict[str, dict[str, Any]]:
    eligible: Counter[str] = Counter()
    fired: Counter[str] = Counter()
    for event in recorder.of(RuleApplied):
        eligible[event.rule] += event.eligible
        fired[event.rule] += event.fired
    return {
        rule: {"eligible": eligible[rule], "fired": fired[rule], "verdict": _word(eligible[rule], fired[rule])}
        for rule in sorted(eligible)
    }


def _word(eligible: int, fired: int) -> str:
    return "fired" if fired else "never fired" if eligible else "could never fire"


def _diagnostics(recorder: Recorder) -> dict[str, float]:
    compared = recorder.of(UpdatesCompared)
    return {
        "honest_cosine": _mean([event.honest_cosine for event in compared]),
        "honest_overlap": _mean([event.honest_overlap for event in compared]),
        "senders_per_coordinate": _mean([event.senders_per_coordinate for event in compared]),
        "steps_behind": _mean([event.steps_behind for event in compared]),
        "score_signal_to_noise": _score_signal_to_noise(recorder),
    }


def _score_signal_to_noise(recorder: Recorder) -> float:
    """Mean over the matches of: mean gradient score of the honest, over its standard deviation among them."""
    honest = {uid for uid, peer in recorder.peers.items() if peer.behavior == "honest"}
    matches: dict[tuple[str, int], list[float]] = {}
    for event in recorder.of(Evaluated):
        if event.uid in honest and math.isfinite(event.gradient_score):
            matches.setdefault((event.validator, event.round), []).append(event.gradient_score)
    return _mean([_ratio(_mean(scores), _deviation(scores)) for scores in matches.values()])


def _deviation(values: list[float]) -> float:
    middle = _mean(values)
    return math.sqrt(_ratio(math.fsum((value - middle) ** 2 for value in values), len(values) - 1))


def _mean(values: list[float] | list[int]) -> float:
    """The mean of what is not NaN; NaN if nothing is."""
    known = [value for value in values if not math.isnan(value)]
    return _ratio(math.fsum(known), len(known))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan
