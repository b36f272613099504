"""Reading back the events of a run from `events.jsonl.gz`, as the objects that they were."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Collection, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from covsim import events
from covsim.events import Event

_KINDS: dict[str, type[Event]] = {
    name: kind for name, kind in vars(events).items() if isinstance(kind, type) and issubclass(kind, Event)
}


def read_events(path: Path, kinds: Collection[type[Event]]) -> Iterator[Event]:
    """The events of these kinds, in order; a number that JSON could not hold is NaN again."""
    wanted = {kind.__name__ for kind in kinds}
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            values = json.loads(line)
            name = values.pop("event")
            if name in wanted:
                kind = _KINDS[name]
                yield kind(**{item.name: _as_it_was(values[item.name]) for item in fields(kind)})


def _as_it_was(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_as_it_was(entry) for entry in value)
    return math.nan if value is None else value
