"""Users' files: named by path, imported once for each content, known by what is in them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from covsim import sources
from covsim.sources import BY_CONTENT, SourceError, SourcePath, absolute, file_of, fingerprint, load, must_be_code

CALLABLE = "def build():\n    return {value!r}\n"


def write(path: Path, text: str) -> str:
    """A file with a function `build`, as a scenario names it."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return f"{path}:build"


class Settings(BaseModel):
    path: SourcePath
    other: SourcePath | None = None


def test_a_path_and_the_name_behind_it(tmp_path: Path) -> None:
    assert file_of("a/b.py:build") == Path("a/b.py")
    assert file_of("a/b:c.txt") == Path("a/b:c.txt")
    assert absolute("b.py:build", tmp_path) == f"{tmp_path}/b.py:build"
    assert absolute("../b.txt", tmp_path / "c") == f"{tmp_path}/b.txt"
    assert absolute("/d/b.txt", tmp_path) == "/d/b.txt"
    assert absolute("~/b.txt", tmp_path) == str(Path.home() / "b.txt")


@pytest.mark.parametrize("text", ["a.py", "a.txt:build", "a.py:", "a.py:1", "a.py:b.c", ":build", "a.py:b "])
def test_code_is_a_file_and_a_name(text: str) -> None:
    assert must_be_code("a.py:build_2") == "a.py:build_2"
    with pytest.raises(ValueError, match="does not name a function in a Python file"):
        must_be_code(text)


def test_settings_hold_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings(path="a.py:build")
    assert settings.path == f"{tmp_path}/a.py:build"
    assert settings.other is None
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


def test_by_content_the_place_does_not_count(tmp_path: Path) -> None:
    one = write(tmp_path / "one" / "a.py", CALLABLE.format(value=1))
    two = write(tmp_path / "two" / "b.py", CALLABLE.format(value=1))
    three = write(tmp_path / "two" / "c.py", CALLABLE.format(value=2))
    dumps = [Settings(path=path).model_dump(mode="json", context=BY_CONTENT) for path in (one, two, three)]
    assert dumps[0] == dumps[1]
    assert dumps[1] != dumps[2]
    assert dumps[0]["other"] is None
    assert dumps[0]["path"].endswith(".py:build")
    assert fingerprint(one) != fingerprint(one.replace("build", "other"))


def test_what_is_imported_from_beside_a_file_is_part_of_its_content(tmp_path: Path) -> None:
    main = write(tmp_path / "a.py", "import json, layers\nfrom pack.inner import x\n")
    seen = [fingerprint(main)]
    for name in ("layers.py", "deep.py", "pack/__init__.py", "pack/inner.py", "pack/unused.py"):
        write(tmp_path / name, "import deep\n" if name == "layers.py" else "x = 1\n")
        seen.append(fingerprint(main))
    assert len(set(seen)) == 6
    write(tmp_path / "deep.py", "x = 2\n")
    assert fingerprint(main) not in seen
    before = fingerprint(main)
    write(tmp_path / "unrelated.py", "x = 2\n")
    write(tmp_path / "json.txt", "x")
    assert fingerprint(main) == before


def test_a_data_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"abc")
    (tmp_path / "b.txt").write_bytes(b"abc")
    (tmp_path / "c.bin").write_bytes(b"abc")
    same = fingerprint(str(tmp_path / "a.txt"))
    assert same == fingerprint(str(tmp_path / "b.txt"))
    assert same != fingerprint(str(tmp_path / "c.bin"))
    with pytest.raises(SourceError, match=r"d\.txt: no such file"):
        fingerprint(str(tmp_path / "d.txt"))


def test_an_edited_file_is_imported_again(tmp_path: Path) -> None:
    path = write(tmp_path / "a.py", CALLABLE.format(value=1))
    first = load(path)
    assert load(path) is first
    write(tmp_path / "a.py", CALLABLE.format(value=2))
    assert (first(), load(path)()) == (1, 2)


def test_siblings_belong_to_one_file(tmp_path: Path) -> None:
    before = dict(sys.modules), list(sys.path)
    for value in (1, 2):
        main = write(tmp_path / str(value) / "a.py", "import layers\ndef build():\n    return layers.VALUE\n")
        write(tmp_path / str(value) / "layers.py", f"import deeper\nVALUE = deeper.VALUE + {value}\n")
        write(tmp_path / str(value) / "deeper.py", f"VALUE = {10 * value}\n")
        assert load(main)() == 11 * value
    write(tmp_path / "2" / "deeper.py", "VALUE = 30\n")  # as long as before, and at once: bytecode would be stale
    assert load(main)() == 32
    assert "layers" not in sys.modules
    assert {name for name in sys.modules.keys() - before[0].keys() if not name.startswith("covsim_source_")} == set()
    assert sys.path == before[1]
    assert not list(tmp_path.rglob("__pycache__"))


def test_a_module_of_ones_own_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a notebook that has imported the helper before it was edited."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    write(tmp_path / "helper_of_mine.py", "VALUE = 1\n")
    import helper_of_mine

    main = write(tmp_path / "a.py", "import helper_of_mine\ndef build():\n    return helper_of_mine.VALUE\n")
    write(tmp_path / "helper_of_mine.py", "VALUE = 2\n")
    assert load(main)() == 2
    assert sys.modules["helper_of_mine"] is helper_of_mine
    assert helper_of_mine.VALUE == 1
    del sys.modules["helper_of_mine"]


def test_covsim_itself_is_never_imported_twice() -> None:
    """A user's file may lie in a checkout of covsim."""
    root = Path(sources.__file__).parent.parent
    assert sources._files_of(root, "covsim")
    module = root / "covsim" / "randomness.py"
    assert "covsim" not in sources._imported_names(root / "covsim" / "choice.py")
    assert sources._siblings(module) == []


def test_classes_of_a_users_file_know_their_module(tmp_path: Path) -> None:
    text = "from dataclasses import dataclass, field\n@dataclass\nclass build:\n    x: 'list[int]' = field(default=3)\n"
    made = load(write(tmp_path / "a.py", text))()
    assert made.x == 3
    assert sys.modules[type(made).__module__].__file__ == str(tmp_path / "a.py")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("build = 3\n", "'build' is neither a function nor a class"),
        ("def bild(): ...\n", r"defines no 'build' \(did you mean 'bild'\?\)"),
        ("x = 1\nraise OSError('gone\\nfor good')\n", "fails as it is imported: line 2: OSError: gone for good$"),
        ("import sys\nsys.exit(3)\n", "fails as it is imported: line 2: SystemExit: 3$"),
        ("def build(:\n", "fails as it is imported: line 1: SyntaxError: invalid syntax"),
        ("import broken_sibling\n", "fails as it is imported: line 1: NameError: name 'x' is not defined"),
        ("from . import a\n", "line 1: ImportError: attempted relative import with no known parent package"),
        ("x = '\0'\n", "fails as it is imported: .*null bytes"),
    ],
)
def test_a_file_that_fails_is_refused_in_a_line(text: str, message: str, tmp_path: Path) -> None:
    before = set(sys.modules)
    write(tmp_path / "broken_sibling.py", "x + 1\n")
    with pytest.raises(SourceError, match=message) as caught:
        load(write(tmp_path / "a.py", text))
    assert "\n" not in str(caught.value)
    if "import" in message:
        assert set(sys.modules) == before
    with pytest.raises(SourceError, match="no such file"):
        load(f"{tmp_path}/b.py:build")


def test_too_many_siblings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_SIBLINGS", 2)
    main = write(tmp_path / "a.py", "import b1, b2, b3\n")
    for number in (1, 2, 3):
        write(tmp_path / f"b{number}.py", "")
    with pytest.raises(SourceError, match="imports more than 2 files from beside it"):
        fingerprint(main)
