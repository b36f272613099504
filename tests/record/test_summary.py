"""The summary against a run small enough to reckon by hand, and the keys that it promises."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
from synthetic import STAKES, play

from covsim.chain.economics import EconomicsSettings
from covsim.digest import Digest
from covsim.events import (
    EpochSettled,
    Evaluated,
    Event,
    Gathered,
    HeldOutMeasured,
    ListPublished,
    NodeJoined,
    OuterStepTaken,
    RoundSettled,
    RuleApplied,
    RunStopped,
    Scored,
    Submitted,
    Trained,
    Transferred,
    UpdatesCompared,
    WindowOpened,
)
from covsim.protocol.aggregators import Mean
from covsim.record.payout import payouts
from covsim.record.recorder import Recorder
from covsim.record.summary import LOSS_LEVELS, summary
from covsim.scenario.learning import Trained as TrainedRule

NAN = float("nan")


def summed(
    events: list[Event], stakes: dict[str, float], prices: EconomicsSettings | None = None, **diagnostics: float
) -> dict[str, Any]:
    recorder, digest = Recorder("transfers", stakes, prices), Digest()
    for event in events:
        recorder.observe(event)
        digest.add(event)
    return summary(
        recorder,
        SimpleNamespace(name="by-hand", aggregate=Mean(), learning=TrainedRule()),  # type: ignore[arg-type]
        digest=digest,
        payload_bytes=2e9,
        compression_ratio=146.0,
        compression_ratio_model=120.0,
        training_wall_s=3.0,
        total_wall_s=4.0,
        tokens_are_bytes=True,
        diagnostics=diagnostics,
    )


def evaluated(validator: str, uid: int, round: int, score: float, reasons: tuple[str, ...] = ()) -> Evaluated:
    before = NAN if math.isnan(score) else 1.0
    seen = (True, False, False, False, before, before, before, before, NAN, -1, NAN, 0.0)
    scores = (score, NAN, 0.0, 0.0, 25.0, 25.0, 8.0, 8.0, 1.0, 1.0)
    return Evaluated(90.0, validator, uid, round, "ok", 0.0, NAN, "", *seen, *scores, reasons)


BY_HAND: list[Event] = [
    NodeJoined(0.0, "validator:a", -1, "validators", "validator", 1e9, 1e9, 0.0),
    NodeJoined(0.0, "validator:b", -1, "validators", "validator", 1e9, 1e9, 0.0),
    NodeJoined(0.0, "peer:0", 0, "honest", "honest", 1e6, 1e6, 1.0),
    NodeJoined(0.0, "peer:1", 1, "honest", "honest", 1e6, 1e6, 1.0),
    NodeJoined(0.0, "peer:2", 2, "cheats", "sign_flip", 1e6, 1e6, 1.0),
    WindowOpened(0.0, 0, 0),
    ListPublished(0.0, "b", -1, 0, (0, 2), ()),
    HeldOutMeasured(0.0, "validator:b", -1, "root", 5.5),
    WindowOpened(100.0, 1, 1),
    Transferred(110.0, "peer:0", "round-0/uid-0", "submit", "up", 1000.0, 100.0, True),
    Submitted(110.0, 0, 0, 1000.0, 110.0, True, 10, "x"),
    Transferred(190.0, "peer:2", "round-0/uid-2", "submit", "up", 500.0, 100.0, True),
    Submitted(190.0, 2, 0, 500.0, 190.0, False, 10, "y"),
    Gathered(195.0, "validator:a", 0, "partial", (0,), (2,), 0, 5.0),
    Gathered(195.0, "validator:b", 0, "partial", (0,), (2,), 0, 5.0),
    Transferred(195.0, "validator:b", "round-0/uid-0", "gather", "down", 1000.0, 190.0, True),
    OuterStepTaken(195.0, "validator:b", 0, "one"),
    HeldOutMeasured(196.0, "validator:b", 0, "one", 4.0),
    evaluated("a", 0, 0, 0.1),
    evaluated("b", 0, 0, 0.1),
    evaluated("b", 1, 0, 0.3),
    evaluated("b", 2, 0, NAN, ("overlap_exclude: overlap 0.99 with uid 0 >= 0.60: final score 1 -> 0",)),
    Scored(197.0, "a", 0, 1, 1.0, (0, 1, 2), (1, 0), ((0, 0.5),), 0.5),
    EpochSettled(198.0, 4, 4, ((0, 0.125), (1, 0.0)), (("a", 2.0), ("b", 1.0)), 0.5, 0.375, ((0, 0.5),)),
    RuleApplied(197.0, "a", 0, "never", 3, 0),
    RuleApplied(197.0, "b", 0, "sleeping", 0, 0),
    RuleApplied(197.0, "b", 0, "sharp", 3, 1),
    RuleApplied(197.0, "a", 0, "sharp", 2, 1),
    RoundSettled(200.0, 0, 0, 0.0, 100.0, 10.0, 40.0, 50.0),
    RoundSettled(200.0, 2, 0, 0.0, 20.0, 90.0, 40.0, 50.0),
    UpdatesCompared(200.0, 0, 0.2, NAN, 2.0, 1.0),
    WindowOpened(200.0, 2, 2),
    Scored(297.0, "b", 1, 1, 1.0, (0, 1, 2), (1, 0), ((0, 0.2), (2, 0.3)), 0.5),
    EpochSettled(297.0, 8, 4, ((0, 0.275), (2, 0.225)), (("a", 2.0),), 0.5, 1.0, ((0, 0.5),)),
    UpdatesCompared(297.0, 1, 0.4, 0.02, 4.0, 3.0),
    OuterStepTaken(298.0, "validator:a", 1, "two"),
    HeldOutMeasured(299.0, "validator:b", 1, "one", 3.0),
    HeldOutMeasured(300.0, "validator:b", 1, "one", 3.0),
    HeldOutMeasured(300.0, "validator:a", 1, "two", 3.25),
    RunStopped(300.0, 2, "rounds"),
]
STAKES_BY_HAND = {"a": 1.0, "b": 3.0}


@pytest.fixture(scope="module")
def by_hand() -> dict[str, Any]:
    return summed(BY_HAND, STAKES_BY_HAND, bigram_nats=2.36)


def test_loss_is_that_of_the_lead_validator(by_hand: dict[str, Any]) -> None:
    assert by_hand["loss.initial"] == 5.5
    assert by_hand["loss.final"] == pytest.approx((4.0 + 3.0) / 2)  # the measure before training does not count
    assert by_hand["bits_per_byte.final"] == pytest.approx(3.5 / math.log(2))
    assert by_hand["loss.spread"] == 0.25
    assert by_hand["lineages.final"] == 3  # peers never stepped, b is at "one", a at "two"


def test_loss_is_the_mean_of_the_last_three_rounds() -> None:
    losses = [9.0, 3.0, 2.0, 1.0]
    measured: list[Event] = [HeldOutMeasured(float(i), "validator:b", i - 1, f"{i}", x) for i, x in enumerate(losses)]
    assert summed([*measured, RunStopped(9.0, 3, "rounds")], STAKES_BY_HAND)["loss.final"] == 2.0
    measured.append(HeldOutMeasured(8.0, "validator:b", 3, "4", 9.0))
    assert summed([*measured, RunStopped(9.0, 4, "rounds")], STAKES_BY_HAND)["loss.final"] == 4.0


def test_levels_are_reached_when_first_measured_there(by_hand: dict[str, Any]) -> None:
    assert by_hand["time_to_loss.5"] == by_hand["time_to_loss.4"] == 196.0
    assert by_hand["bytes_to_loss.4"] == 1000 + 500 + 1000
    assert by_hand["time_to_loss.3"] == 299.0
    assert math.isnan(by_hand["time_to_loss.2.75"])
    assert math.isnan(by_hand["bytes_to_loss.2.75"])


def test_network_and_time(by_hand: dict[str, Any]) -> None:
    assert by_hand["network.bytes_up"] == 1500
    assert by_hand["network.bytes_down"] == 1000
    assert by_hand["time.simulated_s"] == 300
    assert by_hand["time.compute_utilization"] == pytest.approx(120 / (120 + 180))
    assert by_hand["time.compute_share"] == pytest.approx(120 / 400)
    assert by_hand["time.communication_s_per_round"] == 90


@pytest.mark.parametrize(
    ("compute_s", "communication_s", "percent"), [(20 * 60, 70, 94.49), (270, 12, 95.74), (38 * 60, 8.3 * 60, 82.07)]
)
def test_utilization_is_what_the_report_calls_it(compute_s: float, communication_s: float, percent: float) -> None:
    """Covenant-72B, arXiv 2603.08163: three published pairs of times and utilizations."""
    all_s = compute_s + communication_s
    settled = RoundSettled(all_s, 0, 0, 0.0, compute_s, communication_s / 2, communication_s / 2, 0.0)
    measured = HeldOutMeasured(0.0, "validator:b", -1, "root", 5.0)
    events: list[Event] = [measured, settled, RunStopped(all_s, 0, "simulated")]
    assert summed(events, STAKES_BY_HAND)["time.compute_utilization"] * 100 == pytest.approx(percent, abs=0.1)


def test_participation(by_hand: dict[str, Any]) -> None:
    assert by_hand["late_share"] == 0.5
    assert by_hand["participation.mean_contributing"] == 1
    assert by_hand["participation.unique"] == 1
    assert by_hand["participation.mean_submitting"] == 2, "the late one as well"
    assert by_hand["participation.unique_submitting"] == 2


def test_early_is_not_late() -> None:
    early = Submitted(90.0, 0, 0, 1.0, 90.0, False, 1, "x")
    rest: list[Event] = [HeldOutMeasured(0.0, "validator:b", -1, "root", 5.0), WindowOpened(0.0, 0, 0), early]
    assert (
        summed([*rest, WindowOpened(100.0, 1, 1), RunStopped(100.0, 0, "simulated")], STAKES_BY_HAND)["late_share"] == 0
    )


def test_pay_is_what_epochs_paid(by_hand: dict[str, Any]) -> None:
    recorder = Recorder("transfers", STAKES_BY_HAND)
    for event in BY_HAND:
        recorder.observe(event)
    assert payouts(recorder) == {0: {0: 0.125}, 1: {0: 0.275, 2: 0.225}}
    honest, cheats = 0.125 + 0.275, 0.225
    assert by_hand["payout_share.honest"] == pytest.approx(honest / (honest + cheats))
    assert by_hand["payout_share.cheats"] == pytest.approx(cheats / (honest + cheats))
    assert by_hand["pay_per_peer.honest"] == pytest.approx(1)
    assert by_hand["pay_per_peer.cheats"] == pytest.approx(cheats / (honest / 2))
    assert by_hand["honest_earning_zero"] == 0.5
    assert by_hand["chain.epochs"] == 2
    assert by_hand["chain.blocks"] == 8
    assert by_hand["chain.burned_share"] == pytest.approx(1.375 / 8)


def test_profit_is_tokens_at_their_price_minus_work_and_bytes() -> None:
    trained = Trained(50.0, 0, 0, 3, 3, 1800.0)  # half an hour
    prices = EconomicsSettings(compute_per_hour=10.0, upload_per_gb=2e6, download_per_gb=0.0, token_price=100.0)
    result = summed([*BY_HAND[:9], trained, *BY_HAND[9:]], STAKES_BY_HAND, prices=prices)
    assert result["tokens_per_peer.honest"] == pytest.approx(0.4 / 2)
    assert result["cost_per_peer.honest"] == pytest.approx((5.0 + 2.0) / 2)  # 1000 bytes at 2e6 a gigabyte
    assert result["profit_per_peer.honest"] == pytest.approx((40.0 - 7.0) / 2)
    assert result["break_even_price.honest"] == pytest.approx(7.0 / 0.4)
    assert result["break_even_price.cheats"] == pytest.approx(1.0 / 0.225)
    assert result["left_share.honest"] == 0.0


def test_scoring_by_cohort(by_hand: dict[str, Any]) -> None:
    assert by_hand["selected_share.honest"] == by_hand["selected_share.cheats"] == 0.5
    assert by_hand["evaluations_per_peer.honest"] == pytest.approx(3 / 2 / 2)  # 3 measured, 2 peers, 2 validators
    assert by_hand["evaluations_per_peer.cheats"] == 0  # nothing was measured of it
    assert by_hand["rounds_to_exclusion.cheats"] == 1
    assert math.isnan(by_hand["rounds_to_exclusion.honest"])


def test_rules_say_whether_they_could_act(by_hand: dict[str, Any]) -> None:
    assert by_hand["rules"] == {
        "never": {"eligible": 3, "fired": 0, "verdict": "never fired"},
        "sleeping": {"eligible": 0, "fired": 0, "verdict": "could never fire"},
        "sharp": {"eligible": 5, "fired": 2, "verdict": "fired"},
    }


def test_diagnostics_are_means_over_rounds(by_hand: dict[str, Any]) -> None:
    assert by_hand["diagnostics"] == pytest.approx(
        {
            "honest_cosine": 0.3,
            "honest_overlap": 0.02,
            "senders_per_coordinate": 3.0,
            "steps_behind": 2.0,
            "score_signal_to_noise": 0.2 / (0.1 * math.sqrt(2)),  # b's match; a's has one honest score only
            "bigram_nats": 2.36,
        }
    )


def test_keys_are_those_of_the_design() -> None:
    found = set(summed(play(num_peers=24, rounds=2), STAKES))
    single = [
        "scenario",
        "rounds",
        "digest.clock",
        "digest.learning",
        "loss.initial",
        "loss.final",
        "loss.spread",
        "bits_per_byte.final",
        "lineages.final",
        "network.bytes_up",
        "network.bytes_down",
        "network.payload_bytes",
        "network.compression_ratio",
        "network.compression_ratio_model",
        "time.simulated_s",
        "time.compute_utilization",
        "time.compute_share",
        "time.communication_s_per_round",
        "late_share",
        "participation.mean_contributing",
        "participation.unique",
        "participation.mean_submitting",
        "participation.unique_submitting",
        "aggregate.short_rounds",
        "honest_earning_zero",
        "chain.epochs",
        "chain.blocks",
        "chain.burned_share",
        "rules",
        "diagnostics",
        "wall.total_s",
        "wall.training_s",
    ]
    by_cohort = ["payout_share", "pay_per_peer", "selected_share", "evaluations_per_peer", "rounds_to_exclusion"]
    by_cohort += ["tokens_per_peer", "cost_per_peer", "profit_per_peer", "break_even_price", "left_share"]
    cohorts = ["honest", "lazy", "flippers", "copycats"]
    by_level = ("time_to_loss", "bytes_to_loss")
    assert found == {
        *single,
        *(f"{key}.{cohort}" for key in by_cohort for cohort in cohorts),
        *(f"{key}.{level:g}" for key in by_level for level in LOSS_LEVELS),
    }


def test_shares_sum_to_one() -> None:
    result = summed(play(num_peers=24, rounds=4), STAKES)
    for key in ("payout_share.", "selected_share."):
        assert sum(value for name, value in result.items() if name.startswith(key)) == pytest.approx(1)
