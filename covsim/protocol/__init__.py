"""The protocol room: what is sent, combined and applied in a round, with no notion of time.

It knows pseudo-gradients and payload bytes: how a row of numbers becomes bytes and comes back, how payloads are
combined, and how theta moves. Who trains, who is listened to and what a byte costs is decided elsewhere. It may
import torch, numpy and the leaves (`units`, `registry`, `randomness`, `events`); never simpy, never another room.

* `base`: what every protocol offers: a codec, and the bytes of a regular payload
* `chunks`: how tensors are cut into chunks, and where a chunk's elements lie in theta (numpy only)
* `quantize`: kept values to a few bits, by the mean of each bin
* `wire`: the payload's bytes, and a decoder that believes nothing (numpy only)
* `block_codec`: top-k of every chunk, quantized, to bytes and back
* `sparseloco`: the protocol of Covenant-72B: that codec with error feedback
* `aggregators`: many payloads to one step
* `outer`: theta moves
* `lineage`: equal histories share one theta
"""
