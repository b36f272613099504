"""The hash of a tape that nobody keeps is that of the file that the tape would be."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from covsim.record.tape import Tape, TapeHash

ANSWERS = st.lists(
    st.tuples(st.text(max_size=5), st.binary(max_size=9) | st.lists(st.floats(), max_size=4)), max_size=5
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ANSWERS)
def test_hash_and_answers_are_those_of_the_file(tmp_path: Path, answers: list[tuple[str, bytes | list[float]]]) -> None:
    """Catches a record of other bytes, and a number that comes back as another."""
    path, hashed = tmp_path / "tape.bin", TapeHash()
    tape = Tape(path)
    for label, answer in answers:
        for seam in (tape, hashed):
            if isinstance(answer, bytes):
                assert seam.payload(label, lambda answer=answer: answer) == answer
            else:
                found = seam.numbers(label, lambda answer=answer: answer)
                assert [number.hex() for number in found] == [number.hex() for number in answer]
    tape.close()
    assert hashed.sha256() == hashlib.sha256(path.read_bytes()).hexdigest()
