"""The studies behind the claims about learning, C1 to C6, and about scoring, D1, D3, D8 and the noise of scores.

Each is runs over seeds, judged by stated rules.

    python -m covsim.sweep.papers c1 c4
    python -m covsim.sweep.papers all --jobs 2

* `study`: arms, seeds, equal tokens, and one tidy table
* `error_feedback`, `replicas`, `model_size`, `four_bits`, `density`, `centralized`: a study each
* `scoring_study`: a study that says itself what to read of a run
* `ratings`, `copies`, `participation`, `noise`: one each
* `open_loop`, `measured_again`: what a run's tape still knows, and its payloads under other evaluations; `overlaps` and
  `evaluations` read with them what `copies` and `noise` judge
* `sizes`, `scoring_formulas`: rows that need no run, about payload sizes and about the scoring
* `timing`, `layers`, `network_vectors`: rows about seconds and shares of time, each a scenario that is run; flows alone
* `tables`, `drawing`: what they share in reading a table and in drawing it
* `verdicts`: rows of `results/published/papers.csv`, and the table in the docs
* `publishing`: from runs to files

Here runs are started, by `sweep.local`; all else reads tables.
"""

from covsim.sweep.papers.publishing import (
    ALL,
    FORMULAS,
    SCORING,
    STUDIES,
    Places,
    publish,
    publish_formulas,
    run_studies,
)
from covsim.sweep.papers.scoring_study import ScoringStudy
from covsim.sweep.papers.study import Scale, Study
from covsim.sweep.papers.verdicts import Verdict

__all__ = [
    "ALL",
    "FORMULAS",
    "SCORING",
    "STUDIES",
    "Places",
    "Scale",
    "ScoringStudy",
    "Study",
    "Verdict",
    "publish",
    "publish_formulas",
    "run_studies",
]
