"""Comparison and calibration on runs whose differences are known, because they are made up."""

import copy

import pytest

from covsim.emulation.calibration import calibrated, fitted
from covsim.emulation.compare import CannotCompare, Pair, Side, phases, rounds, transfers
from covsim.emulation.comparison import compare
from covsim.emulation.differences import first_difference
from covsim.record.runner import run
from covsim.scenario import load, loads, resolved_text

OVERHEAD_S, SHARE_UP, SHARE_DOWN = 0.08, 0.9, 0.95


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A simulated run with long transfers."""
    scenario = load("scenarios/emulation/base.yaml", ["stop.rounds=3", "peers=5"])
    return run(scenario, resolved_text(scenario), tmp_path_factory.mktemp("runs")).folder


@pytest.fixture
def pair(simulated):
    """The run twice; the second passes for an emulation, and can be changed."""
    sim = Side.of(simulated)
    summary = {**sim.summary, "emulated": True, "emulation.links": "made up", "emulation.most_lag_s": 0.0}
    return Pair(sim, Side(sim.folder, sim.scenario, summary, copy.deepcopy(sim.events)))


def slowed(pair):
    """Let every transfer of the second run take what real requests would, by known figures."""
    latency_s = pair.sim.scenario.network.latency
    for row in pair.emu.events["Transferred"]:
        moving_s = row["time_s"] - row["started_s"] - latency_s
        share = SHARE_UP if row["direction"] == "up" else SHARE_DOWN
        row["time_s"] = row["started_s"] + latency_s + OVERHEAD_S + moving_s / share
    return pair


def test_a_run_compared_with_itself_differs_in_nothing(pair, tmp_path):
    """Would catch a comparison that finds errors where there are none."""
    found, _ = compare(pair, tmp_path)
    assert found["transfers.worst_error"] == 0
    assert found["rounds.worst_exchange_error"] == 0
    assert found["first_difference"] == ""
    assert found["theta.equal"]
    assert (phases(pair)["difference_s"] == 0).all()


def test_errors_are_measured_over_predicted(pair):
    """Would catch an error with the wrong sign or the wrong reference."""
    row = pair.emu.events["Transferred"][0]
    predicted_s = row["time_s"] - row["started_s"]
    row["time_s"] += 0.25 * predicted_s
    frame = transfers(pair)
    assert frame["error"].max() == pytest.approx(0.25)
    assert (frame["error"].abs() > 1e-9).sum() == 1


def test_the_first_difference_is_the_cause_and_not_its_effects(pair):
    """Would catch a report that names a history which differs, where a late payload made it so."""
    late = next(row for row in pair.emu.events["Submitted"] if row["round"] == 1)
    late["on_time"] = False
    for kind, name in (("OuterStepTaken", "lineage"), ("ListPublished", "selected")):
        for row in pair.emu.events[kind]:
            if row["round"] >= 1:
                row[name] = "0" * 64 if name == "lineage" else []
    said = first_difference(pair)
    assert said.startswith(f"round 1: uid {late['uid']} on time: True predicted, False measured")


def test_a_round_names_who_was_late_and_whose_verdicts_changed_places(pair):
    """Would catch a table in which differences of a round do not show."""
    late = next(row for row in pair.emu.events["Submitted"] if row["round"] == 2)
    late["on_time"] = False
    table = rounds(pair).set_index("round")
    assert list(table["same_on_time"]) == [True, True, False]
    assert str(late["uid"]) in table.loc[2, "measured_late"].split()


def test_the_fit_finds_the_figures_by_which_transfers_were_slowed(pair):
    """Would catch a calibration that mixes up directions, or counts the latency twice."""
    found = fitted(slowed(pair))
    assert found.overhead_s == pytest.approx(OVERHEAD_S, abs=0.01)
    assert found.share_up == pytest.approx(SHARE_UP, abs=0.01)
    assert found.share_down == pytest.approx(SHARE_DOWN, abs=0.01)
    assert found.left_s < 1e-6


def test_a_calibrated_scenario_loads_and_says_the_fitted_figures(pair):
    """Would catch a file that the loader refuses, and rates that are not the effective ones."""
    scenario = loads(calibrated(pair.sim.scenario, fitted(slowed(pair))))
    assert scenario.network.request_overhead == pytest.approx(OVERHEAD_S, abs=0.01)
    before, after = pair.sim.scenario.cohorts["honest"], scenario.cohorts["honest"]
    assert after.uplink.value == pytest.approx(before.uplink.value * SHARE_UP, rel=0.01)
    assert after.downlink.value == pytest.approx(before.downlink.value * SHARE_DOWN, rel=0.01)


def test_too_few_transfers_are_not_fitted(pair):
    """Would catch a fit to nothing."""
    pair.emu.events["Transferred"] = pair.emu.events["Transferred"][:5]
    with pytest.raises(CannotCompare, match="nothing to fit"):
        fitted(pair)


def test_different_scenarios_are_not_compared(simulated, tmp_path):
    """Would catch a comparison of two runs that were never meant to be the same."""
    other = load("scenarios/emulation/base.yaml", ["stop.rounds=1", "peers=4"])
    folder = run(other, resolved_text(other), tmp_path).folder
    text = (folder / "summary.json").read_text(encoding="utf-8")
    (folder / "summary.json").write_text(text.replace("{", '{"emulated": true,', 1), encoding="utf-8")
    with pytest.raises(CannotCompare, match="different scenarios"):
        Pair.of(simulated, folder)
