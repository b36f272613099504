"""The learning room: real training of small models for many peers at once, with no notion of time.

It knows tensors, text and inner optimizers. Values go in and values come out: a parameter vector and the name of a
shard give the parameters at the end of some steps. What a step costs in seconds, what travels and who is paid is
decided elsewhere. It may import torch, numpy and the leaves (`units`, `registry`, `choice`, `randomness`, `schedules`,
`sources`, `events`); never simpy, never another room.

* `model`: what peers train: a small GPT over one flat parameter matrix, all peers at once
* `gpt_passes`: its forward and its backward pass, written out
* `module_model`: any `nn.Module` of a user's own
* `shardings`, `corpus`: text to tokens to assigned, random and held-out shards, pure in (seed, uid, round)
* `token_files`: a user's own text
* `inner_optimizers`, `muon`: AdamW, SGD and Muon over rows of parameters
* `inner_loop`: H optimizer steps for a batch of peers
* `update`, `trainer`: lazy jobs: ask now, compute together when the first answer is needed
* `evaluate`: losses of many parameter vectors, or of one on many batches
* `tasks`: zero-shot questions about held-out text
* `workers`: how all of this uses the cores of a machine
"""
