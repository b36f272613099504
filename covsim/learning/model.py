"""What peers train: models whose parameters are rows of one flat matrix, so that P peers cost one batched product.

Letters in shapes: P peers, B sequences, T tokens of context, N parameters.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from covsim.learning.gpt_passes import GptPasses
from covsim.registry import Part, Registry

VOCABULARY = 256
"""Tokens are bytes, unless a scenario brings others."""


class Model(Part):
    """A loss over rows of flat parameter vectors, and its gradient."""

    context: int = Field(default=64, ge=2, le=8192, description="tokens that a prediction may look back on")

    @property
    @abstractmethod
    def known_before_run(self) -> bool:
        """True if `shapes` and `check_tokens` follow from the settings, without running any code of the user's."""

    @property
    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The parameter tensors by name, in their order inside the flat vector, as the protocol cuts them."""

    @abstractmethod
    def check_tokens(self, largest: int) -> None:
        """Raise ValueError, which names what to change, if the model cannot predict the token `largest`."""

    @abstractmethod
    def initial(self, generator: torch.Generator) -> Tensor:
        """A fresh flat parameter vector [N], float32, drawn from `generator`."""

    @abstractmethod
    def sequence_losses(self, theta: Tensor, tokens: Tensor) -> Tensor:
        """Mean nats per token of each sequence [P, B].

        Args:
            theta: parameters, one row per peer, [P, N].
            tokens: int64 [P, B, T + 1]; the first T are read, the last T are predicted.
        """

    @abstractmethod
    def gradients(self, theta: Tensor, tokens: Tensor, out: Tensor, targets: Tensor | None = None) -> Tensor:
        """Write the gradient of each peer's own loss into `out` [P, N] and return it; arguments as for the losses.

        With `targets`, int64 [P, B, T], these are predicted instead of the tokens that follow.
        """

    def losses(self, theta: Tensor, tokens: Tensor) -> Tensor:
        """Mean nats per token of each peer [P], for theta [P, N] and tokens [P, B, T + 1]."""
        return self.sequence_losses(theta, tokens).mean(dim=1)

    @property
    def num_parameters(self) -> int:
        """N, the length of the flat vector."""
        return sum(math.prod(shape) for shape in self.shapes.values())


models: Registry[Model] = Registry("model")


@models.register
class Gpt(Model):
    """A GPT-2 over bytes or other tokens, without biases in its linear layers and with an untied head."""

    kind: Literal["gpt"] = "gpt"
    layers: int = Field(default=2, ge=1, le=48, description="transformer blocks")
    width: int = Field(default=32, ge=4, le=4096, description="channels of the residual stream")
    heads: int = Field(default=1, ge=1, le=64, description="attention heads; must divide the width")
    vocabulary: int = Field(
        default=VOCABULARY, ge=2, le=1_000_000, description="how many tokens there are; 256 where they are bytes"
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads must divide width: {self.heads} does not divide {self.width}")
        return self

    @property
    def known_before_run(self) -> bool:
        """True: sizes are all that it takes."""
        return True

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Embeddings, then blocks, then the final norm and the head."""
        d = self.width
        shapes: dict[str, tuple[int, ...]] = {"wte": (self.vocabulary, d), "wpe": (self.context, d)}
        for layer in range(self.layers):
            block = {"ln1.weight": (d,), "ln1.bias": (d,), "qkv": (3 * d, d), "proj": (d, d)}
            block |= {"ln2.weight": (d,), "ln2.bias": (d,), "up": (4 * d, d), "down": (d, 4 * d)}
            shapes |= {f"block{layer}.{name}": shape for name, shape in block.items()}
        return shapes | {"ln.weight": (d,), "ln.bias": (d,), "head": (self.vocabulary, d)}

    def check_tokens(self, largest: int) -> None:
        """Raise ValueError if the vocabulary ends before the token `largest`."""
        if largest >= self.vocabulary:
            raise ValueError(
                f"the text has tokens up to {largest}, the model knows {self.vocabulary}; "
                f"set model.vocabulary to {largest + 1} or more"
            )

    def initial(self, generator: torch.Generator) -> Tensor:
        """GPT-2's start: normal(0, 0.02), projections into the residual stream smaller by sqrt(2 * layers)."""
        parts = []
        for name, shape in self.shapes.items():
            if len(shape) == 1:
                parts.append(torch.full(shape, float(name.endswith("weight"))))
            else:
                into_residual = name.endswith(("proj", "down"))
                spread = 0.02 / math.sqrt(2 * self.layers) if into_residual else 0.02
                parts.append(torch.randn(shape, generator=generator) * spread)
        return torch.cat([part.flatten() for part in parts])

    def sequence_losses(self, theta: Tensor, tokens: Tensor) -> Tensor:
        """Mean nats per token of each sequence [P, B], for theta [P, N] and tokens [P, B, T + 1]."""
        logits = GptPasses(self.shapes, self.heads, theta).forward(tokens[:, :, :-1])  # [P, M, V]
        nats = functional.cross_entropy(logits.view(-1, self.vocabulary), tokens[:, :, 1:].flatten(), reduction="none")
        return nats.view_as(tokens[:, :, 1:]).mean(dim=2)

    def gradients(self, theta: Tensor, tokens: Tensor, out: Tensor, targets: Tensor | None = None) -> Tensor:
        """Write the gradient of each peer's mean nats per token into `out` [P, N] and return it."""
        passes = GptPasses(self.shapes, self.heads, theta, out)
        passes.forward(tokens[:, :, :-1])
        passes.backward(tokens[:, :, 1:] if targets is None else targets)
        return out
