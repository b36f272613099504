"""The scoring room: evidence in, verdict out, with no notion of time.

It knows what a validator does with the submissions of one round: check them, measure them, rate the peers, slash,
set weights, and choose whom to gather and whom to look at next. State is passed in and handed back; nothing here keeps
any. It may import `learning`, `protocol` and the leaves (`units`, `registry`, `randomness`, `events`, `choice`), torch,
numpy and openskill; never simpy, `world` or `nodes`. Only `checks`, `loss_score` and `gauntlet` need torch.

* `settings`: every constant, with the deployed value as its default; `presets`: those of five versions
* `evidence`: what was seen of a peer, what is remembered of it, what was decided
* `checks`: put window, finite losses, overlap between payloads
* `loss_score`: losses before and after a trial step
* `sync`: how far a peer's theta lies from the validator's
* `rating`: one PlackettLuce match per window
* `slashing`, `overlap`, `negatives`: the rules that cut, each a function
* `final_score`: rating x indicator average x sync score, and what holds it down
* `weights`: rules from final scores to pay, the burn
* `selection`: the gather list, and whom to evaluate
* `gauntlet`: one window from evidence to judgement, in the order in which the rules act

Sources: the Gauntlet paper (arXiv 2505.21684) and the public code `one-covenant/templar`, v2.1.28. Where they leave a
choice open, the function that had to choose says how.
"""
