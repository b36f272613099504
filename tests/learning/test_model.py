"""The batched GPT equals the ordinary one, peer by peer, and no peer notices the others."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from plain_gpt import PlainGpt
from pydantic import ValidationError
from torch import Tensor

import covsim.learning.module_model  # noqa: F401  (it registers a model)
from covsim.learning.model import Gpt, Model, models

GPTS = [Gpt(), Gpt(width=64), Gpt(layers=3, width=24, heads=3, context=20)]

BIGRAMS = """
import torch

class Bigrams(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(256, 256)

    def forward(self, tokens):
        return self.table(tokens)
"""


@pytest.fixture
def example(tmp_path: Path) -> Callable[[str], Model]:
    """A model of each kind; `example("gpt")`."""

    def make(kind: str) -> Model:
        if kind != "module":
            return models[kind]()
        (tmp_path / "bigrams.py").write_text(BIGRAMS)
        return models[kind](path=str(tmp_path / "bigrams.py:Bigrams"), context=16)

    return make


def peers(model: Model, P: int, B: int = 4) -> tuple[Tensor, Tensor]:
    """Parameters [P, N], all different and far from their start, and tokens [P, B, T + 1]."""
    generator = torch.Generator().manual_seed(P)
    theta = torch.stack([model.initial(generator) * (1 + p) for p in range(P)])
    return theta, torch.randint(0, 256, (P, B, model.context + 1), generator=generator)


@pytest.mark.parametrize(("width", "num_parameters"), [(32, 43_328), (64, 135_808)])
def test_the_size_is_the_published_one(width: int, num_parameters: int) -> None:
    model = Gpt(width=width)
    assert model.num_parameters == num_parameters
    assert model.initial(torch.Generator()).shape == (num_parameters,)


@pytest.mark.parametrize("model", GPTS, ids=str)
def test_losses_equal_the_plain_module(model: Gpt) -> None:
    theta, tokens = peers(model, 3)
    expected = [PlainGpt(model, row)(batch).item() for row, batch in zip(theta, tokens, strict=True)]
    torch.testing.assert_close(model.losses(theta, tokens), torch.tensor(expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("model", GPTS, ids=str)
def test_gradients_equal_autograd_of_the_plain_module(model: Gpt) -> None:
    theta, tokens = peers(model, 3)
    gradients = model.gradients(theta, tokens, torch.full_like(theta, math.nan))
    for row, batch, gradient in zip(theta, tokens, gradients, strict=True):
        plain = PlainGpt(model, row)
        plain(batch).backward()
        expected = plain.flat_gradient()
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6 * expected.abs().max().item())


def test_a_fresh_model_knows_nothing() -> None:
    model = Gpt()
    theta = model.initial(torch.Generator().manual_seed(1))
    loss = model.losses(theta[None], torch.randint(0, 256, (1, 16, 65)))
    assert loss.item() == pytest.approx(math.log(256), abs=0.05)


def test_the_start_has_gpt2s_spreads() -> None:
    model = Gpt(width=64)
    theta, begin, spreads = model.initial(torch.Generator().manual_seed(1)), 0, {}
    for name, shape in model.shapes.items():
        part = theta[begin : begin + math.prod(shape)]
        spreads[name], begin = part.std(correction=0).item(), begin + part.numel()
        if len(shape) == 1:
            assert part.unique().tolist() == [1.0 if name.endswith("weight") else 0.0]
    assert spreads["wte"] == pytest.approx(0.02, rel=0.03)
    assert spreads["block0.qkv"] == pytest.approx(0.02, rel=0.03)
    assert spreads["block1.down"] == pytest.approx(0.01, rel=0.03)
    assert spreads["block1.proj"] == pytest.approx(0.01, rel=0.03)


def test_a_prediction_does_not_see_the_future() -> None:
    model = Gpt(layers=2, width=16, context=8)
    theta = model.initial(torch.Generator().manual_seed(1)) * 5
    tokens = torch.arange(9)[None, None]
    changed = tokens.clone()
    changed[..., -2] = 200  # read last, and predicted next to last
    first, second = torch.zeros(2, 1, model.num_parameters)
    model.gradients(theta[None], tokens, first)
    model.gradients(theta[None], changed, second)
    rows = first.view(-1, 16)[:256], second.view(-1, 16)[:256]
    assert not torch.equal(*rows)
    losses = [model.losses(theta[None], t[..., :7]) for t in (tokens, changed)]  # shorter sequences are fine as well
    assert torch.equal(*losses)


def test_shorter_sequences_use_the_first_positions() -> None:
    model = GPTS[2]
    theta, tokens = peers(model, 2)
    expected = [PlainGpt(model, row)(batch[:, :8]).item() for row, batch in zip(theta, tokens, strict=True)]
    torch.testing.assert_close(model.losses(theta, tokens[:, :, :8]), torch.tensor(expected), rtol=1e-6, atol=1e-6)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValidationError, match="heads must divide width: 3 does not divide 32"):
        Gpt(heads=3)


def test_a_vocabulary_of_ones_own() -> None:
    model = Gpt(layers=1, width=8, context=8, vocabulary=1000)
    assert model.num_parameters == Gpt(layers=1, width=8, context=8).num_parameters + 2 * 744 * 8
    theta = model.initial(torch.Generator().manual_seed(1))[None]
    tokens = torch.randint(0, 1000, (1, 64, 9), generator=torch.Generator().manual_seed(2))
    assert model.losses(theta, tokens).item() == pytest.approx(math.log(1000), abs=0.05)
    gradient = model.gradients(theta, tokens, torch.empty_like(theta))
    seen = gradient.view(-1)[:8000].view(1000, 8).any(dim=1).nonzero().flatten()
    assert torch.equal(seen, tokens[..., :-1].unique())


def test_tokens_beyond_the_vocabulary_are_named() -> None:
    Gpt(vocabulary=1000).check_tokens(999)
    with pytest.raises(ValueError, match=r"^the text has tokens up to 50256, the model knows 256; .* 50257 or more$"):
        Gpt().check_tokens(50256)


@pytest.mark.parametrize("kind", list(models))
def test_every_models_gradient_is_the_slope_of_its_loss(kind: str, example: Callable[[str], Model]) -> None:
    model = example(kind)
    theta, tokens = peers(model, 2)
    gradients = model.gradients(theta, tokens, torch.empty_like(theta))
    direction = gradients / gradients.norm(dim=1, keepdim=True)
    step = 1e-2
    slope = (model.losses(theta + step * direction, tokens) - model.losses(theta - step * direction, tokens)) / step / 2
    torch.testing.assert_close(slope, gradients.norm(dim=1), rtol=2e-2, atol=0)


@pytest.mark.parametrize("kind", list(models))
def test_no_peer_and_no_sequence_notices_its_company(kind: str, example: Callable[[str], Model]) -> None:
    model = example(kind)
    theta, tokens = peers(model, 7)
    losses = model.sequence_losses(theta, tokens)
    assert losses.shape == (7, 4)
    gradients = model.gradients(theta, tokens, torch.empty_like(theta))
    for rows in (slice(0, 1), slice(3, 5), slice(1, 7)):
        part = theta[rows]
        assert torch.equal(model.sequence_losses(part, tokens[rows]), losses[rows])
        assert torch.equal(model.gradients(part, tokens[rows], torch.empty_like(part)), gradients[rows])
    assert torch.equal(model.sequence_losses(theta, tokens[:, 1:3]), losses[:, 1:3])
