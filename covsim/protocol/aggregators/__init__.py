"""Many payloads to one step: what is done to them first, and how they are combined.

An aggregator is a part with a list of pre-aggregators (`before`). Each says what a coordinate that a payload leaves out
is to it, and what it does where too few payloads were gathered for what it is to tolerate: it never fails a round.
Names and numbers are ByzFL's where it has the method.

* `base`, `pre`: what they are (registries); `chain`: all of it in order, and what limits a single payload
* `rows`: payloads as dense rows, made once; `columns`: work on them in blocks, the same bits on any number of threads
* `tolerance`: how many are tolerated; `distances`: who is near whom
* `clipping`, `mixing`: pre-aggregators
* `mean`, `by_coordinate` (with `sorted_columns`), `sign_majority`, `krum`, `centers`, `subsets` (with `vertex_cover`),
  `caf`: aggregators
"""

from covsim.protocol.aggregators.base import Aggregator, aggregators
from covsim.protocol.aggregators.by_coordinate import Meamed, Median, TrimmedMean
from covsim.protocol.aggregators.caf import Caf
from covsim.protocol.aggregators.centers import CenteredClipping, GeometricMedian
from covsim.protocol.aggregators.chain import Limits, falls_short, limits, prepared, reads_weights
from covsim.protocol.aggregators.clipping import Arc, MedianNorm, NormClip, clipped, median_norms
from covsim.protocol.aggregators.krum import Krum, Monna, MultiKrum
from covsim.protocol.aggregators.mean import GauntletWeighted, Mean
from covsim.protocol.aggregators.mixing import Bucketing, Nnm
from covsim.protocol.aggregators.pre import PreAggregator, pre_aggregators
from covsim.protocol.aggregators.rows import Rows
from covsim.protocol.aggregators.sign_majority import SignMajority
from covsim.protocol.aggregators.subsets import Mda, Smea

__all__ = [
    "Aggregator",
    "Arc",
    "Bucketing",
    "Caf",
    "CenteredClipping",
    "GauntletWeighted",
    "GeometricMedian",
    "Krum",
    "Limits",
    "Mda",
    "Meamed",
    "Mean",
    "Median",
    "MedianNorm",
    "Monna",
    "MultiKrum",
    "Nnm",
    "NormClip",
    "PreAggregator",
    "Rows",
    "SignMajority",
    "Smea",
    "TrimmedMean",
    "aggregators",
    "clipped",
    "falls_short",
    "limits",
    "median_norms",
    "pre_aggregators",
    "prepared",
    "reads_weights",
]
