"""Theta moves: each outer optimizer against torch's own, and what all of them keep to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from covsim.protocol.outer import Adam, Nesterov, OuterOptimizer, Sgd, SignSgd, outer_optimizers
from covsim.schedules import Linear, Steps

N, STEPS = 64, 80
HALVED = Steps(at={30: 0.5})


def start() -> Tensor:
    return torch.randn(N, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def deltas(num: int = STEPS) -> list[Tensor]:
    """Pseudo-gradients whose norms lie on both sides of 1."""
    draw = torch.Generator().manual_seed(2)
    return [torch.randn(N, dtype=torch.float64, generator=draw) * (0.02 + 0.01 * step) for step in range(num)]


def path(optimizer: OuterOptimizer, updates: Sequence[Tensor]) -> Tensor:
    """Theta after each step [STEPS, N]."""
    theta = start()
    state = optimizer.initial(theta)
    visited = []
    for depth, delta in enumerate(updates):
        theta, state = optimizer.step(theta, state, delta, optimizer.learning_rate(depth, len(updates)))
        visited.append(theta)
    return torch.stack(visited)


def torch_path(
    make: Callable[[list[Tensor]], Optimizer], updates: Sequence[Tensor], clip_norm: float = math.inf
) -> Tensor:
    """The same with an optimizer of torch's, whose rate is halved from step 30 on."""
    theta = nn.Parameter(start())
    optimizer = make([theta])
    (group,) = optimizer.param_groups
    peak, visited = group["lr"], []
    for depth, delta in enumerate(updates):
        group["lr"] = peak * HALVED.factor(depth, len(updates))
        theta.grad = delta.clone()
        if clip_norm < math.inf:
            nn.utils.clip_grad_norm_([theta], clip_norm)
        optimizer.step()
        visited.append(theta.detach().clone())
    return torch.stack(visited)


def assert_equal_paths(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_sgd_is_torchs() -> None:
    ours = path(Sgd(lr=0.65, schedule=HALVED), deltas())
    assert_equal_paths(ours, torch_path(lambda theta: SGD(theta, lr=0.65), deltas()))


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_nesterov_is_torchs(momentum: float) -> None:
    ours = path(Nesterov(lr=0.7, momentum=momentum, schedule=HALVED), deltas())
    theirs = torch_path(lambda theta: SGD(theta, lr=0.7, momentum=momentum, nesterov=momentum > 0), deltas())
    assert_equal_paths(ours, theirs)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("clip_norm", [math.inf, 1.0])
def test_adam_is_torchs(weight_decay: float, clip_norm: float) -> None:
    adam = Adam(
        lr=4e-3,
        betas=(0.9, 0.95),
        weight_decay=weight_decay,
        clip_norm=None if clip_norm == math.inf else clip_norm,
        schedule=HALVED,
    )
    norms = [delta.norm().item() for delta in deltas()]
    assert min(norms) < 1 < max(norms)
    theirs = torch_path(
        lambda theta: AdamW(theta, lr=4e-3, betas=(0.9, 0.95), weight_decay=weight_decay), deltas(), clip_norm
    )
    assert_equal_paths(path(adam, deltas()), theirs)


def test_sign_sgd_moves_every_coordinate_equally_far() -> None:
    theta = torch.tensor([1.0, -2.0, 4.0, 0.5])
    moved, state = SignSgd(lr=1.0, weight_decay=0.5).step(theta, (), torch.tensor([3.0, -1e-9, 0.0, 1e9]), rate=0.25)
    assert moved.tolist() == [0.875 - 0.25, -1.75 + 0.25, 3.5, 0.4375 - 0.25]
    assert state == ()


def test_defaults_are_those_of_the_sources() -> None:
    nesterov, adam = Nesterov(), Adam()
    assert (nesterov.lr, nesterov.momentum) == (0.7, 0.9)  # DiLoCo, section 3
    assert (adam.betas, adam.eps, adam.weight_decay, adam.clip_norm) == ((0.9, 0.95), 1e-8, 0.0, None)
    assert Sgd().lr == 0.65  # Covenant-72B from about 110,000 inner steps on


@pytest.fixture(params=list(outer_optimizers))
def optimizer(request: pytest.FixtureRequest) -> OuterOptimizer:
    return outer_optimizers[request.param].model_validate({"kind": request.param})


def after(optimizer: OuterOptimizer, num: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Theta and memory after some steps."""
    theta = start().to(dtype)
    state = optimizer.initial(theta)
    for delta in deltas(num):
        theta, state = optimizer.step(theta, state, delta.to(dtype), 0.1)
    return theta, state


@pytest.mark.parametrize("num", [0, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_step_makes_new_vectors_and_leaves_its_arguments_alone(
    optimizer: OuterOptimizer, num: int, dtype: torch.dtype
) -> None:
    """Theta is shared by all who have the same history."""
    theta, state = after(optimizer, num, dtype)
    delta = deltas(1)[0].to(dtype)
    kept = [each.clone() for each in (theta, *state, delta)]
    moved, memory = optimizer.step(theta, state, delta, 0.1)
    assert all(torch.equal(now, before) for now, before in zip((theta, *state, delta), kept, strict=True))
    assert moved.shape == (N,)
    assert moved.dtype == dtype
    assert not torch.equal(moved, theta)
    assert [(each.shape, each.dtype) for each in memory] == [((N,), dtype)] * len(state)
    given = {each.data_ptr() for each in (theta, *state, delta)}
    assert not given & {each.data_ptr() for each in (moved, *memory)}


def test_equal_histories_have_equal_bits(optimizer: OuterOptimizer) -> None:
    (theta, state), (again, memory) = after(optimizer, 20), after(optimizer, 20)
    assert torch.equal(theta, again)
    assert all(torch.equal(*pair) for pair in zip(state, memory, strict=True))


def test_a_step_goes_against_the_pseudo_gradient(optimizer: OuterOptimizer) -> None:
    theta = torch.zeros(8)
    delta = torch.tensor([1.0, -1.0, 0.1, -0.1, 1e-3, -1e-3, 0.0, 10.0])
    moved, _ = optimizer.step(theta, optimizer.initial(theta), delta, 0.5)
    assert torch.equal(moved.sign(), -delta.sign())


def test_the_rate_scales_the_step(optimizer: OuterOptimizer) -> None:
    theta, state = after(optimizer, 5)
    delta = deltas(1)[0]
    still, near, far = (optimizer.step(theta, state, delta, rate)[0] - theta for rate in (0.0, 0.1, 0.3))
    assert still.abs().max() == 0
    torch.testing.assert_close(far, 3 * near, rtol=1e-9, atol=1e-12)


def test_coordinates_do_not_see_one_another(optimizer: OuterOptimizer) -> None:
    """What makes it sound to step fragments of theta in turn."""
    theta, state = after(optimizer, 3)
    delta = deltas(1)[0]
    whole, memory = optimizer.step(theta, state, delta, 0.1)
    where = torch.arange(1, N, 3)
    part, part_memory = optimizer.step(theta[where], tuple(each[where] for each in state), delta[where], 0.1)
    torch.testing.assert_close(part, whole[where], rtol=1e-14, atol=0)
    for ours, theirs in zip(part_memory, memory, strict=True):
        torch.testing.assert_close(ours, theirs[where], rtol=1e-14, atol=0)


def test_the_direction_of_a_trial_points_as_the_pseudo_gradient_does(optimizer: OuterOptimizer) -> None:
    delta = torch.tensor([3.0, -0.5, 0.0, 1e-6])
    kept = delta.clone()
    direction = optimizer.direction(delta)
    assert torch.equal(direction.sign(), delta.sign())
    assert torch.equal(delta, kept)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("sgd", [3.0, -0.5]), ("nesterov", [3.0, -0.5]), ("adam", [3.0, -0.5]), ("sign_sgd", [1, -1])],
)
def test_directions(kind: str, expected: list[float]) -> None:
    assert outer_optimizers[kind].model_validate({}).direction(torch.tensor([3.0, -0.5])).tolist() == expected


def test_the_schedule_multiplies_the_rate(optimizer: OuterOptimizer) -> None:
    scheduled = optimizer.model_copy(update={"lr": 2.0, "schedule": Linear(warmup_steps=4, final_share=0.5)})
    rates = [scheduled.learning_rate(depth, 14) for depth in (0, 1, 3, 4, 9, 14, 50)]
    assert rates == pytest.approx([0.5, 1.0, 2.0, 2.0, 1.5, 1.0, 1.0])
    constant = optimizer.model_copy(update={"schedule": type(optimizer)().schedule})
    assert constant.learning_rate(0, 14) == constant.learning_rate(99, 14) == optimizer.lr


def test_settings_survive_a_round_trip(optimizer: OuterOptimizer) -> None:
    changed = type(optimizer)(lr=0.3, schedule=Steps(at={0: 1.0, 7: 0.25}))
    assert type(optimizer).model_validate_json(changed.model_dump_json()) == changed


@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        ("sgd", {"lr": 0}),
        ("sgd", {"lr": math.inf}),
        ("sgd", {"momentum": 0.9}),
        ("nesterov", {"momentum": 1.0}),
        ("nesterov", {"momentum": -0.1}),
        ("adam", {"betas": [0.9, 1.0]}),
        ("adam", {"eps": 0}),
        ("adam", {"clip_norm": 0}),
        ("sign_sgd", {"weight_decay": -0.1}),
        ("sgd", {"schedule": {"kind": "warm"}}),
    ],
)
def test_absurd_settings(kind: str, setting: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        outer_optimizers[kind].model_validate(setting)
