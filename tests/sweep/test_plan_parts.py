"""The parts of a plan by themselves: sharing, targets, what binds, the bill, figures, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import covsim
from covsim.scenario import Scenario, load
from covsim.sweep.plan import CannotPlan, plan, read_prices
from covsim.sweep.plan.direct import direct_exchange
from covsim.sweep.plan.figures import draw
from covsim.sweep.plan.grids import policies, slowed
from covsim.sweep.plan.measures import Measures
from covsim.sweep.plan.setting import Setting
from covsim.sweep.plan.sharing import Shared, fair_rates
from covsim.sweep.plan.targets import MEASURES, Answer
from covsim.world.fairness import Demand, Resource, max_min_rates
from covsim.world.finish_times import Flow, finish_times

RATES = st.floats(min_value=1.0, max_value=1e3)


def barrier(**changes: Any) -> Scenario:
    """A small one of the shipped kind."""
    overrides = {"peers": 12, "selection.gather": 4, **{name.replace("__", "."): x for name, x in changes.items()}}
    return load("plans/barrier", overrides)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_rates_are_those_of_the_network(data: st.DataObject) -> None:
    """Any flows over a few shared links get what the engine's progressive filling gives them."""
    own = data.draw(st.lists(RATES, min_size=1, max_size=12))
    links = data.draw(st.lists(st.tuples(RATES, st.lists(st.booleans(), min_size=12, max_size=12)), max_size=3))
    shared = [Shared(f"{n}", bits, np.array(users[: len(own)])) for n, (bits, users) in enumerate(links)]
    resources = [Resource(link.name, link.bits_per_s) for link in shared]
    flows = [
        Demand((Resource("own", rate), *(x for x, link in zip(resources, shared, strict=True) if link.users[place])))
        for place, rate in enumerate(own)
    ]
    assert fair_rates(np.array(own), shared) == pytest.approx(list(max_min_rates(flows)), rel=1e-9)


def test_rates_without_limits_are_the_links_own() -> None:
    """A store without a limit slows nobody down."""
    everybody = np.ones(3, dtype=bool)
    own = np.array([1.0, 2.0, 3.0])
    assert fair_rates(own, [Shared("store", math.inf, everybody)]).tolist() == own.tolist()


@pytest.mark.parametrize("topology", ["ring", "all_to_all", "gossip"])
def test_an_exchange_takes_what_its_flows_take(topology: str) -> None:
    """Unequal links: the fullest link alone gives the seconds that the network gives for all flows together."""
    scenario = load("plans/all-to-all", {"topology": topology, "peers": 6, "network.latency": "0 s"})
    setting = Setting.of(scenario)
    found = direct_exchange(scenario, setting.peers, setting.uplink[0], setting.downlink[0])
    ends = [run_exchange(setting, number) for number in range(1, 3)]
    assert ends[1] == pytest.approx(2 * ends[0])
    assert found.seconds(1e6).max() == pytest.approx(ends[0], rel=1e-9)


def run_exchange(setting: Setting, megabytes: int) -> float:
    """Seconds of all groups' phases on the engine's network, one phase after the other."""
    from covsim.randomness import Streams
    from covsim.world.topology import Member

    scenario, streams = setting.scenario, Streams(setting.scenario.seed)
    members = [
        Member(f"peer:{p.uid}", Resource("up", up), Resource("down", down), megabytes * 1e6)
        for p, up, down in zip(setting.peers, setting.uplink[0], setting.downlink[0], strict=True)
    ]
    slowest = 0.0
    for group in scenario.topology.groups(members, lambda name: streams.uniform("plan", name)):
        phases = scenario.topology.phases(group, lambda one, other: 0.0, scenario.adds_on_the_way)
        slowest = max(slowest, sum(max(finish_times([Flow(f.path, f.num_bytes) for f in x])) for x in phases))
    return slowest


# Targets ------------------------------------------------------------------------------------------------------------


def answered(scenario: Scenario, target: str) -> dict[str, Answer]:
    """Answers by knob."""
    reached = plan(scenario, target).target
    assert reached is not None
    return {answer.knob: answer for answer in reached.answers}


@pytest.mark.parametrize(
    ("knob", "path"), [("H", "protocol.inner_steps"), ("k", "protocol.k"), ("gather", "selection.gather")]
)
def test_what_reaches_a_target_does_and_less_does_not(knob: str, path: str) -> None:
    """The scenario with the number that is named meets the target; one step nearer to the present it does not."""
    target, step = 0.84, 2 if knob == "k" else 1
    answer = answered(barrier(), f"utilization={target}")[knob]
    assert answer.value is not None
    nearer = answer.value + (step if knob != "H" else -step)
    assert plan(barrier()).utilization < target
    assert plan(barrier(**{path: int(answer.value)})).utilization >= target
    assert plan(barrier(**{path: int(nearer)})).utilization < target


def test_bandwidth_is_found_to_within_half_a_percent() -> None:
    """So many times as fast links meet the target, a little less fast ones do not."""
    setting = Setting.of(barrier())
    factor = answered(barrier(), "utilization=0.95")["bandwidth"].value
    assert factor is not None
    assert factor > 1
    assert Measures.of(setting.with_bandwidth(factor)).utilization >= 0.95
    assert Measures.of(setting.with_bandwidth(factor * 0.995)).utilization < 0.95


def test_a_target_that_is_met_needs_no_change() -> None:
    """Every knob stays where it is."""
    found = answered(barrier(), "on_time=0.5")
    assert {name: answer.value for name, answer in found.items()} == {"bandwidth": 1, "H": 30, "k": 64, "gather": 4}


def test_missing_deadlines_is_no_way_to_a_target() -> None:
    """Links at which nobody lands in the put window leave nothing to download, and waste no time on it."""
    scenario = load("covenant72b")
    slow = Measures.of(Setting.of(scenario).with_bandwidth(0.5))
    assert slow.deadlines.put_window < 0.1
    assert slow.utilization > Measures.of(Setting.of(scenario)).utilization
    answer = answered(scenario, "utilization=0.7")["bandwidth"]
    assert answer.value is not None
    assert answer.value > 1


def test_what_cannot_be_reached_says_how_near_it_comes() -> None:
    """A window of the calendar is not made shorter by links, and 100 % of compute by no gather at all."""
    found = answered(load("quickstart"), "round=20 min")
    assert found["bandwidth"].text == "cannot be reached by bandwidth: at least 2040 s, at 1 x"
    assert found["blocks_per_window"].value == 100
    assert answered(barrier(), "utilization=1")["gather"].value is None
    assert "has no k" in answered(load("protocols/diloco"), "utilization=0.9")["k"].text


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("utilisation=0.9", "did you mean 'utilization'"),
        ("utilization", "needs a value"),
        ("utilization=2", "not a share"),
        ("utilization=lots", "not a share|is not"),
        ("round=20", "needs a unit"),
        ("round=0 s", "more than 0 s"),
    ],
)
def test_a_target_that_makes_no_sense_is_refused(target: str, message: str) -> None:
    """One line that says why."""
    with pytest.raises(CannotPlan, match=message) as refused:
        plan(barrier(), target)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", list(MEASURES))
def test_every_measure_can_be_a_target(name: str) -> None:
    """Each has an answer for every knob."""
    target = f"{name}=30 min" if name == "round" else f"{name}=0.9"
    assert set(answered(barrier(), target)) == {"bandwidth", "H", "k", "gather"}


# What binds ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "binds"),
    [
        ({"cohorts__honest__downlink": "20 Mb/s"}, "downlinks"),
        ({"cohorts__honest__uplink": "8 Mb/s", "timeline__put_window": "40 min"}, "uplinks"),
        ({"store": {"egress": "200 Mb/s"}, "gauntlet__evaluated_per_window": 1}, "store egress"),
        ({"store": {"ingress": "100 Mb/s"}, "timeline__put_window": "40 min"}, "store ingress"),
        ({"cohorts__honest__speed": 0.05}, "machines"),
    ],
)
def test_the_bottleneck_is_what_was_made_scarce(changes: dict[str, Any], binds: str) -> None:
    """Starved of one thing, doubling that brings the most."""
    patient = {"timeline__gather_timeout": "5 h"} | changes
    assert plan(barrier(**patient)).bottleneck.binds == binds


def test_a_deadline_that_nobody_meets_is_named() -> None:
    """The literal links: twice the put window, or twice the uplinks, would bring steps from none."""
    found = plan(load("covenant72b-literal"))
    assert found.bottleneck.reliefs["put window"] == math.inf
    assert found.as_data()["bottleneck"]["reliefs"]["put window"] is None  # no infinity in JSON


def test_validators_that_cannot_keep_up_are_named() -> None:
    """Sixty evaluations of two minutes do not fit into a window of 34 minutes."""
    found = plan(load("covenant72b", {"deployment": {"preset": "covenant-72b", "evaluation": "120 s"}}))
    assert found.validator_load > 2
    assert found.bottleneck.binds == "validators"


def test_one_slow_machine_holds_up_a_barrier_for_all_and_no_other() -> None:
    """Round times under the four policies of the figure when a tenth takes four times as long."""
    setting = Setting.of(barrier())
    rounds = {name: Measures.of(slowed(ruled, 0.1, 4.0)).round_s for name, ruled in policies(setting).items()}
    everybody, first, deadline, windows = rounds.values()
    assert everybody > 2 * max(first, deadline, windows)


# The bill -----------------------------------------------------------------------------------------------------------


def test_money_is_price_times_quantity() -> None:
    """And there is none without prices."""
    assert plan(barrier()).bill.money is None
    bill = plan(barrier(), prices={"gpu_hour": 2, "tb_down": 50, "million_puts": 5}).bill
    assert bill.gpu_hours == pytest.approx(8 * bill.machine_hours)
    parts = {"gpu_hour": 2 * bill.machine_hours * 8, "tb_down": 50 * bill.tb_down, "million_puts": 5e-6 * bill.puts}
    assert bill.money == pytest.approx(parts | {"total": sum(parts.values())})


def test_ranges_are_requests() -> None:
    """A payload of 1.99 GB in ranges of 64 MB takes 32 requests."""
    whole, ranged = (plan(barrier(**changes)).bill for changes in ({}, {"store": {"ranges": {"size": "64 MB"}}}))
    assert ranged.gets == pytest.approx(32 * whole.gets)


def test_prices_come_from_pairs_and_files(tmp_path: Path) -> None:
    """Later ones replace earlier ones."""
    file = tmp_path / "prices.yaml"
    file.write_text("prices: {gpu_hour: 2, tb_down: 50}\n")
    assert read_prices([str(file), "gpu_hour=3"]) == {"gpu_hour": 3.0, "tb_down": 50.0}


@pytest.mark.parametrize("given", ["gpu_hour=much", "gpu_hour=-1", "gpu_hour=nan", "gpu_hours=1", "nowhere.yaml"])
def test_prices_that_are_none_are_refused(given: str) -> None:
    """One line that says why."""
    with pytest.raises(CannotPlan) as refused:
        read_prices([given])
    assert "\n" not in str(refused.value)


def test_a_gpu_hour_has_no_price_where_nobody_knows_how_many() -> None:
    """The deployment of the model itself names no GPUs."""
    with pytest.raises(CannotPlan, match="how many GPUs"):
        plan(load("protocols/diloco"), prices={"gpu_hour": 2})


# The rest -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["papers/a4/72b", "protocols/async_diloco", "protocols/centralized"])
def test_what_has_no_common_round_is_refused(name: str) -> None:
    """Layered, asynchronous and single-machine scenarios."""
    with pytest.raises(CannotPlan) as refused:
        plan(load(name))
    assert "\n" not in str(refused.value)


def test_the_plan_is_data_and_public() -> None:
    """`covsim.plan` gives what `--json` prints."""
    data = json.loads(json.dumps(covsim.plan(load("quickstart"), target="on_time=0.99").as_data(), allow_nan=False))
    assert data["payload_bytes"] == pytest.approx(1.9895e9, rel=1e-4)
    assert data["notes"] == sorted(data["notes"])
    assert {answer["knob"] for answer in data["target"]["answers"]} >= {"bandwidth", "H", "k", "gather"}


def test_the_order_of_cohorts_changes_nothing() -> None:
    """Peers are dealt by name and seed."""
    found = load("quickstart")
    turned = found.model_copy(update={"cohorts": dict(reversed(found.cohorts.items()))})
    assert plan(turned).as_data() == plan(found).as_data()


@pytest.mark.slow
def test_figures_and_tables_are_drawn(tmp_path: Path) -> None:
    """Three pictures and their tables, of windows and of a direct exchange; utilization rises with links and with H."""
    for name in ("quickstart", "plans/all-to-all"):
        folder = tmp_path / name
        drawn = draw(load(name), folder)
        assert sorted(path.name for path in drawn) == [
            f"plan_{what}.{kind}" for what in ("bytes", "stragglers", "utilization") for kind in ("csv", "png")
        ]
        grid = pd.read_csv(folder / "plan_utilization.csv").pivot(
            index="inner_steps", columns="bandwidth", values="utilization"
        )
        assert (np.diff(grid.to_numpy(), axis=1) > -0.02).all()
        assert (np.diff(grid.to_numpy(), axis=0) > -0.02).all()
