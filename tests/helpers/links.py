"""What tests of links share: the kinds that work here, and a store that counts bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from covsim.emulation.links import Links, NodeLink, choose
from covsim.emulation.links_kernel import why_not
from covsim.emulation.links_measure import counting_store, transfers

OBSTACLE = why_not()
NEEDS_KERNEL = pytest.mark.skipif(OBSTACLE is not None, reason=f"links by the kernel do not work here: {OBSTACLE}")
KINDS = [pytest.param("kernel", marks=NEEDS_KERNEL), "user"]
UP, DOWN = 20e6, 50e6
# 1448 bytes of payload travel in 1514 of a frame, and tc counts frames; the proxy counts payload.
SHARE = {"kernel": 1448 / 1514, "user space": 1.0}


@contextmanager
def running(kind: str, *nodes: NodeLink, host: str = "0.0.0.0") -> Iterator[Links]:
    """Links of that kind, up, before a store that counts bytes."""
    with counting_store(host) as port, choose(kind) as links:
        links.start(nodes, port)
        yield links


def peer(name: str = "peer-0", latency_s: float = 0.0) -> NodeLink:
    """A node with the links of most tests."""
    return NodeLink(name, UP, DOWN, latency_s)


def agree(
    measure: Callable[[], Sequence[tuple[float, float]]], relative: float = 0.05, absolute_s: float = 0.03
) -> None:
    """Whether every (took, expected) in seconds agrees, in one of three trials.

    Other work on this machine makes a transfer late now and then, and hardly three times; a link that is wrong, too
    slow or too fast, is wrong in all three.
    """
    trials = []
    for _ in range(3):
        trials.append(measure())
        if all(abs(took - expected) <= max(relative * expected, absolute_s) for took, expected in trials[-1]):
            return
    pytest.fail(f"(took, expected) in three trials: {trials}")


def took_s(links: Links, node: str, way: str, num_bytes: int, at_once: int = 1) -> list[float]:
    """How long some transfers begun together take."""
    return [done.took_s for done in transfers(links, node, way, num_bytes, at_once)]


def names(said: Sequence[str], part: str) -> list[str]:
    """The lines that speak of something."""
    return [line for line in said if part in line]
