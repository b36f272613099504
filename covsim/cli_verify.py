"""What `covsim verify` prints: what holds of a run's folder and what does not, or one peer's record with its proofs."""

from __future__ import annotations

import sys
from pathlib import Path

from covsim.chain import merkle
from covsim.chain.extrinsics import canonical, kind_of, plain
from covsim.record.verify import CannotVerify, Record, records_of_peer, verify_run
from covsim.sources import SourceError

OK, FAULTY, BAD_INPUT = 0, 1, 2
LONGEST_CALL = 200  # characters of a call that are printed
MOST_FINDINGS = 20


def verify(folder: Path, uid: int | None) -> int:
    """Check a folder, or print one peer's record; returns an exit code."""
    try:
        return _whole(folder) if uid is None else _of_peer(folder, uid)
    except (CannotVerify, SourceError) as refusal:
        print(refusal, file=sys.stderr)
        return BAD_INPUT


def _whole(folder: Path) -> int:
    report = verify_run(folder)
    for name, says in report.held:
        print(f"ok       {name}: {says}")
    for finding in report.findings[:MOST_FINDINGS]:
        print(f"note     {finding}")
    if len(report.findings) > MOST_FINDINGS:
        print(f"note     and {len(report.findings) - MOST_FINDINGS} more of the kind")
    for fault in report.faults:
        print(f"WRONG    {fault}")
    faults = "1 fault" if len(report.faults) == 1 else f"{len(report.faults)} faults"
    print(f"{folder}: {faults if report.faults else 'verified'}")
    return FAULTY if report.faults else OK


def _of_peer(folder: Path, uid: int) -> int:
    records, faults = records_of_peer(folder, uid)
    faulty = len(faults)
    for record in records:
        proven = merkle.is_proven(record.root, canonical(record.signed.plain()), record.proof)
        faulty += not (proven and record.signed.is_genuine)
        print(_entry(record, proven))
    for fault in faults:
        print(f"WRONG    {fault}")
    return FAULTY if faulty else OK


def _entry(record: Record, proven: bool) -> str:
    """An extrinsic, what came of it, and the way from it to the root of its block."""
    kind, call = kind_of(record.signed.call), canonical(plain(record.signed.call)).decode()
    if len(call) > LONGEST_CALL:
        call = call[:LONGEST_CALL] + "..."
    signed = "signed by" if record.signed.is_genuine else "NOT signed by"
    lines = [
        f"block {record.height}, extrinsic {record.index}: {kind}, {record.outcome or 'accepted'}",
        f"  {call}",
        f"  {signed} {record.signed.public}",
        f"  {'proven' if proven else 'NOT PROVEN'} against root {record.root}",
        *(f"    {side:5} {sha256}" for side, sha256 in record.proof),
    ]
    return "\n".join(lines)
