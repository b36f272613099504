"""Is a run what its folder says? Everything that can be checked from the files alone, and named where it fails.

    ledger     every line is sealed, follows the one before, and runs again to the same outcomes and payments
    head       the summary names the last line, so a cut ledger is found
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
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

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
    """Check a run's folder. Raises CannotVerify if there is nothing to check."""
    case = _opened(folder)
    held, faults = [], [str(fault) for fault in case.ledger.faults]
    if not faults:
        blocks = f"{len(case.ledger.blocks)} blocks, each sealed, linked, and run again to the same payments"
        held.append(("ledger", blocks))
    for name, (check, says) in _CHECKS.items():
        problems = list(check(case))
        faults += problems
        if not problems:
            held.append((name, says))
    return Report(tuple(held), tuple(faults), tuple(case.findings))


def records_of_peer(folder: Path, uid: int) -> list[Record]:
    """Everything that a peer said on the chain, with proofs. Raises CannotVerify for a uid that never registered."""
    ledger = _opened(folder).ledger
    publics = _publics(ledger.blocks)
    if peer_name(uid) not in publics:
        raise CannotVerify(f"{folder}: no peer with uid {uid} registered in this run")
    roots = {block.height: merkle.root(block.leaves) for block in ledger.blocks}
    return [
        Record(height, index, signed, outcome, roots[height], proof)
        for height, index, signed, outcome, proof in records_of(ledger.blocks, publics[peer_name(uid)])
    ]


def _opened(folder: Path) -> _Case:
    for name in ("summary.json", "ledger.jsonl", "final.safetensors", "tape/tape.bin"):
        if not (folder / name).is_file():
            raise CannotVerify(f"{folder}: no finished run to verify here (it has no {name})")
    try:
        scenario = scenario_of(folder)
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (CannotResume, ValueError) as error:
        raise CannotVerify(str(error)) from error
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


def _head(case: _Case) -> Iterator[str]:
    """The summary's word for how many blocks there are and which is the last."""
    number, head = case.summary.get("ledger.blocks"), str(case.summary.get("ledger.head"))
    found = (len(case.ledger.blocks), case.ledger.head)
    if found != (number, head):
        ends = f"ends with block {found[1]:.12}, number {found[0]}"
        yield f"ledger.jsonl: {ends}; the summary says {head:.12}, number {number}"


def _weights(case: _Case) -> Iterator[str]:
    """Weights against the verdicts of the same validator and round; what does not follow is a finding."""
    names = _names(case.ledger.blocks)
    logged: dict[tuple[str, int], LogVerdicts] = {}
    decided: dict[str, int] = {}
    for height, signed in case.included:
        call, name = signed.call, names[signed.public]
        if isinstance(call, LogVerdicts):
            logged[signed.public, call.round] = call
        elif isinstance(call, CommitWeights):
            decided[call.digest] = height
        elif isinstance(call, SetWeights | RevealWeights):
            since = decided[call.digest] if isinstance(call, RevealWeights) else height
            slots, verdicts = case.ledger.slots_at(since - 1), logged.get((signed.public, call.round))
            if verdicts is None:
                case.findings.append(f"block {height}: {name} set weights after round {call.round} without verdicts")
            elif dict(call.weights) != _following(case.scenario, name, verdicts, slots):
                case.findings.append(
                    f"block {height}: {name} set weights after round {call.round} that do not follow from its verdicts"
                )
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
    names = _names(case.ledger.blocks)
    on_tape: dict[str, str] = {}
    for kind, label, data in records(case.tape):
        if kind == "payload":
            on_tape.setdefault(hashlib.sha256(data).hexdigest(), label)
    for height, signed in case.included:
        if isinstance(signed.call, PayloadHash):
            name, call = names[signed.public], signed.call
            known = on_tape.get(call.sha256)
            if known is None:
                yield f"tape/tape.bin: {name}'s payload of round {call.round}, {call.sha256:.12}, is not on it"
            elif known != f"payload uid={name.partition(':')[2]} round={call.round}":
                case.findings.append(f"block {height}: {name} submitted what the tape has as {known}")


def _theta(case: _Case) -> Iterator[str]:
    """The final parameters and the tape against what the last block states, and the loss measured again."""
    stated = next((signed.call for _, signed in case.included if isinstance(signed.call, CloseRun)), None)
    if stated is None:
        yield "ledger.jsonl: no block says what the run amounts to"
        return
    if file_sha256(case.tape) != stated.tape_sha256:
        yield "tape/tape.bin: it is not the tape that the last block names"
    theta = _read_theta(case.folder / "final.safetensors", case.scenario)
    if theta is None:
        yield "final.safetensors: it does not hold the parameters of the scenario's model"
    elif theta_sha256(theta) != stated.theta_sha256:
        yield "final.safetensors: these are not the parameters that the last block names"
    else:
        loss = _loss(case.scenario, theta)
        if not math.isclose(loss, stated.loss, abs_tol=_LOSS_ROUNDING):
            yield f"final.safetensors: its held-out loss is {loss:.6f}, the last block says {stated.loss:.6f}"


def _read_theta(path: Path, scenario: Scenario) -> torch.Tensor | None:
    """The flat parameters [N] of a file, or None if it is not what the model's would be."""
    try:
        tensors = load_file(path)
    except (SafetensorError, ValueError, OSError):
        return None
    shapes = scenario.model.shapes
    fits = tensors.keys() == shapes.keys() and all(
        tuple(tensors[name].shape) == tuple(shape) and tensors[name].dtype == torch.float32
        for name, shape in shapes.items()
    )
    return torch.cat([tensors[name].flatten() for name in shapes]) if fits else None


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


def _names(blocks: Sequence[Block]) -> dict[str, str]:
    """Names of accounts by their public keys."""
    return {public: name for name, public in _publics(blocks).items()}


_CHECKS: dict[str, tuple[Callable[[_Case], Iterator[str]], str]] = {
    "head": (_head, "the summary names the ledger's last block"),
    "weights": (_weights, "what validators set was held against the verdicts that they logged"),
    "payloads": (_payloads, "every payload hash on the chain is that of a payload on the tape"),
    "theta": (_theta, "final parameters and tape are those that the last block names, the loss is as stated"),
}
