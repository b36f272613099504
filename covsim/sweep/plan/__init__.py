"""What a scenario would take, without running it: seconds, bytes, deadlines, what binds, a bill, the way to a target.

    covsim plan covenant72b --target utilization=0.95

* `setting`: a scenario as arrays over peers, and the numbers that can be turned
* `sharing`, `direct`, `exchange`: uploads and gathers of a round
* `round`: the round that repeats itself
* `measures`: what is read off it
* `bottleneck`, `targets`, `bill`: what binds, what would have to change, what it costs
* `planning`: all of it in one value
* `figures`: pictures and their tables

Nothing here runs anything. It may import `scenario`, `world` and what lies below them; `figures` also `report`.
"""

from covsim.sweep.plan.bill import PRICES, read_prices
from covsim.sweep.plan.planning import RoundPlan, plan
from covsim.sweep.plan.setting import CannotPlan

__all__ = ["PRICES", "CannotPlan", "RoundPlan", "plan", "read_prices"]
