"""Whether a graph loses all its edges with its loss of a few vertices; exact, and fast where few are enough.

Graphs are lists of neighbor sets as bits of a number: `graph[v] >> w & 1` is 1 where v and w are joined.
"""

from __future__ import annotations

from collections.abc import Sequence

MOST_BRANCHES = 20_000
"""Branches that are looked at before a search ends; a graph that needs more counts as one that cannot be covered."""


class _Search:
    def __init__(self) -> None:
        self.branches = 0

    def covers(self, graph: list[int], budget: int) -> bool:
        self.branches += 1
        if self.branches > MOST_BRANCHES:
            return False
        degrees = [neighbors.bit_count() for neighbors in graph]
        most = max(degrees, default=0)
        if most == 0:
            return True
        if sum(degrees) > 2 * budget * most:  # each vertex takes at most `most` edges away
            return False
        if most <= 2:
            return _needed_of_paths_and_rings(graph) <= budget
        vertex = degrees.index(most)
        if most <= budget and self.covers(_without(graph, graph[vertex]), budget - most):
            return True
        return self.covers(_without(graph, 1 << vertex), budget - 1)


def coverable(graph: Sequence[int], budget: int) -> bool:
    """True if some `budget` vertices or fewer touch all edges."""
    return budget >= 0 and _Search().covers(list(graph), budget)


def _without(graph: Sequence[int], gone: int) -> list[int]:
    return [0 if gone >> vertex & 1 else neighbors & ~gone for vertex, neighbors in enumerate(graph)]


def _needed_of_paths_and_rings(graph: Sequence[int]) -> int:
    """The fewest vertices that touch all edges where nobody has more than two neighbors."""
    seen, needed = 0, 0
    for vertex in range(len(graph)):
        if seen >> vertex & 1 or not graph[vertex]:
            continue
        part = _component(graph, vertex)
        seen |= part
        size = part.bit_count()
        is_ring = all(graph[each].bit_count() == 2 for each in range(len(graph)) if part >> each & 1)
        needed += (size + 1) // 2 if is_ring else size // 2
    return needed


def _component(graph: Sequence[int], start: int) -> int:
    part, edge = 1 << start, 1 << start
    while edge:
        reached = 0
        for vertex in range(len(graph)):
            if edge >> vertex & 1:
                reached |= graph[vertex]
        edge = reached & ~part
        part |= edge
    return part
