"""What links that vary carried: a table of their changes, `links.parquet`.

Only links in use are looked at, so a row says what holds from `simulated_s` until the next row of that link, and at
most until `until_s`. What comes behind that and before the next row nobody asked, for nothing flowed.
"""

from __future__ import annotations

from bisect import bisect_right

import pandas as pd

from covsim.events import LinkVaried, WindowOpened
from covsim.record.columns import values
from covsim.record.recorder import Recorder


def links_table(recorder: Recorder) -> pd.DataFrame:
    """A row per change of a link that varies; `round` is the one whose window it falls into, -1 before the first."""
    opened = list(values(recorder.of(WindowOpened), "time_s", "window"))
    opened_s = [time_s for time_s, _ in opened]
    names = ("time_s", "node", "direction", "bits_per_s", "until_s")
    rows = list(values(recorder.of(LinkVaried), *names))
    frame = pd.DataFrame(rows, columns=["simulated_s", *names[1:]])
    in_window = [opened[bisect_right(opened_s, time_s) - 1][1] - 1 for time_s in frame["simulated_s"]]
    frame.insert(0, "round", in_window)
    types = {"round": "Int64", "node": "string", "direction": "string"}
    return frame.astype({name: types.get(name, "float64") for name in frame.columns})
