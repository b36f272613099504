"""Training that begins with the verb gives what training on demand gives, to the last bit, moments included."""

import pytest
import torch

from covsim.emulation.early import EarlyTrainer
from covsim.learning.corpus import Batches
from covsim.nodes.trained import trained_learning
from covsim.randomness import Streams
from covsim.scenario import load


@pytest.fixture(scope="module")
def scenario():
    return load("scenarios/emulation/base.yaml")


def fresh(scenario):
    """A trainer, and the theta of the start."""
    learning = trained_learning(scenario, Streams(scenario.seed), replaying=False)
    return learning.trainer, learning.lineages.root.theta


def batches(uid, round):
    return Batches("assigned", uid, round)


def on_demand(scenario, plays):
    """What a plain trainer makes of (round, steps), each from the theta of the start, in order."""
    trainer, theta = fresh(scenario)
    return [trainer.train(3, round, theta, batches(3, round), steps).value() for round, steps in plays]


def test_what_was_begun_early_is_what_would_have_been_trained(scenario):
    """Would catch a thread that trains something else, and moments that are not carried over to the next round."""
    inner, theta = fresh(scenario)
    efforts = []
    trainer = EarlyTrainer(inner, efforts.append)
    found = []
    for round in range(3):
        trainer.begin(3, round, theta, batches(3, round), 4)
        found.append(trainer.train(3, round, theta, batches(3, round), 4))
        trainer.run_pending()
    expected = on_demand(scenario, [(0, 4), (1, 4), (2, 4)])
    assert all(torch.equal(update.value(), wanted) for update, wanted in zip(found, expected, strict=True))
    assert [effort.round for effort in efforts] == [0, 1, 2]
    assert all(effort.work_s > 0 for effort in efforts)


def test_what_was_begun_in_vain_leaves_no_trace(scenario):
    """Would catch moments that have seen steps which nobody asked for: a machine that was cut did fewer."""
    inner, theta = fresh(scenario)
    trainer = EarlyTrainer(inner, lambda effort: None)
    trainer.begin(3, 0, theta, batches(3, 0), 6)
    first = trainer.train(3, 0, theta, batches(3, 0), 4)
    trainer.begin(3, 1, theta, batches(3, 1), 4)
    second = trainer.train(3, 1, theta, batches(3, 1), 4)
    expected = on_demand(scenario, [(0, 4), (1, 4)])
    assert torch.equal(first.value(), expected[0])
    assert torch.equal(second.value(), expected[1])


def test_moments_are_lost_with_the_peer(scenario):
    """Would catch a restarted peer that goes on with its former moments."""
    inner, theta = fresh(scenario)
    trainer = EarlyTrainer(inner, lambda effort: None)
    trainer.begin(3, 0, theta, batches(3, 0), 4)
    trainer.train(3, 0, theta, batches(3, 0), 4).value()
    trainer.forget(3)
    after = trainer.train(3, 1, theta, batches(3, 1), 4).value()
    assert torch.equal(after, on_demand(scenario, [(1, 4)])[0])
    assert not torch.equal(after, on_demand(scenario, [(0, 4), (1, 4)])[1])
