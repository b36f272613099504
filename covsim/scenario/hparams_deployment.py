"""What a hparams file says of the model that is charged for: its tensors, and how long a step of theirs takes."""

from __future__ import annotations

from covsim.registry import did_you_mean
from covsim.scenario.deployment import COVENANT_72B, PRESETS, TEMPLAR_1B, TEMPLAR_8B, Groups, llama
from covsim.scenario.hparams_draft import BLOCK_S, Draft
from covsim.scenario.rounded import time_text
from covsim.units import format_share

COMPUTE_SHARE = 0.8  # of a window: 20 of 25 minutes in the Covenant-72B report
LONE_STEP_SHARE = 0.6  # of a window, where a slow machine must still finish the only step
LLAMA_TOKENS = 32_000
_PRESET_OF = {"1B": "templar-1b", "8B": "templar-8b", "70B": "covenant-72b"}
_GROUPS_OF: dict[str, Groups] = {"templar-1b": TEMPLAR_1B, "templar-8b": TEMPLAR_8B, "covenant-72b": COVENANT_72B}
_FIXED_SHAPE = ("8B", "70B")  # named by TorchTitan; the live code reads no shape for them
_VOCABULARY_OF = {
    "huggyllama/llama-7b": LLAMA_TOKENS,
    "togethercomputer/LLaMA-2-7B-32K": LLAMA_TOKENS,
    "google/gemma-3-270m": 262_144,
}
_SHAPE = ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size")


def deployment(made: Draft) -> None:
    """Whose tensors are charged for, and how long a step of theirs takes."""
    groups, keys = _groups(made)
    if groups is None:
        made.refuse("model_size", "its shape stands in a file of its own: copy the keys of that into this one")
        made.absent.append("deployment")
    else:
        _charge_for(made, groups, tuple(key for key in keys if key in made.given))
    _inner_step(made, as_reported=groups in (None, COVENANT_72B))
    if made.given.get("torchtitan.tie_embeddings"):
        untied = "payloads are charged for an untied head, as the published models have it"
        made.refuse("torchtitan.tie_embeddings", untied)


def _groups(made: Draft) -> tuple[Groups | None, tuple[str, ...]]:
    """The live model's tensors and the keys that tell them; None if its shape is not in the file."""
    size = made.given.get("model_size")
    if size in _FIXED_SHAPE or (size in _PRESET_OF and "hidden_size" not in made.given):
        (count, (tokens, width)), *others = _GROUPS_OF[_PRESET_OF[size]]
        return ((count, (_vocabulary(made) or tokens, width)), *others), ("model_size", "tokenizer_name")
    return _llama_of_file(made), (*_SHAPE, "tokenizer_name", "vocab_size")


def _charge_for(made: Draft, groups: Groups, keys: tuple[str, ...]) -> None:
    preset = next((name for name, known in _GROUPS_OF.items() if known == groups), None)
    if preset is not None:
        made.set("deployment.preset", preset, *keys)
        return
    made.set("deployment.preset", "same")
    made.set("deployment.evaluation", PRESETS["templar-8b"]["evaluation"])
    made.remark("deployment", "What an evaluation takes is assumed.")
    made.set("deployment.tensors", [{"count": count, "shape": list(shape)} for count, shape in groups], *keys)


def _llama_of_file(made: Draft) -> Groups | None:
    """The tensors that the keys of a model's shape describe; None if they are not all there."""
    shape = {"num_key_value_heads": made.given.get("num_attention_heads"), **made.given}
    if any(shape.get(key) is None for key in _SHAPE):
        return None
    layers, width, heads, key_heads, hidden = (int(shape[key]) for key in _SHAPE)
    if min(layers, width, heads, hidden, key_heads) <= 0 or width % heads:
        made.refuse("hidden_size", "num_attention_heads must divide it, and no size may be below 1")
        return None
    return llama(layers, width, width // heads * key_heads, hidden, _vocabulary(made) or LLAMA_TOKENS)


def _vocabulary(made: Draft) -> int | None:
    """Tokens of the tokenizer, which wins over `vocab_size`; None if neither says it."""
    name = made.given.get("tokenizer_name")
    if name in _VOCABULARY_OF:
        return _VOCABULARY_OF[name]
    hint = did_you_mean(str(name), _VOCABULARY_OF)
    made.refuse("tokenizer_name", f"how many tokens it has is not known here{hint}; vocab_size may say it")
    size: int | None = made.positive("vocab_size")
    return size


def _inner_step(made: Draft, as_reported: bool) -> None:
    """Seconds of an inner step: the report has them for 72 B parameters, else what fits into a window."""
    blocks, steps = made.positive("blocks_per_window"), made.positive("inner_steps")
    if as_reported and not made.demo:
        made.remark("deployment", "40 s per inner step, as in the report on Covenant-72B.")
    elif blocks is not None:
        share = LONE_STEP_SHARE if made.demo else COMPUTE_SHARE
        step = time_text(share * blocks * BLOCK_S / (steps or 1))
        made.set("deployment.inner_step", step, "blocks_per_window", *(["inner_steps"] if steps else []))
        filled = f"the steps of a round fill {format_share(share)} of a window"
        made.remark("deployment", f"inner_step is assumed: {filled}.")
