"""docs/evidence.md has every column, and its example makes a table that can be scored."""

import json
import re
from pathlib import Path

import pytest
from command import covsim

from covsim.record.evidence_file import COLUMNS

PAGE = (Path(__file__).parents[2] / "docs" / "evidence.md").read_text(encoding="utf-8")


def test_every_column_has_a_row() -> None:
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    assert [name for row in rows for name in re.findall(r"`([a-z_]+)`", row)] == list(COLUMNS)


def test_the_example_makes_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    losses = {"own_loss_before": 3.0, "own_loss_after": 2.9, "loss_before": 3.1}
    log = [
        {"window": 700 + window, "scorer": "p", "uid": uid, "loss_after": 3.1 - 0.01 * uid if uid else None} | losses
        for window in range(12)
        for uid in range(6)
    ]
    Path("pilot.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in log))
    exec(PAGE.partition("```python\n")[2].partition("```")[0], {})
    code, out, err = covsim("rescore", "evidence.parquet", "gauntlet.beta=20")
    assert (code, err) == (0, "")
    assert out.startswith("OPEN LOOP: ")
