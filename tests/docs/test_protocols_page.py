"""docs/protocols.md: its table and its constants are those of the code."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from covsim.protocol import AsyncDiLoCo, DeMo, DiLoCo, Plan, SparseLoCo, Sparta, StreamingDiLoCo, protocols
from covsim.protocol.outer import Nesterov
from covsim.scenario.deployment import COVENANT_72B, num_parameters
from covsim.scenario.shipped import shipped_folder

PAGE = Path(__file__).parents[2] / "docs" / "protocols.md"
TEXT = PAGE.read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` \|(.*)\|$", re.MULTILINE)


def rows() -> dict[str, list[str]]:
    """The cells of the first table behind the kind: exchange, sent, against fp32, memory, assumption, source."""
    first = TEXT[: TEXT.index("## The parts")]
    return {kind: [cell.strip() for cell in cells.split("|")] for kind, cells in ROW.findall(first)}


@pytest.fixture(params=[kind for kind in rows() if kind != "composed"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def plan(kind: str) -> Plan:
    return protocols[kind].model_validate({}).plan()


def as_printed(number: float, printed: str) -> str:
    """The number with as many decimals as the page has."""
    return f"{number:.{len(printed.partition('.')[2])}f}"


def test_every_protocol_has_a_row() -> None:
    ours = {kind for kind, part in protocols.items() if part.__module__.startswith("covsim.")}
    assert set(rows()) == ours
    assert all(len(cells) == 6 for cells in rows().values())


def test_bytes_and_ratio(kind: str, plan: Plan) -> None:
    _, sent, ratio, *_ = rows()[kind]
    size = plan.payload_bytes(COVENANT_72B)
    if plan.stays_home:
        assert (size, sent, ratio) == (0, "0", "-")
        return
    printed = sent.removesuffix(" GB")
    assert printed == as_printed(size / 1e9, printed)
    assert ratio == f"{4 * num_parameters(COVENANT_72B) / size:.0f}x"


def test_steps_between_two_exchanges(kind: str, plan: Plan) -> None:
    exchange = rows()[kind][0]
    if plan.stays_home:
        assert exchange == "never"
    elif plan.inner_steps == 1:
        assert exchange.startswith("every step")
    elif plan.asynchrony is None:
        assert re.search(rf"\b{plan.inner_steps} steps", exchange)


def test_what_a_peer_keeps(kind: str, plan: Plan) -> None:
    memory = rows()[kind][3]
    assert ("own weights" in memory) == plan.keeps_own_weights
    assert ("error buffer" in memory) == (plan.error_feedback is not None)
    assert ("outer momentum" in memory) == isinstance(plan.outer, Nesterov)


def test_constants_in_the_text() -> None:
    diloco, streaming, unsynchronized = DiLoCo().plan(), StreamingDiLoCo(), AsyncDiLoCo().plan().asynchrony
    assert isinstance(diloco.outer, Nesterov)
    assert unsynchronized is not None
    said = [
        f"beta = {SparseLoCo().error_decay}",
        f"m = {diloco.outer.momentum}",
        f"alpha = {diloco.outer.lr}",
        f"p = {unsynchronized.staleness_power}",
        f"decay = {DeMo().error_decay}",
        f"c: {100 * Sparta().share} % of the coordinates",
        f"{streaming.inner_steps} steps, one of {streaming.fragments.num} fragments",
        f"for the fragment p whose turn it is, in {streaming.values.code_bits} bits",
    ]
    assert [constant for constant in said if constant not in TEXT] == []
    assert math.isclose(64 / 4096, 0.016, rel_tol=0.03)
    assert "at 1.6 % density" in TEXT


def test_files_that_it_names_are_there() -> None:
    named = re.findall(r"`((?:docs|scenarios|tests|covsim)/[\w./-]+)`", TEXT)
    assert "scenarios/protocols/centralized.yaml" in named
    assert [name for name in named if not (shipped_folder().parent / name).exists()] == []
