"""Overrides in Hydra's manner, from the command line and from Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from covsim.behaviors import Lazy
from covsim.gauntlet.selection import GauntletSelection, RandomSelection
from covsim.scenario import Scenario, ScenarioError, load

BASE = Path(__file__).parent / "base.yaml"


def changed(*overrides: str) -> Scenario:
    return load(BASE, overrides)


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("peers=40", lambda s: s.peers == 40),
        ("timeline.block=6 s", lambda s: s.timeline.block == 6),
        ("network.latency=1 ms", lambda s: s.network.latency == 0.001),
        ("store.read_failure=2 %", lambda s: s.store.read_failure == 0.02),  # a section that the file leaves out
        ("training.inner.lr=1e-3", lambda s: s.training.inner.lr == 1e-3),
        ("model.width=64", lambda s: s.model.width == 64),
        ("cohorts.lazy.count=5", lambda s: s.cohorts["lazy"].count == 5),
        ("cohorts.lazy.share=30 %", lambda s: s.cohorts["lazy"].share == 0.3 and s.cohorts["lazy"].count is None),
        ("cohorts.lazy.behavior.share=0.5", lambda s: s.cohorts["lazy"].behavior == Lazy(share=0.5)),
        ("cohorts.flippers.behavior=lazy", lambda s: s.cohorts["flippers"].behavior == Lazy()),
        ("cohorts.flippers.behavior={scale: 3}", lambda s: s.cohorts["flippers"].behavior.scale == 3),
        ("cohorts.honest.uplink=1 Gb/s", lambda s: s.cohorts["honest"].uplink.value == 1e9),
        ("+cohorts.more={count: 2, behavior: late}", lambda s: s.cohorts["more"].count == 2),
        ("~cohorts.copycats", lambda s: "copycats" not in s.cohorts),
        ("cohorts.copycats=~", lambda s: "copycats" not in s.cohorts),
        ("~gauntlet", lambda s: s.gauntlet.evaluated_per_window == 20),
        ("selection=random", lambda s: s.selection == RandomSelection()),
        ("selection.kind=random", lambda s: s.selection == RandomSelection(gather=8, reserve=4)),
        ("selection.gather=6", lambda s: s.selection == GauntletSelection(gather=6, reserve=4)),
        ("deployment.inner_step=5 s", lambda s: s.deployment.preset == "covenant-72b" and s.inner_step_s == 5),
        ("deployment=same", lambda s: s.deployment.tensors == []),
        ("name=other", lambda s: s.name == "other"),
        ("description='a: b = c'", lambda s: s.description == "a: b = c"),
        ("stop={tokens: 1000000}", lambda s: s.stop.rounds == 12 and s.stop.tokens == 1_000_000),
    ],
)
def test_override(override: str, read: Any) -> None:
    assert read(changed(override))
    assert changed(override) != changed()


def test_later_overrides_win() -> None:
    assert changed("seed=1", "seed=2").seed == 2


def test_list_entries_are_reached_by_position() -> None:
    claims = "expect={claims: [{metric: loss.final, at_most: 3}, {metric: rounds, at_least: 1}]}"
    scenario = changed(claims, "expect.claims.0.at_most=2.5", "~expect.claims.1")
    assert scenario.expect is not None
    assert [(claim.metric, claim.at_most) for claim in scenario.expect.claims] == [("loss.final", 2.5)]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("peeers=3", "command line: peeers=3: unknown key 'peeers' (did you mean 'peers'?)"),
        ("timeline.blok=3 s", "command line: timeline.blok=3 s: unknown key 'blok' (did you mean 'block'?)"),
        ("peers=many", "command line: peers=many: must be a whole number, not 'many'"),
        (
            "timeline={block: no}",
            "command line: timeline={block: no}: timeline.block: 'no' is not a duration such as '20 s'",
        ),
        ("cohorts.lasy.count=3", "command line: cohorts.lasy.count=3: there is no cohorts.lasy (did you mean 'lazy'?)"),
        (
            "cohorts.spies.count=3",
            "command line: cohorts.spies.count=3: there is no cohorts.spies; +cohorts.spies.count=... adds it",
        ),
        ("+peers=3", "command line: +peers=3: peers is there already; leave out the +"),
        ("~cohorts.lasy", "command line: ~cohorts.lasy: there is no cohorts.lasy (did you mean 'lazy'?)"),
        ("~peers=3", "command line: ~peers=3: a removal has no value; write ~peers"),
        ("peers", "command line: peers: has no value; write peers=..., or ~peers to remove it"),
        ("=3", "command line: =3: is not an override such as a.b=c"),
        ("a..b=3", "command line: a..b=3: is not an override such as a.b=c"),
        ("peers.x=3", "command line: peers.x=3: 24 stands where 'x' should be set in a mapping"),
        (
            "peers=[1",
            "command line: peers=[1: not YAML: expected ',' or ']', but got '<stream end>'",
        ),
    ],
)
def test_bad_override(override: str, line: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        changed(override)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    "overrides",
    [
        {"cohorts.lazy.count": 5, "timeline.block": "6 s"},
        {"cohorts": {"lazy": {"count": 5}}, "timeline": {"block": "6 s"}},
        ["cohorts.lazy.count=5", "timeline.block=6 s"],
    ],
)
def test_python_mappings_say_the_same(overrides: Mapping[str, Any] | list[str]) -> None:
    scenario = load(BASE, overrides)
    assert (scenario.cohorts["lazy"].count, scenario.timeline.block, scenario.cohorts["lazy"].behavior) == (
        5,
        6,
        Lazy(),
    )


def test_python_mapping_with_mistakes() -> None:
    with pytest.raises(
        ScenarioError, match=r"^override peers=<object.*>: object is not a value that a scenario can hold"
    ):
        load(BASE, {"peers": object()})
    with pytest.raises(ScenarioError, match=r"^override peers=0: must be greater than 0, not 0$"):
        load(BASE, {"peers": 0})
