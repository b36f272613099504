"""Live hparams files become scenarios, and no key of theirs is dropped without a word."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covsim.protocol import Composed, DeMo, SparseLoCo
from covsim.scenario import Scenario, load, loads
from covsim.scenario.deployment import COVENANT_72B, TEMPLAR_1B, TEMPLAR_8B, num_parameters
from covsim.scenario.hparams import HparamsError, Imported, import_hparams
from covsim.scenario.hparams_keys import NOT_YET, SETTINGS, SOFTWARE
from covsim.scenario.sizes import cohort_sizes

FOLDER = Path(__file__).parent / "hparams"
FILES = sorted(path.stem for path in FOLDER.glob("*.json") if path.stem != "crusades")
NEWEST = FOLDER / "72b-v2.1.28.json"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes the newest fixture with some values replaced (None removes a key) and returns its path."""

    def to_file(**changes: Any) -> Path:
        values = json.loads(NEWEST.read_text()) | changes
        path = tmp_path / "hparams.json"
        path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
        return path

    return to_file


def leaves(value: dict[str, Any], above: str = "") -> Iterator[str]:
    """Dotted names of all values that are not objects."""
    for key, item in value.items():
        if isinstance(item, dict) and item:
            yield from leaves(item, f"{above}{key}.")
        else:
            yield f"{above}{key}"


def named(imported: Imported) -> set[str]:
    """Keys that the scenario's comments or the report mention."""
    comments = " ".join(line[1:] for line in imported.text.splitlines() if line.startswith("#"))
    used = {word.strip(",.") for word in comments.split()}
    lines = [re.match(r"  (?:used|not used|not mapped): (\S+?)(?=:|$| )", line) for line in imported.report]
    return used | {line[1] for line in lines if line}


def scenario(path: Path, **options: int) -> Scenario:
    return loads(import_hparams(path, **options).text)


def at(value: Any, path: str) -> Any:
    for key in path.split("."):
        value = value[key] if isinstance(value, dict) else getattr(value, key)
    return value


@pytest.mark.parametrize("name", FILES)
def test_no_key_is_dropped_without_a_word(name: str) -> None:
    path = FOLDER / f"{name}.json"
    imported = import_hparams(path)
    keys = set(leaves(json.loads(path.read_text())))
    assert len(keys) > 10
    assert keys - named(imported) == set()


@pytest.mark.parametrize("name", FILES)
def test_each_file_loads_and_says_what_is_not_its_own(name: str) -> None:
    imported = import_hparams(FOLDER / f"{name}.json", peers=20, rounds=3)
    made = loads(imported.text)
    assert (made.peers, made.planned_rounds) == (20, 3)
    assert "What the file does not say is the flagship's" in imported.text
    assert "unknown:" not in imported.report


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "72b-v2.1.28",
            {
                "protocol": SparseLoCo.model_validate(
                    {"inner_steps": 30, "k": 64, "bits": 2, "packing": "byte_per_value", "outer": {"lr": 0.4}}
                ),
                "training.inner.kind": "adamw",
                "training.inner.lr": 1.17e-4,
                "training.inner.betas": (0.9, 0.95),
                "training.inner.eps": 1e-8,
                "training.inner.weight_decay": 0.1,
                "training.inner.schedule.final_share": 0.1,
                "training.batch": 4,
                "data.pool_used": 0.1875,
                "timeline.block": 12,
                "timeline.blocks_per_window": 115,
                "timeline.put_window": 70,
                "timeline.gather_timeout": 600,
                "deployment.preset": "covenant-72b",
                "deployment.inner_step.seconds": 40,
                "selection.gather": 20,
                "selection.reserve": 10,
                "selection.refresh_windows": 2,
                "selection.delay_windows": 1,
                "gauntlet": load("covenant72b", {"gauntlet.evaluated_per_window": 20}).gauntlet,
                "peers": 72,
            },
        ),
        (
            "72b-v2.1.0",
            {
                "protocol.outer.lr": 1.0,
                "training.inner.lr": 1.3e-4,
                "timeline.blocks_per_window": 125,
                "selection.refresh_windows": 5,
                "gauntlet.evaluated_per_window": 15,
                "gauntlet.indicator_threshold": 0,
                "gauntlet.slashing.inactive_windows": 10,
            },
        ),
        (
            "8b-v1.0.20",
            {
                "protocol.k": 32,
                "protocol.bits": 4,
                "protocol.error_decay": 0.999,
                "protocol.outer.lr": 0.9,
                "training.inner.kind": "muon",
                "training.inner.lr": 1e-2,
                "training.inner.adam_lr": 2e-3,
                "training.inner.momentum": 0.95,
                "training.inner.weight_decay": 0.01,
                "deployment.preset": "templar-8b",
                "deployment.inner_step.seconds": 8.64,
                "timeline.put_window": 18,
                "gauntlet.trial_factor": 0.1,
                "gauntlet.weights.burn": 0.8,
                "gauntlet.own_sequences": 8,
            },
        ),
        (
            "8b-v1.0.0",
            {
                "protocol.bits": 8,
                "training.inner.kind": "adamw",
                "training.inner.lr": 2e-4,
                "training.inner.schedule.final_share": 0.1,
                "data.pool_used": 0.25,
                "selection.gather": 15,
                "selection.reserve": 0,
                "gauntlet.overlap.halve": 0.5,
                "gauntlet.overlap.exclude": 0.7,
            },
        ),
        (
            "1b-v0.2",
            {
                "protocol": DeMo.model_validate(
                    {
                        "k": 32,
                        "error_decay": 0.999,
                        "indices": "bits16",
                        "outer": {
                            "kind": "sign_sgd",
                            "lr": 4e-4,
                            "weight_decay": 0.1,
                            "schedule": {"kind": "cosine", "warmup_steps": 0, "final_share": 0.1},
                        },
                    }
                ),
                "deployment.preset": "templar-1b",
                "timeline.blocks_per_window": 7,
                "timeline.put_window": 15,
                "selection.gather": 14,  # 20 % of 72, at most 15
                "gauntlet.weights.burn": 0,
            },
        ),
        ("2b-override", {"deployment.preset": "same", "protocol.k": 32, "protocol.error_decay": 0.999}),
    ],
)
def test_values(name: str, expected: dict[str, Any]) -> None:
    made = scenario(FOLDER / f"{name}.json")
    assert {path: at(made, path) for path in expected} == expected


def test_presets_have_the_published_counts() -> None:
    counts = [num_parameters(groups) for groups in (COVENANT_72B, TEMPLAR_8B, TEMPLAR_1B)]
    assert counts == [72_747_327_488, 7_241_732_096, 1_204_881_408]


def test_a_shape_of_its_own_is_charged_for() -> None:
    made = scenario(FOLDER / "2b-override.json")
    width, keys, hidden = 2048, 1024, 8192
    layer = 2 * width * width + 2 * keys * width + 3 * hidden * width + 2 * width
    groups = made.deployment.groups([])
    assert num_parameters(groups) == 24 * layer + 2 * 262_144 * width + width


def test_the_schedule_is_squeezed_as_a_whole() -> None:
    """1,500 of 141,500 steps are warm-up; a run as long as that has them all."""
    assert scenario(NEWEST, rounds=30).training.inner.schedule.model_dump()["warmup_steps"] == 10
    whole = scenario(NEWEST, rounds=4717).training.inner.schedule.model_dump()
    assert whole["warmup_steps"] == 1500


@pytest.mark.parametrize("peers", [1, 2, 5, 72, 100])
def test_cohorts_keep_their_proportions(peers: int) -> None:
    made = scenario(NEWEST, peers=peers)
    sizes = cohort_sizes(peers, made.cohorts)
    flagship = {"copycats": 2, "flippers": 4, "lazy": 8}
    assert all(abs(sizes.get(name, 0) - count * peers / 72) <= 0.5 for name, count in flagship.items())
    assert all(sizes.values())


def test_dct_inside_sparseloco(write: Write) -> None:
    made = scenario(write(use_dct=True)).protocol
    assert isinstance(made, Composed)
    assert made.compressor.model_dump() == {"kind": "dct", "k": 64}
    assert (made.error_feedback.decay if made.error_feedback else None) == 0.95
    assert made.outer.lr == 0.4


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"wandb_project": "x"}, "not used: wandb_project"),
        ({"burn_rat": 0.5, "burn_rate": None}, "not used: burn_rat (did you mean 'burn_rate'?)"),
        ({"optimizer.type": "sgd"}, 'not used: "optimizer.type"'),
        ({"quantization_bins": 3}, "not mapped: quantization_bins (3): covsim writes values in 4, 16 or 256 bins"),
        ({"quantization_range": 8}, "not mapped: quantization_range (8): covsim's bins span 6 standard deviations"),
        ({"target_chunk": 32}, "not mapped: target_chunk (32): covsim cuts tensors into blocks of up to 64 x 64"),
        ({"gather_peer_count": 0}, "not mapped: gather_peer_count (0): selection.gather must be at least 1, not 0"),
        ({"burn_rate": 1.5}, "not mapped: burn_rate (1.5): gauntlet.weights.burn 1.5 is not a share between"),
        ({"outer_learning_rate": -1}, "not mapped: outer_learning_rate (-1): protocol.outer.lr must be greater than 0"),
        ({"inner_steps": 0}, "not mapped: inner_steps (0): must be above 0"),
        ({"time_window_delta_seconds": 1380}, "not mapped: time_window_delta_seconds (1380): is not shorter than a"),
        ({"blocks_per_window": -5}, "not mapped: blocks_per_window (-5): must be above 0"),
        ({"target_batch_size": 100}, "not mapped: target_batch_size (100): is below batch_size"),
        ({"model_size": "2B"}, "not mapped: model_size ('2B'): its shape stands in a file of its own"),
        ({"tokenizer_name": "mine"}, "not mapped: tokenizer_name ('mine'): how many tokens it has is not known here"),
        ({"optimizer": {"type": "sgd"}}, "not mapped: optimizer.type ('sgd'): covsim knows adamw and muon"),
        (
            {"optimizer": {"type": "adamw", "adamw": {"betas": [2, 3]}}},
            "not mapped: optimizer.adamw.betas (a list): training.inner.betas must be less than 1, not 2",
        ),
        ({"power_normalisation": 2.0}, "not mapped: power_normalisation (2.0): the ramp stands in for a power"),
        ({"catch_up_threshold": 5}, "not used: catch_up_threshold: windows behind from which a peer replays"),
        ({"project": "dough"}, "not used: project: name under which the run is logged"),
    ],
)
def test_what_is_not_used_is_said(write: Write, changes: dict[str, Any], line: str) -> None:
    imported = import_hparams(write(**changes))
    loads(imported.text)
    assert [found for found in imported.report if found.startswith(f"  {line}")]


def test_keys_stand_in_their_groups() -> None:
    report = import_hparams(NEWEST).report
    headings = [line for line in report if not line.startswith(" ")]
    assert headings == [
        "used, but mind:",
        "could not be mapped as they stand:",
        "covsim has no setting for these yet:",
        "other keys of the file are in force instead, or these are switched off:",
        "only the live software and its hardware need these:",
    ]
    assert report.index("  not used: optimizer.muon.momentum") > report.index(headings[3])


def test_nulls_are_named(tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    path.write_text('{"blocks_per_window": 10, "inner_steps": 5, "burn_rate": null, "optimizer": {}}')
    report = import_hparams(path).report
    assert report == ("without a value:", "  not used: burn_rate", "  not used: optimizer")


def test_the_tables_do_not_overlap() -> None:
    assert not SETTINGS.keys() & NOT_YET.keys()
    assert not (SETTINGS.keys() | NOT_YET.keys()) & SOFTWARE.keys()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON: expecting value in line 1, column 1"),
        ("{'a': 1}", "is not JSON: expecting property name enclosed in double quotes in line 1, column 2"),
        ("[1]", "must be an object of keys and values, not a list"),
        ("null", "must be an object of keys and values, not null"),
        ("{}", "is not a hparams file of templar: it has no blocks_per_window"),
        ('{"blocks_per_window": null}', "is not a hparams file of templar: it has no blocks_per_window"),
        ('{"blocks_per_window": "7"}', "blocks_per_window must be a whole number, not '7'"),
        ('{"blocks_per_window": 7.5}', "blocks_per_window must be a whole number, not 7.5"),
        ('{"blocks_per_window": true}', "blocks_per_window must be a whole number, not true"),
        ('{"blocks_per_window": {"a": 1}}', "blocks_per_window must be a whole number, not a mapping"),
        ('{"blocks_per_window": 7, "blocks_per_window": 8}', "has the key 'blocks_per_window' twice"),
        ('{"blocks_per_window": 7, "optimizer": 3}', "optimizer must be an object of keys and values, not 3"),
        ('{"blocks_per_window": 7, "burn_rate": NaN}', "is not JSON: NaN is no number"),
        ('{"blocks_per_window": 7, "burn_rate": 1e999}', "burn_rate holds a number that is too large"),
        ('{"blocks_per_window": 1' + "0" * 400 + "}", "blocks_per_window holds a number that is too large"),
        ('{"blocks_per_window": 1' + "0" * 5000 + "}", "holds a number that is too long"),
        ('{"blocks_per_window": 7, "optimizer": {"adamw": {"betas": [0.9, "x"]}}}', "optimizer.adamw.betas must be a"),
        ('{"blocks_per_window": 7, "use_dct": 1}', "use_dct must be true or false, not 1"),
        ('{"blocks_per_window": 7, "model_size": 8}', "model_size must be text, not 8"),
        ("[" * 100_000, "is nested too deeply"),
        ('{"blocks_per_window": 7, "x": ' + '{"a": ' * 50 + "1" + "}" * 51, "is nested too deeply"),
        ('{"blocks_per_window": 7, "x": "' + "y" * 1_000_000 + '"}', "is larger than 1 MB, which no hparams file is"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "hparams.json"
    path.write_text(text)
    with pytest.raises(HparamsError) as error:
        import_hparams(path)
    assert str(error.value).startswith(f"{path}: {message}")
    assert "\n" not in str(error.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "latin.json").write_bytes(b'{"a": "\xe9"}')
    for name, message in {
        "nothing.json": "no such file",
        ".": "cannot be read: is a directory",
        "latin.json": "is not JSON: not a text in UTF-8",
    }.items():
        with pytest.raises(HparamsError, match=f": {message}$"):
            import_hparams(tmp_path / name)


def test_another_programs_file_is_refused() -> None:
    with pytest.raises(HparamsError, match="it looks like a file of one-covenant/crusades"):
        import_hparams(FOLDER / "crusades.json")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"peers": 0}, "--peers must be greater than 0, not 0"),
        ({"peers": 200_000}, "--peers must be at most 100000, not 200000"),
        ({"rounds": 0}, "--rounds must be greater than 0, not 0"),
        ({"rounds": -3}, "--rounds must be greater than 0, not -3"),
    ],
)
def test_bad_options(options: dict[str, int], message: str) -> None:
    with pytest.raises(HparamsError, match=f": {message}$"):
        import_hparams(NEWEST, **options)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 300),
    st.sampled_from([10**9, 10**14, 0.0, 1e-9, 0.5, 1.5, -0.5, 1e9, "8B", "muon", "", [0.9], {}, {"a": 1}]),
)


@settings(max_examples=60)
@given(key=st.sampled_from(sorted(SETTINGS)), value=VALUES)
def test_whatever_a_value_is_the_file_is_imported_or_refused(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: Any
) -> None:
    values = json.loads(NEWEST.read_text())
    here = values
    *above, last = key.split(".")
    for name in above:
        here = here.setdefault(name, {})
    here[last] = value
    path = tmp_path_factory.getbasetemp() / "drawn.json"
    path.write_text(json.dumps(values))
    try:
        imported = import_hparams(path, rounds=2)
    except HparamsError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        loads(imported.text)
        assert key in named(imported)
