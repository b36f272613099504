"""The tape answers as it was answered, in order, and notices when it is asked something else."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from covsim.record.tape import Tape, TapeMismatch, records


def never() -> bytes:
    raise AssertionError("a replaying tape computed something")


def recorded(path: Path) -> int:
    tape = Tape(path)
    tape.payload("first", lambda: b"\0\1\2")
    tape.numbers("second", lambda: [1.5, math.nan, -0.0])
    tape.payload("third", lambda: b"")
    tape.close()
    return tape.position


def test_replays_what_it_recorded(tmp_path: Path) -> None:
    path = tmp_path / "tape.bin"
    end = recorded(path)
    tape = Tape(path, replay_until=end)
    assert tape.replaying
    assert tape.payload("first", never) == b"\0\1\2"
    first, second, third = tape.numbers("second", never)  # type: ignore[arg-type]
    assert first == 1.5
    assert math.isnan(second)
    assert math.copysign(1, third) == -1
    assert tape.replaying
    assert tape.payload("third", never) == b""
    assert not tape.replaying
    tape.close()


def test_goes_on_behind_the_checkpoint_and_drops_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "tape.bin"
    recorded(path)
    middle = Tape(path)
    middle.payload("first", lambda: b"\0\1\2")
    position = middle.position
    middle.payload("to be dropped", lambda: b"x" * 1000)
    middle.close()

    tape = Tape(path, replay_until=position)
    tape.payload("first", never)
    tape.go_live()
    tape.payload("new", lambda: b"y")
    tape.close()
    assert [(kind, label, data) for kind, label, data in records(path)] == [
        ("payload", "first", b"\0\1\2"),
        ("payload", "new", b"y"),
    ]


def test_another_question_is_a_mismatch(tmp_path: Path) -> None:
    path = tmp_path / "tape.bin"
    end = recorded(path)
    tape = Tape(path, replay_until=end)
    with pytest.raises(TapeMismatch, match="has payload 'first' at byte 0 where the run asks for payload 'other'"):
        tape.payload("other", never)
    tape.close()


@pytest.mark.parametrize("position", [0, 4, 8, 14, -1])
def test_a_flipped_bit_is_a_mismatch(tmp_path: Path, position: int) -> None:
    path = tmp_path / "tape.bin"
    tape = Tape(path)
    tape.payload("only", lambda: b"abc")
    tape.close()
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    damaged = Tape(path, replay_until=tape.position)
    with pytest.raises(TapeMismatch):
        damaged.payload("only", never)
    damaged.close()


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_record_that_was_cut_is_dropped(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "tape.bin"
    recorded(path)
    data = path.read_bytes()
    path.write_bytes(data[:-cut])
    assert [label for _, label, _ in records(path)] == ["first", "second"]
