"""The protocol room: what is sent, combined and applied in a round, with no notion of time.

It knows pseudo-gradients and payload bytes: how a row of numbers becomes bytes and comes back, how payloads are
combined, and how theta moves. Who trains, who is listened to and what a byte costs is decided elsewhere. It may
import torch, numpy and the leaves (`units`, `registry`, `randomness`, `schedules`, `events`); never simpy, never
another room.

What a protocol is
* `plan`: the value that says all of it
* `sparseloco`, `diloco`, `every_step`, `composed`: protocols, each a part that makes a plan

From numbers to bytes
* `compressors`: which values are sent (registry); `chunks`, `dct`: how tensors are cut, and transformed
* `values`: how a value is written (registry); `quantize`: a few bits by the mean of each bin
* `indices`: how positions are written (numpy only)
* `invalid`: what a decoder says to bytes that it does not accept (numpy only)
* `wire`: the payload's bytes, and a decoder that believes nothing (numpy only); `claims`: what a header says
* `codec`: all of these together; `forgery`: payloads that are wrong in one way
* `error_feedback`: what was left out stays for later
* `fragments`: which part of theta a round exchanges (registry)

From payloads to theta
* `aggregators`: many payloads to one step (registry)
* `outer`: theta moves (registry)
* `lineage`: equal histories share one theta
* `exchange`: a plan set to work on one model
"""

from covsim.protocol.composed import Composed
from covsim.protocol.diloco import AsyncDiLoCo, DiLoCo, LocalSgd, StreamingDiLoCo
from covsim.protocol.every_step import Centralized, DataParallel, DeMo, Sparta
from covsim.protocol.plan import Plan, Protocol, protocols
from covsim.protocol.sparseloco import SparseLoCo

__all__ = [
    "AsyncDiLoCo",
    "Centralized",
    "Composed",
    "DataParallel",
    "DeMo",
    "DiLoCo",
    "LocalSgd",
    "Plan",
    "Protocol",
    "SparseLoCo",
    "Sparta",
    "StreamingDiLoCo",
    "protocols",
]
