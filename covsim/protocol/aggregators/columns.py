"""Work on rows of numbers, one block of columns at a time: bounded memory, and the same bits on any number of threads.

Blocks have one size, whatever the machine; each is worked on by one thread, and partial sums are added up in the order
of the blocks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

BLOCK = 8192
"""Columns worked on at a time: 70 rows of them fill a few MB."""

Result = TypeVar("Result")


@contextmanager
def one_thread() -> Iterator[None]:
    """What torch computes here is computed by one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def by_blocks(function: Callable[[slice], Result], num_columns: int, size: int = BLOCK) -> list[Result]:
    """`function` of each block of columns, in their order, side by side on as many threads as torch may use."""
    blocks = [slice(start, min(start + size, num_columns)) for start in range(0, num_columns, size)]
    workers = min(torch.get_num_threads(), len(blocks))
    with one_thread():
        if workers <= 1:
            return [function(block) for block in blocks]
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(function, blocks))


def columnwise(function: Callable[[slice], Tensor], num_columns: int) -> Tensor:
    """One number per column [M], float32, from a function that gives those of a block."""
    parts = by_blocks(lambda block: function(block).float(), num_columns)
    return torch.cat(parts) if parts else torch.zeros(0)


def gram(values: Tensor) -> Tensor:
    """Inner products of rows [R, M] with each other, float64 [R, R], symmetric to the bit."""
    total = torch.zeros(len(values), len(values), dtype=torch.float64)
    own = threading.local()  # fresh memory for every block would take longer than the products

    def products(block: slice) -> Tensor:
        if not hasattr(own, "buffer"):
            own.buffer = torch.empty(len(values), BLOCK, dtype=torch.float64)
        part: Tensor = own.buffer[:, : block.stop - block.start]
        part.copy_(values[:, block])
        return part @ part.T

    for part in by_blocks(products, values.shape[1]):
        total += part
    return (total + total.T) / 2
