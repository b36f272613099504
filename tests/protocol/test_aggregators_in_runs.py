"""Aggregates inside an exchange and in whole small runs: streams, weights of the gather list, trials, the summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

from covsim.digest import Digest
from covsim.events import Event, ListPublished
from covsim.protocol import SparseLoCo
from covsim.protocol.aggregators import Aggregator, aggregators
from covsim.protocol.base import Claims, Decoded, Layout
from covsim.protocol.exchange import Exchange
from covsim.protocol.lineage import Lineages, root_lineage
from covsim.protocol.outer import Sgd
from covsim.randomness import Streams
from covsim.record.aggregation import aggregation
from covsim.record.recorder import Recorder
from covsim.scenario import Scenario, loads, resolved_text

Play = Callable[..., tuple[list[Event], Digest]]

TENSORS = [("a", (64, 64)), ("b", (40,))]
N = 64 * 64 + 40


def make(**settings: Any) -> Aggregator:
    return aggregators[settings["kind"]].model_validate(settings)


def exchange_of(aggregate: Aggregator, seed: int = 3) -> Exchange:
    return Exchange(SparseLoCo(outer=Sgd(lr=1.0)).plan(), TENSORS, aggregate, 100, 10**6, Streams(seed))


def sent(exchange: Exchange, num: int, round: int = 0) -> list[Decoded]:
    rows = torch.randn(num, N, generator=torch.Generator().manual_seed(1)) * torch.arange(1.0, num + 1)[:, None]
    return [exchange.decode(round, each) for each in exchange.encode(round, range(num), rows, [Claims()] * num)]


def test_buckets_are_dealt_by_the_round_and_the_seed() -> None:
    """All who have the same payloads deal alike; a round later they are dealt anew."""
    aggregate = make(kind="krum", f=0, before=[{"kind": "bucketing", "size": 3}])
    payloads, root = sent(exchange_of(aggregate), 9), root_lineage(torch.zeros(N))

    def step(round: int, seed: int = 3) -> list[float]:
        theta: list[float] = exchange_of(aggregate, seed).outer_step(root, payloads, round)[0].tolist()
        return theta

    assert step(0) == step(0)
    assert step(0) != step(1)
    assert step(0) != step(0, seed=4)


@pytest.mark.parametrize(
    "aggregate",
    [
        make(kind="mean", over="all", clip="none", before=[{"kind": "norm_clip", "norm": 20.0}]),
        make(kind="mean", over="all", clip="none", before=[{"kind": "arc", "f": 2}, "median_norm"]),
        make(kind="mean", over="all", before=["arc"]),
        make(kind="centered_clipping", iterations=1, tau=30.0),
        make(kind="centered_clipping", iterations=1),
    ],
    ids=str,
)
def test_the_mean_of_all_trials_is_the_outer_step(aggregate: Aggregator) -> None:
    """So a validator clips what it tries as the aggregate does, whatever clips it."""
    exchange, lineage = exchange_of(aggregate), root_lineage(torch.zeros(N))
    payloads = sent(exchange, 6)
    stepped, _ = exchange.outer_step(lineage, payloads, 0)
    limits = exchange.clip_norms(lineage, payloads)
    trials = torch.stack([exchange.trial_theta(lineage, each, 0, 1.0, limits) for each in payloads])
    torch.testing.assert_close(trials.mean(dim=0), stepped, rtol=1e-5, atol=1e-6)
    free = torch.stack([exchange.trial_theta(lineage, each, 0, 1.0, None) for each in payloads])
    assert not torch.allclose(free, trials)


def test_equal_payloads_of_unequal_weight_make_two_histories() -> None:
    lineages = Lineages(root_lineage(torch.zeros(2)), lambda parent, *_: (parent.theta, ()))

    def child(*weights: float) -> str:
        return lineages.child(
            lineages.root, [(uid, "ab", weighing(weight)) for uid, weight in enumerate(weights)], 0
        ).key

    assert child(0.3, 0.2) == child(0.3, 0.2)
    assert len({child(0.3, 0.2), child(0.2, 0.3), child(0, 0.3), child(0.3, 0), child(0, 0)}) == 5


def weighing(weight: float) -> Decoded:
    layout = Layout(((2,),))
    return Decoded(
        torch.arange(layout.num_parameters),
        torch.ones(2),
        (0, 2),
        torch.zeros(2, dtype=torch.int64),
        torch.ones(1, dtype=torch.float64),
        torch.ones(2),
        weight=weight,
    )


# Whole runs -----------------------------------------------------------------------------------------------------------


def with_aggregate(tiny: Scenario, rounds: int, **settings: Any) -> Scenario:
    """The tiny scenario under another aggregate; by way of YAML, which it must survive."""
    changed = tiny.model_copy(
        update={"aggregate": make(**settings), "stop": tiny.stop.model_copy(update={"rounds": rounds})}
    )
    again = loads(resolved_text(changed))
    assert again == changed
    return again


def recorder_of(scenario: Scenario) -> Recorder:
    return Recorder("summary", {name: validator.stake for name, validator in scenario.validators.items()})


class Weighing:
    """Notes the weights that payloads carry when they are combined."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
        self.seen: list[tuple[float, ...]] = []
        part, combine = aggregators[kind], aggregators[kind].combine

        def noting(aggregate: Aggregator, payloads: list[Decoded], layout: Layout) -> torch.Tensor:
            self.seen.append(tuple(payload.weight for payload in payloads))
            return combine(aggregate, payloads, layout)

        monkeypatch.setattr(part, "combine", noting)


def test_weights_are_those_of_the_list_in_force(tiny: Scenario, play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """None before the first verdicts; later, whoever is on the list by weight has some, of at most 1 in all."""
    noted = Weighing(monkeypatch, "gauntlet_weighted")
    events, digest = play(with_aggregate(tiny, 6, kind="gauntlet_weighted"))
    assert {weights for weights in noted.seen if not any(weights)}, "the first list weighs nobody"
    weighed = [weights for weights in noted.seen if any(weights)]
    assert weighed
    assert all(0 <= weight <= 1 for weights in weighed for weight in weights)
    assert all(sum(weights) <= 1 + 1e-9 for weights in weighed)
    assert len(set(weighed[-1])) > 1, "some weigh more than others"
    assert any(isinstance(event, ListPublished) for event in events)
    assert play(with_aggregate(tiny, 6, kind="gauntlet_weighted"))[1].learning == digest.learning
    assert play(with_aggregate(tiny, 6, kind="mean"))[1].learning != digest.learning


def test_weights_reach_only_those_who_read_them(tiny: Scenario, play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = Weighing(monkeypatch, "mean")
    play(with_aggregate(tiny, 5, kind="mean"))
    assert noted.seen
    assert not any(any(weights) for weights in noted.seen)


CHAINS: list[dict[str, Any]] = [
    {"kind": "krum", "f": 1, "before": ["nnm"]},
    {"kind": "trimmed_mean", "before": [{"kind": "bucketing", "size": 2}]},
    {"kind": "geometric_median", "before": ["arc", "median_norm"]},
    {"kind": "caf"},
    {"kind": "monna"},
]


@pytest.mark.parametrize("settings", CHAINS, ids=lambda each: each["kind"])
def test_whole_runs_under_other_aggregates(tiny: Scenario, play: Play, settings: dict[str, Any]) -> None:
    """They end, learn, and give the same digest again."""
    scenario = with_aggregate(tiny, 4, **settings)
    recorder = recorder_of(scenario)
    events, digest = play(scenario, (recorder.observe,))
    losses = [point.measured.loss for point in recorder.losses if point.measured.node == "validator:lead"]
    assert losses[-1] < losses[0]
    assert play(scenario)[1].learning == digest.learning
    assert Counter(type(event) for event in events)[ListPublished] > 1


def test_the_summary_counts_rounds_with_too_few(tiny: Scenario, play: Play) -> None:
    """Of four places never enough for f = 2 of Krum, which wants seven; always enough for f = 0."""
    counts = []
    for f in (2, 0):
        scenario = with_aggregate(tiny, 4, kind="krum", f=f)
        recorder = recorder_of(scenario)
        play(scenario, (recorder.observe,))
        counts.append(aggregation(recorder, scenario)["aggregate.short_rounds"])
    assert counts[0] >= 3
    assert counts[1] == 0
