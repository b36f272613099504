"""`covsim verify` on a small real run: it holds as it was written, and whatever is changed in it is named."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command import covsim
from safetensors.torch import load_file, save_file

from covsim.record.runner import run
from covsim.record.verify import CannotVerify, records_of_peer, verify_run
from covsim.scenario import loads

SCENARIO = """\
version: 1
name: verified
seed: 11
stop: {rounds: 4}
model: {kind: gpt, layers: 1, width: 8, context: 16}
data: {held_out_sequences: 4}
training: {batch: 1}
protocol: {inner_steps: 2}
timeline: {block: 1 s, blocks_per_window: 20, put_window: 5 s, gather_timeout: 10 s}
chain: {tempo: 20, rate_limit: 5}
peers: 6
cohorts:
  honest: {share: rest}
  copycats: {count: 1, behavior: copycat, uplink: 10 Gb/s, downlink: 10 Gb/s}
  friends: {count: 1, behavior: lazy}
validators:
  lead: {stake: 0.6}
  bought: {stake: 0.3, behavior: {kind: bribed, cohort: friends, share: 50 %}}
  copier: {stake: 0.1, behavior: weight_copier}
selection: {gather: 4, reserve: 2}
gauntlet: {evaluated_per_window: 6, own_sequences: 2, random_sequences: 2, weights: {kind: ramp, set_every_windows: 1}}
"""


def executed(folder: Path, text: str = SCENARIO) -> Path:
    return run(loads(text), text, folder).folder


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that no test changes."""
    return executed(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def folder(untouched: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(untouched, tmp_path / "run"))


def files_at_fault(folder: Path) -> set[str]:
    """The names with which faults begin."""
    return {re.split("[: ]", fault)[0] for fault in verify_run(folder).faults}


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    before = path.read_bytes()
    after = change(before)
    assert after != before
    path.write_bytes(after)


def flipped(data: bytes, place: int, bit: int = 0) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


# What holds -----------------------------------------------------------------------------------------------------------


def test_a_run_as_it_was_written_is_verified(untouched: Path) -> None:
    report = verify_run(untouched)
    assert report.faults == ()
    assert [name for name, _ in report.held] == ["ledger", "head", "weights", "payloads", "theta"]
    code, out, err = covsim("verify", str(untouched))
    assert (code, err) == (0, "")
    assert out.count("ok  ") == 5
    assert out.splitlines()[-1] == f"{untouched}: verified"


def findings(folder: Path, name: str) -> list[str]:
    return [finding for finding in verify_run(folder).findings if f" {name} " in finding]


def test_what_validators_and_copycats_do_is_noted_and_no_fault(untouched: Path) -> None:
    """The honest lead leaves no note; the bribed one's weights do not follow, the copier has no verdicts at all."""
    assert findings(untouched, "validator:lead") == []
    bought, copier = findings(untouched, "validator:bought"), findings(untouched, "validator:copier")
    assert len(bought) == len(copier) == 4
    assert all("that do not follow from its verdicts" in finding for finding in bought)
    assert all("without verdicts" in finding for finding in copier)
    others = [finding for finding in verify_run(untouched).findings if "validator:" not in finding]
    assert others
    assert all(
        re.fullmatch(r"block \d+: peer:\d submitted what the tape has as payload uid=\d round=\d", finding)
        for finding in others
    )
    assert len({finding.split()[2] for finding in others}) == 1, "there is one copycat"


def test_notes_are_printed(untouched: Path) -> None:
    _, out, _ = covsim("verify", str(untouched))
    assert out.count("note ") == len(verify_run(untouched).findings)


TIGHT = "rate_limit: 5, slots: 9, immunity: 0, registration_cost: 1.5"
JOINING = "behavior: copycat, membership: {kind: from_round, round: 2}"


@pytest.mark.parametrize(
    "changes",
    [
        {"rate_limit: 5": "rate_limit: 5, weights: float"},
        {"rate_limit: 5": "rate_limit: 5, commit_reveal: none"},
        {"rate_limit: 5": "rate_limit: 5, commit_reveal: 3, consensus: yuma3"},
        {"kind: ramp": "kind: power", "seed: 11": "seed: 12"},
        {"behavior: copycat": JOINING, "rate_limit: 5": TIGHT},
        {"behavior: copycat": JOINING, "rate_limit: 5": f"{TIGHT}, weights: float, commit_reveal: none"},
    ],
    ids=["floats", "open weights", "hidden for longer", "another rule", "a newcomer in another's slot", "openly"],
)
def test_other_chains_are_verified_too(changes: dict[str, str], tmp_path: Path) -> None:
    text = SCENARIO
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    folder = executed(tmp_path, text)
    report = verify_run(folder)
    assert report.faults == ()
    assert len(report.held) == 5
    assert findings(folder, "validator:lead") == []
    assert findings(folder, "validator:bought")
    joined = [records_of_peer(folder, uid)[0][0] for uid in range(6)]
    late = [record.outcome for record in joined if record.height > 0]
    assert late == ([""] if JOINING in text else []), "the newcomer has a slot"


def test_what_is_not_logged_is_said_to_be_unchecked(tmp_path: Path) -> None:
    folder = executed(tmp_path, SCENARIO.replace("rate_limit: 5", "rate_limit: 5, log: []"))
    report = verify_run(folder)
    assert report.faults == ()
    assert [name for name, _ in report.held] == ["ledger", "head", "theta"]
    assert report.findings == (
        "weights could not be checked: verdicts are not logged on this chain",
        "payloads could not be checked: payload_hashes are not logged on this chain",
    )


# What does not --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ledger.jsonl", "tape/tape.bin", "final.safetensors"])
def test_any_flipped_bit_is_found_in_its_file(folder: Path, name: str) -> None:
    path, luck = folder / name, random.Random(name)
    data = path.read_bytes()
    for place in [0, len(data) - 1, *(luck.randrange(len(data)) for _ in range(10))]:
        path.write_bytes(flipped(data, place, luck.randrange(8)))
        assert name in files_at_fault(folder), f"byte {place}"


@pytest.mark.parametrize("name", ["ledger.jsonl", "tape/tape.bin", "final.safetensors"])
def test_a_cut_or_longer_file_is_found(folder: Path, name: str) -> None:
    path = folder / name
    data = path.read_bytes()
    for other in (b"", data[:-1], data[: len(data) // 2], data + b"\n", data * 2):
        path.write_bytes(other)
        assert name in files_at_fault(folder)


def test_a_faulty_line_is_named_and_nothing_else(folder: Path) -> None:
    edit(folder / "ledger.jsonl", lambda data: data.replace(b'"stake":0.6', b'"stake":0.7', 1))
    code, out, _ = covsim("verify", str(folder))
    assert code == 1
    wrong = [line for line in out.splitlines() if line.startswith("WRONG")]
    assert len(wrong) == 1
    assert wrong[0].startswith("WRONG    ledger.jsonl:1: block 0: ")
    assert "ok       weights" not in out
    assert out.splitlines()[-1] == f"{folder}: 1 fault"


def test_a_cut_ledger_is_found_by_the_summary(folder: Path) -> None:
    edit(folder / "ledger.jsonl", lambda data: b"".join(data.splitlines(keepends=True)[:-1]))
    faults = verify_run(folder).faults
    assert any("ledger.jsonl: ends with block" in fault for fault in faults)
    assert any("no block says what the run amounts to" in fault for fault in faults)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [("ledger.head", "0" * 64, "ledger.jsonl"), ("ledger.blocks", 3, "ledger.jsonl"), ("rounds", 5, "summary.json")],
)
def test_the_summary_must_know_the_ledger(folder: Path, key: str, value: object, named: str) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    assert key in summary
    (folder / "summary.json").write_text(json.dumps(summary | {key: value}))
    assert files_at_fault(folder) == {named}


def test_a_tape_without_a_payload_says_which_one(folder: Path) -> None:
    edit(folder / "tape" / "tape.bin", lambda data: data[: len(data) // 2])
    (missing, other) = sorted(verify_run(folder).faults)
    assert re.match(
        r"tape/tape.bin: \d+ payloads of the chain are not on it, the first is peer:\d's of round \d, ", missing
    )
    assert other == "tape/tape.bin: it is not the tape that the last block names"


def test_other_parameters_are_named(folder: Path) -> None:
    path = folder / "final.safetensors"
    tensors = load_file(path)
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name] + 1e-6}, path)
    (fault,) = verify_run(folder).faults
    assert fault == "final.safetensors: these are not the parameters that the last block names"
    for other in ({name: tensors[name]}, tensors | {"more": torch.zeros(1)}, tensors | {name: tensors[name].double()}):
        save_file(other, path)
        (fault,) = verify_run(folder).faults
        assert fault.startswith("final.safetensors: it does not hold the parameters of the scenario's model")


def test_another_scenario_does_not_lead_to_this_run(folder: Path) -> None:
    edit(folder / "resolved.yaml", lambda data: data.replace(b"seed: 11", b"seed: 12"))
    assert "ledger.jsonl" in files_at_fault(folder)


# Records --------------------------------------------------------------------------------------------------------------


def test_a_peers_record_is_printed_with_its_proofs(untouched: Path) -> None:
    code, out, err = covsim("verify", str(untouched), "--uid", "2")
    assert (code, err) == (0, "")
    records, faults = records_of_peer(untouched, 2)
    assert faults == ()
    assert out.count("\nblock ") + out.startswith("block ") == len(records)
    assert out.count("  proven against root ") == out.count("  signed by ") == len(records)
    kinds = re.findall(r"extrinsic \d+: (\w+), accepted", out)
    assert kinds[:2] == ["register", "commit_bucket"]
    assert set(kinds[2:]) == {"payload_hash"}
    assert "NOT" not in out


def test_a_record_out_of_a_faulty_ledger_says_so(folder: Path) -> None:
    lines = (folder / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "ledger.jsonl").write_bytes(b"".join([*lines[:3], flipped(lines[3], 50), *lines[4:]]))
    code, out, _ = covsim("verify", str(folder), "--uid", "2")
    assert code == 1
    assert "WRONG    ledger.jsonl:4: " in out
    assert "block 0, extrinsic" in out


# What cannot be verified ----------------------------------------------------------------------------------------------


def refusal(*arguments: str) -> str:
    """The one line with which a command ends."""
    code, out, err = covsim("verify", *arguments)
    assert (code, out) == (2, "")
    assert err.endswith("\n")
    assert len(err.splitlines()) == 1
    return err


@pytest.mark.parametrize("name", ["summary.json", "ledger.jsonl", "final.safetensors", "tape/tape.bin"])
def test_a_folder_without_a_file_is_no_finished_run(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert f"{folder}: no finished run to verify here (it has no {name})" in refusal(str(folder))


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    assert "no finished run to verify here" in refusal(str(tmp_path / "nowhere"))


def test_a_folder_without_its_scenario_is_refused(folder: Path) -> None:
    (folder / "resolved.yaml").unlink()
    assert "resolved.yaml" in refusal(str(folder))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"a": \x00}', "[" * 100_000, "\xff"])
def test_a_summary_that_is_none_is_refused(folder: Path, text: str) -> None:
    (folder / "summary.json").write_bytes(text.encode("latin-1"))
    assert "summary.json: it " in refusal(str(folder))


def test_a_peer_that_never_registered_has_no_record(untouched: Path) -> None:
    assert "no peer with uid 99 registered in this run" in refusal(str(untouched), "--uid", "99")


def test_a_peer_is_not_looked_for_in_vain_without_a_word(folder: Path) -> None:
    """Where the registrations cannot be read, that is said."""
    edit(folder / "ledger.jsonl", lambda data: flipped(data, 50))
    with pytest.raises(CannotVerify, match=r"no peer with uid 2 registered in this run; ledger\.jsonl:1: "):
        records_of_peer(folder, 2)
