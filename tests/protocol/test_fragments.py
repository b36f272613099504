"""Which part of theta a round exchanges."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from pydantic import ValidationError

from covsim.learning.model import Gpt
from covsim.protocol.fragments import Fragment, Groups, Layers, NamedShapes, RandomShare, Whole, fragment_rules
from covsim.randomness import Streams

TENSORS: NamedShapes = list(Gpt(layers=4, width=8, context=8).shapes.items())
N = sum(math.prod(shape) for _, shape in TENSORS)
LAYERS = ["wte", "wpe", "block0", "block1", "block2", "block3", "ln.weight", "ln.bias", "head"]
STREAMS = Streams(5)
TWO_MATRICES: Groups = ((2, (3, 4)),)


def bytes_of(groups: Groups) -> float:
    """A byte for each element, in an envelope of 100."""
    return 100.0 + sum(count * math.prod(shape) for count, shape in groups)


def layer_of(name: str) -> str:
    """The layer that a tensor of the GPT belongs to, by hand."""
    return name.split(".", maxsplit=1)[0] if name.startswith("block") else name


def names(fragment: Fragment, tensors: NamedShapes = TENSORS) -> list[str]:
    """The tensors whose elements a fragment has, all of them or none, in the order of theta."""
    assert fragment.index is not None
    chosen = torch.zeros(sum(math.prod(shape) for _, shape in tensors), dtype=torch.bool)
    chosen[fragment.index] = True
    pieces = chosen.split([math.prod(shape) for _, shape in tensors])
    assert all(piece.all() or not piece.any() for piece in pieces)
    return [name for (name, _), piece in zip(tensors, pieces, strict=True) if piece.all()]


def dealt(rule: Layers, tensors: NamedShapes = TENSORS) -> list[list[str]]:
    """The layers of each fragment of a cycle, in the order of theta."""
    cycle = range(rule.num)
    found = [names(rule.fragment(round, tensors, STREAMS), tensors) for round in cycle]
    return [list(dict.fromkeys(layer_of(name) for name in fragment)) for fragment in found]


def of_names(*tensors: str) -> NamedShapes:
    return [(name, (4,)) for name in tensors]


@pytest.mark.parametrize("pattern", ["strided", "sequential"])
@pytest.mark.parametrize("num", [1, 2, 3, 4, 7, 9])
def test_layers_exchange_every_coordinate_exactly_once_in_a_cycle(num: int, pattern: str) -> None:
    rule = Layers.model_validate({"num": num, "pattern": pattern})
    cycle = [rule.fragment(round, TENSORS, STREAMS) for round in range(num)]
    places = [fragment.index for fragment in cycle if fragment.index is not None]
    assert all(len(index) for index in places)
    assert torch.equal(torch.cat(places).sort().values, torch.arange(N))
    assert rule.mean_bytes(TWO_MATRICES, bytes_of) == 100 + 24 / num
    assert rule.whole == (num == 1)


@pytest.mark.parametrize("pattern", ["strided", "sequential"])
def test_layers_take_turns_for_ever(pattern: str) -> None:
    rule = Layers.model_validate({"num": 4, "pattern": pattern})
    for round in (0, 3, 4, 5, 401):
        fragment, first = rule.fragment(round, TENSORS, STREAMS), rule.fragment(round % 4, TENSORS, STREAMS)
        assert fragment.number == first.number == round % 4
        assert fragment.index is not None
        assert first.index is not None
        assert torch.equal(fragment.index, first.index)


def test_strided_fragments_hold_early_and_late_layers() -> None:
    assert dealt(Layers(num=3)) == [
        ["wte", "block1", "ln.weight"],
        ["wpe", "block2", "ln.bias"],
        ["block0", "block3", "head"],
    ]


def test_sequential_fragments_hold_neighbors() -> None:
    assert dealt(Layers(num=3, pattern="sequential")) == [LAYERS[0:3], LAYERS[3:6], LAYERS[6:9]]
    assert dealt(Layers(num=4, pattern="sequential")) == [LAYERS[0:2], LAYERS[2:4], LAYERS[4:6], LAYERS[6:9]]


@pytest.mark.parametrize("pattern", ["strided", "sequential"])
def test_a_layer_stays_together(pattern: str) -> None:
    """The norms of a block too, whose names hold a number of their own: block0.ln1.weight."""
    fragments = dealt(Layers.model_validate({"num": len(LAYERS), "pattern": pattern}))
    assert fragments == [[layer] for layer in LAYERS]


def test_layers_are_known_by_a_numbered_prefix() -> None:
    torch_names = of_names(
        "transformer.wte.weight",
        "transformer.h.0.ln_1.weight",
        "transformer.h.0.attn.c_attn.weight",
        "transformer.h.10.ln_2.bias",
        "transformer.h.1.attn.c_attn.weight",
        "transformer.h.10.mlp.c_fc.weight",
        "lm_head.weight",
    )
    found = [names(Layers(num=5).fragment(round, torch_names, STREAMS), torch_names) for round in range(5)]
    places = {name: place for place, (name, _) in enumerate(torch_names)}
    assert [[places[name] for name in fragment] for fragment in found] == [[0], [1, 2], [3, 5], [4], [6]]


def test_tensors_without_numbers_are_layers_of_their_own() -> None:
    found = Layers(num=2).fragment(0, of_names("first", "second", "third"), STREAMS)
    assert found.index is not None
    assert found.index.tolist() == [0, 1, 2, 3, 8, 9, 10, 11]
    assert found.shapes == ((4,), (4,))


@pytest.mark.parametrize("pattern", ["strided", "sequential"])
def test_more_fragments_than_layers_are_refused(pattern: str) -> None:
    rule = Layers.model_validate({"num": len(LAYERS) + 1, "pattern": pattern})
    with pytest.raises(ValueError, match="9 layers cannot be dealt over 10 fragments; take fewer"):
        rule.shapes(TENSORS)


def drawn(share: float, rounds: Sequence[int], tensors: NamedShapes = TENSORS, seed: int = 5) -> list[list[int]]:
    fragments = [RandomShare(share=share).fragment(round, tensors, Streams(seed)) for round in rounds]
    return [fragment.index.tolist() for fragment in fragments if fragment.index is not None]


@pytest.mark.parametrize(("share", "size"), [(1.0, N), (0.5, round(N / 2)), (0.005, round(N / 200)), (1e-9, 1)])
def test_a_random_share_has_its_size(share: float, size: int) -> None:
    (index,) = drawn(share, [7])
    assert len(index) == len(set(index)) == size
    assert index == sorted(index)
    assert 0 <= index[0] <= index[-1] < N
    assert RandomShare(share=share).shapes(TENSORS) == [((size,),)]


def test_a_random_share_is_the_same_for_everybody_and_another_in_every_round() -> None:
    assert drawn(0.01, range(5)) == drawn(0.01, range(5))
    assert len({tuple(index) for index in drawn(0.01, range(50))}) == 50
    assert drawn(0.01, range(5)) != drawn(0.01, range(5), seed=6)


def test_a_random_share_is_named_by_its_round() -> None:
    """So that a payload for the coordinates of another round is refused."""
    assert [RandomShare().fragment(round, TENSORS, STREAMS).number for round in (0, 1, 900)] == [0, 1, 900]


def test_a_random_share_is_uniform() -> None:
    """Counts of 2000 rounds are binomial: all 100 coordinates within five deviations."""
    rounds, share = 2000, 0.2
    counts = torch.tensor(drawn(share, range(rounds), of_names(*"abcdefghijklmnopqrstuvwxy"))).flatten().bincount()
    assert len(counts) == 100
    deviation = math.sqrt(rounds * share * (1 - share))
    assert (counts - rounds * share).abs().max() < 5 * deviation
    assert (counts.float() - rounds * share).std() == pytest.approx(deviation, rel=0.3)


def test_a_share_of_all_is_whole() -> None:
    (index,) = drawn(1.0, [3])
    assert index == list(range(N))
    assert RandomShare(share=1.0).whole
    assert not RandomShare(share=0.999).whole
    assert RandomShare(share=0.25).mean_bytes(TWO_MATRICES, bytes_of) == 100 + 6


def test_whole_is_all_of_theta_in_order() -> None:
    whole = Whole().fragment(8, TENSORS, STREAMS)
    assert (whole.number, whole.index) == (0, None)
    assert whole.shapes == tuple(shape for _, shape in TENSORS)
    assert Whole().whole
    assert Whole().mean_bytes(TWO_MATRICES, bytes_of) == 100 + 24


@pytest.mark.parametrize("kind", list(fragment_rules))
def test_every_rule_names_fragments_that_fit_their_shapes(kind: str) -> None:
    rule = fragment_rules[kind].model_validate({"kind": kind})
    shapes = rule.shapes(TENSORS)
    for round in range(7):
        fragment = rule.fragment(round, TENSORS, STREAMS)
        assert fragment.shapes == shapes[fragment.number % len(shapes)]
        size = sum(math.prod(shape) for shape in fragment.shapes)
        if fragment.index is None:
            assert size == N
        else:
            assert fragment.index.dtype == torch.int64
            assert len(fragment.index) == size
            assert (fragment.index.diff() > 0).all()


@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        ("layers", {"num": 0}),
        ("layers", {"pattern": "random"}),
        ("random", {"share": 0}),
        ("random", {"share": "101 %"}),
        ("whole", {"num": 1}),
    ],
)
def test_absurd_settings(kind: str, setting: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        fragment_rules[kind].model_validate(setting)
