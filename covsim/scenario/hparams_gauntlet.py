"""What a hparams file says of the scoring rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from covsim.scenario.hparams_draft import Draft, share

NEVER = 1_000_000  # a round that no run reaches

_RULES: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
    ("evaluated_per_window", "uids_per_window", int),
    ("bins", "num_evaluation_bins", int),
    ("trial_factor", "eval_lr_factor", float),
    ("indicator_decay", "binary_score_ma_alpha", lambda alpha: share(1 - alpha)),
    ("beta", "openskill_beta", float),
    ("tau", "openskill_tau", float),
    ("slashing.penalty_score", "missing_gradient_penalty_score", float),
    ("slashing.quorum", "gather_peers_slash_threshold", share),
    ("slashing.inactive_windows", "reset_inactivity_windows", int),
    ("sync.max_behind", "sync_max_steps_behind", float),
    ("active_windows", "recent_windows", int),
)
"""Setting of the Gauntlet, key, and how the one is made of the other."""

_RAMP: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
    ("weights.gather_share", "gather_share", share),
    ("weights.ramp", "gather_top_ratio", float),
    ("weights.reserve_ratio", "reserve_decay_ratio", share),
)


def gauntlet(made: Draft) -> None:
    """The scoring rules; the release of the file decides the preset that fills in what it does not name."""
    made.set("gauntlet.preset", "v0.2" if made.demo else "v2.1.28")
    for path, key, make in _RULES:
        made.copy(f"gauntlet.{path}", key, make)
    _weights(made)
    _indicator(made)
    _samples(made)
    _negative_peers(made)
    threshold = made.given.get("idx_overlap_threshold")
    if threshold is not None:
        for level, more in (("halve", 0.0), ("reset", 0.1), ("exclude", 0.2)):
            made.set(f"gauntlet.overlap.{level}", share(min(1.0, threshold + more)), "idx_overlap_threshold")
    elif made.demo:
        made.set("gauntlet.overlap.from_round", NEVER)
        made.remark("gauntlet", "Nothing looked for copies before v1.0: the overlap check never acts.")
    else:
        made.absent.append("gauntlet.overlap")
    made.remark(
        "gauntlet", "What the file does not name is as in the preset: slashing, exclusion, rating of newcomers."
    )


def _weights(made: Draft) -> None:
    """How final scores become weights: a power of them before v1.0, a ramp from then on."""
    if made.demo:
        made.set("gauntlet.weights.kind", "power")
        made.copy("gauntlet.weights.power", "power_normalisation", float)
    else:
        made.refuse("power_normalisation", "the ramp stands in for a power of the final score since v1.0.7")
        for path, key, make in _RAMP:
            made.copy(f"gauntlet.{path}", key, make)
    made.copy("gauntlet.weights.set_every_windows", "windows_per_weights", int)
    if made.demo and "burn_rate" not in made.given:
        made.set("gauntlet.weights.burn", "0 %")
        made.remark("gauntlet", "Nothing was burned before v1.0.")
    else:
        made.copy("gauntlet.weights.burn", "burn_rate", share)


def _indicator(made: Draft) -> None:
    """The lowest indicator average that counts."""
    if "bma_threshold" in made.given:
        made.copy("gauntlet.indicator_threshold", "bma_threshold", share)
    else:
        made.set("gauntlet.indicator_threshold", "0 %")
        made.remark("gauntlet", "Without bma_threshold every positive indicator average counts.")
    made.copy("gauntlet.indicator_grace_windows", "bma_warmup_windows")


def _samples(made: Draft) -> None:
    """Sequences of an evaluation: so many micro batches."""
    batches = made.positive("validator_sample_micro_bs")
    if batches is None:
        made.absent.append("gauntlet.own_sequences")
        return
    size = made.positive("micro_batch_size")
    keys = ["validator_sample_micro_bs", *(["micro_batch_size"] if size is not None else [])]
    for sort in ("own", "random"):
        made.set(f"gauntlet.{sort}_sequences", batches * (size or 1), *keys)


def _negative_peers(made: Draft) -> None:
    """After how many negative evaluations in a row a peer leaves the gather list."""
    if made.given.get("exclude_negative_peers", True):
        keys = [key for key in ("consecutive_negative_threshold", "exclude_negative_peers") if key in made.given]
        if "consecutive_negative_threshold" in made.given:
            made.set("gauntlet.slashing.negative_streak", made.given["consecutive_negative_threshold"], *keys)
    else:
        made.set("gauntlet.slashing.negative_streak", 64, "exclude_negative_peers")
        made.remark("gauntlet", "exclude_negative_peers is false; 64 negative evaluations in a row come nearest.")
