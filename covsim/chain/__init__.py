"""The chain: blocks, signed extrinsics, slots, weights, Yuma consensus, emission, and the ledger that proves it all.

It knows heights and not seconds, accounts and not tensors. It may import the leaves (`units`, `registry`, `choice`,
`schedules`, `events`, `randomness`), numpy, pydantic and cryptography; never simpy, torch or another room. Its uids are
slots: places that a newcomer can take over.

* `settings`: the `chain:` section
* `accounts`, `extrinsics`, `merkle`: who says something, what can be said, and how it is proven that it was
* `yuma`: what the stake agrees on, and what it pays
* `emission`: tokens per epoch
* `chain`: the state machine that includes extrinsics and runs epochs; `slots` and `stances` hold its state
* `ledger`, `verification`: blocks as lines of a file, and their re-execution
* `economics`: what work costs and tokens are worth

Source: public documentation and code of Bittensor's subtensor, and the metagraph of `templar`'s subnet.
"""
