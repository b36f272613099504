"""The synthetic run, written into a folder as a real one is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from synthetic import STAKES

from covsim.digest import Digest
from covsim.events import Event
from covsim.protocol.aggregators import Mean
from covsim.record.files import write_json
from covsim.record.recorder import Recorder
from covsim.record.summary import summary
from covsim.scenario.learning import Trained as TrainedRule


def write_run(folder: Path, events: list[Event]) -> Path:
    """Write tables and summary of a run into `folder`."""
    recorder, digest = Recorder("transfers", STAKES), Digest()
    for event in events:
        recorder.observe(event)
        digest.add(event)
    recorder.write(folder)
    result = summary(
        recorder,
        SimpleNamespace(name="synthetic", aggregate=Mean(), learning=TrainedRule()),  # type: ignore[arg-type]
        digest=digest,
        payload_bytes=1.989e9,
        compression_ratio=146.3,
        compression_ratio_model=120.0,
        training_wall_s=100.0,
        total_wall_s=120.0,
        tokens_are_bytes=True,
        diagnostics={"bigram_nats": 2.36},
    )
    write_json(folder / "summary.json", result)
    return folder
