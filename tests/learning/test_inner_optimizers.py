"""Inner optimizers equal torch's own, keep peers apart to the last bit, and all hold one contract."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from covsim.learning.inner_loop import run_inner_steps
from covsim.learning.inner_optimizers import AdamW, InnerOptimizer, OptimizerState, Sgd, Shapes, inner_optimizers
from covsim.learning.model import Gpt
from covsim.learning.muon import Muon, orthogonalize, split
from covsim.learning.workers import side_by_side
from covsim.schedules import Constant, Cosine, Linear, Points, Schedule

SHAPES: Shapes = {"wte": (9, 6), "a": (6, 14), "norm": (6,), "b": (6, 14), "conv": (4, 3, 5), "c": (14, 6), "one": ()}
N = sum(math.prod(shape) for shape in SHAPES.values())
TOTAL = 12
CLIP = 19.4

VARIANTS: list[InnerOptimizer] = [
    *(part() for _, part in inner_optimizers.items()),
    Sgd(momentum=0.9, nesterov=True, weight_decay=0.1, clip_norm=0.5),
    Muon(nesterov=False, momentum=0.0, exclude=()),
]
every_variant = pytest.mark.parametrize(
    "optimizer", VARIANTS, ids=[f"{part.kind}-{i}" for i, part in enumerate(VARIANTS)]
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def state_of(optimizer: InnerOptimizer, P: int, size: int = N) -> OptimizerState:
    return OptimizerState.zeros(P, size, num_moments=optimizer.num_moments)


def steps_of_one(optimizer: InnerOptimizer, theta: Tensor, gradients: Tensor) -> Tensor:
    """Where theta [N] is after one step for each of the gradients [S, N]."""
    theta, state = theta[None].clone(), state_of(optimizer, 1)
    for step, gradient in enumerate(gradients):
        optimizer.step(theta, gradient[None].clone(), state, [optimizer.learning_rate(step, TOTAL)], SHAPES)
    return theta[0]


def pieces(vector: Tensor) -> dict[str, Tensor]:
    """The tensors of a flat vector, by name."""
    parts = vector.split([math.prod(shape) for shape in SHAPES.values()])
    return {name: part.view(shape) for part, (name, shape) in zip(parts, SHAPES.items(), strict=True)}


def steps_of_torch(
    make: Callable[[list[Tensor]], torch.optim.Optimizer],
    rate_of: Callable[[int], float],
    theta: Tensor,
    gradients: Tensor,
    names: Sequence[str] = tuple(SHAPES),
    clip_norm: float | None = None,
) -> dict[str, Tensor]:
    """Where torch's optimizer takes the named tensors of theta [N]."""
    parameters = {name: pieces(theta)[name].clone().requires_grad_() for name in names}
    optimizer = make(list(parameters.values()))
    for step, gradient in enumerate(gradients):
        for name, parameter in parameters.items():
            parameter.grad = pieces(gradient)[name].clone()
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters.values(), clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = rate_of(step)
        optimizer.step()
    return {name: parameter.detach() for name, parameter in parameters.items()}


def assert_same_moves(ours: Tensor, theirs: dict[str, Tensor], theta: Tensor, tolerance: float = 1e-5) -> None:
    for name, end in theirs.items():
        moved = (end - pieces(theta)[name]).norm()
        assert moved > 0.01, name
        assert (pieces(ours)[name] - end).norm() < tolerance * moved, name


# References ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.8, "nesterov": True, "weight_decay": 0.3},
        {"momentum": 0.9, "weight_decay": 0.1, "clip_norm": CLIP},
    ],
    ids=str,
)
def test_sgd_equals_torchs_own(settings: dict[str, Any]) -> None:
    sgd = Sgd(lr=0.2, schedule=Linear(warmup_steps=3), **settings)
    theta, gradients = normal(N), normal(TOTAL, N, seed=1)
    norms = gradients.norm(dim=1)
    assert norms.min() < CLIP < norms.max(), "both branches of the clip are tested"

    def make(parameters: list[Tensor]) -> torch.optim.Optimizer:
        how = {name: value for name, value in settings.items() if name != "clip_norm"}
        return torch.optim.SGD(parameters, lr=1.0, **how)

    theirs = steps_of_torch(
        make, lambda step: sgd.learning_rate(step, TOTAL), theta, gradients, clip_norm=settings.get("clip_norm")
    )
    assert_same_moves(steps_of_one(sgd, theta, gradients), theirs, theta)


def test_a_plain_sgd_step_is_theta_minus_the_gradient(gpt: Gpt) -> None:
    theta = gpt.initial(torch.Generator().manual_seed(1))[None]
    tokens = torch.randint(0, 256, (1, 1, 2, gpt.context + 1), generator=torch.Generator().manual_seed(2))
    sgd = Sgd(lr=1)
    end = run_inner_steps(gpt, sgd, theta, state_of(sgd, 1), tokens, [0], 1)
    gradient = gpt.gradients(theta, tokens[:, 0], torch.empty_like(theta))
    assert gradient.any()
    assert torch.equal(end, theta - gradient)


@pytest.mark.parametrize(
    "schedule", [Constant(), Cosine(warmup_steps=3), Points(points=((0, 0.1), (5, 1.0), (9, 0.2)))], ids=str
)
def test_adamw_equals_torchs_own(schedule: Schedule) -> None:
    adamw = AdamW(lr=0.1, clip_norm=CLIP, schedule=schedule)
    theta, gradients = normal(N), normal(TOTAL, N, seed=1)
    theirs = steps_of_torch(
        lambda parameters: torch.optim.AdamW(parameters, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1),
        lambda step: adamw.learning_rate(step, TOTAL),
        theta,
        gradients,
        clip_norm=CLIP,
    )
    assert_same_moves(steps_of_one(adamw, theta, gradients), theirs, theta)


def newton_schulz(matrix: Tensor, steps: int) -> Tensor:
    """Keller Jordan's iteration on one matrix, as his page gives it, in float32."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix / (matrix.norm() + 1e-7)
    if matrix.shape[0] > matrix.shape[1]:
        x = x.T
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_equals_one_matrix_after_the_other(nesterov: bool) -> None:
    muon = Muon(lr=0.05, adam_lr=0.02, ns_steps=4, nesterov=nesterov, schedule=Linear(warmup_steps=3))
    theta, gradients = normal(N), normal(TOTAL, N, seed=1)
    ours = steps_of_one(muon, theta, gradients)
    theirs = {}
    for name in ("a", "b", "c", "conv"):
        matrix = pieces(theta)[name].flatten(1)
        momentum = torch.zeros_like(matrix)
        for step, gradient in enumerate(gradients):
            flat = pieces(gradient)[name].flatten(1)
            momentum = 0.95 * momentum + flat
            followed = newton_schulz(flat + 0.95 * momentum if nesterov else momentum, 4)
            rate = muon.learning_rate(step, TOTAL)
            matrix = (1 - rate * 0.1) * matrix - rate * 0.2 * math.sqrt(max(matrix.shape)) * followed
        theirs[name] = matrix.view(SHAPES[name])
    assert_same_moves(ours, theirs, theta)


def test_muon_equals_torchs_own_within_its_half_precision() -> None:
    muon = Muon(lr=0.05, schedule=Linear(warmup_steps=3))
    theta, gradients = normal(N), normal(TOTAL, N, seed=1)
    theirs = steps_of_torch(
        lambda parameters: torch.optim.Muon(parameters, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        lambda step: muon.learning_rate(step, TOTAL),
        theta,
        gradients,
        names=("a", "b", "c"),
    )
    assert_same_moves(steps_of_one(muon, theta, gradients), theirs, theta, tolerance=0.02)


def test_what_muon_leaves_out_is_adamw() -> None:
    muon = Muon(lr=0.05, adam_lr=0.1, betas=(0.8, 0.9), eps=1e-6, schedule=Cosine(warmup_steps=3))
    theta, gradients = normal(N), normal(TOTAL, N, seed=1)
    theirs = steps_of_torch(
        lambda parameters: torch.optim.AdamW(parameters, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.1),
        lambda step: 2 * muon.learning_rate(step, TOTAL),
        theta,
        gradients,
        names=("wte", "norm", "one"),
    )
    assert_same_moves(steps_of_one(muon, theta, gradients), theirs, theta)


# Muon's pieces -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (12, 12), (1, 5), (7, 1)])
def test_singular_values_become_nearly_one(shape: tuple[int, int]) -> None:
    matrices = normal(30, *shape)
    before = torch.linalg.svdvals(matrices) / matrices.norm(dim=(1, 2))[:, None]
    after = torch.linalg.svdvals(orthogonalize(matrices, 5))
    large = before > 1 / 600
    assert large.float().mean() > 0.95
    assert after[large].min() > 0.68
    assert after.max() < 1.21


def test_each_singular_value_takes_its_own_way_and_no_vector_turns() -> None:
    matrices = normal(5, 6, 9).double()
    u, sizes, v = torch.linalg.svd(matrices, full_matrices=False)
    sizes = sizes / matrices.norm(dim=(1, 2))[:, None]
    for _ in range(3):
        sizes = 3.4445 * sizes - 4.7750 * sizes**3 + 2.0315 * sizes**5
    torch.testing.assert_close(orthogonalize(matrices, 3), u @ sizes.diag_embed() @ v)


def test_nothing_to_follow_is_no_move() -> None:
    assert not orthogonalize(torch.zeros(2, 3, 4), 5).any()


def test_muon_takes_matrices_that_are_not_left_out_by_name() -> None:
    found = split(SHAPES, ("wt*", "?"))
    assert found.matrices == {(4, 15): [slice(228, 288)]}
    assert found.rest == [
        slice(0, 54),
        slice(54, 138),
        slice(138, 144),
        slice(144, 228),
        slice(288, 372),
        slice(372, 373),
    ]
    assert split(SHAPES, Muon().exclude).matrices == {
        (6, 14): [slice(54, 138), slice(144, 228)],
        (4, 15): [slice(228, 288)],
        (14, 6): [slice(288, 372)],
    }
    gpt = Gpt(layers=2, width=8)
    taken = split(gpt.shapes, Muon().exclude)
    assert {shape: len(spans) for shape, spans in taken.matrices.items()} == {
        (24, 8): 2,
        (8, 8): 2,
        (32, 8): 2,
        (8, 32): 2,
    }


def test_a_model_of_matrices_only_needs_no_adamw() -> None:
    theta, state, muon = normal(2, 12), OptimizerState.zeros(2, 12), Muon()
    before = theta.clone()
    muon.step(theta, normal(2, 12, seed=1), state, [0.1, 0.1], {"a": (3, 4)})
    assert (theta != before).all()
    assert not state.second.any()


# The contract of all optimizers --------------------------------------------------------------------------------------


@every_variant
def test_every_optimizer_learns(optimizer: InnerOptimizer) -> None:
    model = Gpt(layers=1, width=16, context=16)
    generator = torch.Generator().manual_seed(1)
    theta = torch.stack([model.initial(generator) for _ in range(2)])
    tokens = torch.randint(97, 123, (2, 60, 4, model.context + 1), generator=generator)
    state = state_of(optimizer, 2, model.num_parameters)
    after = run_inner_steps(model, optimizer, theta, state, tokens, [30, 30], 90)
    before, now = (model.losses(rows, tokens[:, 0]) for rows in (theta, after))
    assert (now < before - 0.3).all()
    assert state.counts.tolist() == [60, 60]


@every_variant
def test_every_optimizer_descends_a_parabola(optimizer: InnerOptimizer) -> None:
    theta, goal = normal(3, N), normal(N, seed=1)
    state = state_of(optimizer, 3)
    before = (theta - goal).norm(dim=1)
    for _ in range(50):
        optimizer.step(theta, theta - goal, state, [optimizer.lr] * 3, SHAPES)
    assert ((theta - goal).norm(dim=1) < 0.95 * before).all()


@every_variant
def test_a_step_is_the_same_every_time_and_in_place(optimizer: InnerOptimizer) -> None:
    ends = []
    for _ in range(2):
        theta, state = normal(3, N), state_of(optimizer, 3)
        parts = (theta, state.first, state.second, state.counts)
        shapes = [part.shape for part in parts]
        for step in range(3):
            optimizer.step(theta, normal(3, N, seed=1 + step), state, [0.1, 0.2, 0.3], SHAPES)
        assert [part.shape for part in parts] == shapes
        assert all(part.dtype == torch.float32 for part in parts)
        assert state.counts.tolist() == [3, 3, 3]
        assert (theta != normal(3, N)).any(dim=1).all()
        ends.append(parts)
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))


@every_variant
def test_only_the_memory_that_is_needed_is_kept(optimizer: InnerOptimizer) -> None:
    state = state_of(optimizer, 2)
    sizes = [state.first.numel(), state.second.numel()]
    assert sizes == [2 * N * (optimizer.num_moments > i) for i in range(2)]
    optimizer.step(normal(2, N), normal(2, N, seed=1), state, [0.1, 0.1], SHAPES)
    assert bool(state.first.any()) == (optimizer.num_moments > 0)
    assert bool(state.second.any()) == (optimizer.num_moments > 1)
    rows = OptimizerState.stack(state.rows())
    assert all(torch.equal(one, other) for one, other in zip(vars(rows).values(), vars(state).values(), strict=True))


@pytest.mark.usefixtures("threads")
@every_variant
@pytest.mark.parametrize("model", [Gpt(layers=1, width=20, heads=5, context=10), Gpt(width=64, context=4)])
def test_a_row_is_bit_equal_in_any_company(optimizer: InnerOptimizer, model: Gpt) -> None:
    start, gradients = normal(72, model.num_parameters), normal(2, 72, model.num_parameters, seed=1)
    rates = [optimizer.lr * (1 + p) / 72 for p in range(72)]

    def after(rows: slice) -> Tensor:
        theta, state = start[rows].clone(), state_of(optimizer, len(start[rows]), model.num_parameters)
        for gradient in gradients:
            optimizer.step(theta, gradient[rows].clone(), state, rates[rows], model.shapes)
        return theta

    torch.set_num_threads(1)
    together = after(slice(None))
    assert len({row.sum().item() for row in together}) == 72, "all peers differ, so that a mix-up shows"
    for size in (1, 3, 12):
        for first in (0, 13, 72 - size):
            rows = slice(first, first + size)
            assert torch.equal(after(rows), together[rows]), f"{size} peers from {first}"
    for threads, chunk in ((2, 12), (2, 1)):
        torch.set_num_threads(threads)
        assert torch.equal(torch.cat(side_by_side(after, 72, chunk)), together), f"{threads} threads, chunks of {chunk}"


@pytest.mark.parametrize("kind", list(inner_optimizers))
def test_every_optimizer_is_described_and_reads_plain_data(kind: str) -> None:
    part = inner_optimizers[kind]
    assert "Source: " in (inspect.getdoc(part) or "")
    assert all(field.description for name, field in part.model_fields.items() if name != "kind")
    assert part.model_validate(part().model_dump(mode="json")) == part()
    assert part.model_validate({"schedule": "constant"}).schedule == Constant()


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("sgd", {"nesterov": True}, "nesterov needs momentum"),
        ("sgd", {"lr": 0}, "greater than 0"),
        ("muon", {"ns_steps": 0}, "greater than or equal to 1"),
        ("muon", {"exclude": [""]}, "at least 1 character"),
        ("adamw", {"warmup_steps": 3}, "not permitted"),
        ("adamw", {"schedule": {"kind": "cosine", "final_share": 2}}, "not a share"),
    ],
)
def test_nonsense_is_refused(kind: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        inner_optimizers[kind](**settings)
