"""Seconds of an inner step from their sources, memory and work of the presets, and the page that shows them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from covsim.scenario import ScenarioError, load, loads, resolved_text
from covsim.scenario.deployment import PRESETS, Deployment, num_parameters
from covsim.scenario.deployment_figures import memory, preset_figures, table
from covsim.scenario.inner_step import flop_of_step
from covsim.units import format_flops, parse_flops

BASE = Path(__file__).parent / "base.yaml"
PAGE = Path(__file__).parents[2] / "docs" / "machines.md"
OF_THE_REPORT = "peak: 2250 TFLOP/s, utilization: 24 %"

PUBLISHED = {
    "covenant-72b": (72_747_327_488, 0),
    "templar-8b": (7_241_732_096, 0),
    "templar-1b": (1_204_881_408, 0),
    "intellect-1-10b": (10.2e9, 0.01),
    "opendiloco-1.1b": (1.1e9, 0.01),
    "streaming-1b": (1e9, 0),
    "streaming-10b": (10e9, 0),
    "streaming-100b": (100e9, 0),
}


def of(inner_step: str, more: str = "") -> Deployment:
    """The deployment of the flagship with another step."""
    return load(BASE, [f"deployment={{preset: covenant-72b, inner_step: {inner_step}{more}}}"]).deployment


def step_s(deployment: Deployment) -> float:
    """Its seconds of an inner step."""
    return deployment.step_s(lambda: num_parameters(deployment.groups(())))


# From each source ---------------------------------------------------------------------------------------------------


def test_a_measured_step_is_a_duration_or_a_mapping() -> None:
    assert step_s(of("40 s")) == step_s(of("{kind: measured, seconds: 40 s}")) == step_s(of("{seconds: 40 s}")) == 40


def test_tokens_per_second() -> None:
    """192 x 2048 tokens at 9830.4 tokens/s are 40 s; with half the tokens, 20 s."""
    assert step_s(of("{kind: throughput, tokens_per_s: 9830.4}")) == pytest.approx(40)
    assert step_s(of("{kind: throughput, tokens_per_s: 9830.4}", ", tokens_per_step: 196608")) == pytest.approx(20)


def test_floating_point_operations() -> None:
    """6 N D over eight GPUs of 2250 TFLOP/s at 24 %: the report's 40 s within 1 %, and inversely in each factor."""
    found = step_s(of(f"{{kind: flops, {OF_THE_REPORT}}}"))
    assert found == pytest.approx(6 * 72_747_327_488 * 192 * 2048 / (8 * 2250e12 * 0.24))
    assert found == pytest.approx(40, rel=0.01)
    assert step_s(of(f"{{kind: flops, {OF_THE_REPORT}}}", ", gpus: 16")) == pytest.approx(found / 2)
    assert step_s(of("{kind: flops, peak: 2250 TFLOP/s, utilization: 48 %}")) == pytest.approx(found / 2)


def test_the_model_itself_may_be_what_is_counted() -> None:
    """`deployment: same` has no tensors of its own: N is the small model's."""
    scenario = load(
        BASE,
        [
            "deployment={preset: same, tokens_per_step: 1000, gpus: 1, "
            "inner_step: {kind: flops, peak: 1 GFLOP/s, utilization: 100 %}}"
        ],
    )
    assert scenario.inner_step_s == pytest.approx(6 * scenario.model.num_parameters * 1000 / 1e9)


@pytest.mark.parametrize("step", ["40 s", "{kind: throughput, tokens_per_s: 5e3}", f"{{kind: flops, {OF_THE_REPORT}}}"])
def test_what_is_resolved_loads_back(step: str) -> None:
    scenario = load(BASE, [f"deployment.inner_step={step}"])
    assert loads(resolved_text(scenario)) == scenario


@pytest.mark.parametrize(
    ("step", "complaint"),
    [
        ("{kind: flops, peak: 2250, utilization: 24 %}", "a number of FLOP per second needs a unit"),
        ("{kind: flops, peak: 2250 TB/s, utilization: 24 %}", "'TB/s' is not a unit of a number of FLOP per second"),
        ("{kind: flops, peak: 2250 TFLOP/s, utilization: 0 %}", "must be greater than 0 %"),
        ("{kind: throughput, tokens_per_s: 0}", "must be greater than 0"),
        ("{kind: throughput, tokens_per_s: 0.1}", "an inner step takes 3930000 s, more than a day"),
        ("{kind: guess}", "no source of step times is called 'guess'"),
        ("0 s", "must be greater than 0"),
    ],
)
def test_nonsense_is_one_line(step: str, complaint: str) -> None:
    with pytest.raises(ScenarioError, match=complaint):
        load(BASE, [f"deployment.inner_step={step}"])


@pytest.mark.parametrize(
    ("kind", "fields", "missing"),
    [
        ("throughput", {"tokens_per_s": 5e3}, "tokens_per_step"),
        ("flops", {"peak": "1 PFLOP/s", "utilization": "40 %"}, "tokens_per_step"),
        ("flops", {"peak": "1 PFLOP/s", "utilization": "40 %", "tokens": 1}, "gpus"),
    ],
)
def test_a_source_says_what_it_needs(kind: str, fields: dict[str, object], missing: str) -> None:
    known = {"tokens_per_step": 1000} if fields.pop("tokens", None) else {}
    with pytest.raises(ValidationError, match=f"an inner_step of kind {kind} needs {missing}"):
        Deployment.model_validate({"preset": "same", "inner_step": {"kind": kind, **fields}, **known})


@pytest.mark.parametrize(("text", "amount"), [("400 TFLOP/s", 4e14), ("1.2 EFLOP/s", 1.2e18), ("5 FLOP/s", 5)])
def test_the_unit_of_work(text: str, amount: float) -> None:
    assert parse_flops(text) == amount
    assert parse_flops(format_flops(amount)) == amount


# The presets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_have_the_published_parameters(name: str) -> None:
    parameters, within = PUBLISHED[name]
    assert preset_figures(name).parameters == pytest.approx(parameters, rel=within, abs=0)


def test_149_million_of_the_smallest_are_in_layers() -> None:
    """OpenDiLoCo's 150M leaves out 65.5 million of embeddings and head."""
    assert preset_figures("opendiloco-150m").parameters - 2 * 32_000 * 1024 == pytest.approx(150e6, rel=0.01)


def test_work_agrees_with_what_intellect_1_measured() -> None:
    """36.2 to 41.4 % of an H100's 989 TFLOP/s, attention counted; 6 N D leaves that out, so ours is below it."""
    found = preset_figures("intellect-1-10b")
    assert found.flop_per_s is not None
    assert 0.33 < found.flop_per_s / 8 / 989e12 < 0.362


def test_memory_is_24_bytes_a_parameter_and_20_without_an_error_buffer() -> None:
    """16 of mixed-precision Adam (ZeRO), 4 of theta, 4 of the error buffer."""
    assert memory(10**9).total == 24 * 10**9
    assert memory(10**9, error_feedback=False).total == 20 * 10**9
    assert flop_of_step(10, 7) == 420


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_valid_by_its_name(name: str) -> None:
    deployment = Deployment.model_validate(name)
    assert deployment.preset == name
    assert step_s(deployment) > 0


def test_the_page_shows_the_table_that_the_code_computes() -> None:
    """After a change: put the output of `deployment_figures.table()` into docs/machines.md."""
    assert table() in PAGE.read_text(encoding="utf-8")


# What does not go together ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["step_noise: {sigma: 0.1}", "when_slow: late"])
def test_a_layered_timeline_wants_steady_machines(setting: str) -> None:
    path = Path(__file__).parents[2] / "scenarios" / "papers" / "a14" / "1b-diloco.yaml"
    name = next(iter(load(path).cohorts))
    key, value = setting.split(": ", 1)
    with pytest.raises(ScenarioError, match="keeps machines as they are"):
        load(path, [f"cohorts.{name}.{key}={value}"])
