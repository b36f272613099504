"""Figures of a round that do not depend on the model's size, seen with the eyes of the simulator.

They know who is honest, which no node does; nothing in a run depends on them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
import torch

from covsim.events import UpdatesCompared
from covsim.gauntlet.checks import overlap_matrix
from covsim.learning.workers import side_by_side
from covsim.nodes.gather import Submission
from covsim.protocol.base import Decoded
from covsim.protocol.lineage import Lineage


def compare_updates(
    time_s: float,
    round: int,
    entered: Sequence[Submission],
    honest: Collection[int],
    num_parameters: int,
    farthest_steps_behind: float,
) -> UpdatesCompared:
    """Mean cosine and top-k overlap over pairs of honest payloads, and senders per coordinate that anyone sent."""
    trusted = [submission.decoded for submission in entered if submission.uid in honest]
    sent = torch.zeros(num_parameters)
    for submission in entered:
        sent[submission.decoded.index] += 1
    return UpdatesCompared(
        time_s=time_s,
        round=round,
        honest_cosine=_mean_of_pairs(_cosines(trusted, num_parameters)) if len(trusted) > 1 else math.nan,
        honest_overlap=_mean_of_pairs(overlap_matrix(trusted)) if len(trusted) > 1 else math.nan,
        senders_per_coordinate=float(sent[sent > 0].mean()) if entered else math.nan,
        steps_behind=farthest_steps_behind,
    )


def steps_behind(theta: torch.Tensor, reference: torch.Tensor, outer_step: torch.Tensor) -> float:
    """How many outer steps of the mean size of `outer_step` lie between two parameter vectors [N]; NaN without one."""
    size = _mean_size(outer_step)
    return _mean_size(theta - reference) / size if size > 0 else math.nan


def widest_gap(lineages: Sequence[Lineage], reference: Lineage, last_step: torch.Tensor) -> float:
    """Steps behind of the lineage that is farthest from `reference`, whose last outer step is `last_step` [N]."""
    return max((steps_behind(lineage.theta, reference.theta, last_step) for lineage in lineages), default=math.nan)


def _mean_size(vector: torch.Tensor) -> float:
    """Mean absolute value of [N]: numpy adds in one order whatever the threads, torch does not."""
    return float(np.abs(vector.cpu().numpy()).mean(dtype=np.float64))


def _cosines(payloads: Sequence[Decoded], num_parameters: int) -> torch.Tensor:
    """Cosine of every pair of decoded payloads [E, E]."""
    dense = torch.zeros(len(payloads), num_parameters)
    for row, decoded in zip(dense, payloads, strict=True):
        row[decoded.index] = decoded.value / decoded.norms.norm().clamp_min(1e-30)
    return side_by_side(lambda _: dense @ dense.T, 1, 1)[0]  # on one thread: the digest must not depend on their number


def _mean_of_pairs(matrix: torch.Tensor) -> float:
    """Mean over the entries off the diagonal of [E, E]."""
    size = len(matrix)
    return float((matrix.sum() - matrix.diagonal().sum()) / (size * (size - 1)))
