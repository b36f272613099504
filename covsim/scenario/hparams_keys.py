"""The keys of the live network's hparams files: which a scenario has settings for, and what the others mean.

Source: the files and their readers in tplr-ai/templar and one-covenant/templar, from before v0.2 to v2.1.2x. Keys of
nested objects are joined by dots.
"""

from __future__ import annotations

from typing import Literal

Sort = Literal["whole", "number", "flag", "text", "numbers"]

_OPTIMIZERS = ("adamw", "muon")

SETTINGS: dict[str, Sort] = {
    "model_size": "text",
    "tokenizer_name": "text",
    "vocab_size": "whole",
    "hidden_size": "whole",
    "num_hidden_layers": "whole",
    "num_attention_heads": "whole",
    "num_key_value_heads": "whole",
    "intermediate_size": "whole",
    "torchtitan.tie_embeddings": "flag",
    "sequence_length": "whole",
    "pages_per_window": "whole",
    "batch_size": "whole",
    "micro_batch_size": "whole",
    "target_batch_size": "whole",
    "inner_steps": "whole",
    "learning_rate": "number",
    "inner_learning_rate": "number",
    "outer_learning_rate": "number",
    "weight_decay": "number",
    "warmup_steps": "whole",
    "alpha_f": "number",
    "t_max": "whole",
    "optimizer.type": "text",
    "optimizer.adamw.betas": "numbers",
    "optimizer.adamw.eps": "number",
    "optimizer.muon.momentum": "number",
    "optimizer.muon.head_lr_scale": "number",
    "optimizer.muon.embed_lr_scale": "number",
    "optimizer.muon.scalar_lr_scale": "number",
    **{f"optimizer.{kind}.learning_rate": "number" for kind in _OPTIMIZERS},
    **{f"optimizer.{kind}.weight_decay": "number" for kind in _OPTIMIZERS},
    **{f"optimizer.{kind}.scheduler.warmup_steps": "whole" for kind in _OPTIMIZERS},
    **{f"optimizer.{kind}.scheduler.t_max": "whole" for kind in _OPTIMIZERS},
    **{f"optimizer.{kind}.scheduler.eta_min_factor": "number" for kind in _OPTIMIZERS},
    **{f"optimizer.{kind}.scheduler.flatten_start_step": "whole" for kind in _OPTIMIZERS},
    **{f"optimizer.{kind}.scheduler.flatten_duration": "whole" for kind in _OPTIMIZERS},
    "anneal_mode.enabled": "flag",
    "anneal_mode.start_global_step": "whole",
    "anneal_mode.warmup_inner_steps": "whole",
    "anneal_mode.decay_outer_steps": "whole",
    "anneal_mode.peak_lr_factor": "number",
    "anneal_mode.eta_min_factor": "number",
    "momentum_decay": "number",
    "topk_compression": "whole",
    "target_chunk": "whole",
    "use_dct": "flag",
    "quantization_bins": "whole",
    "quantization_range": "number",
    "compression_b_choices": "numbers",
    "blocks_per_window": "whole",
    "time_window_delta_seconds": "number",
    "gather_peer_count": "whole",
    "reserve_peer_count": "whole",
    "max_topk_peers": "whole",
    "topk_peers": "number",
    "minimum_peers": "whole",
    "peer_replacement_frequency": "whole",
    "peer_list_window_margin": "whole",
    "checkpoint_frequency": "whole",
    "uids_per_window": "whole",
    "num_evaluation_bins": "whole",
    "validator_sample_micro_bs": "whole",
    "eval_lr_factor": "number",
    "binary_score_ma_alpha": "number",
    "bma_threshold": "number",
    "bma_warmup_windows": "whole",
    "openskill_beta": "number",
    "openskill_tau": "number",
    "missing_gradient_penalty_score": "number",
    "gather_peers_slash_threshold": "number",
    "idx_overlap_threshold": "number",
    "exclude_negative_peers": "flag",
    "consecutive_negative_threshold": "whole",
    "reset_inactivity_windows": "whole",
    "gather_share": "number",
    "gather_top_ratio": "number",
    "reserve_decay_ratio": "number",
    "burn_rate": "number",
    "windows_per_weights": "whole",
    "sync_max_steps_behind": "number",
    "power_normalisation": "number",
    "recent_windows": "whole",
}
"""Keys that a scenario has settings for, with the sort of their values."""

CODE_DEFAULTS: dict[str, float] = {
    "learning_rate": 0.001,
    "warmup_steps": 250,
    "alpha_f": 0.1,
    "t_max": 20_000,
    "momentum_decay": 0.999,
    "topk_compression": 32,
    "target_chunk": 64,
}
"""What the live code takes where a file leaves a key out."""

NOT_YET: dict[str, str] = {
    "windows_per_shard": "windows after which peers change to the next shard of the data",
    "outer_steps_per_shard": "outer steps after which peers change to the next shard of the data",
    "shard_reset_outer_step": "outer step from which the shards start over",
    "checkpoint_init_version": "release whose checkpoint the run starts from",
    "checkpoint_init_window": "window of the checkpoint that the run starts from",
    "validator_offset": "windows that a validator stays behind the chain",
    "peers_to_replace": "members of the gather list that one refresh may change",
    "active_check_interval": "seconds between two looks for active peers",
    "catch_up_threshold": "windows behind from which a peer replays what it missed",
    "catch_up_min_peers": "payloads below which a window is not replayed",
    "catch_up_batch_size": "windows that are replayed at a time",
    "catch_up_timeout": "seconds after which a replay is given up",
    "validator_sample_rate": "share of the pages that a validator evaluates on, before v1.0",
    "scores_alpha": "weight of a new loss score in its average, in the first releases",
    "gradient_score_ma_alpha": "weight of a new gradient score in its average, before v1.0",
    "final_score_ma_alpha": "weight of a new final score in its average, before v1.0",
    "moving_average_window": "final scores that are averaged, before v1.0",
    "max_gradient_score": "most that one loss improvement may count, before v1.0",
}
"""Keys that change how the network behaves, in ways that covsim does not model yet."""

SOFTWARE: dict[str, str] = {
    "spec_version": "number of the file format, which nothing reads",
    "project": "name under which the run is logged",
    "max_position_embeddings": "longest text that the model could read",
    "activation_function": "the live model ignores it",
    "offload_optimizer_states": "where the moments lie between two rounds",
    "windows_per_sync": "nothing reads it since the first releases",
    "anneal_mode.file_prefix": "names of the data files of the final anneal",
    **{
        f"optimizer.{kind}.scheduler.{key}": "acts after a restart of the software"
        for kind in _OPTIMIZERS
        for key in ("warmup_inner_steps", "initial_warmup_inner_steps", "replay_rewind_inner_steps")
    },
}
"""Keys that only concern the software or the hardware it runs on."""

HARDWARE = ("torchtitan", "fsdp")
"""Objects all of whose keys say how a model is spread over GPUs, but for those in `SETTINGS`."""

OBJECTS = {key.rsplit(".", depth)[0] for key in [*SETTINGS, *SOFTWARE] for depth in range(1, key.count(".") + 1)} | {
    *HARDWARE
}
"""Keys whose value is an object."""

FOREIGN = {
    "evaluation_runs": "one-covenant/crusades",
    "netuid": "one-covenant/crusades",
}
"""Keys that give away files of another program that lie under the same name."""
