"""SparseLoCo's settings, and the plan that they make."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from covsim.protocol.compressors import TopK
from covsim.protocol.error_feedback import ErrorFeedback
from covsim.protocol.outer import Nesterov, Sgd
from covsim.protocol.plan import protocols
from covsim.protocol.sparseloco import PRESETS, SparseLoCo
from covsim.protocol.values import BinMean, Sign


def sparseloco(**settings: Any) -> SparseLoCo:
    return SparseLoCo.model_validate(settings)


def test_registered_with_the_defaults_of_the_72b_run() -> None:
    assert protocols["sparseloco"].model_validate({}).model_dump() == {
        "kind": "sparseloco",
        "preset": None,
        "inner_steps": 30,
        "k": 64,
        "layout": "blocks",
        "bits": 2,
        "group": "tensor",
        "indices": "bits12",
        "packing": "packed",
        "error_decay": 0.95,
        "error_commit": "compressed",
        "error_uncounted": "kept",
        "outer": {"kind": "sgd", "lr": 0.65, "schedule": {"kind": "constant"}},
        "outer_delay": 0,
        "outer_rate_twice": False,
    }


def test_the_plan_says_what_the_settings_say() -> None:
    plan = sparseloco(
        inner_steps=15,
        k=32,
        layout="contiguous",
        bits=4,
        group="chunk",
        indices="entropy",
        packing="byte_per_value",
        error_decay=0.999,
        error_commit="landed",
        outer={"kind": "nesterov", "lr": 0.5},
        outer_rate_twice=True,
    ).plan()
    assert plan.inner_steps == 15
    assert plan.compressor == TopK(k=32, layout="contiguous")
    assert plan.values == BinMean(bits=4, group="chunk")
    assert (plan.indices, plan.packing) == ("entropy", "byte_per_value")
    assert plan.error_feedback == ErrorFeedback(decay=0.999, commit="landed")
    assert plan.outer == Nesterov(lr=0.5)
    assert plan.outer_rate_twice
    assert plan.sends == "pseudo_gradient"
    assert not plan.keeps_own_weights
    assert plan.asynchrony is None


@pytest.mark.parametrize("group", ["tensor", "chunk"])
def test_one_bit_sends_signs(group: str) -> None:
    assert sparseloco(bits=1, group=group).plan().values == Sign.model_validate({"group": group})


def test_by_default_an_outer_mapping_without_a_kind_is_sgd() -> None:
    assert sparseloco(outer={"lr": 0.9}).outer == Sgd(lr=0.9)


def rates(protocol: SparseLoCo, *depths: int) -> list[float]:
    outer = protocol.plan().outer
    return [outer.learning_rate(depth, 6000) for depth in depths]


def test_preset_of_the_paper() -> None:
    """Rate 1, then 0.65 from about 110,000 inner steps on, which are 3667 rounds of 30."""
    paper = sparseloco(preset="paper")
    assert rates(paper, 0, 3666, 3667, 5999) == [1.0, 1.0, 0.65, 0.65]
    assert 30 * 3666 < 110_000 <= 30 * 3667
    assert paper.packing == "packed"
    assert (paper.inner_steps, paper.k, paper.bits, paper.error_decay) == (30, 64, 2, 0.95)


@pytest.mark.parametrize(("preset", "rate"), [("v2.1.0", 1.0), ("v2.1.28", 0.4)])
def test_presets_of_releases(preset: str, rate: float) -> None:
    deployed = sparseloco(preset=preset)
    assert rates(deployed, 0, 5000) == [rate, rate]
    assert deployed.packing == "byte_per_value"
    assert (deployed.inner_steps, deployed.k, deployed.bits, deployed.error_decay) == (30, 64, 2, 0.95)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_keys_beside_a_preset_replace_single_values(preset: str) -> None:
    changed = sparseloco(preset=preset, k=32, packing="packed", outer={"lr": 0.3})
    plain = sparseloco(preset=preset)
    assert (changed.k, changed.packing, changed.outer) == (32, "packed", Sgd(lr=0.3))
    assert changed.error_decay == plain.error_decay
    assert sparseloco(preset=preset, k=32).outer == plain.outer


@pytest.mark.parametrize("preset", [None, *PRESETS])
def test_settings_survive_a_round_trip(preset: str | None) -> None:
    """What is written down says everything, so it stays what it was should a preset ever change."""
    protocol = sparseloco(preset=preset, error_decay=0.5)
    assert SparseLoCo.model_validate(protocol.model_dump()) == protocol
    assert SparseLoCo.model_validate_json(protocol.model_dump_json()) == protocol
    without = {name: value for name, value in protocol.model_dump().items() if name != "preset"}
    assert SparseLoCo.model_validate(without).plan() == protocol.plan()


def test_presets_are_not_touched_by_their_use() -> None:
    before = repr(PRESETS)
    sparseloco(preset="paper", outer={"lr": 0.3})
    assert repr(PRESETS) == before


@pytest.mark.parametrize(
    "setting",
    [
        {"preset": "v3"},
        {"preset": ["paper"]},
        {"inner_steps": 0},
        {"inner_steps": 100_001},
        {"k": 0},
        {"k": -2},
        {"k": 65_537},
        {"bits": 3},
        {"group": "row"},
        {"layout": "columns"},
        {"indices": "bits13"},
        {"error_decay": -0.1},
        {"error_decay": 1.1},
        {"error_decay": math.nan},
        {"error_commit": "never"},
        {"packing": "loose"},
        {"outer": {"kind": "sgd", "lr": 0}},
        {"outer": {"kind": "lion"}},
        {"momentum": 0.9},
    ],
)
def test_absurd_settings(setting: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SparseLoCo.model_validate(setting)
