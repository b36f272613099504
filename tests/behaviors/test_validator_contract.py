"""What every registered validator behavior owes: it ends its round, steps or sits out, and pays what there is."""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from covsim.behaviors import Bribed, Offline, Scoring, ValidatorBehavior, WeightCopier, validator_behaviors
from covsim.behaviors.base import Verb

SETTINGS: dict[str, dict[str, Any]] = {
    "bribed": {"cohort": "friends", "share": 0.3},
    "offline": {"from_round": 2, "to_round": 4},
}
"""What a kind cannot be built without; a new one without defaults must stand here."""

EVERY = [pytest.param(part(**SETTINGS.get(kind, {})), id=kind) for kind, part in validator_behaviors.items()]
FULL_ROUND = ["gather", "evaluate", "set_weights", "publish_list", "step"]


class Recorder:
    """A validator's body that takes no time: it writes down what is called, and with which weights.

    Args:
        round: which round is played.
        judged: what `evaluate` will find each peer worth.
        on_chain: what the others have on the chain.
        cohorts: the uids by name.
        something: whether the gather brings anything.
    """

    label = "mine"

    def __init__(
        self,
        round: int = 0,
        judged: Mapping[int, float] | None = None,
        on_chain: Mapping[int, float] | None = None,
        cohorts: Mapping[str, tuple[int, ...]] | None = None,
        something: bool = True,
    ) -> None:
        self.round = round
        self.calls: list[str] = []
        self.set: list[dict[int, float]] = []
        self._judged, self._found, self._on_chain = judged or {}, {}, on_chain or {}
        self._cohorts, self._something = cohorts or {}, something

    def judged_weights(self) -> Mapping[int, float]:
        return self._found

    def weights_on_chain(self) -> Mapping[int, float]:
        return self._on_chain

    def cohort(self, name: str) -> tuple[int, ...]:
        return self._cohorts.get(name, ())

    def gather(self) -> Verb[bool]:
        yield from self._note("gather")
        return self._something

    def evaluate(self) -> Verb[None]:
        yield from self._note("evaluate")
        self._found = self._judged

    def set_weights(self, weights: Mapping[int, float]) -> None:
        self.calls.append("set_weights")
        self.set.append(dict(weights))

    def publish_list(self) -> None:
        self.calls.append("publish_list")

    def step(self) -> None:
        self.calls.append("step")

    def sit_out(self) -> Verb[None]:
        yield from self._note("sit_out")

    def catch_up(self) -> Verb[None]:
        yield from self._note("catch_up")

    def play(self, behavior: ValidatorBehavior) -> Recorder:
        """One round of a behavior; it must end before long."""
        script = behavior.play_round(self)
        for _ in range(100):
            if next(script, "over") == "over":
                return self
        raise AssertionError(f"{behavior.kind} does not end its round")

    def _note(self, verb: str) -> Verb[None]:
        self.calls.append(f"{verb} begins")
        yield
        self.calls[-1] = verb  # a script that does not use `yield from` leaves the verb begun, or not even that


@st.composite
def shares(draw: st.DrawFn) -> dict[int, float]:
    """Shares of all pay by uid; what is missing to 1 is burned."""
    parts = draw(st.dictionaries(st.integers(0, 9), st.floats(0, 1e6), max_size=10))
    burned = draw(st.floats(0, 1e6))
    total = math.fsum([*parts.values(), burned])
    return {uid: part / total for uid, part in parts.items()} if total > 0 else {}


@pytest.mark.parametrize("behavior", EVERY)
@given(
    round=st.integers(0, 6),
    judged=shares(),
    on_chain=shares(),
    friends=st.sets(st.integers(0, 12), max_size=5),
    something=st.booleans(),
)
def test_plays_a_round_and_pays_no_more_than_there_is(
    behavior: ValidatorBehavior,
    round: int,
    judged: dict[int, float],
    on_chain: dict[int, float],
    friends: set[int],
    something: bool,
) -> None:
    body = Recorder(round, judged, on_chain, {"friends": tuple(sorted(friends))}, something).play(behavior)
    assert all(not call.endswith("begins") for call in body.calls)
    assert ("step" in body.calls) != ("sit_out" in body.calls)
    assert body.calls[-1] in ("step", "sit_out"), "theta moves last, when everything has been measured against it"
    assert body.calls.count("set_weights") <= 1
    for weights in body.set:
        assert all(math.isfinite(weight) and 0 <= weight <= 1 for weight in weights.values())
        assert math.fsum(weights.values()) <= 1 + 1e-12


@pytest.mark.parametrize("behavior", EVERY)
def test_says_what_it_is(behavior: ValidatorBehavior) -> None:
    """It names its source, describes its parameters, and knows neither torch nor simpy."""
    part = type(behavior)
    assert part.__doc__
    assert "Source: " in " ".join(part.__doc__.split())
    assert all(field.description for name, field in part.model_fields.items() if name != "kind")
    source = ast.parse(inspect.getsource(inspect.getmodule(part) or part))
    imported = {alias.name for node in ast.walk(source) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(source) if isinstance(node, ast.ImportFrom)}
    assert not {name.split(".")[0] for name in imported} & {"torch", "simpy"}


def test_a_body_that_records_notices_a_verb_that_was_not_waited_for() -> None:
    """Or else the contract above would say nothing about `yield from`."""

    class Hasty(ValidatorBehavior):
        kind: str = "hasty"

        def play_round(self, validator: Any) -> Any:
            next(validator.gather())
            yield
            validator.step()

    assert Recorder().play(Hasty()).calls == ["gather begins", "step"]


# Each one.


def test_an_honest_validator_pays_what_it_judged() -> None:
    body = Recorder(judged={3: 0.2, 5: 0.3}).play(Scoring())
    assert body.calls == FULL_ROUND
    assert body.set == [{3: 0.2, 5: 0.3}]


def test_the_copier_pays_what_the_others_pay_and_evaluates_nobody() -> None:
    body = Recorder(judged={3: 0.2}, on_chain={4: 0.25, 9: 0.25}).play(WeightCopier())
    assert body.calls == ["gather", "set_weights", "step"]
    assert body.set == [{4: 0.25, 9: 0.25}]


def test_a_bribe_is_dealt_evenly_and_everything_else_shrinks() -> None:
    bribed = Bribed(cohort="friends", share=0.5)
    body = Recorder(judged={1: 0.4, 7: 0.4}, cohorts={"friends": (7, 8), "others": (1,)}).play(bribed)
    assert body.calls == FULL_ROUND
    assert body.set == [{1: 0.2, 7: pytest.approx(0.45), 8: 0.25}]


def test_a_bribe_for_nobody_is_burned() -> None:
    assert Recorder(judged={1: 1.0}).play(Bribed(cohort="friends", share=0.25)).set == [{1: 0.75}]


def test_a_bribe_for_all_the_pay_leaves_nothing_to_judge() -> None:
    body = Recorder(judged={1: 1.0}, cohorts={"friends": (2, 3)}).play(Bribed(cohort="friends", share=1))
    assert body.set == [{1: 0.0, 2: 0.5, 3: 0.5}]


def test_who_was_away_catches_up_once() -> None:
    offline = Offline(from_round=2, to_round=4)
    calls = {round: Recorder(round).play(offline).calls for round in range(1, 6)}
    assert calls == {1: FULL_ROUND, 2: ["sit_out"], 3: ["sit_out"], 4: ["catch_up", *FULL_ROUND], 5: FULL_ROUND}


@pytest.mark.parametrize("to_round", [2, 3])
def test_nobody_comes_back_before_leaving(to_round: int) -> None:
    with pytest.raises(ValidationError, match=f"to_round {to_round} must come after from_round 3"):
        Offline(from_round=3, to_round=to_round)
