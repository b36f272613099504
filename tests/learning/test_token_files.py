"""Files of tokens are read as what their endings say, or refused in one line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from covsim.learning import token_files
from covsim.learning.token_files import must_be_tokens, piece_lengths, read_tokens
from covsim.sources import SourceError


def write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def test_text_is_its_bytes(tmp_path: Path) -> None:
    tokens = read_tokens(write(tmp_path / "a.txt", "Löwe\n".encode()))
    assert tokens.values.tolist() == list("Löwe\n".encode())
    assert tokens.are_bytes
    assert tokens.largest == 0xC3


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i8", "u1", "<u4"])
def test_an_array_of_any_whole_numbers(dtype: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([3, 1, 200], dtype=dtype))
    tokens = read_tokens(str(tmp_path / "a.npy"))
    assert tokens.values.tolist() == [3, 1, 200]
    assert not tokens.are_bytes
    assert tokens.largest == 200


def test_16_bit_tokens_are_little_endian(tmp_path: Path) -> None:
    tokens = read_tokens(write(tmp_path / "a.bin", bytes([1, 0, 0, 1, 255, 255])))
    assert tokens.values.tolist() == [1, 256, 65535]
    assert not tokens.are_bytes


def array(values: object) -> Callable[[Path], None]:
    return lambda path: np.save(path, np.array(values))


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("a.txt", lambda path: None, "a.txt: no such file"),
        ("a.txt", Path.mkdir, "a.txt: is not a file"),
        ("a.txt", lambda path: path.write_bytes(b""), "a.txt: is empty"),
        ("a.txt", lambda path: path.write_bytes(b"ab\xff"), "a.txt: is not UTF-8 text; bring other tokens"),
        ("a.txt", lambda path: path.write_bytes(b"ab\xc3"), "a.txt: is not UTF-8 text"),
        ("a.bin", lambda path: path.write_bytes(b"abc"), "a.bin: has an odd number of bytes"),
        ("a.npy", lambda path: path.write_bytes(b"text"), "a.npy: is not an array of numbers in numpy's format"),
        ("a.npy", array([0.5]), r"a.npy: holds float64 \[1\], not whole numbers in one dimension"),
        ("a.npy", array([[1, 2], [3, 4]]), r"a.npy: holds int64 \[2, 2\], not whole numbers in one dimension"),
        ("a.npy", array([True]), r"a.npy: holds bool \[1\], not whole numbers"),
        ("a.npy", array([3, -1]), "a.npy: holds negative tokens"),
        ("a.npy", lambda path: np.save(path, np.zeros(0, dtype=int)), "a.npy: holds no tokens"),
        ("a.npy", lambda path: np.save(path, np.array([{}], dtype=object)), "a.npy: is not an array of numbers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_holds_no_tokens_is_refused(
    name: str, make: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    make(tmp_path / name)
    with pytest.raises(SourceError, match=message) as caught:
        read_tokens(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_the_ending_says_what_a_file_holds() -> None:
    assert must_be_tokens("a/b.txt") == "a/b.txt"
    with pytest.raises(ValueError, match=r"^'b.csv' must end in .txt, .npy, .bin"):
        must_be_tokens("a/b.csv")


def test_characters_may_lie_across_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_files, "_PART", 3)
    text = "äöü€ab".encode()
    assert read_tokens(write(tmp_path / "a.txt", text)).values.tobytes() == text
    with pytest.raises(SourceError, match="not UTF-8"):
        read_tokens(write(tmp_path / "b.txt", text[:-3]))


def test_an_edited_file_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"one")
    assert read_tokens(path) is read_tokens(path)
    write(tmp_path / "a.txt", b"two")
    os.utime(path, ns=(1, 1))
    assert read_tokens(path).values.tobytes() == b"two"


def test_too_many_tokens_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_files, "MAX_TOKENS", 2)
    with pytest.raises(SourceError, match="holds more than 2 tokens"):
        read_tokens(write(tmp_path / "a.txt", b"abc"))


@pytest.mark.parametrize("num_tokens", [0, 1, 17, 161, 5000, 100_000])
def test_pieces_are_nearly_equal_and_make_up_the_file(num_tokens: int) -> None:
    lengths = piece_lengths(num_tokens, context=16, held_out=0.05)
    assert sum(lengths) == num_tokens
    assert max(lengths) - min(lengths) <= 1
    assert len(lengths) == {5000: 15, 100_000: 64}.get(num_tokens, 1)
