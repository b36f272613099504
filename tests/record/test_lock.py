"""One process at a time works in a run's folder, and a lock leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from covsim.record.lock import LOCK, FolderInUse, locked
from covsim.record.runner import CannotWrite, UnfinishedRun, resume, run
from covsim.scenario import Scenario, resolved_text, run_id

HOLD = "import sys; from pathlib import Path; from covsim.record.lock import locked\n"
HOLD += "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"


def held_elsewhere(folder: Path) -> subprocess.Popen[str]:
    """A process that holds the folder's lock until it is killed or its input ends."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def folder_of(scenario: Scenario, out: Path) -> Path:
    return out / scenario.name / run_id(scenario)


def test_a_lock_keeps_others_out_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with locked(folder):
        with pytest.raises(FolderInUse, match="b: is running in another process"), locked(folder):
            pass
        assert (folder / LOCK).exists()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_stays(tmp_path: Path) -> None:
    with locked(tmp_path / "a"):
        (tmp_path / "a" / "x").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x"]


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    process = held_elsewhere(tmp_path)
    with pytest.raises(FolderInUse), locked(tmp_path):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (tmp_path / LOCK).exists()
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("force", [False, True])
def test_a_run_that_goes_on_elsewhere_is_not_touched(force: bool, tiny: Scenario, tmp_path: Path) -> None:
    folder = folder_of(tiny, tmp_path)
    (folder / "tape").mkdir(parents=True)
    (folder / "tape" / "tape.bin").write_bytes(b"precious")
    (folder / "resolved.yaml").write_text(resolved_text(tiny))
    process = held_elsewhere(folder)
    for begin in (lambda: run(tiny, "text", out=tmp_path, force=force), lambda: resume(folder)):
        with pytest.raises(FolderInUse):
            begin()
    process.communicate()
    assert (folder / "tape" / "tape.bin").read_bytes() == b"precious"
    assert sorted(path.name for path in folder.iterdir()) == ["resolved.yaml", "tape"]


def test_a_folder_that_was_made_and_never_filled_is_no_run(tiny: Scenario, tmp_path: Path) -> None:
    folder = folder_of(tiny, tmp_path)
    folder.mkdir(parents=True)
    (folder / LOCK).touch()
    done = run(tiny, "text", out=tmp_path)
    assert not done.skipped
    assert not (folder / LOCK).exists()
    (folder / "summary.json").unlink()
    with pytest.raises(UnfinishedRun) as caught:
        run(tiny, "text", out=tmp_path)
    assert caught.value.folder == folder
    assert str(caught.value) == (
        f"{folder}: an unfinished run lies here; go on with: covsim run --resume {folder}, or start over with --force"
    )


@pytest.mark.parametrize("out", ["file", "file/deeper", "/proc/covsim/results", "new/" + "x" * 300])
def test_results_that_cannot_be_written_are_refused(out: str, tiny: Scenario, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotWrite, match=r"cannot be written: [A-Z].*$"):
        run(tiny, "text", out=tmp_path / out)
    assert [path.name for path in tmp_path.rglob("*")] == ["file"]
