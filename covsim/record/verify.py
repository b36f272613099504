"""Is a run what its folder says? Everything that can be checked from the files alone, and named where it fails.

    ledger     every line is sealed, follows the one before, and runs again to the same outcomes and payments
    head       the summary names the last line, so a cut ledger is found, and the rounds; nothing proves the rest of it
    weights    what a validator set follows from the verdicts it logged, by the scenario's rule
    payloads   every payload hash on the chain is that of a payload on the tape
    theta      the final parameters have the hash and the loss that the last block states

A validator that sets weights which do not follow from its verdicts is no fault of the folder: it is a finding about
the validator. Keys are derived from the scenario's seed, so a ledger proves what happened in a simulation, not who did
it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from covsim.chain import merkle
from covsim.chain.extrinsics import (
    CloseRun,
    CommitWeights,
    LogVerdicts,
    PayloadHash,
    Register,
    RevealWeights,
    SetWeights,
    Signed,
)
from covsim.chain.ledger import Block, records_of
from covsim.chain.stances import quantized
from covsim.chain.verification import Ledger, read
from covsim.gauntlet.weights import weigh
from covsim.learning.corpus import Corpus
from covsim.learning.evaluate import losses_per_vector
from covsim.nodes.books import scoring_lots
from covsim.nodes.chain_node import OWNER, peer_name
from covsim.randomness import Streams
from covsim.record.files import file_sha256
from covsim.record.runner import CannotResume, scenario_of
from covsim.record.tape import records
from covsim.scenario import Scenario
from covsim.simulation import theta_sha256

_LOSS_ROUNDING = 1e-5
"""Nats by which a loss may differ on another machine."""


class CannotVerify(ValueError):
    """The folder holds no finished run, or lacks a file; the message is one line."""


@dataclass(frozen=True)
class Report:
    """What holds (name of the check, what it says), what is wrong, and what somebody did that is remarkable."""

    held: tuple[tuple[str, str], ...]
    faults: tuple[str, ...]
    findings: tuple[str, ...]


@dataclass(frozen=True)
class Record:
    """One thing that an account said: where it stands, what came of it, and its proof against the block's root."""

    height: int
    index: int
    signed: Signed
    outcome: str
    root: str
    proof: merkle.Proof


def verify_run(folder: Path) -> Report:
    """Check a run's folder. Raises CannotVerify if there is nothing to check.

    Where the ledger has faults, the other checks go by what can still be read of it, and weights, which need all of it,
    are left out.
    """
    case = _opened(folder)
    held, faults = [], [str(fault) for fault in case.ledger.faults]
    if not faults:
        blocks = f"{len(case.ledger.blocks)} blocks, each sealed, linked, and run again to the same payments"
        held.append(("ledger", blocks))
    for name, (check, says) in _CHECKS.items():
        if name in _NEEDS and _NEEDS[name] not in case.scenario.chain.log:
            case.findings.append(f"{name} could not be checked: {_NEEDS[name]} are not logged on this chain")
            continue
        if check is _weights and case.ledger.faults:
            continue
        problems = list(check(case))
        faults += problems
        if not problems:
            held.append((name, says))
    return Report(tuple(held), tuple(faults), tuple(case.findings))


def records_of_peer(folder: Path, uid: int) -> tuple[list[Record], tuple[str, ...]]:
    """Everything that a peer said on the chain, with proofs, and what is wrong with the ledger that says so.

    Raises CannotVerify for a uid that never registered.
    """
    ledger = _opened(folder).ledger
    publics, faults = _publics(ledger.blocks), tuple(str(fault) for fault in ledger.faults)
    if peer_name(uid) not in publics:
        reason = f"; {faults[0]}" if faults else ""
        raise CannotVerify(f"{folder}: no peer with uid {uid} registered in this run{reason}")
    roots = {block.height: merkle.root(block.leaves) for block in ledger.blocks}
    records = [
        Record(height, index, signed, outcome, roots[height], proof)
        for height, index, signed, outcome, proof in records_of(ledger.blocks, publics[peer_name(uid)])
    ]
    return records, faults


def _opened(folder: Path) -> _Case:
    for name in ("summary.json", "ledger.jsonl", "final.safetensors", "tape/tape.bin"):
        if not (folder / name).is_file():
            raise CannotVerify(f"{folder}: no finished run to verify here (it has no {name})")
    try:
        scenario = scenario_of(folder)
    except CannotResume as error:
        raise CannotVerify(str(error)) from error
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CannotVerify(f"{folder / 'summary.json'}: it is not JSON: {error}") from error
    if not isinstance(summary, dict):
        raise CannotVerify(f"{folder / 'summary.json'}: it does not hold figures by name")
    ledger = read((folder / "ledger.jsonl").read_bytes(), scenario.chain, scenario.seed)
    return _Case(folder, scenario, summary, ledger, [])


@dataclass(frozen=True)
class _Case:
    """A folder, opened. Checks yield faults, and add what is remarkable to `findings`."""

    folder: Path
    scenario: Scenario
    summary: Mapping[str, Any]
    ledger: Ledger
    findings: list[str]

    @property
    def tape(self) -> Path:
        return self.folder / "tape" / "tape.bin"

    @property
    def included(self) -> Iterator[tuple[int, Signed]]:
        """Every extrinsic that was accepted, with its height."""
        for block in self.ledger.blocks:
            for signed, outcome in zip(block.extrinsics, block.outcomes, strict=True):
                if not outcome:
                    yield block.height, signed

    @property
    def end(self) -> CloseRun | None:
        """What the run amounts to, if a block says so."""
        return next((signed.call for _, signed in self.included if isinstance(signed.call, CloseRun)), None)

    def name(self, signed: Signed) -> str:
        """The name under which an account registered, or the beginning of its key where that cannot be read."""
        return self.names.get(signed.public, signed.public[:12])

    @cached_property
    def names(self) -> dict[str, str]:
        """Names of accounts by their public keys."""
        return {public: name for name, public in _publics(self.ledger.blocks).items()}


def _head(case: _Case) -> Iterator[str]:
    """The summary's word for how many blocks there are and which is the last."""
    number, head = case.summary.get("ledger.blocks"), str(case.summary.get("ledger.head"))
    found = case.ledger.num_lines, case.ledger.head or head  # what the last line is, cannot be said if it is no block
    if found != (number, head):
        ends = f"ends with block {found[1]:.12}, number {found[0]}"
        yield f"ledger.jsonl: {ends}; the summary says {head:.12}, number {number}"
    rounds, stated = case.summary.get("rounds"), case.end
    if stated is not None and rounds != stated.rounds:
        yield f"summary.json: it has {rounds} rounds, the last block says {stated.rounds}"


def _weights(case: _Case) -> Iterator[str]:
    """Weights against the verdicts of the same validator and round; what does not follow is a finding."""
    logged: dict[tuple[str, int], LogVerdicts] = {}
    decided: dict[tuple[str, str], int] = {}
    for height, signed in case.included:
        call, name = signed.call, case.name(signed)
        if isinstance(call, LogVerdicts):
            logged[signed.public, call.round] = call
        elif isinstance(call, CommitWeights):
            decided[signed.public, call.digest] = height
        elif isinstance(call, SetWeights | RevealWeights):
            since = decided[signed.public, call.digest] if isinstance(call, RevealWeights) else height
            slots, verdicts = case.ledger.slots_at(since - 1), logged.get((signed.public, call.round))
            did = f"block {height}: {name} set weights after round {call.round}"
            if verdicts is None:
                case.findings.append(f"{did} without verdicts")
            elif dict(call.weights) != _following(case.scenario, name, verdicts, slots):
                case.findings.append(f"{did} that do not follow from its verdicts")
    yield from ()


def _following(scenario: Scenario, name: str, verdicts: LogVerdicts, slots: Mapping[str, int]) -> dict[int, float]:
    """The weights, by slot, that follow from a validator's final scores."""
    lots = scoring_lots(Streams(scenario.seed), name.partition(":")[2], verdicts.round)
    weights = weigh(scenario.gauntlet.weights, dict(verdicts.final_scores), verdicts.places, lots)
    burned = max(0.0, 1.0 - math.fsum(weights.shares.values()))
    entries = {slots[peer_name(uid)]: share for uid, share in weights.shares.items() if peer_name(uid) in slots}
    given = tuple(sorted({slots[OWNER]: burned, **entries}.items()))
    return dict(quantized(given) if scenario.chain.weights == "u16" else given)


def _payloads(case: _Case) -> Iterator[str]:
    """Payload hashes against the payloads on the tape; one that is another peer's is a finding."""
    on_tape: dict[str, list[str]] = {}
    for kind, label, data in records(case.tape):
        if kind == "payload":
            on_tape.setdefault(hashlib.sha256(data).hexdigest(), []).append(label)
    missing = []
    for height, signed in case.included:
        if isinstance(signed.call, PayloadHash):
            name, call = case.name(signed), signed.call
            labels = on_tape.get(call.sha256)
            if labels is None:
                missing.append(f"{name}'s of round {call.round}, {call.sha256:.12}")
            elif f"payload uid={name.partition(':')[2]} round={call.round}" not in labels:
                case.findings.append(f"block {height}: {name} submitted what the tape has as {labels[0]}")
    if missing:
        yield f"tape/tape.bin: {len(missing)} payloads of the chain are not on it, the first is {missing[0]}"


def _theta(case: _Case) -> Iterator[str]:
    """The final parameters and the tape against what the last block states, and the loss measured again."""
    stated = case.end
    if stated is None:
        yield "ledger.jsonl: no block says what the run amounts to"
        return
    if file_sha256(case.tape) != stated.tape_sha256:
        yield "tape/tape.bin: it is not the tape that the last block names"
    theta = _read_theta(case.folder / "final.safetensors", case.scenario)
    if theta is None:
        yield "final.safetensors: it does not hold the parameters of the scenario's model, and nothing else"
    elif theta_sha256(theta) != stated.theta_sha256:
        yield "final.safetensors: these are not the parameters that the last block names"
    else:
        loss = _loss(case.scenario, theta)
        equal = math.isclose(loss, stated.loss, abs_tol=_LOSS_ROUNDING) or (
            math.isnan(loss) and math.isnan(stated.loss)
        )
        if not equal:
            yield f"final.safetensors: its held-out loss is {loss:.6f}, the last block says {stated.loss:.6f}"


def _read_theta(path: Path, scenario: Scenario) -> torch.Tensor | None:
    """The flat parameters [N] of a file, or None if it is not, byte by byte, what the model's would be written as."""
    data = path.read_bytes()
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError):
        return None
    shapes = scenario.model.shapes
    fits = tensors.keys() == shapes.keys() and all(
        tuple(tensors[name].shape) == tuple(shape) and tensors[name].dtype == torch.float32
        for name, shape in shapes.items()
    )
    return torch.cat([tensors[name].flatten() for name in shapes]) if fits and save(tensors) == data else None


def _loss(scenario: Scenario, theta: torch.Tensor) -> float:
    corpus = Corpus(scenario.data, scenario.model.context, Streams(scenario.seed))
    return float(losses_per_vector(scenario.model, theta[None], corpus.held_out()[None])[0])


def _publics(blocks: Sequence[Block]) -> dict[str, str]:
    """Public keys by the names under which accounts registered."""
    return {
        signed.call.name: signed.public
        for block in blocks
        for signed, outcome in zip(block.extrinsics, block.outcomes, strict=True)
        if isinstance(signed.call, Register) and not outcome
    }


_CHECKS: dict[str, tuple[Callable[[_Case], Iterator[str]], str]] = {
    "head": (_head, "the summary names the ledger's last block and its rounds"),
    "weights": (_weights, "what validators set was held against the verdicts that they logged"),
    "payloads": (_payloads, "every payload hash on the chain is that of a payload on the tape"),
    "theta": (_theta, "final parameters and tape are those that the last block names, the loss is as stated"),
}

_NEEDS = {"weights": "verdicts", "payloads": "payload_hashes"}
"""What must be logged for a check, by its name."""
