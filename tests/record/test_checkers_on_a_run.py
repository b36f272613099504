"""A small real run keeps all rules that the checkers watch, and its folder can be written, summed up and drawn."""

from collections.abc import Callable
from pathlib import Path

import pytest

from covsim.digest import Digest
from covsim.events import Event
from covsim.record.checkers import all_checkers
from covsim.record.files import write_json
from covsim.record.recorder import Recorder
from covsim.record.summary import summary
from covsim.report.figures import draw_all
from covsim.scenario import Scenario


def test_real_run_keeps_the_rules_and_fills_its_folder(
    tiny: Scenario, play: Callable[..., tuple[list[Event], Digest]], tmp_path: Path
) -> None:
    recorder = Recorder("transfers", {name: validator.stake for name, validator in tiny.validators.items()})
    checkers = all_checkers(put_window_s=tiny.timeline.put_window)
    _, digest = play(tiny, observers=[recorder.observe, *(checker.observe for checker in checkers)])
    recorder.write(tmp_path)
    result = summary(
        recorder,
        tiny,
        digest=digest,
        payload_bytes=tiny.payload_bytes,
        compression_ratio=146.3,
        compression_ratio_model=100.0,
        training_wall_s=1.0,
        total_wall_s=2.0,
        tokens_are_bytes=True,
        diagnostics={},
    )
    write_json(tmp_path / "summary.json", result)
    assert result["rounds"] == 4
    assert result["loss.final"] < result["loss.initial"]
    assert result["participation.mean_contributing"] > 0
    assert sum(result[f"payout_share.{cohort}"] for cohort in tiny.cohorts) == pytest.approx(1)
    assert all(path.stat().st_size > 10_000 for path in draw_all(tmp_path))
