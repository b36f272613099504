"""Shared by the tests of the learning room."""

from __future__ import annotations

import pytest

from covsim.learning.corpus import Corpus, Data
from covsim.learning.model import Gpt
from covsim.randomness import Streams


@pytest.fixture(scope="session")
def gpt() -> Gpt:
    """A model of 6,240 parameters whose sizes are not powers of two."""
    return Gpt(layers=1, width=12, heads=2, context=16)


@pytest.fixture(scope="session")
def corpus(gpt: Gpt) -> Corpus:
    return Corpus(Data(), gpt.context, Streams(1))
