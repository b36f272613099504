"""What a hparams file says of the protocol: DeMo before v1.0, where `inner_steps` is missing, and then SparseLoCo."""

from __future__ import annotations

from covsim.scenario.hparams_draft import Draft, schedule

_BITS_OF = {4: 2, 16: 4, 256: 8}


def protocol(made: Draft) -> None:
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
    schedule(made, "protocol.outer.schedule", ("warmup_steps", "t_max", "alpha_f"), made.rounds)


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
