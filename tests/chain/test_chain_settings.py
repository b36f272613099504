"""The `chain:` section: defaults of the live network, parts by name, and what makes no sense is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from covsim.chain.settings import ChainSettings
from covsim.chain.yuma import Yuma2, Yuma3


def test_the_defaults_are_those_of_the_live_network() -> None:
    settings = ChainSettings()
    assert (settings.tempo, settings.rate_limit, settings.activity_cutoff) == (360, 100, 5000)
    assert (settings.slots, settings.permits, settings.immunity) == (256, 64, 4096)
    assert (settings.owner_share, settings.peer_share) == (0.18, 0.41)
    assert (settings.weights, settings.commit_reveal) == ("u16", 1)
    assert settings.consensus == Yuma2(kappa=0.5, bond_penalty=1.0, bond_rate=0.1)


@pytest.mark.parametrize(
    ("given", "consensus"),
    [("yuma3", Yuma3()), ({"kind": "yuma2", "kappa": 0.6}, Yuma2(kappa=0.6)), (Yuma3(steepness=5), Yuma3(steepness=5))],
    ids=["bare", "mapping", "part"],
)
def test_a_consensus_rule_is_a_part(given: Any, consensus: Any) -> None:
    assert ChainSettings(consensus=given).consensus == consensus


def test_shares_are_read_as_percent() -> None:
    assert ChainSettings.model_validate({"owner_share": "10 %", "peer_share": "90 %"}).owner_share == 0.1


def test_all_that_can_be_logged_may_be_left_out() -> None:
    assert ChainSettings(log=()).log == ()
    assert ChainSettings(log=("verdicts",)).log == ("verdicts",)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"tempo": 0}, "tempo"),
        ({"tempo": 1.5}, "tempo"),
        ({"emission_per_block": 0}, "emission_per_block"),
        ({"emission_per_block": math.inf}, "emission_per_block"),
        ({"owner_share": 0.6, "peer_share": 0.5}, "more than all"),
        ({"consensus": "yuma4"}, "yuma4"),
        ({"commit_reveal": 0}, "commit_reveal"),
        ({"commit_reveal": "never"}, "commit_reveal"),
        ({"weights": "u8"}, "weights"),
        ({"rate_limit": -1}, "rate_limit"),
        ({"activity_cutoff": 0}, "activity_cutoff"),
        ({"permits": 0}, "permits"),
        ({"slots": 1}, "slots"),
        ({"registration_cost": -0.1}, "registration_cost"),
        ({"immunity": -1}, "immunity"),
        ({"log": ("weights",)}, "log"),
        ({"temp": 360}, "temp"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        ChainSettings(**given)


def test_every_field_says_what_it_is() -> None:
    assert all(field.description for field in ChainSettings.model_fields.values())
