"""What the keys of a hparams file make of a scenario: one function for each section.

A setting remembers the keys that it was made of, and a key that cannot be mapped as it stands is given a reason. Files
without `inner_steps` are of the releases before v1.0, which ran DeMo; the others ran SparseLoCo.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from covsim.registry import did_you_mean
from covsim.scenario.deployment import COVENANT_72B, PRESETS, TEMPLAR_1B, TEMPLAR_8B, Groups, llama
from covsim.scenario.hparams_keys import CODE_DEFAULTS
from covsim.scenario.rounded import time_text
from covsim.scenario.schema import Scenario
from covsim.units import format_duration, format_share

BLOCK_S = 12
GATHER_TIMEOUT_S = 600  # a constant of the live code
COMPUTE_SHARE = 0.8  # of a window: 20 of 25 minutes in the Covenant-72B report
LONE_STEP_SHARE = 0.6  # of a window, where a slow machine must still finish the only step
LLAMA_TOKENS = 32_000
NEVER = 1_000_000  # a round that no run reaches

_PRESET_OF = {"1B": "templar-1b", "8B": "templar-8b", "70B": "covenant-72b"}
_GROUPS_OF: dict[str, Groups] = {"templar-1b": TEMPLAR_1B, "templar-8b": TEMPLAR_8B, "covenant-72b": COVENANT_72B}
_FIXED_SHAPE = ("8B", "70B")  # named by TorchTitan; the live code reads no shape for them
_VOCABULARY_OF = {
    "huggyllama/llama-7b": LLAMA_TOKENS,
    "togethercomputer/LLaMA-2-7B-32K": LLAMA_TOKENS,
    "google/gemma-3-270m": 262_144,
}
_BITS_OF = {4: 2, 16: 4, 256: 8}
_SHAPE = ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size")


@dataclass(frozen=True, slots=True)
class Setting:
    """A value of the scenario and the keys that it was made of: none for what is assumed or stands in the live code."""

    value: Any
    keys: tuple[str, ...] = ()


@dataclass
class Draft:
    """A scenario on its way from the keys of a hparams file.

    Attributes:
        given: the file's values by dotted key, nulls left out.
        rounds, peers: of the scenario.
        settings: by dotted path, in the order of the scenario's text.
        refused: keys that could not be mapped, or not as they stand, and why.
        caveats: keys that were mapped, and what to mind about them.
        remarks: what a reader of the scenario should know, by its section.
        absent: paths that the file says nothing about.
    """

    given: Mapping[str, Any]
    rounds: int
    peers: int
    settings: dict[str, Setting] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    caveats: dict[str, str] = field(default_factory=dict)
    remarks: dict[str, list[str]] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)

    @property
    def demo(self) -> bool:
        """True for the releases before SparseLoCo."""
        return "inner_steps" not in self.given

    def get(self, key: str) -> Any:
        """The file's value, or what the live code takes where there is none, or None."""
        return self.given.get(key, CODE_DEFAULTS.get(key))

    def positive(self, key: str) -> Any:
        """A number above 0, or None if the file has none; any other number is refused."""
        value = self.get(key)
        if value is not None and value <= 0:
            self.refuse(key, "must be above 0")
            return None
        return value

    def set(self, path: str, value: Any, *keys: str) -> None:
        """Give the scenario a setting that was made of some keys."""
        self.settings[path] = Setting(value, keys)

    def copy(self, path: str, key: str, make: Callable[[Any], Any] = lambda value: value) -> None:
        """Give the scenario what a key says, if it says something."""
        value = self.get(key)
        if value is None:
            self.absent.append(path)
        else:
            self.set(path, make(value), key)

    def refuse(self, key: str, why: str) -> None:
        """Say why a key is not mapped as it stands; the first reason counts."""
        if key in self.given:
            self.refused.setdefault(key, why)

    def mind(self, key: str, what: str) -> None:
        """Say what to mind about a key that is mapped."""
        if key in self.given:
            self.caveats[key] = what

    def remark(self, section: str, text: str) -> None:
        """Add a comment to a section of the scenario."""
        self.remarks.setdefault(section, []).append(text)

    def withdraw(self, path: str, message: str) -> bool:
        """Take back what was set at a path, or else beneath it; False if no key of the file had a part in it."""
        above = [each for each in self.settings if f"{path}.".startswith(f"{each}.")]
        concerned = above or [each for each in self.settings if each.startswith(f"{path}.")]
        blamed = [each for each in concerned if self.settings[each].keys]
        for each in blamed:
            for key in self.settings.pop(each).keys:
                self.refuse(key, f"{each} {message}")
        return bool(blamed)


def draft(given: Mapping[str, Any], flagship: Scenario, rounds: int | None, peers: int | None) -> Draft:
    """What a file's values, by dotted key and without nulls, make of a scenario that extends the flagship."""
    made = Draft(
        given,
        rounds=flagship.planned_rounds if rounds is None else rounds,
        peers=flagship.peers if peers is None else peers,
    )
    made.set("stop.rounds", made.rounds, *([] if rounds is None else ["--rounds"]))
    if peers is not None:
        _population(made, flagship)
    for section in (_deployment, _protocol, _training, _data, _timeline, _selection, _gauntlet):
        section(made)
    return made


def _population(made: Draft, flagship: Scenario) -> None:
    """So many peers, of the flagship's cohorts in the flagship's proportions."""
    made.set("peers", made.peers, "--peers")
    for name, cohort in sorted(flagship.cohorts.items()):
        if cohort.count is not None:
            count = round(cohort.count * made.peers / flagship.peers)
            made.set(f"cohorts.{name}", {"count": count} if count else None)
    made.remark("peers", f"The flagship's cohorts, in proportion to its {flagship.peers} peers.")


def _deployment(made: Draft) -> None:
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


def _protocol(made: Draft) -> None:
    """What is sent, and how it is applied."""
    if made.demo:
        _demo(made)
    else:
        _sparseloco(made)


def _demo(made: Draft) -> None:
    made.set("protocol.kind", "demo")
    _chunks(made, "protocol.k", "protocol.error_decay")
    bits = _bits(made)
    if bits is not None:
        made.set("protocol.values", {"kind": "bin_mean", "bits": bits}, *_bit_keys(made))
    made.set("protocol.indices", "bits16")
    made.remark("protocol", "No inner_steps: DeMo, one gradient a window. Positions of 16 bits are assumed.")
    made.set("protocol.outer.kind", "sign_sgd")
    made.copy("protocol.outer.lr", "learning_rate")
    made.copy("protocol.outer.weight_decay", "weight_decay")
    _schedule(made, "protocol.outer.schedule", ("warmup_steps", "t_max", "alpha_f"), made.rounds)


def _sparseloco(made: Draft) -> None:
    dct = made.given.get("use_dct")
    made.set("protocol.kind", "composed" if dct else "sparseloco", *([] if dct is None else ["use_dct"]))
    steps = made.positive("inner_steps")
    if steps is not None:
        made.set("protocol.inner_steps", steps, "inner_steps")
    bits = _bits(made)
    if dct:
        made.set("protocol.compressor.kind", "dct", "use_dct")
        _chunks(made, "protocol.compressor.k", "protocol.error_feedback.decay")
        if bits is not None:
            made.set("protocol.values", {"kind": "bin_mean", "bits": bits}, *_bit_keys(made))
        made.remark("protocol", "SparseLoCo with DCT is put together from parts.")
    else:
        _chunks(made, "protocol.k", "protocol.error_decay")
        if bits is not None:
            made.set("protocol.bits", bits, *_bit_keys(made))
    made.set("protocol.packing", "byte_per_value")
    made.remark("protocol", "packing is the live code's: each value has a byte of its own.")
    made.set("protocol.outer.kind", "sgd")
    made.copy("protocol.outer.lr", "outer_learning_rate")
    made.remark("protocol", "Until 2025-11-03 outer_rate_twice was true.")
    entropy = "block sizes of an entropy coder of positions; protocol.indices=entropy is covsim's"
    made.refuse("compression_b_choices", entropy)


def _chunks(made: Draft, k_path: str, decay_path: str) -> None:
    chunk = made.get("target_chunk")
    if chunk == 64:
        made.set(k_path, made.get("topk_compression"), "topk_compression", "target_chunk")
    else:
        made.copy(k_path, "topk_compression")
        made.refuse("target_chunk", "covsim cuts tensors into blocks of up to 64 x 64")
    made.copy(decay_path, "momentum_decay")


def _bits(made: Draft) -> int | None:
    """Bits of a value, or None if the file has no bins or covsim has not these."""
    width = made.given.get("quantization_range", 6)
    if width != 6:
        made.refuse("quantization_range", "covsim's bins span 6 standard deviations")
    bins = made.given.get("quantization_bins")
    if bins is None and not made.demo:
        made.absent.append("protocol.bits")
    elif bins is not None and bins not in _BITS_OF:
        stands_in = "values are sent whole" if made.demo else "2 bits stand in"
        made.refuse("quantization_bins", f"covsim writes values in 4, 16 or 256 bins; {stands_in}")
    return None if bins is None else _BITS_OF.get(bins)


def _bit_keys(made: Draft) -> tuple[str, ...]:
    return ("quantization_bins", *(["quantization_range"] if made.given.get("quantization_range") == 6 else []))


def _schedule(made: Draft, path: str, keys: tuple[str, str, str], steps: int) -> None:
    """Warm-up and cosine; the file's schedule is much longer than a run here, and is squeezed as a whole."""
    warm_up, length, floor = keys
    made.set(f"{path}.kind", "cosine")
    first, then = made.get(warm_up), made.positive(length)
    if first is not None and then is not None and first >= 0:
        squeezed = round(first * steps / (first + then))
        made.set(f"{path}.warmup_steps", squeezed, warm_up, length)
        whole = f"a schedule of {first:,} + {then:,} steps is squeezed into the {steps:,} of this run"
        section, _, _ = path.partition(".")
        made.remark(section, f"{whole[:1].upper()}{whole[1:]}: {squeezed} steps of warm-up.")
        made.mind(warm_up, f"{whole}: {squeezed} of warm-up")
    else:
        made.copy(f"{path}.warmup_steps", warm_up)
    made.copy(f"{path}.final_share", floor, _share)


def _training(made: Draft) -> None:
    """The inner loop. Before SparseLoCo there was none: the outer optimizer is the only one."""
    charged = "deployment.inner_step stands for what the live model does; the small model has"
    made.refuse("batch_size", f"{charged} training.batch")
    made.refuse("sequence_length", f"{charged} model.context")
    if made.demo:
        made.refuse("pages_per_window", f"{charged} training.batch")
        return
    blocks = any(key.startswith("optimizer.") for key in made.given)
    kind = made.given.get("optimizer.type", "muon") if blocks else "adamw"
    if kind not in ("adamw", "muon"):
        made.refuse("optimizer.type", "covsim knows adamw and muon of the live code; the flagship's AdamW stands in")
        return
    made.set("training.inner.kind", kind, *(["optimizer.type"] if "optimizer.type" in made.given else []))
    steps = made.rounds * (made.positive("inner_steps") or 30)
    if blocks:
        _optimizer(made, kind, f"optimizer.{kind}", steps)
    else:
        made.copy("training.inner.lr", "inner_learning_rate")
        made.copy("training.inner.weight_decay", "weight_decay")
        _schedule(made, "training.inner.schedule", ("warmup_steps", "t_max", "alpha_f"), steps)
    chosen = "chosen for the live model; the flagship trains its small one with training.inner.lr=0.004"
    made.remark("training", f"lr was {chosen}.")
    made.mind(f"optimizer.{kind}.learning_rate" if blocks else "inner_learning_rate", chosen)
    _late_schedule(made, kind)


def _optimizer(made: Draft, kind: str, block: str, steps: int) -> None:
    made.copy("training.inner.lr", f"{block}.learning_rate")
    made.copy("training.inner.weight_decay", f"{block}.weight_decay")
    if kind == "adamw":
        made.copy("training.inner.betas", f"{block}.betas")
        made.copy("training.inner.eps", f"{block}.eps")
    else:
        made.copy("training.inner.momentum", f"{block}.momentum")
        _adam_of_muon(made, block)
        made.refuse("weight_decay", "of Muon's AdamW part; here that has the weight decay of Muon")
    keys = tuple(f"{block}.scheduler.{key}" for key in ("warmup_steps", "t_max", "eta_min_factor"))
    _schedule(made, "training.inner.schedule", (keys[0], keys[1], keys[2]), steps)


def _adam_of_muon(made: Draft, block: str) -> None:
    """The rate of the tensors that Muon leaves to AdamW; live code has one for each of three groups."""
    keys = [f"{block}.{group}_lr_scale" for group in ("head", "embed", "scalar")]
    scales = {made.given[key] for key in keys if key in made.given}
    rate = made.given.get(f"{block}.learning_rate")
    if len(scales) == 1 and rate is not None:
        value = float(f"{rate * scales.pop():.12g}")
        made.set("training.inner.adam_lr", value, *(key for key in keys if key in made.given))
    else:
        made.absent.append("training.inner.adam_lr")
        for key in keys:
            made.refuse(key, "covsim has one rate for all that Muon leaves to AdamW: training.inner.adam_lr")


def _late_schedule(made: Draft, kind: str) -> None:
    """What the live run did to the rate in its last third, which no cosine can say."""
    advice = "write training.inner.schedule as {kind: points, points: [[step, factor], ...]}"
    start, duration = (f"optimizer.{kind}.scheduler.{key}" for key in ("flatten_start_step", "flatten_duration"))
    if made.given.get(duration):
        made.refuse(start, f"outer step from which the rate is kept as it is; {advice}")
        made.refuse(duration, f"outer steps for which the rate is kept as it is; {advice}")
    if made.given.get("anneal_mode.enabled"):
        for key in sorted(made.given):
            if key.startswith("anneal_mode.") and key != "anneal_mode.file_prefix":
                made.refuse(key, f"belongs to the final anneal; {advice}")


def _data(made: Draft) -> None:
    """Which part of its pool a peer trains on."""
    pool, batch = made.positive("target_batch_size"), made.positive("batch_size")
    if pool is None or batch is None:
        made.absent.append("data.pool_used")
    elif batch > pool:
        made.refuse("target_batch_size", "is below batch_size")
    else:
        made.set("data.pool_used", _share(batch / pool), "batch_size", "target_batch_size")


def _timeline(made: Draft) -> None:
    """Windows of blocks, and how long an upload still counts."""
    blocks = made.positive("blocks_per_window")
    if blocks is None:
        return
    made.set("timeline.blocks_per_window", blocks, "blocks_per_window")
    window_s = blocks * BLOCK_S
    limit_s = made.positive("time_window_delta_seconds")
    if limit_s is not None and limit_s >= window_s:
        made.refuse("time_window_delta_seconds", f"is not shorter than a window of {format_duration(window_s)}")
        limit_s = None
    if limit_s is None:
        made.set("timeline.put_window", format_duration(window_s / 2))
        made.remark("timeline", "put_window is assumed: half a window.")
    else:
        made.set("timeline.put_window", format_duration(limit_s), "time_window_delta_seconds")
    made.set("timeline.gather_timeout", format_duration(GATHER_TIMEOUT_S))
    made.remark("timeline", "gather_timeout is a constant of the live code, of v2.1.28 at least.")


def _selection(made: Draft) -> None:
    """Whose payloads are gathered."""
    if "gather_peer_count" in made.given:
        made.copy("selection.gather", "gather_peer_count")
    else:
        _older_list(made)
    if not {"gather_peer_count", "reserve_peer_count"} & made.given.keys():
        made.set("selection.reserve", 0)
        made.remark("selection", "There was no reserve before the keys gather_peer_count and reserve_peer_count.")
    else:
        made.copy("selection.reserve", "reserve_peer_count")
    made.copy("selection.refresh_windows", "peer_replacement_frequency")
    made.copy("selection.delay_windows", "peer_list_window_margin")
    made.copy("checkpoints.every", "checkpoint_frequency")
    if not made.demo:
        made.refuse("minimum_peers", "covsim publishes a list however few peers are active")


def _older_list(made: Draft) -> None:
    """A share of the peers, clamped, as before v1.0; or only the upper limit of it."""
    most, percent = made.positive("max_topk_peers"), made.positive("topk_peers")
    if percent is None:
        made.copy("selection.gather", "max_topk_peers")
        return
    size = min(int(made.peers * percent / 100), most or made.peers)
    keys = [key for key in ("topk_peers", "max_topk_peers", "minimum_peers") if key in made.given]
    made.set("selection.gather", max(size, made.given.get("minimum_peers", 1), 1), *keys)
    made.remark("selection", f"gather is {percent:g} % of {made.peers} peers, within the file's limits.")


def _share(value: float) -> Any:
    """A share as a scenario writes it; what is no share stays a number, for the scenario to refuse."""
    return format_share(float(f"{value:.12g}")) if 0 <= value <= 1 else value


_RULES: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
    ("evaluated_per_window", "uids_per_window", int),
    ("bins", "num_evaluation_bins", int),
    ("trial_factor", "eval_lr_factor", float),
    ("indicator_decay", "binary_score_ma_alpha", lambda alpha: _share(1 - alpha)),
    ("beta", "openskill_beta", float),
    ("tau", "openskill_tau", float),
    ("slashing.penalty_score", "missing_gradient_penalty_score", float),
    ("slashing.quorum", "gather_peers_slash_threshold", _share),
    ("slashing.inactive_windows", "reset_inactivity_windows", int),
    ("sync.max_behind", "sync_max_steps_behind", float),
    ("active_windows", "recent_windows", int),
)
"""Setting of the Gauntlet, key, and how the one is made of the other."""


_RAMP: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
    ("weights.gather_share", "gather_share", _share),
    ("weights.ramp", "gather_top_ratio", float),
    ("weights.reserve_ratio", "reserve_decay_ratio", _share),
)


def _gauntlet(made: Draft) -> None:
    """The scoring rules; the release of the file decides the preset that fills in what it does not name."""
    made.set("gauntlet.preset", "v0.2" if made.demo else "v2.1.28")
    for path, key, make in _RULES:
        made.copy(f"gauntlet.{path}", key, make)
    _weights(made)
    _indicator(made)
    _samples(made)
    _negative_peers(made)
    threshold = made.given.get("idx_overlap_threshold")
    if threshold is not None:
        for level, more in (("halve", 0.0), ("reset", 0.1), ("exclude", 0.2)):
            made.set(f"gauntlet.overlap.{level}", _share(min(1.0, threshold + more)), "idx_overlap_threshold")
    elif made.demo:
        made.set("gauntlet.overlap.from_round", NEVER)
        made.remark("gauntlet", "Nothing looked for copies before v1.0: the overlap check never acts.")
    else:
        made.absent.append("gauntlet.overlap")
    made.remark(
        "gauntlet", "What the file does not name is as in the preset: slashing, exclusion, rating of newcomers."
    )


def _weights(made: Draft) -> None:
    """How final scores become weights: a power of them before v1.0, a ramp from then on."""
    if made.demo:
        made.set("gauntlet.weights.kind", "power")
        made.copy("gauntlet.weights.power", "power_normalisation", float)
    else:
        made.refuse("power_normalisation", "the ramp stands in for a power of the final score since v1.0.7")
        for path, key, make in _RAMP:
            made.copy(f"gauntlet.{path}", key, make)
    made.copy("gauntlet.weights.set_every_windows", "windows_per_weights", int)
    if made.demo and "burn_rate" not in made.given:
        made.set("gauntlet.weights.burn", "0 %")
        made.remark("gauntlet", "Nothing was burned before v1.0.")
    else:
        made.copy("gauntlet.weights.burn", "burn_rate", _share)


def _indicator(made: Draft) -> None:
    """The lowest indicator average that counts."""
    if "bma_threshold" in made.given:
        made.copy("gauntlet.indicator_threshold", "bma_threshold", _share)
    else:
        made.set("gauntlet.indicator_threshold", "0 %")
        made.remark("gauntlet", "Without bma_threshold every positive indicator average counts.")
    made.copy("gauntlet.indicator_grace_windows", "bma_warmup_windows")


def _samples(made: Draft) -> None:
    """Sequences of an evaluation: so many micro batches."""
    batches = made.positive("validator_sample_micro_bs")
    if batches is None:
        made.absent.append("gauntlet.own_sequences")
        return
    size = made.positive("micro_batch_size")
    keys = ["validator_sample_micro_bs", *(["micro_batch_size"] if size is not None else [])]
    for sort in ("own", "random"):
        made.set(f"gauntlet.{sort}_sequences", batches * (size or 1), *keys)


def _negative_peers(made: Draft) -> None:
    """After how many negative evaluations in a row a peer leaves the gather list."""
    if made.given.get("exclude_negative_peers", True):
        keys = [key for key in ("consecutive_negative_threshold", "exclude_negative_peers") if key in made.given]
        if "consecutive_negative_threshold" in made.given:
            made.set("gauntlet.slashing.negative_streak", made.given["consecutive_negative_threshold"], *keys)
    else:
        made.set("gauntlet.slashing.negative_streak", 64, "exclude_negative_peers")
        made.remark("gauntlet", "exclude_negative_peers is false; 64 negative evaluations in a row come nearest.")
