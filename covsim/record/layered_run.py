"""Writes the folder of a run on a layered timeline: no tape and no checkpoint, for it is over in a second or so."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from covsim.digest import Digest
from covsim.events import Event
from covsim.layered_simulation import LayeredSimulation
from covsim.record.files import write_json
from covsim.record.provenance import provenance
from covsim.record.recorder import Recorder
from covsim.record.summary import summary
from covsim.scenario import Scenario
from covsim.scenario.deployment import compression, num_parameters


def watched(
    scenario: Scenario,
    observers: Sequence[Callable[[Event], None]] = (),
    interrupted: Callable[[], bool] = lambda: False,
) -> tuple[Recorder, dict[str, Any]] | None:
    """Run a layered scenario without a folder: what was recorded, and its summary; None if it was interrupted."""
    began, digest = time.perf_counter(), Digest()
    recorder = Recorder.of_scenario(scenario)
    simulation = LayeredSimulation(scenario, (digest.add, recorder.observe, *observers))
    if not simulation.run(interrupted):
        return None
    payload_bytes = simulation.plan.layer_bytes * simulation.plan.num_layers
    return recorder, summary(
        recorder,
        scenario,
        digest=digest,
        payload_bytes=payload_bytes,
        compression_ratio=compression(num_parameters(scenario.charged_tensors), payload_bytes),
        compression_ratio_model=math.nan,
        training_wall_s=0.0,
        total_wall_s=time.perf_counter() - began,
        tokens_are_bytes=False,
        diagnostics={"bigram_nats": math.nan},
    )


def write_layered(
    scenario: Scenario,
    identity: str,
    folder: Path,
    observers: Sequence[Callable[[Event], None]],
    interrupted: Callable[[], bool],
) -> bool:
    """Run a layered scenario and write its tables, and its summary last; False if it was interrupted."""
    done = watched(scenario, observers, interrupted)
    if done is None:
        return False
    recorder, result = done
    recorder.write(folder)
    write_json(folder / "provenance.json", provenance(identity, result["wall.total_s"], torch.device("cpu")))
    write_json(folder / "summary.json", result)
    return True
