"""What the keys of a hparams file make of a scenario: one function for each section.

The larger ones have a file each. Files without `inner_steps` are of the releases before v1.0, which ran DeMo; the
others ran SparseLoCo.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from covsim.scenario.hparams_deployment import deployment
from covsim.scenario.hparams_draft import BLOCK_S, Draft
from covsim.scenario.hparams_gauntlet import gauntlet
from covsim.scenario.hparams_protocol import protocol
from covsim.scenario.hparams_training import data, training
from covsim.scenario.schema import Scenario
from covsim.units import format_duration

GATHER_TIMEOUT_S = 600  # a constant of the live code


def draft(given: Mapping[str, Any], flagship: Scenario, rounds: int | None, peers: int | None) -> Draft:
    """What a file's values, by dotted key and without nulls, make of a scenario that extends the flagship."""
    made = Draft(
        given,
        rounds=flagship.planned_rounds if rounds is None else rounds,
        peers=flagship.peers if peers is None else peers,
    )
    made.set("stop.rounds", made.rounds, *([] if rounds is None else ["--rounds"]))
    if peers is not None:
        _population(made, flagship)
    for section in (deployment, protocol, training, data, _timeline, _selection, gauntlet):
        section(made)
    return made


def _population(made: Draft, flagship: Scenario) -> None:
    """So many peers, of the flagship's cohorts in the flagship's proportions."""
    made.set("peers", made.peers, "--peers")
    for name, cohort in sorted(flagship.cohorts.items()):
        if cohort.count is not None:
            count = round(cohort.count * made.peers / flagship.peers)
            made.set(f"cohorts.{name}", {"count": count} if count else None)
    made.remark("peers", f"The flagship's cohorts, in proportion to its {flagship.peers} peers.")


def _timeline(made: Draft) -> None:
    """Windows of blocks, and how long an upload still counts."""
    blocks = made.positive("blocks_per_window")
    if blocks is None:
        return
    made.set("timeline.blocks_per_window", blocks, "blocks_per_window")
    window_s = blocks * BLOCK_S
    limit_s = made.positive("time_window_delta_seconds")
    if limit_s is not None and limit_s >= window_s:
        made.refuse("time_window_delta_seconds", f"is not shorter than a window of {format_duration(window_s)}")
        limit_s = None
    if limit_s is None:
        made.set("timeline.put_window", format_duration(window_s / 2))
        made.remark("timeline", "put_window is assumed: half a window.")
    else:
        made.set("timeline.put_window", format_duration(limit_s), "time_window_delta_seconds")
    made.set("timeline.gather_timeout", format_duration(GATHER_TIMEOUT_S))
    made.remark("timeline", "gather_timeout is a constant of the live code, of v2.1.28 at least.")


def _selection(made: Draft) -> None:
    """Whose payloads are gathered."""
    if "gather_peer_count" in made.given:
        made.copy("selection.gather", "gather_peer_count")
    else:
        _older_list(made)
    if not {"gather_peer_count", "reserve_peer_count"} & made.given.keys():
        made.set("selection.reserve", 0)
        made.remark("selection", "There was no reserve before the keys gather_peer_count and reserve_peer_count.")
    else:
        made.copy("selection.reserve", "reserve_peer_count")
    made.copy("selection.refresh_windows", "peer_replacement_frequency")
    made.copy("selection.delay_windows", "peer_list_window_margin")
    made.copy("checkpoints.every", "checkpoint_frequency")
    if not made.demo:
        made.refuse("minimum_peers", "covsim publishes a list however few peers are active")


def _older_list(made: Draft) -> None:
    """A share of the peers, clamped, as before v1.0; or only the upper limit of it."""
    most, percent = made.positive("max_topk_peers"), made.positive("topk_peers")
    if percent is None:
        made.copy("selection.gather", "max_topk_peers")
        return
    size = min(int(made.peers * percent / 100), most or made.peers)
    keys = [key for key in ("topk_peers", "max_topk_peers", "minimum_peers") if key in made.given]
    made.set("selection.gather", max(size, made.given.get("minimum_peers", 1), 1), *keys)
    made.remark("selection", f"gather is {percent:g} % of {made.peers} peers, within the file's limits.")
