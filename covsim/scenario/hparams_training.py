"""What a hparams file says of the inner loop, and of the text that a peer trains on."""

from __future__ import annotations

from covsim.scenario.hparams_draft import Draft, schedule, share


def training(made: Draft) -> None:
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
        schedule(made, "training.inner.schedule", ("warmup_steps", "t_max", "alpha_f"), steps)
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
    schedule(made, "training.inner.schedule", (keys[0], keys[1], keys[2]), steps)


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


def data(made: Draft) -> None:
    """Which part of its pool a peer trains on."""
    pool, batch = made.positive("target_batch_size"), made.positive("batch_size")
    if pool is None or batch is None:
        made.absent.append("data.pool_used")
    elif batch > pool:
        made.refuse("target_batch_size", "is below batch_size")
    else:
        made.set("data.pool_used", share(batch / pool), "batch_size", "target_batch_size")
