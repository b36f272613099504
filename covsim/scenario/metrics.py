"""The metrics that a claim can name: every key of summary.json that has a number behind it."""

from __future__ import annotations

from collections.abc import Collection

from covsim.gauntlet.settings import RULES
from covsim.registry import did_you_mean
from covsim.scenario.errors import excerpt

LOSS_LEVELS = (5.0, 4.5, 4.0, 3.5, 3.0, 2.75, 2.5, 2.25, 2.0)
"""Nats per token for which the time and the bytes to reach them are kept."""

PER_COHORT = (
    "payout_share",
    "pay_per_peer",
    "tokens_per_peer",
    "cost_per_peer",
    "profit_per_peer",
    "break_even_price",
    "left_share",
    "selected_share",
    "evaluations_per_peer",
    "rounds_to_exclusion",
)
"""Metrics of the summary that are followed by a cohort's name."""

SINGLE = (
    "rounds",
    "loss.initial",
    "loss.final",
    "loss.spread",
    "bits_per_byte.final",
    "lineages.final",
    "network.payload_bytes",
    "network.compression_ratio",
    "network.compression_ratio_model",
    "network.bytes_up",
    "network.bytes_down",
    "time.simulated_s",
    "time.compute_utilization",
    "time.compute_share",
    "time.communication_s_per_round",
    "late_share",
    "participation.mean_contributing",
    "participation.unique",
    "participation.mean_submitting",
    "participation.unique_submitting",
    "aggregate.short_rounds",
    "honest_earning_zero",
    "chain.epochs",
    "chain.blocks",
    "chain.burned_share",
    "wall.training_s",
    "wall.total_s",
)

DIAGNOSTICS = (
    "honest_cosine",
    "honest_overlap",
    "senders_per_coordinate",
    "steps_behind",
    "score_signal_to_noise",
    "bigram_nats",
)


PER_FAULT = ("strikes", "nodes", "seconds")
"""Metrics of the summary inside `faults.<fault>`."""


def metrics(cohorts: Collection[str], tasks: Collection[str] = (), faults: Collection[str] = ()) -> list[str]:
    """All metrics of a run with these cohorts, tasks and faults."""
    of_store = ("store.requests_refused", "store.objects_damaged") if faults else ()
    return [
        *SINGLE,
        *(f"{family}.{level:g}" for family in ("time_to_loss", "bytes_to_loss") for level in LOSS_LEVELS),
        *(f"{family}.{cohort}" for family in PER_COHORT for cohort in cohorts),
        *(f"task.{task}" for task in tasks),
        *of_store,
        *(f"recovery_rounds.{fault}" for fault in faults),
        *(f"faults.{fault}.{count}" for fault in faults for count in PER_FAULT),
        *(f"rules.{rule}.{count}" for rule in RULES for count in ("eligible", "fired")),
        *(f"diagnostics.{name}" for name in DIAGNOSTICS),
    ]


def check_metric(
    metric: str, cohorts: Collection[str], tasks: Collection[str] = (), faults: Collection[str] = ()
) -> None:
    """Do nothing if a run with these cohorts, tasks and faults has the metric.

    Raises:
        ValueError: it has not; the message suggests the nearest one.
    """
    family, _, cohort = metric.partition(".")
    if family in PER_COHORT and cohort not in cohorts:
        raise ValueError(f"no cohort is called {excerpt(cohort)}{did_you_mean(cohort, cohorts)}")
    known = metrics(cohorts, tasks, faults)
    if metric not in known:
        raise ValueError(f"no metric is called {excerpt(metric)}{did_you_mean(metric, known)}")
