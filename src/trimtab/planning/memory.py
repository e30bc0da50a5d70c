"""What a step holds at its highest point, by category; and the micro-batch that fits."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from trimtab.config import Config, GaLoreConfig, SgdConfig
from trimtab.planning.counts import Measured, ModelCounts
from trimtab.planning.settings import Ways
from trimtab.planning.work import head_rows

CHUNK_BYTES: Final = 2 << 30
"""Of logits at once, as objective/head_loss.py takes them."""
USABLE: Final = 0.9
"""Of a device's memory: its driver, fragments and evaluations need the rest."""


def memory_of(config: Config, counts: ModelCounts, ways: Ways, sequences: int, accumulation: int) -> dict[str, float]:
    """Bytes that are allocated when the head has made its logits and nothing of the backward pass is done."""
    parameters = float(counts.total_parameters)
    narrow = parameters * 2 if ways.narrow else 0.0
    gradients = parameters * (2 if ways.narrow else 4)
    procedure = config.procedure.name
    if ways.narrow and (accumulation > 1 or procedure in ("fgm", "pgd", "free_lb")):
        gradients += parameters * 4  # summed in fp32
    graphs = 2 if procedure == "r_drop" else 1
    held = {
        "weights": narrow,
        "masters": parameters * 4,
        "moments": _moments(config, counts),
        "averages": parameters * 4 if config.averaging.name != "none" else 0.0,
        "gradients": gradients,
        "sharpness": parameters * 4 if config.sharpness.name != "none" else 0.0,
        "activations": graphs * sequences * _activations(counts, ways) + (parameters * 2 if ways.autocasts else 0.0),
        "logits": _logits(config, counts, ways, sequences),
    }
    if ways.recompute == "full":
        # One block at a time, when the logits are gone.
        held["computed again"] = max(0.0, sequences * _largest_block(counts, ways) - held["logits"])
    return {name: number for name, number in held.items() if number}


def _moments(config: Config, counts: ModelCounts) -> float:
    parameters, optimizer = float(counts.total_parameters), config.optimizer
    inside = float(sum(a * b * number for a, b, number in counts.largest_matrices))
    match optimizer.name:
        case "sgd":
            return parameters * 4 if isinstance(optimizer, SgdConfig) and optimizer.momentum else 0.0
        case "lion":
            return parameters * 4
        case "muon":
            return inside * 4 + (parameters - inside) * 8
        case "adamw_8bit":
            return parameters * (2 + 8 / 256)
        case "adafactor":
            return 4.0 * sum((a + b) * number for a, b, number in counts.largest_matrices)
        case "soap":
            sides = sum((a * a + b * b) * number for a, b, number in counts.largest_matrices)
            return parameters * 8 + 8.0 * sides
        case "galore" if isinstance(optimizer, GaLoreConfig):
            total = (parameters - inside) * 8
            for a, b, number in counts.largest_matrices:
                short, long = min(a, b), max(a, b)
                rank = optimizer.rank if optimizer.rank >= 1 else max(1.0, optimizer.rank * short)
                total += number * (8 * rank * long + 4 * rank * short)
            return total
        case _:
            return parameters * 8


def _largest_block(counts: ModelCounts, ways: Ways) -> float:
    """Of one sequence: what a block keeps, on the mean."""
    kept = _activations(counts, replace(ways, recompute="none"))
    if isinstance(counts.shape, Measured):
        return kept / max(1, counts.shape.num_layers)
    return kept / max(1, sum(stream.num_layers for stream in counts.streams))


def _activations(counts: ModelCounts, ways: Ways) -> float:
    """Of one sequence: what the forward pass keeps for the backward pass."""
    if isinstance(counts.shape, Measured):
        kept = counts.shape.kept_again_bytes if ways.recompute == "full" else counts.shape.kept_bytes
        return kept * ways.value_bytes / 4
    if ways.recompute == "full":  # what each block reads, and what the final norm does
        norms = counts.shape.hidden_size * (ways.stream_bytes + ways.value_bytes)
        stream = counts.shape.hidden_size * ways.stream_bytes
        return float(sum(one.positions * (one.num_layers * stream + norms) for one in counts.streams))
    shape, value, stream = counts.shape, ways.value_bytes, ways.stream_bytes
    width, inner = shape.hidden_size, shape.resolved_feed_forward_size
    norm = width * (stream + value)
    if shape.norm.name == "rms_norm" and not ways.compiled:
        norm += width * stream  # before its weight
    forward = value * inner * (3 if shape.activation == "swiglu" else 2)
    if shape.activation == "swiglu" and not ways.compiled:
        forward += value * inner  # what the gate came to
    if shape.activation == "relu_squared" and not ways.compiled:
        forward += value * inner  # before it is squared
    inside = norm
    if ways.recompute == "selective":
        forward = value * inner * (2 if shape.activation == "swiglu" else 1)  # what the product gave
        # A post-norm's output is the stream itself, which is kept.
        inside = width * stream if shape.norm.placement == "pre" else norm
    drops = shape.dropout
    sites = (drops.residual > 0) + (drops.feed_forward > 0)
    dropped = sites * width * (1 if ways.compiled else 1 + stream)
    held = 0.0
    for stream_ in counts.streams:
        held += stream_.positions * (stream_.num_layers * (stream_.norms * inside + forward + dropped) + norm)
    for one in counts.attentions:
        heads = (one.num_heads + 2 * one.num_kv_heads) * one.head_size
        turned = (one.num_heads + one.num_kv_heads) * one.head_size
        each = value * heads + value * one.num_heads * one.head_size + 4 * one.num_heads
        each += value * turned * (one.rotated or one.normalized)
        if not ways.compiled:
            each += 4 * turned * one.normalized
        held += one.repeats * one.queries * each
        if drops.attention > 0:
            held += one.repeats * one.num_heads * one.queries * one.keys * (4 + 1 + 2 * value)
    return held


def _logits(config: Config, counts: ModelCounts, ways: Ways, sequences: int) -> float:
    """Those that exist at once, and the sum of the head's gradient where they come in chunks."""
    logits = counts.targets * head_rows(counts, ways)
    if ways.fused_loss:
        chunks = getattr(config.objective, "chunks", 1)
        if chunks == "auto":
            chunks = max(1, -(-sequences * logits * ways.value_bytes // CHUNK_BYTES))
        width = next((one.inputs for one in counts.products if one.group == "head"), 0)
        sums = 4.0 * width * head_rows(counts, ways) if chunks > 1 else 0.0
        return sequences * logits * ways.value_bytes / chunks + sums
    # The product's own, in fp32, masked, and their log-softmax.
    return sequences * logits * ((0 if ways.value_bytes == 4 else ways.value_bytes) + 12)
