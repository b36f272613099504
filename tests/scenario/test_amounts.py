"""What `covsim show` says of a deployment and its machines: the arithmetic, its sources, and what is not known."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from covsim.cli import app
from covsim.scenario import load, loads, population
from covsim.scenario.amounts import amounts, peak_flop_per_s, tokens_of_step
from covsim.scenario.deployment_figures import preset_figures
from covsim.scenario.deployment_presets import GPU_OF, PEAK_OF, PRESETS

BASE = Path(__file__).parent / "base.yaml"
ALIKE = ["~cohorts.honest.speed"]
N, D = 72_747_327_488, 192 * 2048


def test_the_flagship_in_closed_form() -> None:
    """24 bytes a parameter, 6 N D in 40 s, and the 24 % of 8 B200 that docs/machines.md names."""
    lines = amounts(load(BASE, ALIKE))
    assert lines[0] == f"parameters: {N:,}, as charged (covenant-72b)"
    assert 24 * N == 1_745_935_859_712
    assert lines[1] == "memory of a peer: 1.75 TB without activations, 218 GB on each of 8 GPUs if spread evenly"
    assert lines[2].endswith("last theta 291 GB, error buffer 291 GB")
    assert f"{6 * N * D:.4g}" == "1.716e+17"
    assert lines[-2].startswith(f"  1.716e+17 FLOP: 6 x {N:,} parameters x {D:,} tokens")
    assert f"{6 * N * D / 40 / 8 / 2250e12:.1%}" == "23.8%"
    assert lines[-1] == "  4290 TFLOP/s: 23.8 % of 8 B200, which could do 18000 TFLOP/s"


def test_without_an_error_buffer_there_is_none() -> None:
    lines = amounts(load(BASE, [*ALIKE, "protocol=diloco"]))
    assert lines[1].startswith("memory of a peer: 1.45 TB")  # 20 bytes a parameter
    assert "error buffer" not in lines[2]
    assert lines[3] == "payload: 291 GB a round, all of it in fp32"


def test_a_stated_utilization_comes_back() -> None:
    """The seconds follow from it, and it from them. Catches a peak of one GPU that is taken for that of all."""
    step = "{kind: flops, peak: 989 TFLOP/s, utilization: 37 %}"
    lines = amounts(load(BASE, [*ALIKE, f"deployment.inner_step={step}", "deployment.gpus=16"]))
    assert lines[-1].endswith(": 37 % of 16 GPUs, which could do 15800 TFLOP/s")


def test_machines_are_those_that_the_seed_draws() -> None:
    scenario = load(BASE)
    speeds = sorted(peer.speed for peer in population(scenario) if peer.cohort == "honest")
    (line,) = [line for line in amounts(scenario) if line.startswith("machines of honest")]
    fastest, slowest = f"{float(f'{40 / speeds[-1]:.3g}'):g} s", f"{float(f'{40 / speeds[0]:.3g}'):g} s"
    assert f"an inner step takes {fastest} / " in line
    assert f" / {slowest} on the fastest, the median and the slowest of 18" in line
    assert "machines of lazy" not in "".join(amounts(scenario)), "they are of speed 1"


def test_more_than_a_machine_can_do_is_marked() -> None:
    lines = amounts(load(BASE, ["cohorts.honest.speed=10"]))
    assert lines[-2:] == [
        "machines of honest: an inner step takes 4 s of 18",
        "  42900 TFLOP/s: 238 % of 8 B200, more than they can",
    ]


def test_what_is_not_known_is_said_and_not_guessed() -> None:
    tokens_unknown = amounts(load(BASE, [*ALIKE, "deployment=templar-1b"]))
    assert tokens_unknown[-1].startswith("  its tokens are not known, and so neither its FLOP")
    gpus_unknown = amounts(load(BASE, [*ALIKE, "deployment=templar-8b"]))
    assert gpus_unknown[-1] == "  1990 TFLOP/s of the whole machine; which GPUs it has is not known"


def test_the_model_itself_has_its_own_tokens() -> None:
    """`deployment: same` charges for the small model, whose step is batch times context."""
    scenario = load(BASE, [*ALIKE, "deployment=same"])
    assert tokens_of_step(scenario) == scenario.training.batch * scenario.model.context
    assert amounts(scenario)[0] == f"parameters: {scenario.model.num_parameters:,}, as charged (same)"


@pytest.mark.parametrize("name", sorted(GPU_OF))
def test_no_preset_does_more_than_its_gpus_could(name: str) -> None:
    """And none less than a seventh of it. Catches a peak in another precision, or of another board."""
    found = preset_figures(name)
    assert name in PRESETS
    assert found.flop_per_s is not None
    assert found.gpus is not None
    assert 1 / 7 < found.flop_per_s / (found.gpus * PEAK_OF[GPU_OF[name]]) < 0.5
    peak = peak_flop_per_s(load(BASE, [f"deployment={name}"]))
    assert peak == (found.gpus * PEAK_OF[GPU_OF[name]], f"{found.gpus} {GPU_OF[name]}")


def test_show_prints_them_as_comments_that_load_back() -> None:
    result = CliRunner().invoke(app, ["show", str(BASE)])
    assert result.exit_code == 0
    comments = [line for line in result.stdout.splitlines() if line.startswith("#")]
    assert comments == [f"# {line}" for line in amounts(load(BASE))]
    assert loads(result.stdout) == load(BASE)


def test_the_page_shows_what_is_printed() -> None:
    page = (Path(__file__).parents[2] / "docs" / "machines.md").read_text(encoding="utf-8")
    shown = page.partition("$ covsim show covenant72b\n...\n")[2].partition("```")[0]
    printed = [f"# {line}" for line in amounts(load("covenant72b"))]
    assert shown.splitlines() == [*printed[:9], "..."]
