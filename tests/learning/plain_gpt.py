"""The same GPT as an ordinary torch module, one peer at a time: what the batched one must equal, and be faster than."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from covsim.learning.model import VOCABULARY, Gpt


class Block(nn.Module):
    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln1 = nn.LayerNorm(d)
        self.qkv = nn.Linear(d, 3 * d, bias=False)
        self.proj = nn.Linear(d, d, bias=False)
        self.ln2 = nn.LayerNorm(d)
        self.up = nn.Linear(d, 4 * d, bias=False)
        self.down = nn.Linear(4 * d, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        B, T, d = x.shape
        query, key, value = self.qkv(self.ln1(x)).view(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.proj(mixed.transpose(1, 2).reshape(B, T, d))
        hidden = functional.gelu(self.up(self.ln2(x)))
        return x + self.down(hidden)


class PlainGpt(nn.Module):
    """Parameters are registered in the order of the flat vector."""

    def __init__(self, model: Gpt, theta: Tensor) -> None:
        super().__init__()
        self.wte = nn.Embedding(VOCABULARY, model.width)
        self.wpe = nn.Embedding(model.context, model.width)
        self.blocks = nn.Sequential(*(Block(model.width, model.heads) for _ in range(model.layers)))
        self.ln = nn.LayerNorm(model.width)
        self.head = nn.Linear(model.width, VOCABULARY, bias=False)
        nn.utils.vector_to_parameters(theta.clone(), self.parameters())

    def forward(self, tokens: Tensor) -> Tensor:
        """Mean nats per token, for tokens [B, T + 1]."""
        x = self.wte(tokens[:, :-1]) + self.wpe.weight[: tokens.shape[1] - 1]
        logits = self.head(self.ln(self.blocks(x)))
        return functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    def flat(self) -> Tensor:
        return nn.utils.parameters_to_vector(self.parameters()).detach()

    def flat_gradient(self) -> Tensor:
        return torch.cat([parameter.grad.flatten() for parameter in self.parameters()])
