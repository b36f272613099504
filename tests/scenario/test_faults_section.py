"""The `faults:` section: what is refused and how, whom faults strike, and when."""

from __future__ import annotations

from pathlib import Path

import pytest

from covsim.scenario import Scenario, ScenarioError, load, loads, warnings
from covsim.scenario.faults import labels
from covsim.scenario.resolve import resolved_text
from covsim.scenario.strikes import Strike, Strikes, targets_by_label
from covsim.world.faults import faults as kinds

BASE = Path(__file__).parent / "base.yaml"


def with_faults(*faults: str, **more: str) -> Scenario:
    return load(BASE, [f"faults=[{', '.join(faults)}]", *(f"{key}={value}" for key, value in more.items())])


def strikes(scenario: Scenario, windows: int = 12) -> list[Strike]:
    """All strikes until a window, on a clock whose windows are 1000 s long."""
    found = Strikes(scenario, lambda window: 1000.0 * window)
    return [*found.foreseen(), *(strike for window in range(windows) for strike in found.in_window(window))]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("{kind: crush, at: 1 s, lasts: 1 s}", "no fault is called 'crush' (did you mean 'crash'?)"),
        ("{kind: crash}", "needs one time: at and lasts, from_round and to_round, or a rate"),
        ("{kind: crash, at: 1 s}", "at needs lasts"),
        ("{kind: crash, at: 1 s, lasts: 1 s, rate: 1 %}", "needs one time"),
        ("{kind: crash, at: 1 s, lasts: 1 s, from_round: 1, to_round: 2}", "needs one time"),
        ("{kind: crash, from_round: 1}", "from_round and to_round belong together"),
        ("{kind: crash, from_round: 4, to_round: 4}", "to_round 4 must come after from_round 4"),
        ("{kind: crash, rate: 1 %, to_round: 0}", "to_round 0 must come after from_round 0"),
        ("{kind: crash, from_round: 1, to_round: 2, lasts: 1 s}", "rounds say themselves how long the fault is there"),
        ("{kind: crash, rate: 1 %, uids: [1], share: 10 %}", "give uids or share, not both"),
        ("{kind: crash, rate: 1 %, cohort: honets}", "no cohort is called 'honets' (did you mean 'honest'?)"),
        ("{kind: crash, rate: 1 %, region: north}", "no region is called 'north'"),
        ("{kind: crash, rate: 1 %, uids: [99]}", "uid 99 does not exist"),
        ("{kind: crash, rate: 0}", "must be greater than 0"),
        ("{kind: late_block, at: 1 s}", "late_block needs lasts: how late the block is"),
        ("{kind: store_outage, rate: 1 %, share: 10 %}", "store_outage strikes store and takes no share"),
        ("{kind: chain_stall, rate: 1 %, uids: [1]}", "chain_stall strikes chain and takes no uids"),
        ("{kind: validator_offline, rate: 1 %, validators: [laed]}", "no validator is called 'laed'"),
        ("{kind: region_failure, rate: 1 %}", "region_failure needs a region"),
        ("{kind: clock_skew, rate: 1 %}", "give ahead or behind"),
        ("{kind: link_slow, rate: 1 %, factor: 1.5}", "must be less than 1"),
        ("{kind: crash, rate: 1 %, name: Bad Name}", "must be a name"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(fault: str, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        with_faults(fault)
    (problem,) = caught.value.problems
    assert message in str(problem)
    assert "faults" in str(problem)


def test_labels_tell_faults_of_a_kind_apart() -> None:
    scenario = with_faults(
        "{kind: crash, rate: 1 %}", "{kind: crash, rate: 2 %}", "{kind: crash, rate: 3 %, name: third}"
    )
    assert labels(scenario.faults) == ["crash", "crash-2", "third"]
    with pytest.raises(ScenarioError, match="two faults are called 'crash-2'"):
        with_faults("{kind: crash, rate: 1 %, name: crash-2}", "{kind: crash, rate: 2 %}", "{kind: crash, rate: 3 %}")


def test_every_kind_survives_the_resolved_text() -> None:
    """Written out and read again, each is the same value; a field whose unit is lost would be refused or differ."""
    needed = {
        "link_slow": ", factor: 0.5",
        "flapping": ", period: 90 s",
        "store_rate_limit": ", requests_per_s: 5",
        "slow_reads": ", limit: 5 Mb/s",
        "clock_skew": ", behind: 5 s",
        "region_failure": ", region: north",
        "late_block": ", lasts: 5 s",
    }
    scenario = with_faults(
        *(f"{{kind: {kind}, from_round: 1, to_round: 3{needed.get(kind, '')}}}" for kind in kinds),
        **{"cohorts.honest.region": "north"},
    )
    assert len(scenario.faults) == len(kinds) >= 18
    assert loads(resolved_text(scenario)).faults == scenario.faults


# Whom.


def test_targets_are_those_that_are_meant() -> None:
    scenario = with_faults(
        "{kind: crash, rate: 1 %, name: all}",
        "{kind: crash, rate: 1 %, name: two, uids: [1, 3]}",
        "{kind: crash, rate: 1 %, name: lazy, cohort: lazy}",
        "{kind: crash, rate: 1 %, name: north, region: north}",
        "{kind: crash, rate: 1 %, name: some, share: 50 %}",
        "{kind: validator_offline, rate: 1 %, name: lead}",
        "{kind: store_outage, rate: 1 %, name: store}",
        **{"cohorts.lazy.region": "north"},
    )
    targets = targets_by_label(scenario)
    assert len(targets["all"]) == scenario.peers
    assert targets["two"] == ("peer:1", "peer:3")
    assert targets["lazy"] == targets["north"] != ()
    assert len(targets["some"]) == round(scenario.peers / 2)
    assert targets["lead"] == (f"validator:{scenario.validators_by_stake[0]}",)
    assert targets["store"] == ()


def test_a_share_is_drawn_by_label_and_seed_and_moves_for_nobody_else() -> None:
    one, other = "{kind: crash, rate: 1 %, share: 30 %}", "{kind: link_cut, rate: 1 %, share: 30 %}"
    alone = targets_by_label(with_faults(one))["crash"]
    assert targets_by_label(with_faults(other, one))["crash"] == alone
    assert targets_by_label(with_faults(one, seed="99"))["crash"] != alone
    absent = alone[0].removeprefix("peer:")
    without = targets_by_label(with_faults(one, counterfactual=f"{{absent: [{absent}]}}"))["crash"]
    assert without == alone[1:], "nobody is struck instead of who is not there"


# When.


def test_rounds_mean_the_window_of_the_exchange_or_of_the_training() -> None:
    exchange, training = strikes(
        with_faults("{kind: partition, from_round: 5, to_round: 8}", "{kind: nan_batch, from_round: 5, to_round: 8}")
    )
    assert (exchange.begins_s, exchange.ends_s) == (6000, 9000)
    assert (training.begins_s, training.ends_s) == (5000, 8000)


def test_a_time_means_that_time() -> None:
    (strike,) = strikes(with_faults("{kind: partition, at: 90 s, lasts: 2 min, uids: [2]}"))
    assert (strike.nodes, strike.begins_s, strike.ends_s) == (("peer:2",), 90, 210)


def test_a_rate_strikes_each_node_in_each_round_with_its_chance() -> None:
    scenario = with_faults("{kind: link_cut, rate: 20 %, from_round: 1}", peers="24")
    found = strikes(scenario, windows=202)
    hits = [node for strike in found for node in strike.nodes]
    assert len(hits) / (200 * 24) == pytest.approx(0.2, abs=0.02)
    assert len({strike.begins_s for strike in found}) == len(found), "all of a round are one strike"
    assert min(strike.begins_s for strike in found) == 2000
    assert all(strike.ends_s == strike.begins_s + 1000 for strike in found)


def test_a_rate_with_a_length_strikes_at_seconds_of_their_own() -> None:
    found = strikes(with_faults("{kind: crash, rate: 50 %, lasts: 90 s}"), windows=40)
    assert all(len(strike.nodes) == 1 for strike in found)
    assert all(strike.ends_s - strike.begins_s == pytest.approx(90) for strike in found)
    into_window = sorted(strike.begins_s % 1000 for strike in found)
    assert len(set(into_window)) == len(found)
    assert into_window[len(found) // 2] == pytest.approx(500, abs=150), "anywhere in the window"


def test_the_luck_of_one_does_not_depend_on_who_else_may_be_struck() -> None:
    everybody = strikes(with_faults("{kind: link_cut, rate: 30 %}"), windows=30)
    alone = strikes(with_faults("{kind: link_cut, rate: 30 %, uids: [2]}"), windows=30)
    assert [s.begins_s for s in everybody if "peer:2" in s.nodes] == [s.begins_s for s in alone]


def test_a_fault_of_the_store_is_drawn_once_a_round() -> None:
    found = strikes(with_faults("{kind: store_outage, rate: 50 %, lasts: 1 min}"), windows=101)
    assert 35 < len(found) < 65
    assert all(strike.nodes == () for strike in found)


# Warnings.


@pytest.mark.parametrize(
    ("fault", "warning"),
    [
        ("{kind: crash, rate: 1 %, share: 1 %}", "fault crash strikes nobody: its share of 0.01 rounds to none"),
        ("{kind: crash, from_round: 90, to_round: 91}", "fault crash begins with round 90, and the run ends after"),
        ("{kind: crash, at: 90 d, lasts: 1 s}", "fault crash begins at 7780000 s, and the run ends at about"),
        ("{kind: store_rate_limit, rate: 1 %, requests_per_s: 0.001}", "peers upload in it"),
        ("{kind: link_slow, rate: 1 %, factor: 0.001}", "cannot land during fault link_slow"),
    ],
)
def test_what_cannot_work_is_warned_of(fault: str, warning: str) -> None:
    assert any(warning in line for line in warnings(with_faults(fault, deployment="covenant-72b")))
    assert not any("fault" in line for line in warnings(load(BASE, ["deployment=covenant-72b"])))
