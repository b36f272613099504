"""Which part of theta a round exchanges: all of it, some of the layers in turn, or a random share.

Every node knows the fragment of a round without being told, so a payload for another fragment is refused.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from covsim.protocol.base import Shape, num_elements
from covsim.randomness import Streams
from covsim.registry import Part, Registry
from covsim.units import Share

NamedShapes = Sequence[tuple[str, Shape]]
"""The model's tensors in the order of theta."""

Groups = Sequence[tuple[int, Shape]]
"""Tensors as (count, shape)."""

_LAYER = re.compile(r"^(?:.*?\.)??[^.]*\d+(?=\.)")  # block0.qkv, transformer.h.3.attn.weight


@dataclass(frozen=True, eq=False)
class Fragment:
    """What is exchanged together.

    Attributes:
        number: names it on the wire.
        shapes: of its tensors.
        index: where its elements lie in theta [n], int64; None if it is all of theta, in order.
    """

    number: int
    shapes: tuple[Shape, ...]
    index: Tensor | None


class Fragments(Part):
    """A rule that names the fragment of a round."""

    @property
    @abstractmethod
    def whole(self) -> bool:
        """True if every round exchanges all of theta."""

    @abstractmethod
    def layers_of(self, num_layers: int) -> list[list[int]]:
        """The layers of each fragment, by number. Raises ValueError where layers cannot be dealt so."""

    @abstractmethod
    def shapes(self, tensors: NamedShapes) -> list[tuple[Shape, ...]]:
        """The shapes of the different fragments, one entry for each that needs a codec of its own.

        Raises ValueError for a model that cannot be cut so.
        """

    @abstractmethod
    def fragment(self, round: int, tensors: NamedShapes, streams: Streams) -> Fragment:
        """The fragment of a round; its shapes are entry `number modulo length` of `shapes`."""

    @abstractmethod
    def mean_bytes(self, groups: Groups, bytes_of: Callable[[Groups], float]) -> float:
        """Mean length of a round's payload for `count` tensors of each `shape`, given that of a payload of tensors."""


fragment_rules: Registry[Fragments] = Registry("fragments")


@fragment_rules.register
class Whole(Fragments):
    """All of theta in every round."""

    kind: Literal["whole"] = "whole"

    def mean_bytes(self, groups: Groups, bytes_of: Callable[[Groups], float]) -> float:
        """That of all tensors."""
        return bytes_of(groups)

    @property
    def whole(self) -> bool:
        """True."""
        return True

    def layers_of(self, num_layers: int) -> list[list[int]]:
        """All layers in one fragment."""
        return [list(range(num_layers))]

    def shapes(self, tensors: NamedShapes) -> list[tuple[Shape, ...]]:
        """All tensors."""
        return [tuple(shape for _, shape in tensors)]

    def fragment(self, round: int, tensors: NamedShapes, streams: Streams) -> Fragment:
        """Theta."""
        return Fragment(0, self.shapes(tensors)[0], None)


@fragment_rules.register
class Layers(Fragments):
    """A few layers in every round, in turn; strided, so that a fragment holds early and late layers.

    Source: Streaming DiLoCo (arXiv 2501.18512), section 2.2. Tensors whose names share a numbered prefix (`block3.`)
    are a layer, and so is each other tensor.
    """

    kind: Literal["layers"] = "layers"
    num: int = Field(default=3, ge=1, le=1000, description="fragments; each is exchanged once in so many rounds")
    pattern: Literal["strided", "sequential"] = Field(default="strided", description="how layers are dealt")

    def mean_bytes(self, groups: Groups, bytes_of: Callable[[Groups], float]) -> float:
        """What the tensors take is shared by the rounds of a cycle; each has the envelope of a payload of its own."""
        envelope = bytes_of(())
        return envelope + (bytes_of(groups) - envelope) / self.num

    @property
    def whole(self) -> bool:
        """True for a single fragment."""
        return self.num == 1

    def shapes(self, tensors: NamedShapes) -> list[tuple[Shape, ...]]:
        """The tensors of each fragment. Raises ValueError where there are fewer layers than fragments."""
        return [tuple(tensors[place][1] for place in places) for places in self._deal(tensors)]

    def fragment(self, round: int, tensors: NamedShapes, streams: Streams) -> Fragment:
        """The layers whose turn it is."""
        number = round % self.num
        places = set(self._deal(tensors)[number])
        sizes = [num_elements(shape) for _, shape in tensors]
        chosen = torch.tensor([place in places for place in range(len(tensors))])
        index = chosen.repeat_interleave(torch.tensor(sizes)).nonzero().flatten()
        return Fragment(number, tuple(tensors[place][1] for place in sorted(places)), index)

    def layers_of(self, num_layers: int) -> list[list[int]]:
        """The layers of each fragment, by number. Raises ValueError where there are fewer layers than fragments."""
        if num_layers < self.num:
            raise ValueError(f"{num_layers} layers cannot be dealt over {self.num} fragments; take fewer fragments")
        if self.pattern == "strided":
            return [list(range(first, num_layers, self.num)) for first in range(self.num)]
        bounds = [num_layers * part // self.num for part in range(self.num + 1)]
        return [list(range(low, high)) for low, high in pairwise(bounds)]

    def _deal(self, tensors: NamedShapes) -> list[list[int]]:
        """The tensors of each fragment, by their places."""
        layers: dict[str, list[int]] = {}
        for place, (name, _) in enumerate(tensors):
            found = _LAYER.match(name)
            layers.setdefault(found[0] if found else name, []).append(place)
        runs = list(layers.values())
        dealt = [[runs[layer] for layer in fragment] for fragment in self.layers_of(len(runs))]
        return [sorted(place for layer in fragment for place in layer) for fragment in dealt]


@fragment_rules.register
class RandomShare(Fragments):
    """A random share of all coordinates, drawn anew in every round and the same for everybody.

    Source: SPARTA (Exo Labs, exo-explore/gym), sparse parameter averaging.
    """

    kind: Literal["random"] = "random"
    share: Annotated[Share, Field(gt=0, le=1)] = Field(
        default=0.005, description="part of theta that a round exchanges"
    )

    def mean_bytes(self, groups: Groups, bytes_of: Callable[[Groups], float]) -> float:
        """That of one vector."""
        num_parameters = sum(count * num_elements(shape) for count, shape in groups)
        return bytes_of(((1, (self._size_of(num_parameters),)),))

    @property
    def whole(self) -> bool:
        """True for a share of 100 %."""
        return self.share == 1

    def layers_of(self, num_layers: int) -> list[list[int]]:
        """Cannot be told: a random share is of no layer. Raises ValueError."""
        raise ValueError("a random share of the parameters has no layers")

    def shapes(self, tensors: NamedShapes) -> list[tuple[Shape, ...]]:
        """One vector."""
        return [((self._size(tensors),),)]

    def fragment(self, round: int, tensors: NamedShapes, streams: Streams) -> Fragment:
        """The coordinates of a round, ascending."""
        num_parameters = sum(num_elements(shape) for _, shape in tensors)
        drawn = streams.numpy("fragment", round).choice(num_parameters, self._size(tensors), replace=False)
        return Fragment(round, self.shapes(tensors)[0], torch.from_numpy(drawn).sort().values)

    def _size(self, tensors: NamedShapes) -> int:
        return self._size_of(sum(num_elements(shape) for _, shape in tensors))

    def _size_of(self, num_parameters: int) -> int:
        return max(1, round(self.share * num_parameters))
