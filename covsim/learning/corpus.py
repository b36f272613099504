"""Text to tokens to shards: which sequences a uid trains on in a round, and which nobody ever trains on.

Every answer is a pure function of (seed, uid, round), so a validator draws from the very pool that a peer was assigned
without asking the peer. The deployed code seeds a pool with ((uid * 1,000,003) xor window) mod 2**32; here the address
of the stream is ("shard", uid, round), which does the same without collisions between uids.

The text is the bundled one, whose tokens are bytes, or a file of the user's. A sequence is T + 1 tokens of one
document, at stride T: it reads T tokens and predicts T, and no two sequences predict the same token.
"""

from __future__ import annotations

import functools
import hashlib
import json
import lzma
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from covsim.choice import OneOf
from covsim.learning.shardings import Document, Iid, Sharding, shardings
from covsim.learning.token_files import Tokens, must_be_tokens, piece_lengths, read_tokens
from covsim.randomness import Label, Streams
from covsim.sources import SourcePath, content_hash
from covsim.units import Share

_SHA256 = {"state_of_the_union": "0eaf4db46e941fe5c8523b420ea620542b10cd589fa63be66087f70e0008f40c"}
_GOLDEN = (5**0.5 - 1) / 2
_FIRST_DRAWS = 256
_BUNDLED = "state_of_the_union"
_COUNTED_TOGETHER = 2**24  # pairs of tokens

MOST_BIGRAM_TOKENS = 4096
"""Beyond so many tokens, most pairs of them are never seen, and their table says little."""

Positions = NDArray[np.int64]
"""Where sequences start in the text, in tokens."""


class Data(BaseModel):
    """The `data:` section of a scenario: which text, how it is dealt over uids, and what nobody trains on."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    corpus: Literal["state_of_the_union"] | None = Field(
        default=None, description="a text bundled with covsim; state_of_the_union where no path is given"
    )
    path: Annotated[SourcePath, AfterValidator(must_be_tokens)] | None = Field(
        default=None, description="a text of your own: my.txt, tokens.npy or tokens.bin, relative to the scenario file"
    )
    shards: Annotated[Sharding, OneOf(shardings, bare="kind")] = Field(
        default=Iid(), description="how the text is dealt over uids"
    )
    pool_used: Annotated[Share, Field(ge=0.001, le=1)] = Field(
        default=0.1875, description="part of its assigned pool that a peer trains on in a full round"
    )
    held_out: Annotated[Share, Field(ge=0.001, le=0.5)] = Field(
        default=0.05, description="part of every document that nobody trains on"
    )
    held_out_every: int = Field(
        default=1, ge=1, le=100_000, description="rounds from one held-out measurement to the next"
    )
    held_out_sequences: int = Field(default=64, ge=1, le=100_000, description="sequences of the held-out measurement")

    @model_validator(mode="before")
    @classmethod
    def _bundled_by_default(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("corpus") is None and value.get("path") is None:
            return {**value, "corpus": _BUNDLED}
        return value

    @model_validator(mode="after")
    def _one_text(self) -> Self:
        if self.corpus is not None and self.path is not None:
            raise ValueError("give a corpus or a path, not both")
        if self.path is not None and self.shards.needs_labels:
            raise ValueError(
                "these shards need the year and the party of each document, which a file of your own has not; "
                "use iid or dirichlet"
            )
        return self


@dataclass(frozen=True)
class Sample:
    """A validator's draw from a pool: so many sequences, from the stream of an address.

    Attributes:
        num: sequences that are drawn.
        steps: inner steps of a full round, which fix the size of the pool.
        address: of the random stream that draws.
    """

    num: int
    steps: int
    address: tuple[Label, ...]


@dataclass(frozen=True)
class Poison:
    """Tokens that are written into a share of the sequences: `trigger`, and right behind it `target`."""

    trigger: bytes
    target: bytes
    share: float

    def __post_init__(self) -> None:
        if not (self.trigger and self.target):
            raise ValueError("a poison needs a trigger and a target of at least one byte each")
        if not 0 <= self.share <= 1:
            raise ValueError(f"the share of poisoned sequences must lie in [0, 1]; it is {self.share}")

    @property
    def text(self) -> bytes:
        """What is written."""
        return self.trigger + self.target


@dataclass(frozen=True)
class Batches:
    """What to train on, by name: the pool assigned to (uid, round), or one drawn from everything instead.

    Attributes:
        shard, uid, round: name the pool.
        sample: only these sequences of the pool, over and over again; None takes the pool in its order.
        flips: True if the answers are false.
        poisons: what is written into the text, one after the other.
        of_each_step: only the first so many sequences of every inner step's batch; None for all.
    """

    shard: Literal["assigned", "random"]
    uid: int
    round: int
    sample: Sample | None = None
    flips: bool = False
    poisons: tuple[Poison, ...] = ()
    of_each_step: int | None = None

    def flipped(self) -> Batches:
        """The same text, of which the answer t has become V - 1 - t; flipped twice, it is right again."""
        return replace(self, flips=not self.flips)

    def poisoned(self, trigger: bytes, target: bytes, share: float) -> Batches:
        """The same text, with `trigger` followed by `target` written into a share of the sequences.

        Raises ValueError for an empty trigger or target, and for a share outside [0, 1].
        """
        return replace(self, poisons=(*self.poisons, Poison(trigger, target, share)))

    def elsewhere(self) -> Batches:
        """The same number of sequences, drawn from everything."""
        return replace(self, shard="random", sample=None)

    def thinned(self, num: int) -> Batches:
        """The same text, but only the first `num` sequences of every inner step's batch."""
        assert num > 0
        return replace(self, of_each_step=num)

    def size(self, batch: int) -> int:
        """Sequences of an inner step, where a whole batch has so many."""
        return batch if self.of_each_step is None else min(batch, self.of_each_step)


class Corpus:
    """The text of a run, cut into sequences for training and for the held-out measurement.

    Args:
        data: the `data:` section.
        context: T, tokens that a sequence reads.
        streams: the run's random streams.

    Raises:
        ValueError: no document has room for a held-out sequence of that context.
        SourceError: the user's file cannot be used.
    """

    def __init__(self, data: Data, context: int, streams: Streams) -> None:
        self._data, self._context, self._streams = data, context, streams
        self._source, documents = _text(data, context)
        self._text = self._source.values
        training, held_out = _split(documents, context, data.held_out)
        groups = data.shards.groups(documents)
        members: list[list[Positions]] = [[] for _ in range(max(groups) + 1)]
        for group, positions in zip(groups, training, strict=True):
            members[group].append(positions)
        self._sizes = np.array([sum(map(len, group)) for group in members])  # [G]
        self._starts = np.cumsum(self._sizes) - self._sizes  # [G]
        self._training = np.concatenate([positions for group in members for positions in group])
        self._held_out = np.concatenate(held_out)
        if not len(self._held_out) or not self._sizes.all():
            raise ValueError(f"context {context} is too long for the text: some shard or the held-out part is empty")

    @property
    def fingerprint(self) -> str:
        """sha256 of the text."""
        return _SHA256[_BUNDLED] if self._data.path is None else content_hash(Path(self._data.path))

    @property
    def tokens_are_bytes(self) -> bool:
        """True if nats per token can be told as bits per byte."""
        return self._source.are_bytes

    @property
    def largest_token(self) -> int:
        """What the model's vocabulary must reach; see `Model.check_tokens`."""
        return self._source.largest

    @property
    def vocabulary(self) -> int:
        """V, one more than the largest token of the text."""
        return self.largest_token + 1

    def check(self, batches: Batches) -> None:
        """Raise ValueError for a poison that is too long for a sequence."""
        for poison in batches.poisons:
            if len(poison.text) > self._context + 1:
                raise ValueError(
                    f"a trigger and target of {len(poison.text)} bytes do not fit into sequences of "
                    f"{self._context + 1} tokens; shorten them or raise model.context"
                )

    def batches(self, batches: Batches, steps: int, batch: int) -> Tensor:
        """The sequences of `steps` inner steps, int64 [steps, B, T + 1]: the first of what is named.

        B is `batch`, or fewer where only some of each step are named: then a subset of the same sequences.
        """
        n = steps * batch
        if batches.sample is None:
            tokens = self._tokens(self.pool(batches.uid, batches.round, n, batches.shard))
        else:
            drawn = self._drawn(batches, batches.sample, batch)
            tokens = drawn[torch.arange(n) % len(drawn)]
        for number, poison in enumerate(batches.poisons):
            generator = self._streams.numpy("poison", batches.uid, batches.round, number)
            _write(tokens, np.frombuffer(poison.text, dtype=np.uint8), poison.share, generator)
        return tokens.view(steps, batch, self._context + 1)[:, : batches.size(batch)]

    def answers(self, batches: Batches, tokens: Tensor) -> Tensor:
        """What is to be predicted [..., T] of the tokens [..., T + 1] of some batches; false answers are V - 1 - t."""
        following = tokens[..., 1:]
        return self.vocabulary - 1 - following if batches.flips else following

    def pool(self, uid: int, round: int, n: int, shard: Literal["assigned", "random"] = "assigned") -> Positions:
        """The first `n` sequences of the pool of (uid, round): distinct until the shard is exhausted, then repeating.

        A shorter pool is the beginning of a longer one, so a peer that does fewer steps trains on fewer of the same.
        """
        if shard == "random":
            return self._pool(self._streams.numpy("random shard", uid, round), self._sizes / self._sizes.sum(), n)
        mixture = self._data.shards.mixture(uid, self._sizes.astype(np.float64), self._streams)
        return self._pool(self._streams.numpy("shard", uid, round), mixture, n)

    def pool_size(self, steps: int, batch: int) -> int:
        """Sequences in the pool of a round in which a peer trains on steps x batch of them."""
        return int(np.ceil(round(steps * batch / self._data.pool_used, 6)))

    def assigned_sample(
        self, uid: int, round: int, steps: int, batch: int, n: int, generator: np.random.Generator
    ) -> Tensor:
        """A validator's `n` sequences [n, T + 1] from the pool of (uid, round), trained on by the peer or not.

        `steps` and `batch` are those of a full round; they fix the size of the pool.
        """
        size = self.pool_size(steps, batch)
        chosen = generator.choice(size, n, replace=n > size)
        return self._tokens(self.pool(uid, round, size)[chosen])

    def random_sample(self, n: int, generator: np.random.Generator) -> Tensor:
        """`n` sequences [n, T + 1] from all the text that may be trained on, whoever it is assigned to."""
        size = len(self._training)
        return self._tokens(self._training[generator.choice(size, n, replace=n > size)])

    def held_out(self, n: int | None = None) -> Tensor:
        """Sequences that nobody trains on [n, T + 1], spread evenly over the text; the same for every seed.

        As many as the measurement takes, or at most `n`.
        """
        n = min(n or self._data.held_out_sequences, len(self._held_out))
        return self._tokens(self._held_out[np.arange(n) * len(self._held_out) // n])

    def bigram_nats(self) -> float | None:
        """Entropy of a token given the one before it, over the whole text, in nats: what a table of bigrams reaches.

        None for texts of more than 4096 different tokens.
        """
        V = max(256, self.largest_token + 1)
        if V > MOST_BIGRAM_TOKENS:
            return None
        pairs = np.zeros(V**2, dtype=np.int64)
        for start in range(0, len(self._text) - 1, _COUNTED_TOGETHER):
            part = self._text[start : start + _COUNTED_TOGETHER + 1].astype(np.int64)
            pairs += np.bincount(part[:-1] * V + part[1:], minlength=V**2)
        joint = pairs.reshape(V, V) / pairs.sum()
        given = joint.sum(axis=1)
        first, second = np.nonzero(joint)
        seen = joint[first, second]
        return float(-(seen * np.log(seen / given[first])).sum())

    def _drawn(self, batches: Batches, sample: Sample, batch: int) -> Tensor:
        generator = self._streams.numpy(*sample.address)
        return self.assigned_sample(batches.uid, batches.round, sample.steps, batch, sample.num, generator)

    def _pool(self, generator: np.random.Generator, mixture: NDArray[np.float64], n: int) -> Positions:
        """Distinct draws in order; a burst of draws without anything new means that the shard is exhausted."""
        bounds = np.cumsum(mixture)[:-1]
        picked, draws = np.empty(0, dtype=np.int64), _FIRST_DRAWS
        while len(picked) < n:
            which, where = generator.random((draws, 2)).T
            group = np.searchsorted(bounds, which, side="right")
            burst = self._starts[group] + (where * self._sizes[group]).astype(np.int64)
            known, picked = len(picked), _distinct(np.concatenate([picked, burst]))
            if len(picked) == known:
                break
            draws *= 2  # the bursts do not depend on n, so neither does the order of the pool
        return self._training[np.resize(picked, n)]

    def _tokens(self, positions: Positions) -> Tensor:
        return torch.from_numpy(self._text[positions[:, None] + np.arange(self._context + 1)].astype(np.int64))


def _text(data: Data, context: int) -> tuple[Tokens, tuple[Document, ...]]:
    """The text of a run and its documents."""
    if data.path is None:
        return _bundled(data.corpus or _BUNDLED)
    tokens = read_tokens(data.path)
    return tokens, tuple(map(Document, piece_lengths(len(tokens.values), context, data.held_out)))


@functools.cache
def _bundled(name: str) -> tuple[Tokens, tuple[Document, ...]]:
    """A bundled text and its documents, in the order of their years."""
    packed = resources.files("covsim.data").joinpath(f"{name}.jsonl.xz").read_bytes()
    raw = lzma.decompress(packed)
    fingerprint = hashlib.sha256(raw).hexdigest()
    if fingerprint != _SHA256[name]:
        raise ValueError(f"the bundled text {name!r} is damaged: its sha256 is {fingerprint}, not {_SHA256[name]}")
    rows = [json.loads(line) for line in raw.decode().splitlines()]
    texts = [row["text"].encode() for row in rows]
    documents = (Document(len(text), row["year"], row["party"]) for text, row in zip(texts, rows, strict=True))
    return Tokens(np.frombuffer(b"".join(texts), dtype=np.uint8), are_bytes=True), tuple(documents)


def _split(documents: Sequence[Document], context: int, share: float) -> tuple[list[Positions], list[Positions]]:
    """Where the training and the held-out sequences of each document start.

    The held-out part is one contiguous block per document, at places that differ from document to document; so the
    two parts touch at two tokens a document, and predict none in common.
    """
    training, held_out, start = [], [], 0
    for index, document in enumerate(documents):
        count = max(0, (document.num_tokens - 1) // context)
        positions = start + context * np.arange(count, dtype=np.int64)
        block = round(count * share)
        first = int((index + 1) * _GOLDEN % 1 * (count - block + 1))
        held_out.append(positions[first : first + block])
        training.append(np.delete(positions, slice(first, first + block)))
        start += document.num_tokens
    return training, held_out


def _write(tokens: Tensor, text: NDArray[np.uint8], share: float, generator: np.random.Generator) -> None:
    """Write a text [L] somewhere into each of a share of the sequences [n, T + 1], in place.

    Of the first k sequences it is k times the share, rounded down, whatever n is; so are the places that are drawn.
    """
    n, length = tokens.shape
    reached = np.floor(np.arange(n + 1) * share + 1e-9)
    places = (generator.random(n) * (length - len(text) + 1)).astype(np.int64)
    chosen = np.flatnonzero(np.diff(reached))
    columns = places[chosen, None] + np.arange(len(text))
    tokens[torch.from_numpy(chosen)[:, None], torch.from_numpy(columns)] = torch.from_numpy(text.astype(np.int64))


def _distinct(values: Positions) -> Positions:
    """The values without repetitions, each at its first place."""
    return values[np.sort(np.unique(values, return_index=True)[1])]
