"""What stands in for shared things offers what nodes use of the originals, under the same names and arguments."""

import inspect
import re
from pathlib import Path

import pytest
import torch

from covsim.emulation import remote
from covsim.emulation.s3_store import S3Store
from covsim.nodes import board, chain_node, conspiracy, shelf
from covsim.protocol.lineage import root_lineage
from covsim.world.store import ObjectStore

STANDING_IN = {
    "chain": (remote.RemoteChain, chain_node.ChainNode),
    "board": (remote.RemoteBoard, board.Board),
    "samples": (remote.RemoteSamples, board.SyncSamples),
    "shelf": (remote.RemoteShelf, shelf.Shelf),
    "conspiracy": (remote.SharedConspiracy, conspiracy.Conspiracy),
    "store": (S3Store, ObjectStore),
}
NODES = ("peer", "body", "sending", "reading", "gather", "validator", "books", "checkpoints", "examination", "commons")


def used(what):
    """The names that the code of nodes asks of a shared thing."""
    names = set()
    for module in NODES:
        text = Path(f"covsim/nodes/{module}.py").read_text(encoding="utf-8")
        names |= set(re.findall(rf"commons\.{what}\.(\w+)|office\.{what}\.(\w+)", text))
    return {name for pair in names for name in pair if name}


@pytest.mark.parametrize("what", STANDING_IN)
def test_everything_that_nodes_use_is_there(what):
    """Would catch a verb that a node comes to use and that no process can do."""
    stands_in, _ = STANDING_IN[what]
    source = inspect.getsource(stands_in)
    missing = [name for name in used(what) if not hasattr(stands_in, name) and f"self.{name}" not in source]
    assert not missing


@pytest.mark.parametrize("what", STANDING_IN)
def test_arguments_are_those_of_the_original(what):
    """Would catch a changed signature that types cannot see, because the stand-in is no subclass."""
    stands_in, original = STANDING_IN[what]
    for name, own in inspect.getmembers(stands_in, inspect.isfunction):
        wanted = getattr(original, name, None)
        if not name.startswith("_") and inspect.isfunction(wanted):
            assert list(inspect.signature(own).parameters) == list(inspect.signature(wanted).parameters), name


def test_a_history_survives_the_way_through_a_checkpoint():
    """Would catch a checkpoint from which another theta, or another history, is taken up."""
    root = root_lineage(torch.arange(6.0) / 7, (torch.ones(6), torch.zeros(6)))
    back = remote.lineage_of(remote.lineage_bytes(root))
    assert back.key == root.key
    assert torch.equal(back.theta, root.theta)
    assert all(torch.equal(a, b) for a, b in zip(back.outer, root.outer, strict=True))


def test_a_sample_answers_for_its_elements_only():
    """Would catch a stand-in that gives elements which were never published."""
    sampled = remote.Sampled(torch.tensor([1.0, 2.0]))
    assert torch.equal(sampled[torch.tensor([4, 9])], torch.tensor([1.0, 2.0]))
    with pytest.raises(AssertionError):
        sampled[torch.tensor([4, 9, 11])]
