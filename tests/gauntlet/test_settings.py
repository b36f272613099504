"""Settings: every constant is one, presets fill in what is not given, absurd values are refused."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from gauntlet_windows import asked_in_vain, established, gathered, judged

from covsim.gauntlet.presets import PRESETS
from covsim.gauntlet.settings import (
    ALWAYS_ON,
    RULES,
    GauntletSettings,
    OverlapRules,
    Quirks,
    ScoreRules,
    SlashingRules,
    SyncRules,
)
from covsim.gauntlet.weights import Power, Ramp, weight_rules


def test_every_constant_is_a_setting() -> None:
    milder = GauntletSettings.model_validate({"slashing": {"misses": ["90 %", 0.8], "evaluated_missing": 1}})
    peer = established()
    for expected in (2.7, 2.7 * 0.8, 2.7 * 0.8 * 0.8):
        peer = judged(asked_in_vain(0), gathered(1), gathered(2), peers={0: peer}, settings=milder).standings.peers[0]
        assert peer.final_score == pytest.approx(expected)


@pytest.mark.parametrize("levels", [{"halve": 0.7}, {"reset": 0.3}, {"exclude": 0.45}, {"halve": 0}])
def test_overlap_levels_must_rise(levels: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="overlap levels must rise"):
        OverlapRules(**levels)


@pytest.mark.parametrize(
    "section",
    [
        {"beta": 0},
        {"beta": math.nan},
        {"mu": math.inf},
        {"indicator_decay": 1.5},
        {"evaluated_per_window": 0},
        {"preset": "v9"},
        {"slashing": {"misses": []}},
        {"weights": {"gather_share": 0}},
        {"betta": 7},
    ],
)
def test_absurd_settings_are_refused(section: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        GauntletSettings.model_validate(section)


@pytest.mark.parametrize("wrong", ["gather_mis", "overlap_reset "])
def test_an_unknown_rule_cannot_be_off(wrong: str) -> None:
    with pytest.raises(
        ValueError, match=r"no rule of the Gauntlet is called .* \(did you mean '(gather_miss|overlap_reset)'"
    ):
        GauntletSettings.model_validate({"off": ["inactive", wrong]})


@pytest.mark.parametrize("rule", ALWAYS_ON)
def test_what_must_act_cannot_be_off(rule: str) -> None:
    with pytest.raises(ValueError, match=f"{rule} cannot be turned off"):
        GauntletSettings.model_validate({"off": [rule]})


def test_the_schema_lists_what_may_be_off() -> None:
    names = GauntletSettings.model_json_schema()["properties"]["off"]["items"]["enum"]
    assert names == [rule for rule in RULES if rule not in ALWAYS_ON]


def test_every_field_has_a_description() -> None:
    for group in (
        GauntletSettings,
        OverlapRules,
        SlashingRules,
        SyncRules,
        ScoreRules,
        Quirks,
        *dict(weight_rules.items()).values(),
    ):
        for name, field in group.model_fields.items():
            assert field.description or name == "kind", f"{group.__name__}.{name}"


# Presets --------------------------------------------------------------------------------------------------------------

TABLE = {
    "paper": {
        "evaluated_per_window": 5,
        "trial_factor": 0.2,
        "score.sync": False,
        "score.indicator": "signed",
        "weights.kind": "power",
        "weights.power": 2.0,
        "weights.floor": "lowest",
        "weights.top": 15,
        "weights.burn": 0.0,
    },
    "v0.2": {
        "evaluated_per_window": 4,
        "trial_factor": 0.2,
        "weights.kind": "power",
        "weights.power": 2.2,
        "weights.floor": "zero",
        "weights.burn": 0.0,
        "slashing.inactive_windows": 25,
        "sync.max_behind": 3.0,
        "sync.cap": 5.0,
        "weights.set_every_windows": 50,
    },
    "v1.0": {
        "evaluated_per_window": 10,
        "trial_factor": 0.1,
        "overlap.halve": 0.4,
        "weights.kind": "ramp",
        "weights.burn": 0.8,
        "slashing.inactive_windows": 10,
        "sync.max_behind": 3.0,
        "sync.cap": 5.0,
        "weights.set_every_windows": 13,
    },
    "v2.1.0": {
        "evaluated_per_window": 15,
        "trial_factor": 0.2,
        "overlap.halve": 0.4,
        "weights.kind": "ramp",
        "weights.burn": 0.5,
        "slashing.inactive_windows": 10,
        "sync.max_behind": 3.0,
        "weights.set_every_windows": 2,
    },
    "v2.1.28": {
        "evaluated_per_window": 20,
        "trial_factor": 0.2,
        "overlap.halve": 0.4,
        "overlap.reset": 0.5,
        "overlap.exclude": 0.6,
        "weights.kind": "ramp",
        "weights.burn": 0.5,
        "slashing.inactive_windows": 3,
        "sync.max_behind": 2.0,
        "sync.cap": 3.0,
        "indicator_threshold": 0.1,
        "weights.set_every_windows": 3,
        "off": (),
        "quirks": Quirks(),
    },
}
"""Values of the published table of hyper-parameters by version, and of the paper."""


@pytest.mark.parametrize(("preset", "path"), [(preset, path) for preset in TABLE for path in TABLE[preset]])
def test_presets_hold_the_published_values(preset: str, path: str) -> None:
    value: object = GauntletSettings.model_validate({"preset": preset})
    for name in path.split("."):
        value = getattr(value, name)
    assert value == TABLE[preset][path]


def test_the_default_is_the_last_version() -> None:
    assert GauntletSettings() == GauntletSettings(preset="v2.1.28")
    assert list(PRESETS) == list(TABLE)
    assert all(GauntletSettings().quirks.model_dump().values())


def test_what_a_version_had_not_is_off_in_it() -> None:
    off = {preset: set(GauntletSettings.model_validate({"preset": preset}).off) for preset in PRESETS}
    cuts = set(RULES) - {"indicator", "indicator_threshold", "sync_score", "slash_kept", "no_improvement"}
    assert off["paper"] == cuts
    assert off["v0.2"] > {"overlap_halve", "overlap_reset", "overlap_exclude", "penalty_score"}
    assert off["v0.2"] > off["v1.0"] - {"overlap_reset", "overlap_exclude"}
    assert off["v1.0"] > off["v2.1.0"] > off["v2.1.28"] == set()


@pytest.mark.parametrize("preset", list(PRESETS))
def test_given_values_win_key_by_key(preset: str) -> None:
    plain = GauntletSettings.model_validate({"preset": preset})
    given = {"preset": preset, "bins": 7, "slashing": {"quorum": 0.3}, "sync": {"cap": 4}, "weights": {"burn": "10 %"}}
    changed = GauntletSettings.model_validate(given)
    assert changed.slashing == plain.slashing.model_copy(update={"quorum": 0.3})
    assert changed.sync == plain.sync.model_copy(update={"cap": 4.0})
    assert changed.weights == plain.weights.model_copy(update={"burn": 0.1})
    restored = {"bins": plain.bins, "slashing": plain.slashing, "sync": plain.sync, "weights": plain.weights}
    assert changed.model_copy(update=restored) == plain


def test_weights_of_another_kind_replace_those_of_the_preset() -> None:
    def weights(preset: str, **given: object) -> object:
        return GauntletSettings.model_validate({"preset": preset, "weights": given}).weights

    assert weights("v0.2", kind="ramp") == Ramp()
    assert weights("v1.0", kind="power") == Power()
    assert weights("v1.0", kind="ramp", ramp=3) == Ramp(ramp=3, burn=0.8, set_every_windows=13)
    assert weights("v0.2", kind="power") == GauntletSettings(preset="v0.2").weights
    assert weights("v2.1.28", burn=0) == Ramp(burn=0)
    assert GauntletSettings(preset="v0.2", weights=Ramp()).weights == Ramp()


def test_a_list_replaces_that_of_the_preset() -> None:
    assert GauntletSettings(preset="paper", off=()).off == ()
    rules = GauntletSettings.model_validate({"preset": "v1.0", "slashing": {"misses": [0.9, 0.1]}})
    assert rules.slashing.misses == (0.9, 0.1)


@pytest.mark.parametrize("given", [{"preset": "v9"}, {"preset": 3}, {"preset": "paper", "weights": 3}, "paper", None])
def test_malformed_settings_are_left_to_the_fields(given: object) -> None:
    with pytest.raises(ValueError):
        GauntletSettings.model_validate(given)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_settings_survive_being_written_down(preset: str) -> None:
    """All values explicit, the same value; so a resolved scenario says everything and means the same."""
    changed = {"preset": preset, "beta": 20, "slashing": {"misses": [0.9]}, "overlap": {"halve": "45 %"}}
    for settings in map(GauntletSettings.model_validate, ({"preset": preset}, changed)):
        for written in (settings.model_dump(mode="json"), settings.model_dump()):
            assert GauntletSettings.model_validate(written) == settings
        assert GauntletSettings.model_validate(settings) == settings


def test_the_pure_files_need_no_torch() -> None:
    """Reading a scenario, and checking a ledger's weights, must not take seconds of importing."""
    files = ("settings", "presets", "evidence", "rating", "slashing", "overlap", "negatives", "final_score", "weights")
    names = ", ".join(f"covsim.gauntlet.{name}" for name in (*files, "selection", "sync"))
    told = subprocess.run(
        [sys.executable, "-c", f"import sys, {names}; print('torch' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == "False"
