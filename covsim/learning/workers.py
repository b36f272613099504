"""Independent pieces of tensor work side by side, one torch thread each.

Small models leave too little work in one operation to split it: two workers with a chunk of peers each do more than
one worker whose every operation waits for two threads, and far more on a machine that is busy. And since each piece is
computed by one thread, its result does not depend on how many there are.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")


def side_by_side(function: Callable[[slice], Result], size: int, largest: int) -> list[Result]:
    """`function` of each of the chunks into which `size` items are cut, on as many threads as torch may use.

    Chunks are of nearly equal size, at most `largest`, and enough of them to employ every thread.
    """
    threads = torch.get_num_threads()
    num_chunks = min(size, -(-size // (largest * threads)) * threads)
    chunks = [slice(size * i // num_chunks, size * (i + 1) // num_chunks) for i in range(num_chunks)]
    try:
        if threads == 1:
            return [function(chunk) for chunk in chunks]
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(function, chunks))
    finally:
        torch.set_num_threads(threads)  # a worker's setting is the default of threads to come
