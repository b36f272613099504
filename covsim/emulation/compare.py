"""A simulation and an emulation of one scenario side by side: what was predicted, what was measured, how far off.

All times are simulated seconds; an error is measured over predicted, less one.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from covsim.record.files import file_sha256
from covsim.scenario import Scenario, ScenarioError, load

Row: TypeAlias = dict[str, Any]

SPANS = ("compute_s", "upload_s", "download_s", "idle_s", "idle_arrival_s", "idle_window_s", "idle_retry_s")
"""The parts of a peer's round that are compared."""
LONG_S = 1.0
"""Transfers that are predicted to take so long or longer are judged; shorter ones are mostly overhead."""


class CannotCompare(ValueError):
    """Two folders that do not hold what can be compared."""


@dataclass(frozen=True)
class Side:
    """One of the two runs.

    Attributes:
        events: rows of events by type, in order.
    """

    folder: Path
    scenario: Scenario
    summary: dict[str, Any]
    events: dict[str, list[Row]]

    @classmethod
    def of(cls, folder: Path) -> Side:
        """What lies in a folder. Raises CannotCompare."""
        try:
            scenario = load(folder / "resolved.yaml")
            summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
            events: dict[str, list[Row]] = defaultdict(list)
            with gzip.open(folder / "events.jsonl.gz", "rt", encoding="utf-8") as lines:
                for line in lines:
                    row = json.loads(line)
                    events[row.pop("event")].append(row)
        except (OSError, ValueError, ScenarioError) as problem:
            raise CannotCompare(f"{folder}: no whole run with events lies there: {problem}") from problem
        return cls(folder, scenario, summary, events)

    @property
    def lead(self) -> str:
        """The leading validator's name."""
        return self.scenario.validators_by_stake[0]

    @property
    def theta(self) -> str:
        """Identifies the final parameters."""
        return file_sha256(self.folder / "final.safetensors")


@dataclass(frozen=True)
class Pair:
    """The two runs: `sim` was predicted, `emu` measured."""

    sim: Side
    emu: Side

    @classmethod
    def of(cls, simulated: Path, emulated: Path) -> Pair:
        """Read both folders. Raises CannotCompare."""
        sim, emu = Side.of(simulated), Side.of(emulated)
        if sim.summary.get("emulated") or not emu.summary.get("emulated"):
            raise CannotCompare("name the folder of a simulation first, and that of an emulation behind it")
        if _played(sim.scenario) != _played(emu.scenario):
            raise CannotCompare("the two folders hold different scenarios; run the same one both ways")
        if sim.scenario.record.level == "summary" or emu.scenario.record.level == "summary":
            raise CannotCompare("a run that kept no events cannot be compared; set record.level to transfers")
        return cls(sim, emu)


def _played(scenario: Scenario) -> dict[str, Any]:
    """What both ways must have in common: all but how links are described, how fast it went, and what was kept."""
    values = scenario.model_dump(exclude={"name", "description", "network", "emulation", "record", "compute"})
    for nodes in (values["cohorts"], values["validators"]):
        for node in nodes.values():
            del node["uplink"], node["downlink"]  # a calibrated simulation has others
    return values


def transfers(pair: Pair) -> pd.DataFrame:
    """Every transfer of both runs: `predicted_s`, `measured_s`, `error`, and both beginnings."""
    key = ["node", "key", "purpose", "direction", "nth"]
    return _joined(_transfers(pair.sim), _transfers(pair.emu), key)


def _transfers(side: Side) -> pd.DataFrame:
    rows = side.events["Transferred"]
    columns = ["node", "key", "purpose", "direction", "num_bytes", "started_s", "complete", "time_s"]
    frame = pd.DataFrame(rows, columns=columns)
    frame["nth"] = frame.groupby(["node", "key", "purpose", "direction"]).cumcount()
    frame["s"] = frame["time_s"] - frame["started_s"]
    return frame.drop(columns="time_s")


def phases(pair: Pair) -> pd.DataFrame:
    """Every peer's round, one row per span of it."""
    frames = [_phases(side) for side in (pair.sim, pair.emu)]
    return _joined(frames[0], frames[1], ["round", "uid", "span"])


def _phases(side: Side) -> pd.DataFrame:
    rows = [
        {"round": row["round"], "uid": row["uid"], "span": span, "s": row[span]}
        for row in side.events["RoundSettled"]
        for span in SPANS
    ]
    return pd.DataFrame(rows, columns=["round", "uid", "span", "s"])


def _joined(predicted: pd.DataFrame, measured: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """Both frames in one, `s` of the first as `predicted_s` and of the second as `measured_s`."""
    frame = predicted.merge(measured, on=key, how="outer", suffixes=("_predicted", "_measured"))
    frame = frame.rename(columns={"s_predicted": "predicted_s", "s_measured": "measured_s"})
    frame["difference_s"] = frame["measured_s"] - frame["predicted_s"]
    frame["error"] = frame["difference_s"] / frame["predicted_s"].where(frame["predicted_s"] > 0)
    return frame


def rounds(pair: Pair) -> pd.DataFrame:
    """Every round: times, who was on time, gathered, selected, the order of verdicts, loss, and equal histories."""
    own = [_rounds(side) for side in (pair.sim, pair.emu)]
    rows = []
    for round in sorted(set(own[0]) | set(own[1])):
        sim, emu = own[0].get(round, {}), own[1].get(round, {})
        row: Row = {"round": round}
        for name in ("round_s", "exchange_s", "loss"):
            row |= {f"predicted_{name}": sim.get(name), f"measured_{name}": emu.get(name)}
        row["round_error"] = _error(sim.get("round_s"), emu.get("round_s"))
        row["exchange_error"] = _error(sim.get("exchange_s"), emu.get("exchange_s"))
        for name in ("on_time", "late", "gathered", "selected", "verdicts"):
            row |= {f"predicted_{name}": _words(sim.get(name)), f"measured_{name}": _words(emu.get(name))}
            row[f"same_{name}"] = sim.get(name) == emu.get(name)
        row["same_history"] = sim.get("lineage") == emu.get("lineage")
        rows.append(row)
    return pd.DataFrame(rows)


def _error(predicted: float | None, measured: float | None) -> float | None:
    return None if not predicted or measured is None else measured / predicted - 1


def _words(uids: Any) -> str:
    return "" if uids is None else " ".join(map(str, uids))


def _rounds(side: Side) -> dict[int, Row]:
    """What is compared of each round of one run.

    A round's time is from the end of the one before to its own end, that of its exchange from the opening of its window
    to its end; it ends when the last peer has settled.
    """
    opens = {row["window"]: row["time_s"] for row in side.events["WindowOpened"]}
    ends: dict[int, float] = {}
    for row in side.events["RoundSettled"]:
        ends[row["round"]] = max(ends.get(row["round"], 0.0), row["time_s"])
    told: dict[int, Row] = {}
    for round, end_s in sorted(ends.items()):
        before_s = ends.get(round - 1, 0.0)
        told[round] = {"round_s": end_s - before_s, "exchange_s": end_s - opens.get(round + 1, float("nan"))}
    node = f"validator:{side.lead}"
    for round, row in told.items():
        sent = [each for each in side.events["Submitted"] if each["round"] == round]
        row["on_time"] = sorted(each["uid"] for each in sent if each["on_time"])
        row["late"] = sorted(each["uid"] for each in sent if not each["on_time"])
        row["gathered"] = _of(side, "Gathered", "uids", round, node=node)
        row["selected"] = _of(side, "ListPublished", "selected", round)
        row["lineage"] = _of(side, "OuterStepTaken", "lineage", round, node=node)
        row["loss"] = _of(side, "HeldOutMeasured", "loss", round, node=node)
        row["verdicts"] = verdict_order(side, round)
    return told


def _of(side: Side, kind: str, name: str, round: int, **like: Any) -> Any:
    """A field of the first event of a type in a round, None if there is none."""
    rows = (row for row in side.events[kind] if row["round"] == round)
    return next((row[name] for row in rows if all(row[key] == value for key, value in like.items())), None)


def verdict_order(side: Side, round: int) -> list[int]:
    """The uids that the lead validator judged in a round, from the highest final score down."""
    rows = [row for row in side.events["Evaluated"] if row["round"] == round and row["validator"] == side.lead]
    return [row["uid"] for row in sorted(rows, key=lambda row: (-(row["final_score"] or 0.0), row["uid"]))]
