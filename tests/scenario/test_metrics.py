"""The metrics that claims can name are those that a real run has, and others are refused before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from covsim.digest import Digest
from covsim.events import Event
from covsim.record.recorder import Recorder
from covsim.record.summary import summary
from covsim.scenario import Scenario, ScenarioError, load
from covsim.scenario.metrics import check_metric, metrics
from covsim.sweep.expect import lookup

BASE = Path(__file__).parent / "base.yaml"
TEXTS = {"scenario", "digest.clock", "digest.learning"}


def test_they_are_the_numbers_of_a_real_summary(
    tiny: Scenario, play: Callable[..., tuple[list[Event], Digest]]
) -> None:
    recorder = Recorder("summary", {name: validator.stake for name, validator in tiny.validators.items()})
    _, digest = play(tiny, observers=[recorder.observe])
    found = summary(
        recorder,
        tiny,
        digest=digest,
        payload_bytes=1.0,
        compression_ratio=1.0,
        compression_ratio_model=1.0,
        training_wall_s=1.0,
        total_wall_s=2.0,
        tokens_are_bytes=True,
        diagnostics={"bigram_nats": 2.36},
    )
    inside = {f"rules.{rule}.{count}" for rule in found.pop("rules") for count in ("eligible", "fired")}
    inside |= {f"diagnostics.{name}" for name in found.pop("diagnostics")}
    known = metrics(tiny.cohorts)
    assert set(known) == (found.keys() - TEXTS) | inside
    assert len(known) == len(set(known))


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("loss.finale", "no metric is called 'loss.finale' (did you mean 'loss.final'?)"),
        ("time_to_loss.2.7", "no metric is called 'time_to_loss.2.7' (did you mean 'time_to_loss.2.75'?)"),
        ("rules.inactiv.fired", "no metric is called 'rules.inactiv.fired' (did you mean 'rules.inactive.fired'?)"),
        ("rules.inactive.verdict", "no metric is called 'rules.inactive.verdict'"),
        ("scenario", "no metric is called 'scenario'"),
        ("pay_per_peer.flipers", "no cohort is called 'flipers' (did you mean 'flippers'?)"),
        ("wall.total", "no metric is called 'wall.total' (did you mean 'wall.total_s'?)"),
    ],
)
def test_a_misspelt_metric_is_found_at_once(metric: str, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        load(BASE, [f"expect={{claims: [{{metric: {metric}, at_most: 1}}]}}"])
    assert message in str(caught.value)
    assert "expect.claims.0.metric" in str(caught.value)


@pytest.mark.parametrize("metric", ["loss.final", "pay_per_peer.flippers", "rules.overlap_halve.fired", "wall.total_s"])
def test_a_metric_that_is_there_passes(metric: str) -> None:
    check_metric(metric, ["flippers"])
    flat = {"rules": {"overlap_halve": {"fired": 1}}, metric: 1.0}
    assert lookup(flat, metric) == 1.0
