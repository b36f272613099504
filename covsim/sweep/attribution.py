"""What one peer changed: a run beside the same run in which that peer is honest, or is not there.

Both are on the same streams, so everybody else has the same links, machine, shards and luck; what differs follows from
the peer. Even a harmless change moves the final loss a little, so one seed shows no more than one world; over several,
the differences have an interval. Under another seed the uid is dealt to somebody else, and the peer of the same cohort
with the same place in it stands in. A peer is all uids that it had: who registers again is priced under all of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from covsim.record.files import write_json
from covsim.record.runner import Run, scenario_of
from covsim.scenario import PeerSpec, Scenario, population, run_id, with_seed
from covsim.scenario.twins import Clean, with_peer
from covsim.sweep.interval import interval
from covsim.sweep.local import JOBS, Say
from covsim.sweep.trials import run_patiently

FILE = "attribution.json"
"""Lies in the run's folder; what was found of each peer that was asked about, by '<uid> <how>'."""

_OF_SUMMARY = (
    "loss.final",
    "loss.spread",
    "participation.mean_contributing",
    "network.bytes_up",
    "network.bytes_down",
    "time.simulated_s",
    "honest_earning_zero",
    "chain.burned_share",
)


class CannotAttribute(ValueError):
    """There is no such peer in the run, or it is already what it should be made."""


@dataclass(frozen=True)
class Price:
    """One figure: means over the seeds as it was and as it would have been, and what the peer changed.

    `changed` is was minus would be; `half_width` is that of its 95 % interval over seeds, 0 with one. A figure that is
    missing in one of the runs is null.
    """

    figure: str
    was: float | None
    would_be: float | None
    changed: float | None
    half_width: float | None


@dataclass(frozen=True)
class Attribution:
    """What a peer changed, under each of `seeds`: `uids` is its first uid there, `all_uids` all that it came to have.

    `runs` and `twins` are their folders.
    """

    uid: int
    cohort: str
    how: Clean
    seeds: tuple[int, ...]
    uids: tuple[int, ...]
    all_uids: tuple[tuple[int, ...], ...]
    prices: tuple[Price, ...]
    runs: tuple[str, ...]
    twins: tuple[str, ...]


def attribute(
    folder: Path,
    uid: int,
    how: Clean | None = None,
    *,
    seeds: int = 1,
    jobs: int = JOBS,
    out: Path | None = None,
    say: Say = lambda line: None,
) -> Attribution:
    """Run a run's scenario again with one peer honest or absent, and write what that changes to `attribution.json`.

    Args:
        folder: of a run.
        uid: the peer, by any uid that it had.
        how: what it is instead; by default honest if it cheats, and absent if it is honest.
        seeds: from the run's own on.
        jobs: processes; with 0 everything happens in this one.
        out: the folder of all results; by default the one in which the run lies.
        say: gets a line for each run that ends.

    Raises:
        CannotAttribute: there is no such peer, or nothing to change about it.
        CannotResume: the folder holds no run.
        FailedRuns: a run ended with an error.
    """
    scenario = scenario_of(folder)
    peer = _peer(scenario, _first_uid(folder, uid))
    how = how or ("absent" if peer.behavior.kind == "honest" else "honest")
    if how == "honest" and peer.behavior.kind == "honest":
        raise CannotAttribute(f"uid {peer.uid} is honest already; --absent asks what it changes by being there")
    out = out or folder.resolve().parent.parent
    if not (out / scenario.name / run_id(scenario) / "summary.json").is_file():
        say("the run is not there as this version of covsim makes it, and is run again")
    own = [with_seed(scenario, scenario.seed + number) for number in range(seeds)]
    uids = [_counterpart(scenario, peer, each) for each in own]
    others = [with_peer(each, its, how) for each, its in zip(own, uids, strict=True)]
    done = run_patiently([*own, *others], jobs, out, say)
    runs, twins = done[:seeds], done[seeds:]
    found = Attribution(
        uid=peer.uid,
        cohort=peer.cohort,
        how=how,
        seeds=tuple(each.seed for each in own),
        uids=tuple(uids),
        all_uids=tuple(_all_uids(run.folder, first) for run, first in zip(runs, uids, strict=True)),
        prices=tuple(_prices(scenario, peer.cohort, uids, runs, twins)),
        runs=tuple(str(run.folder) for run in runs),
        twins=tuple(str(run.folder) for run in twins),
    )
    _write(folder / FILE, found)
    return found


def _first_uid(folder: Path, uid: int) -> int:
    """Whose uid that is, in a run that ended: the uid that its peer had first."""
    path = folder / "peers.parquet"
    if not path.is_file():
        return uid
    peers = _people(folder)
    known = peers.loc[peers["uid"] == uid, "first_uid"]
    return uid if known.empty else int(known.iloc[0])


def _all_uids(folder: Path, first_uid: int) -> tuple[int, ...]:
    """The uids that a peer had in a run, oldest first; later ones are higher."""
    peers = _people(folder)
    return tuple(sorted({int(uid) for uid in peers.loc[peers["first_uid"] == first_uid, "uid"]}))


def _people(folder: Path) -> pd.DataFrame:
    """The peers of a run, by round and uid."""
    peers = pd.read_parquet(folder / "peers.parquet")
    if "first_uid" not in peers:
        raise CannotAttribute(f"{folder}: another version of covsim has written it: covsim run --force")
    return peers


def _peer(scenario: Scenario, uid: int) -> PeerSpec:
    for peer in population(scenario):
        if peer.uid == uid:
            return peer
    raise CannotAttribute(f"no peer has uid {uid} in this run; {scenario.peers} are there from the start, from 0 on")


def _counterpart(scenario: Scenario, peer: PeerSpec, other: Scenario) -> int:
    """The uid of who has the same place in the same cohort under another seed."""
    here, there = (
        [each.uid for each in population(which) if each.cohort == peer.cohort] for which in (scenario, other)
    )
    return there[here.index(peer.uid)]


def _prices(
    scenario: Scenario, cohort: str, uids: Sequence[int], runs: Sequence[Run], twins: Sequence[Run]
) -> list[Price]:
    """Every figure that is compared, in the order of the table."""
    of_cohorts = {name: "" if name != cohort else " but for it" for name in sorted(scenario.cohorts)}
    was, would_be = (
        [_figures(run, uid, of_cohorts) for run, uid in zip(side, uids, strict=True)] for side in (runs, twins)
    )
    names = list(was[0])
    return [_price(name, [each.get(name) for each in was], [each.get(name) for each in would_be]) for name in names]


def _figures(run: Run, uid: int, cohorts: Mapping[str, str]) -> dict[str, float | None]:
    """The figures of one run; the peer's own stand apart, which the names of `cohorts` are followed by a word of.

    Its own are those under all uids that it had, `uid` first.
    """
    peers = _people(run.folder)
    own = peers["first_uid"] == uid
    figures: dict[str, float | None] = {key: run.summary.get(key) for key in _OF_SUMMARY}
    figures["uids, the peer"] = float(peers.loc[own, "uid"].nunique())
    figures["rounds contributed, the peer"] = float(peers.loc[own, "contributed"].fillna(False).sum())
    figures["tokens, the peer"] = float(peers.loc[own, "payout"].sum())
    for name, without in cohorts.items():
        figures[f"tokens, {name}{without}"] = float(peers.loc[(peers["cohort"] == name) & ~own, "payout"].sum())
    return figures


def _price(figure: str, was: Sequence[float | None], would_be: Sequence[float | None]) -> Price:
    before, after = ([value for value in side if value is not None] for side in (was, would_be))
    if len(before) < len(was) or len(after) < len(would_be):
        return Price(figure, _mean(before, was), _mean(after, would_be), None, None)
    changed = interval([one - other for one, other in zip(before, after, strict=True)])
    return Price(figure, _mean(before, was), _mean(after, would_be), changed.mean, changed.half_width)


def _mean(known: Sequence[float], all: Sequence[float | None]) -> float | None:
    return math.fsum(known) / len(known) if known and len(known) == len(all) else None


def _write(path: Path, found: Attribution) -> None:
    """Put what was found beside what was found of other peers."""
    earlier: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    write_json(path, earlier | {f"{found.uid} {found.how}": asdict(found)})
