"""Asking late, early, alone or together gives the same update, and a restored trainer goes on bit by bit."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from covsim.learning import trainer as module
from covsim.learning.corpus import Batches, Corpus
from covsim.learning.inner_loop import OptimizerState, Training, run_inner_steps
from covsim.learning.model import Gpt
from covsim.learning.trainer import Trainer
from covsim.learning.update import Update

H = 4
TRAINING = Training(batch=2)

MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def make(gpt: Gpt, corpus: Corpus) -> MakeTrainer:
    def trainer(chunk: int = 12) -> Trainer:
        return Trainer(gpt, TRAINING, corpus, inner_steps=H, total_steps=10 * H, chunk=chunk)

    return trainer


@pytest.fixture
def theta(gpt: Gpt) -> Tensor:
    return gpt.initial(torch.Generator().manual_seed(1))


def ask(trainer: Trainer, uid: int, round: int, theta: Tensor, steps: int = H) -> Update:
    return trainer.train(uid, round, theta, Batches("assigned", uid, round), steps)


def test_nothing_is_computed_before_it_is_asked_for(
    make: MakeTrainer, theta: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def counted(model: Gpt, optimizer: object, rows: Tensor, *rest: object) -> Tensor:
        sizes.append(len(rows))
        return run_inner_steps(model, optimizer, rows, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "run_inner_steps", counted)
    trainer = make(chunk=2)
    updates = [ask(trainer, uid, 0, theta) for uid in range(4)]
    doubled = 2 * updates[1]
    assert sizes == []
    assert trainer.wall_s == 0
    doubled.value()
    assert sizes == [2, 2]
    assert trainer.wall_s > 0
    updates[3].value()
    assert sizes == [2, 2]


def test_an_update_is_theta_before_minus_theta_after(
    make: MakeTrainer, theta: Tensor, gpt: Gpt, corpus: Corpus
) -> None:
    trainer = make()
    state = OptimizerState.zeros(1, gpt.num_parameters)
    for round in (0, 3):
        tokens = corpus.batches(Batches("assigned", 5, round), H, TRAINING.batch)[None]
        after = run_inner_steps(gpt, TRAINING.inner, theta[None], state, tokens, [round * H], 10 * H)
        update = ask(trainer, 5, round, theta).value()
        assert torch.equal(update, theta - after[0])
        assert update.any()
        theta = after[0]


@pytest.mark.usefixtures("threads")
def test_company_order_chunk_and_threads_change_nothing(make: MakeTrainer, theta: Tensor) -> None:
    steps = {0: 4, 1: 2, 2: 4, 3: 1, 4: 3, 5: 0, 6: 2}
    torch.set_num_threads(1)
    alone = {uid: ask(make(), uid, 1, theta * (1 + uid), n).value() for uid, n in steps.items()}
    for threads, chunk in ((1, 3), (2, 12), (2, 1)):
        torch.set_num_threads(threads)
        trainer = make(chunk)
        together = {uid: ask(trainer, uid, 1, theta * (1 + uid), steps[uid]) for uid in reversed(steps)}
        for uid, update in together.items():
            assert torch.equal(update.value(), alone[uid]), f"uid {uid}, {threads} threads, chunks of {chunk}"


def test_jobs_of_one_uid_keep_their_order(make: MakeTrainer, theta: Tensor) -> None:
    one_by_one, at_once = make(), make()
    expected = [ask(one_by_one, 1, round, theta, 2 + round).value() for round in range(3)]
    updates = [ask(at_once, 1, round, theta, 2 + round) for round in range(3)]
    ask(at_once, 2, 0, theta)
    for update, value in zip(updates, expected, strict=True):
        assert torch.equal(update.value(), value)
    assert not torch.equal(expected[0], ask(make(), 1, 1, theta, 2).value())


def test_no_steps_give_exactly_zero_and_leave_the_moments_alone(make: MakeTrainer, theta: Tensor) -> None:
    trainer, untouched = make(), make()
    assert not ask(trainer, 1, 0, theta, steps=0).value().any()
    first, second, count = trainer.state()["moments"][1]
    assert count == 0
    assert not first.any()
    assert not second.any()
    assert torch.equal(ask(trainer, 1, 1, theta).value(), ask(untouched, 1, 1, theta).value())


def test_theta_is_never_changed(make: MakeTrainer, theta: Tensor) -> None:
    before = theta.clone()
    trainer = make()
    for uid in range(3):
        ask(trainer, uid, 0, theta)
    trainer.run_pending()
    assert torch.equal(theta, before)


def test_a_restored_trainer_goes_on_bit_by_bit(make: MakeTrainer, theta: Tensor) -> None:
    def play(trainer: Trainer) -> list[Update]:
        """Two peers, two rounds each; the update of (1, 0) is dropped, two are alive."""
        kept = [ask(trainer, 1, 0, theta), ask(trainer, 1, 1, theta), 3.0 * ask(trainer, 2, 0, theta)]
        return kept[1:]

    original = make()
    alive = play(original)
    state = original.state()
    gc.collect()
    assert set(original.state()["values"]) == {(1, 1, 1), (2, 0, 0)}

    resumed = make()
    resumed.replaying = True
    replayed = play(resumed)
    resumed.restore(state)
    for one, other in zip(alive, replayed, strict=True):
        assert torch.equal(one.value(), other.value())
    for uid in (1, 2, 3):
        assert torch.equal(ask(original, uid, 2, theta).value(), ask(resumed, uid, 2, theta).value())


def test_the_state_is_plain_data(make: MakeTrainer, theta: Tensor, tmp_path: object) -> None:
    trainer = make()
    for uid in (9, 2, 5):
        ask(trainer, uid, 0, theta)
    state = trainer.state()
    torch.save(state, f"{tmp_path}/state.pt")
    loaded = torch.load(f"{tmp_path}/state.pt", weights_only=True)
    assert list(loaded["moments"]) == [2, 5, 9]
    assert loaded["moments"][2][2] == H
    assert torch.equal(loaded["moments"][2][0], state["moments"][2][0])


def test_a_saved_state_does_not_change_while_training_goes_on(make: MakeTrainer, theta: Tensor) -> None:
    trainer = make()
    ask(trainer, 1, 0, theta)
    first = trainer.state()["moments"][1][0]
    copy = first.clone()
    ask(trainer, 1, 1, theta).value()
    assert torch.equal(first, copy)


def test_a_replay_computes_nothing(make: MakeTrainer, theta: Tensor) -> None:
    trainer = make()
    trainer.replaying = True
    update = ask(trainer, 1, 0, theta)
    with pytest.raises(AssertionError, match="replayed"):
        update.value()
    trainer.restore({"moments": {}, "values": {}})
    with pytest.raises(AssertionError, match="not in the checkpoint"):
        update.value()
