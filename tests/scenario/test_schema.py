"""What a scenario holds, and what it makes of cohorts, deployments and ends."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covsim.behaviors import Honest, SignFlip
from covsim.learning.corpus import Corpus, Data
from covsim.learning.shardings import ByEra, ByParty, Dirichlet, Iid
from covsim.randomness import Streams
from covsim.scenario import Scenario, ScenarioError, clean_twin, load, loads, resolved_text, seeds, with_seed
from covsim.scenario.deployment import COVENANT_72B, Deployment, num_parameters
from covsim.scenario.inner_step import MeasuredStep
from covsim.scenario.schema import MODERATE_CONTEXT
from covsim.scenario.sections import Cohort
from covsim.scenario.sizes import cohort_sizes
from covsim.world.machine import ConstantRate, LognormalSpeed

BASE = Path(__file__).parent / "base.yaml"
SMALLEST = "{version: 1, name: a, stop: {rounds: 1}, peers: 1, cohorts: {all: {count: 1}}, validators: {v: {stake: 1}}}"


def test_the_smallest_scenario_has_the_deployed_defaults() -> None:
    scenario = loads(SMALLEST)
    assert scenario.cohorts["all"].behavior == Honest()
    assert (scenario.protocol.inner_steps, scenario.timeline.put_window, scenario.selection.kind) == (
        30,
        70,
        "gauntlet",
    )
    assert scenario.deployment.preset == "same"
    assert scenario.expect is None


def test_quantities_and_parts() -> None:
    scenario = load(BASE)
    assert scenario.cohorts["flippers"].behavior == SignFlip(scale=2)
    assert scenario.cohorts["lazy"].uplink == ConstantRate.model_validate({"value": "110 Mb/s"})
    assert scenario.cohorts["honest"].speed == LognormalSpeed(sigma=0.2)
    assert scenario.window_s == 170 * 12


def test_a_scenario_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(BASE).seed = 3


def test_the_72b_preset_is_charged_as_published() -> None:
    """A1 of the published figures: 72,747,327,488 parameters, 1.989 GB, 146.3 times less than fp32."""
    assert num_parameters(COVENANT_72B) == 72_747_327_488
    scenario = load(BASE)
    assert scenario.payload_bytes == pytest.approx(1.989e9, rel=0.01)
    assert 4 * 72_747_327_488 / scenario.payload_bytes == pytest.approx(146.3, rel=0.01)


def test_a_deployment_may_replace_single_values_of_its_preset() -> None:
    deployment = load(BASE, ["deployment.inner_step=10 s", "deployment.tensors=[{shape: [64, 64]}]"]).deployment
    assert (deployment.preset, deployment.evaluation) == ("covenant-72b", 8)
    assert deployment.inner_step == MeasuredStep.model_validate({"seconds": "10 s"})
    assert deployment.groups([(3, 3)]) == ((1, (64, 64)),)
    assert Deployment.model_validate("same").groups([(3, 3), (5,)]) == ((1, (3, 3)), (1, (5,)))


@pytest.mark.parametrize(
    ("stop", "rounds"),
    [
        ("{rounds: 12}", 12),
        ("{rounds: 12, simulated: 1 h}", 2),
        ("{rounds: ~, simulated: 4080 s}", 2),
        ("{rounds: ~, tokens: 184321}", 2),  # a round is 24 peers x 30 steps x 4 sequences x 64 tokens
        ("{rounds: ~, bytes: 1 TB}", 21),  # 24 payloads of 1.9895 GB a round
        ("{rounds: 12, loss: 2.5}", 12),
    ],
)
def test_planned_rounds(stop: str, rounds: int) -> None:
    assert load(BASE, [f"stop={stop}"]).planned_rounds == rounds


def cohorts(**sizes: int | float | str) -> dict[str, Cohort]:
    key = {int: "count", float: "share", str: "share"}
    return {name: Cohort.model_validate({key[type(size)]: size}) for name, size in sizes.items()}


@pytest.mark.parametrize(
    ("peers", "given", "sizes"),
    [
        (72, cohorts(honest="rest", lazy=8), {"honest": 64, "lazy": 8}),
        (72, cohorts(honest="rest", lazy="20 %"), {"honest": 58, "lazy": 14}),
        (10, cohorts(a=0.5, b=0.5), {"a": 5, "b": 5}),
        (10, cohorts(a=1 / 3, b=1 / 3, c=1 / 3), {"a": 4, "b": 3, "c": 3}),
        (7, cohorts(a=0.25, b=0.75), {"a": 2, "b": 5}),
        (3, cohorts(a=3, b="rest"), {"a": 3, "b": 0}),
        (5, cohorts(a=2, b=0.6), {"a": 2, "b": 3}),
    ],
)
def test_cohort_sizes(peers: int, given: dict[str, Cohort], sizes: dict[str, int]) -> None:
    assert cohort_sizes(peers, given) == sizes
    assert cohort_sizes(peers, dict(reversed(given.items()))) == sizes


@given(st.integers(1, 500), st.lists(st.integers(0, 100), min_size=1, max_size=6).filter(lambda parts: sum(parts) > 0))
def test_shares_are_dealt_to_the_last_peer(peers: int, parts: list[int]) -> None:
    shares = {f"c{i}": part / sum(parts) for i, part in enumerate(parts)}
    sizes = cohort_sizes(peers, cohorts(**shares))
    assert sum(sizes.values()) == peers
    assert all(abs(sizes[name] - share * peers) < 1 for name, share in shares.items())


@given(st.integers(1, 500), st.lists(st.integers(0, 30), max_size=3))
def test_the_rest_is_what_is_left(peers: int, percents: list[int]) -> None:
    sizes = cohort_sizes(peers, cohorts(rest="rest", **{f"c{i}": part / 100 for i, part in enumerate(percents)}))
    assert sum(sizes.values()) == peers
    assert min(sizes.values()) >= 0


def test_any_text_holds_a_moderate_context() -> None:
    """Contexts up to this need no look at the text, however it is dealt and however little is held out."""
    for shards, share in itertools.product(
        (Iid(), ByEra(eras=32), ByParty(), Dirichlet(eras=32, alpha=0.001)), (0.001, 0.5)
    ):
        Corpus(Data(shards=shards, held_out=share), MODERATE_CONTEXT, Streams(0))


def test_twins() -> None:
    scenario = load(BASE, ["seed=5", "expect={seeds: 3, claims: [{metric: rounds, at_least: 1}]}"])
    twin = clean_twin(scenario)
    assert {cohort.behavior.kind for cohort in twin.cohorts.values()} == {"honest"}
    assert [cohort.uplink for cohort in twin.cohorts.values()] == [c.uplink for c in scenario.cohorts.values()]
    assert (twin.name, twin.expect, twin.seed) == ("base-clean", None, 5)
    assert seeds(scenario) == [5, 6, 7]
    assert seeds(twin) == [5]
    assert with_seed(scenario, 9).seed == 9
    assert scenario.seed == 5


def test_the_name_of_a_twin_is_a_name() -> None:
    longest = clean_twin(load(BASE, ["name=" + "n" * 64]))
    assert longest.name == "n" * 58 + "-clean"
    assert loads(resolved_text(longest)) == longest


def test_from_python_a_scenario_is_an_ordinary_model() -> None:
    data = load(BASE).model_dump()
    assert Scenario.model_validate(data) == load(BASE)


def test_shards_may_be_named_alone() -> None:
    assert loads(SMALLEST.replace("peers: 1", "peers: 1, data: {shards: by_party}")).data.shards == ByParty()
    with pytest.raises(ScenarioError, match="no sharding is called 'by_partei'"):
        loads(SMALLEST.replace("peers: 1", "peers: 1, data: {shards: by_partei}"))
