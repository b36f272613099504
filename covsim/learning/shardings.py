"""How the training text is dealt over uids: all of it to everybody, by era, by party, or in Dirichlet mixtures.

A sharding sorts the documents into groups and gives each uid a mixture over the groups. A pool is then drawn from
that mixture, uniformly inside a group.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from covsim.randomness import Streams
from covsim.registry import Part, Registry


@dataclass(frozen=True)
class Document:
    """One text of the corpus, in the order of their years, or one piece of a user's file, which has no labels."""

    num_tokens: int
    year: int = 0
    party: str = ""


class Sharding(Part):
    """A way to deal the text over uids."""

    needs_labels: ClassVar[bool] = False
    """True if documents must have a year and a party, which a user's own file has not."""

    @abstractmethod
    def groups(self, documents: Sequence[Document]) -> list[int]:
        """The group of each document, counted from 0."""

    @abstractmethod
    def mixture(self, uid: int, sizes: NDArray[np.float64], streams: Streams) -> NDArray[np.float64]:
        """The probability of each group for a uid [G], for groups of `sizes` [G]; sums to 1."""


shardings: Registry[Sharding] = Registry("sharding")


@shardings.register
class Iid(Sharding):
    """Everybody draws from the whole text."""

    kind: Literal["iid"] = "iid"

    def groups(self, documents: Sequence[Document]) -> list[int]:
        """One group."""
        return [0] * len(documents)

    def mixture(self, uid: int, sizes: NDArray[np.float64], streams: Streams) -> NDArray[np.float64]:
        """All of the one group."""
        return np.ones(1)


@shardings.register
class ByEra(Sharding):
    """A uid sees one span of years; spans hold about equal amounts of text."""

    needs_labels = True
    kind: Literal["by_era"] = "by_era"
    eras: int = Field(default=4, ge=2, le=32, description="spans of years with about equal amounts of text")

    def groups(self, documents: Sequence[Document]) -> list[int]:
        """The span in which the middle of each document falls."""
        return _spans(documents, self.eras)

    def mixture(self, uid: int, sizes: NDArray[np.float64], streams: Streams) -> NDArray[np.float64]:
        """One group, drawn once per uid."""
        return _one_group(uid, sizes, streams)


@shardings.register
class ByParty(Sharding):
    """A uid sees the messages of one party; a party's share of the uids is its share of the text."""

    needs_labels = True
    kind: Literal["by_party"] = "by_party"

    def groups(self, documents: Sequence[Document]) -> list[int]:
        """The party of each document, in the order of their names."""
        parties = sorted({document.party for document in documents})
        return [parties.index(document.party) for document in documents]

    def mixture(self, uid: int, sizes: NDArray[np.float64], streams: Streams) -> NDArray[np.float64]:
        """One group, drawn once per uid."""
        return _one_group(uid, sizes, streams)


@shardings.register
class Dirichlet(Sharding):
    """A uid sees its own mixture over spans of years, drawn from a symmetric Dirichlet distribution.

    The usual dial for label skew in federated learning (Hsu et al., arXiv 1909.06335) with eras as the labels: alpha
    near 0 gives each uid one era, a large alpha gives everybody the same mixture. In a file of one's own, the spans are
    parts of the file in its order.
    """

    kind: Literal["dirichlet"] = "dirichlet"
    alpha: float = Field(default=0.5, ge=0.001, le=1e6, description="concentration; smaller is more skewed")
    eras: int = Field(default=8, ge=2, le=32, description="spans of years with about equal amounts of text")

    def groups(self, documents: Sequence[Document]) -> list[int]:
        """The span in which the middle of each document falls."""
        return _spans(documents, self.eras)

    def mixture(self, uid: int, sizes: NDArray[np.float64], streams: Streams) -> NDArray[np.float64]:
        """One draw per uid."""
        return streams.numpy("shard mixture", uid).dirichlet(np.full(len(sizes), self.alpha))


def _spans(documents: Sequence[Document], num_spans: int) -> list[int]:
    lengths = np.array([document.num_tokens for document in documents], dtype=np.float64)
    middles = (np.cumsum(lengths) - lengths / 2) / lengths.sum()
    return [int(middle * num_spans) for middle in middles]


def _one_group(uid: int, sizes: NDArray[np.float64], streams: Streams) -> NDArray[np.float64]:
    bounds = np.cumsum(sizes) / sizes.sum()
    chosen = np.searchsorted(bounds[:-1], streams.uniform("shard group", uid), side="right")
    mixture = np.zeros(len(sizes))
    mixture[chosen] = 1.0
    return mixture
