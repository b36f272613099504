"""Observers that know which types they want see those, among the others and in their place."""

from covsim.events import Event, RoundSkipped, WindowOpened
from covsim.nodes.stop_watch import StopWatch
from covsim.observing import Observers, Sorted
from covsim.record.recorder import Recorder


class Skips:
    """Wants rounds that were skipped, twice."""

    def __init__(self, seen: list[tuple[str, Event]]) -> None:
        self._seen = seen

    def takers(self, kind):
        if kind is not RoundSkipped:
            return []
        return [lambda event: self._seen.append(("first", event)), lambda event: self._seen.append(("second", event))]


def test_each_sees_what_it_wants_in_the_order_of_the_observers():
    """Would catch an event that is shown to who does not want it, twice, not at all, or out of turn."""
    seen: list[tuple[str, Event]] = []
    observers = Observers(
        [lambda event: seen.append(("before", event)), Skips(seen), lambda event: seen.append(("after", event))]
    )
    skipped, opened = RoundSkipped(1.0, 2, 3), WindowOpened(2.0, 1, 170)
    for event in (skipped, opened, skipped):
        observers.emit(event)
    around = [("before", skipped), ("first", skipped), ("second", skipped), ("after", skipped)]
    assert seen == [*around, ("before", opened), ("after", opened), *around]


def test_what_a_run_asks_for_its_types_is_sorted():
    """Would catch a renamed method: such an observer would be called as a function, or see nothing."""
    assert isinstance(Recorder("summary", {"lead": 1.0}), Sorted)
    assert issubclass(StopWatch, Sorted)
