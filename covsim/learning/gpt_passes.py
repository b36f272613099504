"""The forward and the backward pass of the GPT for P peers at once, written out.

Letters in shapes: P peers, B sequences, T tokens, M = B * T, d width, h heads, V vocabulary. Every linear layer is one
batched matrix product over the peers. The backward pass is by hand because the inner steps are the cost of a whole
run, and it takes 20 to 30 % less than autograd, which keeps log-probabilities for a loss that nobody reads, and fills
and adds gradients view by view. A test holds it equal to autograd.

No operation mixes peers or splits a sum by how many of them there are, so a peer's row is bit-equal in any company.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_EPS = 1e-5
_aten = torch.ops.aten


class GptPasses:
    """One forward and one backward pass.

    Args:
        shapes: the parameter tensors in the order of the flat vector; `wte` first, every size a multiple of d.
        heads: attention heads.
        theta: [P, N].
        gradient: contiguous [P, N], overwritten by `backward`; without it the forward pass keeps nothing.
    """

    def __init__(
        self, shapes: dict[str, tuple[int, ...]], heads: int, theta: Tensor, gradient: Tensor | None = None
    ) -> None:
        self._heads, self._theta, self._gradient = heads, theta.contiguous(), gradient
        self._weights = _views(self._theta, shapes)
        self._gradients = {} if gradient is None else _views(gradient, shapes)
        self._num_blocks = sum(name.endswith(".qkv") for name in shapes)
        self._d = shapes["wte"][1]
        self._kept: dict[str, tuple[Tensor, ...]] = {}  # by layer, what its backward pass needs

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [P, M, V] of the token after each of `tokens`, int64 [P, B, T]."""
        B = tokens.shape[1]
        x = self._embed(tokens)  # [P, M, d]
        for block in (f"block{index}." for index in range(self._num_blocks)):
            mixed = self._attention(block + "attention", self._linear(block + "qkv", self._norm(block + "ln1", x)), B)
            x = self._linear(block + "proj", mixed, add_to=x)
            hidden = self._gelu(block + "gelu", self._linear(block + "up", self._norm(block + "ln2", x)))
            x = self._linear(block + "down", hidden, add_to=x)
        logits = self._linear("head", self._norm("ln", x))
        self._keep("loss", logits)
        return logits

    def backward(self, targets: Tensor) -> None:
        """Write the gradient of the mean nats per token, for `targets` int64 [P, B, T], after a forward pass."""
        assert targets.shape[2] == self._weights["wpe"].shape[1], "training sequences fill the context"
        dx = self._norm_backward("ln", self._linear_backward("head", self._loss_backward(targets)))
        for block in (f"block{index}." for index in reversed(range(self._num_blocks))):
            d_up = self._gelu_backward(block + "gelu", self._linear_backward(block + "down", dx))
            dx += self._norm_backward(block + "ln2", self._linear_backward(block + "up", d_up))
            d_qkv = self._attention_backward(block + "attention", self._linear_backward(block + "proj", dx))
            dx += self._norm_backward(block + "ln1", self._linear_backward(block + "qkv", d_qkv))
        self._embed_backward(dx)

    def _keep(self, layer: str, *tensors: Tensor) -> None:
        if self._gradient is not None:
            self._kept[layer] = tensors

    def _embed(self, tokens: Tensor) -> Tensor:
        """Token plus position vectors [P, M, d]."""
        P, B, T = tokens.shape
        first_rows = torch.arange(P, device=tokens.device) * (self._theta.shape[1] // self._d)
        rows = (tokens + first_rows[:, None, None]).flatten()  # wte stands first in each peer's vector
        self._keep("embed", rows)
        vectors = self._theta.view(-1, self._d).index_select(0, rows).view(P, B, T, self._d)
        return vectors.add_(self._weights["wpe"][:, None, :T]).view(P, B * T, self._d)

    def _embed_backward(self, dx: Tensor) -> None:
        assert self._gradient is not None
        (rows,) = self._kept.pop("embed")
        P, context = self._weights["wpe"].shape[:2]
        torch.sum(dx.view(P, -1, context, self._d), dim=1, out=self._gradients["wpe"])
        self._gradients["wte"].zero_()
        self._gradient.view(-1, self._d).index_add_(0, rows, dx.view(-1, self._d))

    def _linear(self, layer: str, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        """x [P, M, in] times the transpose of a weight [P, out, in], plus a residual [P, M, out]."""
        self._keep(layer, x)
        weight = self._weights[layer].mT
        return torch.bmm(x, weight) if add_to is None else torch.baddbmm(add_to, x, weight)

    def _linear_backward(self, layer: str, dy: Tensor) -> Tensor:
        (x,) = self._kept.pop(layer)
        self._gradients[layer].copy_(torch.bmm(dy.mT, x))
        return torch.bmm(dy, self._weights[layer])

    def _norm(self, layer: str, x: Tensor) -> Tensor:
        """Layer norm of x [P, M, d] with a weight and a bias [P, d] per peer."""
        normal, mean, rstd = torch.native_layer_norm(x, [self._d], None, None, _EPS)
        self._keep(layer, x, normal, mean, rstd)
        weight, bias = self._weights[layer + ".weight"], self._weights[layer + ".bias"]
        return torch.addcmul(bias[:, None], normal, weight[:, None])

    def _norm_backward(self, layer: str, dy: Tensor) -> Tensor:
        x, normal, mean, rstd = self._kept.pop(layer)
        torch.sum(dy, dim=1, out=self._gradients[layer + ".bias"])
        torch.sum(normal.mul_(dy), dim=1, out=self._gradients[layer + ".weight"])
        dy *= self._weights[layer + ".weight"][:, None]
        only_dx = [True, False, False]
        dx: Tensor = _aten.native_layer_norm_backward(dy, x, [self._d], mean, rstd, None, None, only_dx)[0]
        return dx

    def _gelu(self, layer: str, x: Tensor) -> Tensor:
        self._keep(layer, x)
        return torch.nn.functional.gelu(x)

    def _gelu_backward(self, layer: str, dy: Tensor) -> Tensor:
        (x,) = self._kept.pop(layer)
        dx: Tensor = _aten.gelu_backward.grad_input(dy, x, grad_input=dy)
        return dx

    def _attention(self, layer: str, qkv: Tensor, B: int) -> Tensor:
        """Causal self-attention [P, M, d] inside each of B sequences, for queries, keys and values [P, M, 3 * d]."""
        P, M = qkv.shape[:2]
        T, size = M // B, self._d // self._heads
        parts = qkv.view(P * B, T, 3, self._heads, size).permute(2, 0, 3, 1, 4)
        query, key, value = parts.reshape(3, -1, T, size)  # [P * B * h, T, d / h] each; views when h is 1
        future = torch.full((T, T), -math.inf, device=qkv.device).triu(1)
        scores = torch.baddbmm(future, query, key.mT, alpha=size**-0.5)
        attention: Tensor = _aten._softmax.out(scores, -1, False, out=scores)
        self._keep(layer, query, key, value, attention)
        mixed = torch.bmm(attention, value)
        return mixed.view(P * B, self._heads, T, size).transpose(1, 2).reshape(P, M, self._d)

    def _attention_backward(self, layer: str, dy: Tensor) -> Tensor:
        query, key, value, attention = self._kept.pop(layer)
        (P, M), (num_blocks, T, size) = dy.shape[:2], query.shape
        d_mixed = dy.view(-1, T, self._heads, size).transpose(1, 2).reshape(num_blocks, T, size)
        d_attention = torch.bmm(d_mixed, value.mT)
        _aten._softmax_backward_data.out(d_attention, attention, -1, dy.dtype, grad_input=d_attention)
        d_query, d_key, d_value = parts = dy.new_empty(3, num_blocks, T, size)
        torch.baddbmm(d_query, d_attention, key, beta=0, alpha=size**-0.5, out=d_query)
        torch.baddbmm(d_key, d_attention.mT, query, beta=0, alpha=size**-0.5, out=d_key)
        torch.bmm(attention.mT, d_mixed, out=d_value)
        return parts.view(3, -1, self._heads, T, size).permute(1, 3, 0, 2, 4).reshape(P, M, 3 * self._d)

    def _loss_backward(self, targets: Tensor) -> Tensor:
        """Gradient of the mean cross-entropy by the logits [P, M, V]: (softmax - one-hot) / M."""
        (logits,) = self._kept.pop("loss")
        P, M = logits.shape[:2]
        probability: Tensor = _aten._softmax.out(logits, -1, False, out=logits)
        minus_one = logits.new_tensor(-1.0).expand(P, M, 1)
        return probability.scatter_add_(2, targets.reshape(P, M, 1), minus_one).div_(M)


def _views(matrix: Tensor, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The parameter tensors [P, *shape] inside a flat matrix [P, N], by name."""
    pieces = torch.split(matrix, [math.prod(shape) for shape in shapes.values()], dim=1)
    return {name: piece.view(-1, *shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}
