"""From a hparams file of the live network to a scenario that extends the flagship, and a word on every key.

The file is the flat JSON of tplr-ai/templar and one-covenant/templar, merged over its model file where it has one. Each
section of the scenario names the keys that it was made of, and every other key is reported with what became of it.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from covsim.registry import did_you_mean
from covsim.scenario.errors import ScenarioError, excerpt
from covsim.scenario.hparams_draft import Draft
from covsim.scenario.hparams_keys import CODE_DEFAULTS, FOREIGN, HARDWARE, NOT_YET, OBJECTS, SETTINGS, SOFTWARE, Sort
from covsim.scenario.hparams_mapping import draft
from covsim.scenario.loading import load, loads
from covsim.scenario.resolve import LINE_LENGTH, yaml_text
from covsim.scenario.shipped import shipped_scenarios

FLAGSHIP = "covenant72b"
LARGEST_FILE = 1_000_000  # bytes; the live files have some thousand
LARGEST_NUMBER = 1e15
DEEPEST = 16  # objects in objects; the live files have three

_FROM_FLAGSHIP = (
    "What the file does not say is the flagship's: who takes part and how they behave, their links and machines, the "
    "store, the validators, the model that is really trained and its text. "
    f"{FLAGSHIP}-as-reported is the flagship with links eight times as fast."
)
_IDENTITY = "blocks_per_window"  # every release has it, other programs have not


class HparamsError(ValueError):
    """A file cannot be imported; its text is one line."""


@dataclass(frozen=True)
class Imported:
    """What was made of a hparams file.

    Attributes:
        text: a scenario as YAML.
        report: a line for every key that was not used, or not as it stands, under headings.
    """

    text: str
    report: tuple[str, ...]


def import_hparams(path: str | Path, peers: int | None = None, rounds: int | None = None) -> Imported:
    """Make a scenario of a hparams file.

    Args:
        path: the JSON file.
        peers: how many there are, in the flagship's proportions; by default the flagship's.
        rounds: outer steps of the run, into which the file's schedule of the learning rate is squeezed.

    Raises:
        HparamsError: the file cannot be read, is not of the live network, or holds values of a wrong type.
    """
    name = Path(path).name
    try:
        given = _flat(_read(Path(path)))
        return _imported(given, name, peers, rounds)
    except HparamsError as error:
        raise HparamsError(f"{_printable(str(path))}: {error}") from None


def _read(path: Path) -> dict[str, Any]:
    """The object in a file. Raises HparamsError."""
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
        if len(raw) > LARGEST_FILE:
            raise HparamsError("is larger than 1 MB, which no hparams file is")
        value = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_object, parse_constant=_no_constant)
    except FileNotFoundError:
        raise HparamsError("no such file") from None
    except OSError as error:
        raise HparamsError(f"cannot be read: {str(error.strerror).lower()}") from None
    except json.JSONDecodeError as error:
        raise HparamsError(f"is not JSON: {error.msg.lower()} in line {error.lineno}, column {error.colno}") from None
    except UnicodeDecodeError:
        raise HparamsError("is not JSON: not a text in UTF-8") from None
    except RecursionError:
        raise HparamsError("is nested too deeply") from None
    except HparamsError:
        raise
    except ValueError:  # Python refuses numbers of thousands of digits
        raise HparamsError("holds a number that is too long") from None
    if not isinstance(value, dict):
        raise HparamsError(f"must be an object of keys and values, not {excerpt(value)}")
    if value.get(_IDENTITY) is None:
        raise HparamsError(_not_ours(value))
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object without repeated keys, of which Python would keep the last. Raises HparamsError."""
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        raise HparamsError(f"has the key {excerpt(next(key for key in keys if keys.count(key) > 1))} twice")
    return made


def _no_constant(word: str) -> Any:
    raise HparamsError(f"is not JSON: {word} is no number")


def _not_ours(value: Mapping[str, Any]) -> str:
    program = next((program for key, program in FOREIGN.items() if key in value), None)
    hint = f"; it looks like a file of {program}" if program else ""
    return f"is not a hparams file of templar: it has no {_IDENTITY}{hint}"


def _flat(value: Mapping[str, Any], above: str = "", depth: int = 0) -> dict[str, Any]:
    """All values by dotted key, each of the sort that its key has; nulls stay. Raises HparamsError."""
    if depth > DEEPEST:
        raise HparamsError("is nested too deeply")
    flat: dict[str, Any] = {}
    for name, item in value.items():
        key = above + (json.dumps(name) if "." in name else name)  # a dot of its own is no nesting
        if isinstance(item, dict) and item and key not in SETTINGS:
            flat |= _flat(item, f"{key}.", depth + 1)
        else:
            flat[key] = _checked(key, item)
    return flat


def _checked(key: str, value: Any) -> Any:
    """A value of the sort that its key has, whole numbers as such. Raises HparamsError."""
    if value is None:
        return None
    if key in OBJECTS and value != {}:
        raise HparamsError(f"{key} must be an object of keys and values, not {excerpt(value)}")
    if key not in SETTINGS:
        return value
    sort = SETTINGS[key]
    if not _is_of(sort, value):
        raise HparamsError(f"{key} must be {_WORDS[sort]}, not {excerpt(value)}")
    numbers = value if isinstance(value, list) else [value]
    if any(_is_number(number) and abs(number) > LARGEST_NUMBER for number in numbers):
        raise HparamsError(f"{key} holds a number that is too large")
    return int(value) if sort == "whole" else value


_WORDS: dict[Sort, str] = {
    "whole": "a whole number",
    "number": "a number",
    "flag": "true or false",
    "text": "text",
    "numbers": "a list of numbers",
}


def _is_of(sort: Sort, value: Any) -> bool:
    if sort == "whole":
        return _is_number(value) and (isinstance(value, int) or value.is_integer())
    if sort == "numbers":
        return isinstance(value, list) and all(_is_number(item) for item in value)
    return isinstance(value, {"flag": bool, "text": str}[sort]) if sort in ("flag", "text") else _is_number(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _imported(given: Mapping[str, Any], name: str, peers: int | None, rounds: int | None) -> Imported:
    """The scenario that is left when everything that a scenario does not allow has been taken back."""
    flagship = load(shipped_scenarios()[FLAGSHIP])
    made = draft({key: value for key, value in given.items() if value is not None}, flagship, rounds, peers)
    while True:
        text = _text(made, name)
        try:
            loads(text)
        except ScenarioError as error:
            _take_back(made, error)
        else:
            return Imported(text, tuple(_report(made, given)))


def _take_back(made: Draft, error: ScenarioError) -> None:
    """Withdraw what a scenario does not allow. Raises HparamsError where no key of the file had a part in it."""
    for problem in error.problems:
        setting = made.settings.get(problem.path)
        option = next((key for key in (setting.keys if setting else ()) if key.startswith("--")), None)
        if option is not None:
            raise HparamsError(f"{option} {problem.message}")
    withdrawn = [made.withdraw(problem.path, problem.message) for problem in error.problems]
    if not any(withdrawn):  # the second problem of one setting finds it gone
        raise HparamsError(f"makes no scenario: {error.problems[0].path} {error.problems[0].message}")


def _text(made: Draft, name: str) -> str:
    """The scenario, section by section, each under the keys that it was made of."""
    sections: dict[str, Any] = {}
    for path, setting in made.settings.items():
        *above, last = path.split(".")
        here = sections
        for key in above:
            here = here.setdefault(key, {})
        here[last] = setting.value
    head = {"version": 1, "name": _slug(name), "description": f"Made from the hparams file {_plain_name(name)}."}
    lines = [
        *_comment(f"Made from {_plain_name(name)} by covsim import-hparams. {_FROM_FLAGSHIP}"),
        _yaml({**head, "extends": FLAGSHIP}),
    ]
    for section, content in sections.items():
        lines += ["", *_comment(*_origin(made, section)), _yaml({section: content})]
    if made.absent:
        lines += ["", *_comment(f"Not in the file, so as in the flagship or by default: {', '.join(made.absent)}.")]
    return "\n".join(lines) + "\n"


def _origin(made: Draft, section: str) -> Iterator[str]:
    """The keys that a section was made of, and what else there is to say of it."""
    keys = {
        key: None for path, setting in made.settings.items() if path.split(".")[0] == section for key in setting.keys
    }
    named = [f"{key} (left out: the code's default)" if _by_default(made, key) else key for key in keys]
    if named:
        yield f"From {', '.join(named)}."
    yield from made.remarks.get(section, ())


def _by_default(made: Draft, key: str) -> bool:
    return key not in made.given and key in CODE_DEFAULTS


def _report(made: Draft, given: Mapping[str, Any]) -> Iterator[str]:
    """A line for each key that was not used, or not as it stands."""
    used = {key for setting in made.settings.values() for key in setting.keys}
    left = [key for key in sorted(given) if key not in used and key not in made.refused]
    minded = [_about("used", made, key, made.caveats[key]) for key in sorted(made.caveats.keys() & used)]
    refused = [_about("not mapped", made, key, why) for key, why in sorted(made.refused.items())]
    yield from _lines("used, but mind:", minded)
    yield from _lines("could not be mapped as they stand:", refused)
    for heading, lines in _sorted_out(left, given).items():
        yield from _lines(heading, [f"not used: {line}" for line in lines])


def _about(what: str, made: Draft, key: str, words: str) -> str:
    value = made.given[key]
    return f"{what}: {key} ({value if _is_number(value) else excerpt(value)}): {words}"


def _sorted_out(keys: list[str], given: Mapping[str, Any]) -> dict[str, list[str]]:
    """The keys that were not used, by what they are, each with what it means."""
    headings: dict[str, list[str]] = {
        "covsim has no setting for these yet:": [],
        "other keys of the file are in force instead, or these are switched off:": [],
        "without a value:": [],
        "only the live software and its hardware need these:": [],
        "unknown:": [],
    }
    not_yet, idle, empty, software, unknown = headings.values()
    known = [*SETTINGS, *NOT_YET, *SOFTWARE]
    for key in keys:
        if key in NOT_YET:
            not_yet.append(f"{key}: {NOT_YET[key]}")
        elif key in SOFTWARE or key.split(".")[0] in HARDWARE:
            software.append(f"{_printable(key)}: {SOFTWARE.get(key, 'how the model is spread over GPUs')}")
        elif key in SETTINGS or key in OBJECTS:
            (empty if given[key] is None or key in OBJECTS else idle).append(key)
        else:
            unknown.append(f"{_printable(key)}{did_you_mean(key, known)}")
    return headings


def _lines(heading: str, lines: list[str]) -> list[str]:
    return [heading, *(f"  {line}" for line in lines)] if lines else []


def _comment(*paragraphs: str) -> list[str]:
    return [f"# {line}" for text in paragraphs for line in textwrap.wrap(text, LINE_LENGTH - 2, break_on_hyphens=False)]


def _yaml(value: Mapping[str, Any]) -> str:
    return yaml_text(value).rstrip("\n")


def _slug(name: str) -> str:
    """A scenario's name made of a file's."""
    return re.sub(r"[^a-z0-9_-]+", "-", Path(name).stem.lower()).strip("-_")[:64] or "imported"


def _plain_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII)


def _printable(text: str) -> str:
    return text if text.isprintable() and len(text) <= LINE_LENGTH else excerpt(text)
