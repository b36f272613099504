"""Checks on submissions before anything is measured, and on measurements before anything is scored.

What makes a payload itself invalid is the protocol's decoder's to say (`InvalidPayload`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from covsim.gauntlet.evidence import Evidence, Status, gradient_score, own_improvement
from covsim.protocol.base import Decoded


def submission_status(stored_s: float | None, opens_s: float, closes_s: float) -> Status:
    """Where a store stamp lies against the put window, which is half-open: [opens, closes).

    `None` stands for an object that the store does not hold. The deployed interval is closed; half-open, a stamp
    belongs to one window at most.
    """
    if stored_s is None:
        return "missing"
    if stored_s < opens_s:
        return "early"
    return "ok" if stored_s < closes_s else "late"


def settle(evidence: Evidence) -> Evidence:
    """The evidence with losses that make no finite score turned into a status.

    A loss after the trial step that is not finite, or below 0, or that no finite improvement can be made of, is the
    payload's doing: it counts as invalid. A loss before it that is not finite, or not positive, is the validator's own
    trouble: then the submission counts as unseen. The deployed code lets such numbers into the match.
    """
    if not evidence.measured:
        return evidence
    before, after = (evidence.own_before, evidence.random_before), (evidence.own_after, evidence.random_after)
    if not all(math.isfinite(loss) and loss > 0 for loss in before):
        return replace(evidence, status="unseen", problem=f"the validator's own losses are {before[0]}, {before[1]}")
    if min(after) < 0 or not all(map(math.isfinite, (own_improvement(evidence), gradient_score(evidence)))):
        return replace(evidence, status="invalid", problem=f"losses after the trial step are {after[0]}, {after[1]}")
    return evidence


@dataclass(frozen=True, slots=True)
class Overlap:
    """What a later uploader has in common with the payload most like it among those that were not later."""

    share: float
    with_uid: int
    stored_s: float


def overlap_matrix(payloads: Sequence[Decoded]) -> Tensor:
    """Top-k index overlap of every pair of payloads [E, E]: per chunk the share of common indices, averaged by size.

    Weighting each chunk by its number of indices makes the average the number of common indices over all indices, so
    one product of 0/1 matrices gives all pairs; only coordinates that two payloads share are columns of it. Chunks
    that are sent whole say nothing about whose indices they are and do not count (the deployed code counts them;
    there they are a small part of a large model). Where what is sent decides how much, entry [i, j] is the share of the
    indices of payload i. NaN for a payload whose chunks are all sent whole.
    """
    chosen = [payload.index[payload.kept_share < 1] for payload in payloads]
    num_indices = torch.tensor([len(index) for index in chosen])
    if not chosen or not num_indices.any():
        return torch.full((len(payloads), len(payloads)), math.nan)
    _, column, senders = torch.unique(torch.cat(chosen), return_inverse=True, return_counts=True)
    shared = senders > 1
    place = shared.cumsum(0) - 1
    row = torch.arange(len(payloads), device=column.device).repeat_interleave(num_indices)
    kept = shared[column]
    sent = torch.zeros(len(payloads), int(shared.sum()), device=column.device)  # [E, shared coordinates]
    sent[row[kept], place[column[kept]]] = 1.0
    common = sent @ sent.T
    common.diagonal().copy_(num_indices)
    return common / num_indices[:, None]


def find_overlaps(
    uids: Sequence[int],
    stored_s: Sequence[float],
    payloads: Sequence[Decoded],
    previous_stored_s: Sequence[float] | None = None,
) -> dict[int, Overlap]:
    """For each peer that somebody preceded, its largest overlap with one of those.

    The store's stamps of this round decide who was later, or, if they are given, those of the round before
    (`quirks.overlap_by_previous_stamps`): then a copycat that was early in the round before has its victim punished.
    Who had no stamp then (NaN) precedes everybody who had one, as in the code, where it counts as 0: a newcomer is the
    later one beside other newcomers only. On equal stamps either counts as later than the other, so neither uid nor
    listing order decides; the deployed code takes the first listed of the two.

    Args:
        uids, stored_s, payloads: one entry per submission [E].
        previous_stored_s: stamps of the same peers' submissions of the round before [E], NaN where there was none.
    """
    return overlaps_of(uids, stored_s, overlap_matrix(payloads).tolist(), previous_stored_s)


def overlaps_of(
    uids: Sequence[int],
    stored_s: Sequence[float],
    matrix: Sequence[Sequence[float]],
    previous_stored_s: Sequence[float] | None = None,
) -> dict[int, Overlap]:
    """The same from the overlap of every pair [E, E]."""
    stamps = stored_s if previous_stored_s is None else previous_stored_s
    came = [-math.inf if math.isnan(stamp) else stamp for stamp in stamps]
    found: dict[int, Overlap] = {}
    for i, uid in enumerate(uids):
        earlier = [j for j in range(len(uids)) if j != i and came[j] <= came[i] and not math.isnan(matrix[i][j])]
        if earlier:
            j = max(earlier, key=lambda j: (matrix[i][j], -came[j], -uids[j]))
            found[uid] = Overlap(matrix[i][j], uids[j], stored_s[j])
    return found
