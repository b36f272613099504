"""Each coordinate by a vote on its sign."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from covsim.protocol.aggregators.base import Aggregator, aggregators
from covsim.protocol.aggregators.columns import columnwise
from covsim.protocol.aggregators.rows import UNSENT, Rows, Unsent
from covsim.protocol.base import Decoded, Layout, num_elements


@aggregators.register
class SignMajority(Aggregator):
    """The sign that most payloads have, times one length per tensor: the median of what payloads send there (rms).

    Over senders, the signs that were sent are counted; zero-filled, a sign needs more than half of all payloads, and
    what does not get it stays 0. Ties give 0.

    Source: signSGD with majority vote (Bernstein et al., ICLR 2019), whose one learning rate becomes the lengths.
    """

    kind: Literal["sign_majority"] = "sign_majority"
    unsent: Unsent = UNSENT

    def combine(self, payloads: Sequence[Decoded], layout: Layout) -> Tensor:
        """The votes times the lengths [N]."""
        rows = Rows.of(payloads, layout)
        needed = len(rows) // 2 if self.unsent == "zero_filled" else 0

        def vote(block: slice) -> Tensor:
            votes = rows.values[:, block].sign().sum(dim=0)
            return votes.sign() if not needed else _majority(rows.values[:, block], needed)

        votes = rows.spread(columnwise(vote, len(rows.columns)))
        sizes = torch.tensor([num_elements(shape) for shape in layout.shapes])
        return votes * median_rms(payloads).float().repeat_interleave(sizes)

    def clip_norms(self, payloads: Sequence[Decoded]) -> Tensor | None:
        """None: no payload is limited."""
        return None


def median_rms(payloads: Sequence[Decoded]) -> Tensor:
    """Lower median over payloads of the rms of what each sends for a tensor, float64 [T]; 0 where none sends any."""
    counts = torch.tensor([payload.tensor_bounds for payload in payloads]).diff(dim=1)
    sizes = torch.stack([payload.norms for payload in payloads]) / counts.double().sqrt()
    return sizes.where(counts > 0, torch.nan).nanmedian(dim=0).values.nan_to_num(0.0)


def _majority(values: Tensor, needed: int) -> Tensor:
    """The sign that more than `needed` rows have, by column; 0 where none has."""
    return ((values > 0).sum(dim=0) > needed).float() - ((values < 0).sum(dim=0) > needed).float()
