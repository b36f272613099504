"""Asking late, early, alone or together gives the same update, and a restored trainer goes on bit by bit."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from covsim.learning import trainer as module
from covsim.learning.corpus import Batches, Corpus
from covsim.learning.inner_loop import Training, run_inner_steps
from covsim.learning.inner_optimizers import InnerOptimizer, OptimizerState, inner_optimizers
from covsim.learning.model import Gpt
from covsim.learning.trainer import Trainer
from covsim.learning.update import Update

H = 4
TRAINING = Training(batch=2)

MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def make(gpt: Gpt, corpus: Corpus) -> MakeTrainer:
    def trainer(chunk: int = 12, inner: InnerOptimizer = TRAINING.inner) -> Trainer:
        training = Training(batch=TRAINING.batch, inner=inner)
        return Trainer(gpt, training, corpus, inner_steps=H, total_steps=10 * H, chunk=chunk)

    return trainer


@pytest.fixture
def theta(gpt: Gpt) -> Tensor:
    return gpt.initial(torch.Generator().manual_seed(1))


def ask(trainer: Trainer, uid: int, round: int, start: Tensor | Update, steps: int = H, skip: int = 0) -> Update:
    return trainer.train(uid, round, start, Batches("assigned", uid, round), steps, skip)


def ask_gradient(trainer: Trainer, uid: int, round: int, start: Tensor | Update) -> Update:
    return trainer.gradient(uid, round, start, Batches("assigned", uid, round))


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


def test_an_update_is_where_the_steps_end(make: MakeTrainer, theta: Tensor, gpt: Gpt, corpus: Corpus) -> None:
    trainer = make()
    state = OptimizerState.zeros(1, gpt.num_parameters)
    for round in (0, 3):
        tokens = corpus.batches(Batches("assigned", 5, round), H, TRAINING.batch)[None]
        end = run_inner_steps(gpt, TRAINING.inner, theta[None], state, tokens, [round * H], 10 * H)
        update = ask(trainer, 5, round, theta).value()
        assert torch.equal(update, end[0])
        assert not torch.equal(update, theta)
        theta = end[0]


def test_a_round_may_be_trained_in_pieces(make: MakeTrainer, theta: Tensor) -> None:
    at_once, late, early = make(), make(), make()
    whole = ask(at_once, 1, 2, theta, 4)
    piece: Tensor | Update = theta
    for skip, steps in ((0, 1), (1, 2), (3, 1)):
        piece = ask(late, 1, 2, piece, steps, skip)
    assert isinstance(piece, Update)
    assert torch.equal(piece.value(), whole.value())
    first = ask(early, 1, 2, theta, 2)
    first.value()
    assert torch.equal(ask(early, 1, 2, first, 2, skip=2).value(), whole.value())
    assert not torch.equal(ask(make(), 1, 2, theta, 2, skip=2).value(), first.value())


def test_a_gradient_is_that_of_one_batch_and_touches_no_moments(
    make: MakeTrainer, theta: Tensor, gpt: Gpt, corpus: Corpus
) -> None:
    trainer = make()
    tokens = corpus.batches(Batches("assigned", 1, 3), 1, TRAINING.batch)
    expected = gpt.gradients(theta[None], tokens, torch.empty(1, gpt.num_parameters))[0]
    assert expected.any()
    assert torch.equal(ask_gradient(trainer, 1, 3, theta).value(), expected)
    assert trainer.state()["moments"] == {}


def test_both_kinds_of_jobs_may_be_pending_together(make: MakeTrainer, theta: Tensor) -> None:
    def play(trainer: Trainer) -> list[Update]:
        end = ask(trainer, 1, 0, theta)
        return [end, ask_gradient(trainer, 1, 1, end), ask(trainer, 2, 0, theta, 2), ask_gradient(trainer, 3, 0, theta)]

    together, one_by_one = play(make(chunk=2)), play(make())
    for update in one_by_one:
        update.value()
    for update, other in zip(reversed(together), reversed(one_by_one), strict=True):
        assert torch.equal(update.value(), other.value())
    assert not torch.equal(together[1].value(), together[3].value())


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("kind", list(inner_optimizers))
def test_company_order_chunk_and_threads_change_nothing(kind: str, make: MakeTrainer, theta: Tensor) -> None:
    steps = {0: 4, 1: 2, 2: 4, 3: 1, 4: 3, 5: 0, 6: 2}
    inner = inner_optimizers[kind]()
    torch.set_num_threads(1)
    alone = {uid: ask(make(inner=inner), uid, 1, theta * (1 + uid), n).value() for uid, n in steps.items()}
    for threads, chunk in ((1, 3), (2, 12), (2, 1)):
        torch.set_num_threads(threads)
        trainer = make(chunk, inner)
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


def test_a_start_may_be_the_end_of_an_earlier_job(make: MakeTrainer, theta: Tensor) -> None:
    late, early = make(), make()
    promise: Tensor | Update = theta
    end = theta
    for round in range(300):
        promise = 0.5 * ask(late, 1, round, promise, steps=round % 2) + Update.of(0.5 * theta)
        end = 0.5 * ask(early, 1, round, end, steps=round % 2).value() + 0.5 * theta
    assert isinstance(promise, Update)
    assert torch.equal(promise.value(), end)


def test_starts_may_depend_on_other_uids(make: MakeTrainer, theta: Tensor) -> None:
    def play(trainer: Trainer, settle: Callable[[Update], Tensor | Update]) -> list[Update]:
        """Uid k starts where uid k - 1 ends, the first of them where the second job of uid 0 does."""
        ask(trainer, 0, 0, theta)
        ends, others = [ask(trainer, 0, 1, theta)], []
        for uid in range(1, 9):
            ends.append(ask(trainer, uid, 0, settle(2 * ends[-1]), steps=1))
            others.append(ask(trainer, uid, 1, theta, steps=2))
        return ends + others

    late = play(make(), lambda update: update)
    early = play(make(), Update.value)
    for update, other in zip(late, early, strict=True):
        assert torch.equal(update.value(), other.value())


def test_a_start_that_is_worked_out_may_ask_for_anything(make: MakeTrainer, theta: Tensor) -> None:
    trainer, plain = make(), make()
    before = ask(trainer, 1, 0, theta)

    def start() -> Tensor:
        trainer.run_pending()  # changes nothing: it is under way
        return before.value() + before.norm().value()

    after = ask(trainer, 2, 0, Update(start))
    end = ask(plain, 1, 0, theta).value()
    assert torch.equal(after.value(), ask(plain, 2, 0, end + float(end.norm())).value())


def test_jobs_that_wait_for_each_other_are_an_error(make: MakeTrainer, theta: Tensor) -> None:
    trainer = make()
    updates: list[Update] = []
    for uid, other in ((0, 1), (1, 0)):
        updates.append(ask(trainer, uid, 0, Update.of(theta).map(lambda _, other=other: updates[other].value())))
    third = ask(trainer, 3, 0, theta)
    with pytest.raises(AssertionError, match="wait for each other"):
        updates[0].value()
    assert torch.equal(third.value(), ask(make(), 3, 0, theta).value())


def test_a_failing_start_leaves_its_job_pending(make: MakeTrainer, theta: Tensor) -> None:
    trainer = make()
    broken = True

    def start() -> Tensor:
        if broken:
            raise ZeroDivisionError
        return theta

    update = ask(trainer, 1, 0, Update(start))
    with pytest.raises(ZeroDivisionError):
        update.value()
    broken = False
    assert torch.equal(update.value(), ask(make(), 1, 0, theta).value())


def test_starts_are_let_go_when_their_jobs_have_run(make: MakeTrainer, theta: Tensor) -> None:
    trainer = make()
    tensor = theta.clone()
    alive = [ask(trainer, 1, 0, tensor), ask_gradient(trainer, 2, 0, tensor)]
    promises = [0.5 * alive[0]]
    for round in range(1, 4):
        alive[0] = ask(trainer, 1, round, promises[-1])
        promises.append(0.5 * alive[0])
    alive.append(ask(trainer, 3, 0, promises[-1]))
    gone = [weakref.ref(start) for start in (tensor, *promises)]
    del tensor, promises
    assert all(ref() is not None for ref in gone)
    trainer.run_pending()
    gc.collect()
    assert all(ref() is None for ref in gone)
    assert set(trainer.state()["values"]) == {(1, 3, 3), (2, 0, 0), (3, 0, 0)}


def test_a_value_is_no_view_of_all_that_ran_beside_it(make: MakeTrainer, theta: Tensor) -> None:
    trainer = make()
    updates = [ask(trainer, uid, 0, theta) for uid in range(3)] + [
        ask_gradient(trainer, uid, 1, theta) for uid in (4, 5)
    ]
    for update in updates:
        assert update.value().untyped_storage().nbytes() == 4 * len(theta)


def test_a_replay_keeps_no_starts(make: MakeTrainer, theta: Tensor) -> None:
    trainer = make()
    trainer.replaying = True
    tensor = theta.clone()
    start = 2 * ask(trainer, 1, 0, tensor)
    end = ask(trainer, 1, 1, start)
    gone = [weakref.ref(tensor), weakref.ref(start)]
    del tensor, start
    gc.collect()
    assert all(ref() is None for ref in gone)
    trainer.restore({"moments": {}, "values": {(1, 1, 1): theta}})
    assert end.value() is theta


def test_no_steps_end_at_the_start_and_leave_the_moments_alone(make: MakeTrainer, theta: Tensor) -> None:
    trainer, untouched = make(), make()
    assert torch.equal(ask(trainer, 1, 0, theta, steps=0).value(), theta)
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
        ask_gradient(trainer, uid, 1, theta)
    trainer.run_pending()
    assert torch.equal(theta, before)


@pytest.mark.parametrize("kind", list(inner_optimizers))
def test_a_restored_trainer_goes_on_bit_by_bit(kind: str, make: MakeTrainer, theta: Tensor) -> None:
    def play(trainer: Trainer) -> list[Update]:
        """Two peers, two rounds each; the end of (1, 0) is dropped, three values are alive."""
        end = ask(trainer, 1, 0, theta)
        kept = [ask(trainer, 1, 1, end), 3.0 * ask(trainer, 2, 0, theta), ask_gradient(trainer, 2, 1, end)]
        return kept

    original = make(inner=inner_optimizers[kind]())
    alive = play(original)
    state = original.state()
    gc.collect()
    assert set(original.state()["values"]) == {(1, 1, 1), (2, 0, 0), (2, 1, 1)}

    resumed = make(inner=inner_optimizers[kind]())
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
    later = ask(trainer, 2, 0, update)
    with pytest.raises(AssertionError, match="not in the checkpoint"):
        later.value()
