"""Scenario files as tests: `pytest --covsim scenarios/` collects every claim of every `expect` section.

Without the option nothing is collected and nothing of covsim is imported but this file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from covsim.scenario.sections import Claim
    from covsim.sweep.claims import Claims

_SUFFIXES = (".yaml", ".yml")
_SCENARIO = re.compile(r"^(expect|extends)[ \t]*:", re.MULTILINE)
"""What makes a YAML file worth loading: claims of its own, or of a file that it extends."""


class ClaimFailed(Exception):
    """A claim does not hold; the text says all."""


class Inconclusive(Exception):
    """So many seeds cannot tell whether a claim holds; the text says all."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options; all begin with `--covsim`."""
    group = parser.getgroup("covsim", "scenarios as tests")
    group.addoption("--covsim", action="store_true", help="collect scenario files that have an `expect` section")
    group.addoption(
        "--covsim-jobs", type=int, default=2, metavar="N", help="processes that run scenarios; 0: this one (default 2)"
    )
    group.addoption("--covsim-out", metavar="DIR", help="folder of all results (default: results)")
    group.addoption(
        "--covsim-inconclusive",
        choices=("fail", "skip", "pass"),
        default="fail",
        help="what becomes of a claim about which the seeds cannot tell (default: fail)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse what makes no sense before anything is collected."""
    if config.option.covsim_jobs < 0:
        raise pytest.UsageError(f"--covsim-jobs must be 0 or more, not {config.option.covsim_jobs}")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> ScenarioFile | None:
    """A scenario file, if they are asked for and this may be one."""
    if not parent.config.option.covsim or file_path.suffix not in _SUFFIXES:
        return None
    if not _SCENARIO.search(file_path.read_text(encoding="utf-8-sig", errors="replace")):
        return None
    return ScenarioFile.from_parent(parent, path=file_path)


class ScenarioFile(pytest.File):
    """A scenario and its claims; its runs are made when the first claim is tested, and once for all."""

    def collect(self) -> Iterator[ClaimItem]:
        """An item per claim, by its metric; none of a scenario that claims nothing."""
        from covsim.scenario import ScenarioError
        from covsim.sweep.claims import Claims, with_claims

        try:
            scenario = with_claims(self.path)
        except ScenarioError as error:
            raise self.CollectError(str(error)) from error
        if scenario is None:
            return
        option = self.config.option
        claims = Claims(self.path, None if option.covsim_out is None else Path(option.covsim_out), option.covsim_jobs)
        seen: Counter[str] = Counter()
        for claim in claims.all:
            seen[claim.metric] += 1
            number = "" if seen[claim.metric] == 1 else f"#{seen[claim.metric]}"
            yield ClaimItem.from_parent(self, name=f"{claim.metric}{number}", claim=claim, claims=claims)


class ClaimItem(pytest.Item):
    """One claim of a scenario."""

    def __init__(self, *, claim: Claim, claims: Claims, **of_pytest: Any) -> None:
        super().__init__(**of_pytest)
        self._claim, self._claims = claim, claims
        if claim.xfail is not None:
            self.add_marker(pytest.mark.xfail(reason=claim.xfail, strict=True, raises=ClaimFailed))

    def runtest(self) -> None:
        """Judge the claim; what is known to fail must fail, and may not be inconclusive either."""
        ruling = self._claims.ruling(self._claim)
        if ruling.outcome == "fail":
            raise ClaimFailed(self._claims.told(ruling))
        if ruling.outcome == "inconclusive":
            self._not_told(self._claims.told(ruling))

    def _not_told(self, text: str) -> None:
        wanted = self.config.option.covsim_inconclusive
        if wanted == "skip":
            pytest.skip(text)
        if wanted == "fail":
            raise Inconclusive(text)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The text of a claim, or of runs that failed; the traceback of anything else."""
        from covsim.sweep.local import FailedRuns

        if isinstance(excinfo.value, ClaimFailed | Inconclusive | FailedRuns):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """The scenario's file, and the claim in words."""
        from covsim.sweep.expect import wording

        return self.path, None, f"{self.path.name}: {wording(self._claim)}"
