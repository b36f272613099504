"""What the study of copies reads of a run: how alike the payloads of each round are, and who is said to have copied.

All payloads that were on time are compared with each other, whoever was gathered. What the check would say of them
follows from the payloads and the store's stamps alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from covsim.gauntlet.checks import Overlap, find_overlaps, overlap_matrix
from covsim.nodes.gather import Submission
from covsim.record.runner import Run
from covsim.sweep.papers.open_loop import Exchanged, Replay
from covsim.sweep.papers.scoring_study import Tables
from covsim.sweep.papers.study import Scale

LEVEL = 0.4
"""The lowest overlap that costs anything, as deployed."""

SHOWN_SEED = 101
"""Whose weights and pay are published."""


def read(run: Run, _: Scale) -> Tables:
    """Honest pairs and copies by round; of one seed also the weights and the pay."""
    replay = Replay(run.folder)
    behaviors = replay.behaviors
    rounds = [(exchanged, _compared(exchanged, behaviors)) for exchanged in replay.rounds()]
    tables = {"": pd.DataFrame([{"round": exchanged.round, **found} for exchanged, found in rounds])}
    if replay.scenario.seed == SHOWN_SEED:
        tables |= {"-weights": _weights(run, replay), "-pay": _pay(replay.peers)}
    return tables


def _compared(exchanged: Exchanged, behaviors: Mapping[int, str]) -> dict[str, Any]:
    """What overlaps say of a round."""
    submissions = exchanged.submissions
    honest = [each for each in submissions if behaviors[each.uid] == "honest"]
    own, before = _found(submissions, None), _found(submissions, exchanged.previous_stored_s)
    return {**_honest_pairs(honest), **_copies(submissions, behaviors, exchanged.entered, own, before)}


def _found(submissions: Sequence[Submission], previous_stored_s: Mapping[int, float] | None) -> dict[int, Overlap]:
    """What the check finds among these, by their own stamps or by those of the round before."""
    uids = [each.uid for each in submissions]
    stamps = None if previous_stored_s is None else [previous_stored_s[uid] for uid in uids]
    return find_overlaps(uids, [each.stored_s for each in submissions], [each.decoded for each in submissions], stamps)


def _honest_pairs(honest: Sequence[Submission]) -> dict[str, Any]:
    """Pairs of honest payloads: how many, how alike, and how alike if tensors that are sent whole counted, too."""
    matrix = overlap_matrix([each.decoded for each in honest]).numpy()
    upper = np.triu_indices(len(honest), 1)
    pairs = matrix[upper]
    whole = np.array([float((each.decoded.kept_share == 1).float().mean()) for each in honest])
    share_whole = (whole[:, None] + whole[None]) / 2
    counted = (share_whole + (1 - share_whole) * matrix)[upper]
    return {
        "pairs": len(pairs),
        "mean": pairs.mean(),
        "median": np.median(pairs),
        "largest": pairs.max(),
        "at_level": int((pairs >= LEVEL).sum()),
        "sent_whole": whole.mean(),
        "largest_with_whole": counted.max(),
        "at_level_with_whole": int((counted >= LEVEL).sum()),
    }


def _copies(
    submissions: Sequence[Submission],
    behaviors: Mapping[int, str],
    entered: frozenset[int],
    own: Mapping[int, Overlap],
    before: Mapping[int, Overlap],
) -> dict[str, Any]:
    """Exact copies: how many, and who is blamed for them, by stamps of this round and of the round before.

    A copy's original is the first payload of the same bytes; whoever shares its bytes with the one it is said to be too
    much like is blamed for a copy. `comparable` are copies that the deployed check could see: both entered the lead
    validator's gather.
    """
    bytes_of = {each.uid: each.sha256 for each in submissions}

    def num_blamed(among: Iterable[Submission], found: Mapping[int, Overlap]) -> int:
        return sum(_is_flagged(each.uid, found) and bytes_of[found[each.uid].with_uid] == each.sha256 for each in among)

    first: dict[str, Submission] = {}
    for each in sorted(submissions, key=lambda each: (each.stored_s, each.uid)):
        first.setdefault(each.sha256, each)
    copies = [each for each in submissions if first[each.sha256] is not each]
    originals = list({each.sha256: first[each.sha256] for each in copies}.values())
    return {
        "copies": len(copies),
        "flagged": num_blamed(copies, own),
        "originals": len(originals),
        "originals_flagged": num_blamed(originals, own),
        "flagged_by_previous": num_blamed(copies, before),
        "originals_flagged_by_previous": num_blamed(originals, before),
        "comparable": sum({each.uid, first[each.sha256].uid} <= entered for each in copies),
        "honest": sum(behaviors[each.uid] == "honest" for each in submissions),
        "honest_flagged": sum(behaviors[each.uid] == "honest" and _is_flagged(each.uid, own) for each in submissions),
    }


def _is_flagged(uid: int, found: Mapping[int, Overlap]) -> bool:
    return uid in found and found[uid].share >= LEVEL


def _weights(run: Run, replay: Replay) -> pd.DataFrame:
    """The stake-weighted mean of what validators handed to the chain, by round and peer; 0 where nobody gave any."""
    weights = pd.read_parquet(run.folder / "weights.parquet")
    stakes = pd.Series({name: each.stake for name, each in replay.scenario.validators.items()})
    weights["share"] = weights["weight"] * weights["validator"].map(stakes / stakes.sum())
    shares = weights[weights["uid"] >= 0].groupby(["round", "uid"])["share"].sum()
    everybody = pd.MultiIndex.from_product([sorted(weights["round"].unique()), sorted(replay.behaviors)])
    rows = pd.DataFrame({"share": shares.reindex(everybody.set_names(["round", "uid"]), fill_value=0.0)}).reset_index()
    return rows.assign(behavior=rows["uid"].map(replay.behaviors))


def _pay(peers: pd.DataFrame) -> pd.DataFrame:
    """Tokens so far of a peer, by round and cohort: the mean, the least and the most."""
    rows = peers.sort_values("round")
    earned = rows.groupby("uid")["payout"].cumsum().groupby([rows["cohort"], rows["round"]])
    return pd.DataFrame({"mean": earned.mean(), "min": earned.min(), "max": earned.max()}).reset_index()
