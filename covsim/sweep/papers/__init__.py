"""The studies behind the claims about learning, C1 to C6: runs over seeds, judged by stated rules.

    python -m covsim.sweep.papers c1 c4
    python -m covsim.sweep.papers all --jobs 2

* `study`: arms, seeds, equal tokens, and one tidy table
* `error_feedback`, `replicas`, `model_size`, `four_bits`, `density`, `centralized`: a study each
* `sizes`: rows about payload sizes, by formula
* `tables`, `drawing`: what they share in reading a table and in drawing it
* `verdicts`: rows of `results/published/papers.csv`, and the table in the docs
* `publishing`: from runs to files

Here runs are started, by `sweep.local`; all else reads tables.
"""

from covsim.sweep.papers.publishing import SIZES, STUDIES, Places, publish, publish_sizes, run_studies
from covsim.sweep.papers.study import Scale, Study
from covsim.sweep.papers.verdicts import Verdict

__all__ = [
    "SIZES",
    "STUDIES",
    "Places",
    "Scale",
    "Study",
    "Verdict",
    "publish",
    "publish_sizes",
    "run_studies",
]
