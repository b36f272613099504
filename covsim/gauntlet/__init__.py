"""The scoring room: evidence in, verdict out, with no notion of time.

It knows what a validator does with the submissions of one round: check them, measure them, rate the peers, slash,
set weights, and choose whom to gather and whom to look at next. State is passed in and handed back; nothing here keeps
any. It may import `learning`, `protocol` and the leaves (`units`, `registry`, `randomness`, `events`), torch, numpy and
openskill; never simpy, `world` or `nodes`. `settings`, `evidence`, `slashing`, `weights` and `selection` need no torch.

* `settings`: every constant, with the deployed value as its default
* `evidence`: what was seen of a peer, what is remembered of it, what was decided
* `checks`: put window, finite losses, overlap between payloads
* `loss_score`: trial step, gradient score, own-against-random indicator
* `rating`: one PlackettLuce match per window
* `slashing`: the rules, each a function, in the order in which they act
* `weights`: the pay ramp, the reserve, the burn
* `selection`: the gather list, and whom to evaluate
* `gauntlet`: one window from evidence to judgement

Sources: the Gauntlet paper (arXiv 2505.21684) and the public code `one-covenant/templar`, v2.1.28. Where they leave a
choice open, the function that had to choose says how.
"""
