"""The batched inner loop equals torch's own AdamW on an ordinary module, and is bit-equal in any company."""

from __future__ import annotations

import math

import pytest
import torch
from plain_gpt import PlainGpt
from torch import Tensor

from covsim.learning.inner_loop import Training, run_inner_steps
from covsim.learning.inner_optimizers import AdamW, InnerOptimizer, OptimizerState, Sgd
from covsim.learning.model import Gpt
from covsim.schedules import Constant, Cosine


def peers(model: Gpt, P: int, S: int, B: int = 4) -> tuple[Tensor, Tensor]:
    """Parameters [P, N], all different, and tokens [P, S, B, T + 1] from a small alphabet."""
    generator = torch.Generator().manual_seed(1)
    theta = torch.stack([model.initial(generator) for _ in range(P)])
    return theta, torch.randint(97, 123, (P, S, B, model.context + 1), generator=generator)


def train(model: Gpt, optimizer: InnerOptimizer, theta: Tensor, tokens: Tensor) -> tuple[Tensor, OptimizerState]:
    state = OptimizerState.zeros(*theta.shape)
    after = run_inner_steps(model, optimizer, theta, state, tokens, [0] * len(theta), tokens.shape[1])
    return after, state


def test_fifty_steps_equal_torchs_own_optimizer() -> None:
    model, optimizer = Gpt(width=16), AdamW(lr=1e-3, schedule=Cosine(warmup_steps=10), clip_norm=0.45)
    theta, tokens = peers(model, 1, 50)
    after, _ = train(model, optimizer, theta, tokens)

    plain = PlainGpt(model, theta[0])
    reference = torch.optim.AdamW(plain.parameters(), betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, foreach=False)
    norms = []
    for step, batch in enumerate(tokens[0]):
        for group in reference.param_groups:
            group["lr"] = optimizer.learning_rate(step, 50)
        reference.zero_grad()
        plain(batch).backward()
        norms.append(torch.nn.utils.clip_grad_norm_(plain.parameters(), optimizer.clip_norm).item())
        reference.step()
    assert min(norms) < optimizer.clip_norm < max(norms), "both branches of the clip are tested"
    moved = (plain.flat() - theta[0]).norm()
    assert (after[0] - plain.flat()).norm() < 1e-4 * moved
    assert moved > 1


def test_the_rate_is_the_peak_times_the_schedule() -> None:
    adamw = AdamW(lr=0.5, schedule=Cosine(warmup_steps=10, final_share=0.1))
    rates = [adamw.learning_rate(step, 110) for step in (0, 4, 9, 10, 60, 110, 500)]
    assert rates == pytest.approx([0.05, 0.25, 0.5, 0.5, 0.275, 0.05, 0.05])
    assert AdamW(lr=0.5, schedule=Constant()).learning_rate(0, 10) == 0.5


def test_each_step_of_a_peer_has_its_own_rate(gpt: Gpt) -> None:
    theta, tokens = peers(gpt, 2, 1)
    tokens = tokens[:1].expand(2, -1, -1, -1)
    sgd = Sgd(lr=0.5, schedule=Cosine(warmup_steps=10))
    after = run_inner_steps(
        gpt, sgd, theta[:1].expand(2, -1), OptimizerState.zeros(2, 0, num_moments=0), tokens, [0, 9], 10
    )
    gradient = gpt.gradients(theta[:1], tokens[:1, 0], torch.empty(1, gpt.num_parameters))[0]
    for row, rate in zip(after, (0.05, 0.5), strict=True):
        assert torch.equal(row, theta[0] - rate * gradient)


def test_theta_is_left_alone_and_the_state_is_updated_in_place(gpt: Gpt) -> None:
    theta, tokens = peers(gpt, 2, 3)
    shared = theta[:1].clone()
    state = OptimizerState.zeros(2, gpt.num_parameters)
    first = state.first
    run_inner_steps(gpt, AdamW(), shared.expand(2, -1), state, tokens, [0, 0], 3)
    assert torch.equal(shared, theta[:1])
    assert state.first is first
    assert first.any()


def test_steps_may_be_cut_anywhere(gpt: Gpt) -> None:
    theta, tokens = peers(gpt, 2, 7)
    adamw = AdamW(schedule=Cosine(warmup_steps=4))
    whole, state = OptimizerState.zeros(*theta.shape), OptimizerState.zeros(*theta.shape)
    at_once = run_inner_steps(gpt, adamw, theta, whole, tokens, [5, 9], 20)
    halfway = run_inner_steps(gpt, adamw, theta, state, tokens[:, :3], [5, 9], 20)
    cut = run_inner_steps(gpt, adamw, halfway, state, tokens[:, 3:], [8, 12], 20)
    assert torch.equal(at_once, cut)
    assert torch.equal(whole.second, state.second)


@pytest.mark.parametrize("model", [Gpt(), Gpt(width=64), Gpt(layers=1, width=20, heads=5, context=10)], ids=str)
def test_a_peer_is_bit_equal_in_any_company(model: Gpt) -> None:
    theta, tokens = peers(model, 72, 2)
    adamw = AdamW()
    after, _ = train(model, adamw, theta, tokens)
    assert len({row.sum().item() for row in after}) == 72, "all peers differ, so that a mix-up shows"
    for size in (1, 2, 7, 12, 16):
        for start in (0, 13, 72 - size):
            rows = slice(start, start + size)
            part, _ = train(model, adamw, theta[rows], tokens[rows])
            assert torch.equal(part, after[rows]), f"{size} peers from {start}"


def test_peers_of_different_age_share_a_batch(gpt: Gpt) -> None:
    theta, tokens = peers(gpt, 2, 4)
    adamw = AdamW(schedule=Cosine(warmup_steps=2))
    old = OptimizerState.zeros(1, gpt.num_parameters)
    theta[:1] = run_inner_steps(gpt, adamw, theta[:1], old, tokens[:1], [0], 30)
    fresh = OptimizerState.zeros(1, gpt.num_parameters)
    both = OptimizerState.stack([old, fresh])
    together = run_inner_steps(gpt, adamw, theta, both, tokens, [20, 0], 30)
    for p, (state, first_step) in enumerate(((old, 20), (fresh, 0))):
        alone = run_inner_steps(gpt, adamw, theta[p : p + 1], state, tokens[p : p + 1], [first_step], 30)
        assert torch.equal(together[p], alone[0])
    assert both.counts.tolist() == [8, 4]
    assert all(torch.equal(row.first, both.first[p : p + 1]) for p, row in enumerate(both.rows()))


def test_the_training_section_reads_plain_mappings() -> None:
    training = Training.model_validate({"batch": 2, "inner": {"lr": 0.01}})
    assert training.inner == AdamW(lr=0.01)
    assert training.inner.schedule == Cosine(warmup_steps=60, final_share=0.1)
    with_schedule = Training.model_validate({"inner": {"schedule": {"warmup_steps": 5}}})
    assert with_schedule.inner.schedule == Cosine(warmup_steps=5)
    assert Training.model_validate(training.model_dump()) == training
    assert math.isclose(training.inner.learning_rate(10**6, 100), 0.001)
