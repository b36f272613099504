"""Memory and work of a deployment, by arithmetic: what a machine must hold, and what it computes in a step."""

from __future__ import annotations

from dataclasses import dataclass

from covsim.scenario.deployment import PRESETS, Deployment, num_parameters
from covsim.scenario.inner_step import flop_of_step

BYTES_OF = {"weights": 2, "gradients": 2, "master": 4, "moments": 8, "theta": 4, "error_buffer": 4}
"""Bytes per parameter of each thing that a peer holds, activations left out.

Source: ZeRO (arXiv 1910.02054), section 3.1, for mixed precision with Adam: 2 + 2 + 4 + 8 = 16. The theta of the last
outer step in fp32 is what DiLoCo keeps beside it (arXiv 2311.08105, algorithm 1), the error buffer in fp32 what
SparseLoCo does (arXiv 2508.15706, algorithm 1).
"""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that one peer holds over all its GPUs, activations left out."""

    weights: int
    gradients: int
    master: int
    moments: int
    theta: int
    error_buffer: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(getattr(self, name) for name in BYTES_OF)


def memory(parameters: int, error_feedback: bool = True) -> Memory:
    """What a peer holds for so many parameters; see `BYTES_OF` for sources.

    Args:
        parameters: how many.
        error_feedback: whether what compression leaves out is kept.
    """
    amounts = {name: each * parameters for name, each in BYTES_OF.items()}
    return Memory(**amounts | ({} if error_feedback else {"error_buffer": 0}))


@dataclass(frozen=True, slots=True)
class Figures:
    """What a deployment amounts to; what needs the tokens of a step is None where they are not known.

    Attributes:
        parameters: how many are charged for.
        step_s: seconds of an inner step on a machine of speed 1.
        tokens_per_step: of an inner step.
        gpus: of the machine, None where that is not known.
        flop_per_step: 6 N D.
        flop_per_s: what the machine gets done.
        memory: of one peer, with an error buffer.
    """

    parameters: int
    step_s: float
    tokens_per_step: int | None
    gpus: int | None
    flop_per_step: float | None
    flop_per_s: float | None
    memory: Memory


def figures(deployment: Deployment, parameters: int) -> Figures:
    """The figures of a deployment that charges for so many parameters."""
    step_s, tokens = deployment.step_s(lambda: parameters), deployment.tokens_per_step
    flop = None if tokens is None else flop_of_step(parameters, tokens)
    return Figures(
        parameters=parameters,
        step_s=step_s,
        tokens_per_step=tokens,
        gpus=deployment.gpus,
        flop_per_step=flop,
        flop_per_s=None if flop is None else flop / step_s,
        memory=memory(parameters),
    )


def preset_figures(name: str) -> Figures:
    """The figures of a preset that names its tensors."""
    deployment = Deployment.model_validate(name)
    assert deployment.tensors, f"{name} charges for the model of a scenario"
    return figures(deployment, num_parameters(deployment.groups(())))


def describe(name: str) -> str:
    """A line about a preset."""
    if not PRESETS[name]["tensors"]:
        return f"the model itself, {PRESETS[name]['inner_step']} per inner step"
    found = preset_figures(name)
    held = f"{found.memory.total / 1e9:,.4g} GB of weights, moments and buffers a peer"
    return f"{found.parameters / 1e9:.4g} B parameters, {found.step_s:.4g} s per inner step, {held}"


def table() -> str:
    """The presets as a table in Markdown, as docs/machines.md shows it."""
    head = [
        "deployment",
        "parameters",
        "layers",
        "step (s)",
        "tokens a step",
        "GPUs",
        "PFLOP a step",
        "TFLOP/s",
        "memory (GB)",
    ]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    for name in PRESETS:
        deployment = Deployment.model_validate(name)
        if not deployment.tensors:
            continue
        found = preset_figures(name)
        rows.append(
            [
                f"`{name}`",
                f"{found.parameters:,}",
                str(deployment.layers),
                f"{found.step_s:.4g}",
                "" if found.tokens_per_step is None else f"{found.tokens_per_step:,}",
                str(found.gpus or ""),
                "" if found.flop_per_step is None else f"{found.flop_per_step / 1e15:,.4g}",
                "" if found.flop_per_s is None else f"{found.flop_per_s / 1e12:,.0f}",
                f"{found.memory.total / 1e9:,.4g}",
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
