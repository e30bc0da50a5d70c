"""The work of a step, by part: operations, bytes, kernels.

Bytes count what a kernel reads and writes once; D, F and V are a position's hidden size, feed-forward size and
vocabulary. The counts of a compiled step are those of the kernels that were seen on an H100 (docs/benchmarks.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, final

from trimtab.config import Config, GaLoreConfig, MuonConfig, SgdConfig, SoapConfig, SophiaConfig
from trimtab.config.beside_procedure import passes_of
from trimtab.planning.counts import Measured, ModelCounts
from trimtab.planning.devices import Device
from trimtab.planning.settings import Ways

_FUSED_EFFICIENCY: Final = 0.85
"""Of the copying rate, for element-wise kernels of several operations."""
VOCABULARY_MULTIPLE: Final = 64
"""As the fused loss pads it."""
_FORWARD_AND_BACKWARD: Final = 3.5
"""Attention: two products forward, five backward, one of which is the scores once more."""


@final
@dataclass(frozen=True, slots=True)
class Work:
    """One part: what it does, how long that takes, and how long it would at the device's ceilings."""

    part: str
    flops: float
    bytes: float
    kernels: float
    seconds: float
    ceiling_seconds: float

    def times(self, factor: float) -> Work:
        """So often."""
        return Work(
            self.part,
            self.flops * factor,
            self.bytes * factor,
            self.kernels * factor,
            self.seconds * factor,
            self.ceiling_seconds * factor,
        )


def micro_batch_work(counts: ModelCounts, device: Device, ways: Ways, sequences: int) -> list[Work]:
    """Forward and backward of `sequences`."""
    works = [
        _products(counts, device, ways, sequences),
        _attention(counts, device, ways, sequences),
        _elementwise(counts, device, ways, sequences),
        _loss(counts, device, ways, sequences),
    ]
    if ways.recompute != "none":
        works = [*_with_recompute(works, counts, ways)]
    if ways.autocasts:
        works.append(_casts(counts, device))
    return works


def _with_recompute(works: list[Work], counts: ModelCounts, ways: Ways) -> Iterator[Work]:
    """What is computed again in backward, added: a forward pass through the blocks, or norms and activations alone."""
    head = sum(one.repeats * one.rows * one.inputs * one.outputs for one in counts.products if one.group == "head")
    blocks = 1.0 - head / sum(one.repeats * one.rows * one.inputs * one.outputs for one in counts.products)
    # A product is one of three forward; of attention 1 of 3.5; element-wise work reads and writes less than backward.
    more = {"full": {"products of matrices": blocks / 3, "attention": 1 / 3.5, "element-wise": 1 / 3}}
    more["selective"] = {"element-wise": 1 / 4}
    for work in works:
        yield work.times(1.0 + more[ways.recompute].get(work.part, 0.0))


def update_work(config: Config, counts: ModelCounts, device: Device, ways: Ways, accumulation: int) -> Work:
    """The update, with gradients gathered and their norm taken."""
    parameters = counts.total_parameters
    optimizer = config.optimizer
    states = {"sgd": 1.0 if isinstance(optimizer, SgdConfig) and optimizer.momentum else 0.0, "lion": 1.0}
    num_states = states.get(optimizer.name, 2.0)
    gradient = 4 if not ways.narrow or accumulation > 1 else 2
    per_parameter = 8 + 8 * num_states + gradient + (2 if ways.narrow else 0)
    # AdamW is one kernel on CUDA; other rules are some calls, each of which reads and writes anew.
    passes = 1.0 if optimizer.name in ("adamw", "adamw_8bit") or device.kind == "cpu" else 3.0
    if optimizer.name == "adamw_8bit":
        per_parameter = 8 + 4 + 4
    moved = parameters * (per_parameter * passes + 3 * gradient + (12 if config.averaging.name != "none" else 0))
    flops = 0.0
    match optimizer:
        case MuonConfig():
            for a, b, number in counts.largest_matrices:
                short, long = min(a, b), max(a, b)
                flops += number * optimizer.iterations * (4.0 * short * short * long + 2.0 * short**3)
        case SoapConfig():
            flops = sum(8.0 * 2 * a * b * max(a, b) * number for a, b, number in counts.largest_matrices)
        case GaLoreConfig():
            rank = optimizer.rank
            for a, b, number in counts.largest_matrices:
                kept = rank if rank >= 1 else max(1.0, rank * min(a, b))
                flops += 4.0 * kept * a * b * number
    rate = device.products["fp32" if "bf16" not in device.products else "bf16"]
    ceiling = moved / device.bytes_per_second + flops / rate
    kernels = 12.0 if passes == 1.0 else 60.0
    return Work("optimizer", flops, moved, kernels, ceiling, ceiling)


def extra_passes(config: Config) -> float:
    """Further forward and backward passes for each one, on average."""
    estimates = 1.0 / config.optimizer.estimate_every if isinstance(config.optimizer, SophiaConfig) else 0.0
    return passes_of(config) - 1.0 + estimates


def gaps(works: list[Work], device: Device, ways: Ways) -> list[Work]:
    """What kernels take besides their work, and what the device waits for the host where no graph replays them."""
    kernels = sum(work.kernels for work in works)
    begins = kernels * device.kernel_seconds
    found = [Work("kernel starts", 0.0, 0.0, 0.0, begins, 0.0)]
    busy = sum(work.seconds for work in works) + begins
    if device.kind == "cuda" and not ways.captured:
        waits = kernels * device.launch_seconds - busy
        found.append(Work("waiting for the host", 0.0, 0.0, 0.0, max(0.0, waits), 0.0))
    return found


def head_rows(counts: ModelCounts, ways: Ways) -> int:
    """Outputs of the head, as they are computed: padded where the fused loss does it."""
    return -(-counts.outputs // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE if ways.fused_loss else counts.outputs


def _products(counts: ModelCounts, device: Device, ways: Ways, sequences: int) -> Work:
    rate, most, width = device.products[ways.precision], device.ceiling[ways.precision], ways.value_bytes
    flops = moved = seconds = ceiling = kernels = 0.0
    for product in counts.products:
        outputs = head_rows(counts, ways) if product.group == "head" else product.outputs
        rows = product.rows * sequences
        work = 2.0 * rows * product.inputs * outputs
        passed = width * (rows * product.inputs + product.inputs * outputs + rows * outputs)
        times = 3 * product.repeats
        flops, moved, kernels = flops + times * work, moved + times * passed, kernels + times
        # Sizes that tiles of 64 do not divide leave a part of them empty.
        full = _tile_part(product.inputs, device) * _tile_part(outputs, device)
        seconds += times * max(work / full / rate, passed / _rate(device, passed))
        ceiling += times * max(work / most, passed / _rate(device, passed))
    return Work("products of matrices", flops, moved, kernels, seconds, ceiling)


def _tile_part(size: int, device: Device) -> float:
    """The part of the tiles that a dimension fills; alignment of less than 8 costs a kernel of its own besides."""
    if device.kind == "cpu":
        return 1.0
    return size / (-(-size // 64) * 64) * (1.0 if size % 8 == 0 else 0.6)


def _attention(counts: ModelCounts, device: Device, ways: Ways, sequences: int) -> Work:
    flops = seconds = ceiling = kernels = moved = 0.0
    # Rates are those of 16 bits; in fp32 kernels lose a part of what products lose.
    fp32 = ways.value_bytes == 4 and "bf16" in device.products
    slow = max(1.0, device.products["bf16"] / device.products["fp32"] / 4) if fp32 else 1.0
    if isinstance(counts.shape, Measured):
        work = _FORWARD_AND_BACKWARD * sequences * counts.shape.attention_flops
        took = work / device.masked_attention * slow
        return Work("attention", work, 0.0, 4.0 * counts.shape.num_layers if work else 0.0, took, took)
    drops = counts.shape.dropout.attention > 0
    for one in counts.attentions:
        whole = one.masked or not one.causal
        work = _FORWARD_AND_BACKWARD * sequences * (one.square_flops if whole else one.flops)
        rate = device.masked_attention if one.masked else device.attention_rate(one.head_size, one.keys)
        flops, kernels = flops + work, kernels + 4 * one.repeats
        if drops:
            # Written out: scores, mask, softmax, dropout and their gradients, in fp32.
            scores = sequences * one.repeats * one.num_heads * one.queries * one.keys
            written = 16.0 * 4 * scores
            moved, kernels = moved + written, kernels + 12 * one.repeats
            took = work / device.products[ways.precision] + written / device.bytes_per_second
        else:
            took = work / rate * slow
        seconds, ceiling = seconds + took, ceiling + took
    return Work("attention", flops, moved, kernels, seconds, ceiling)


def _elementwise(counts: ModelCounts, device: Device, ways: Ways, sequences: int) -> Work:
    shape, value, stream = counts.shape, ways.value_bytes, ways.stream_bytes
    if isinstance(shape, Measured):
        # What is kept is written, and read again in backward, where its gradient is written and read.
        kept = sequences * shape.kept_bytes * value / 4
        rate = _rate(device, kept / max(1, shape.num_layers))
        seconds = 4 * kept / rate
        # Compiled code is assumed to make one kernel of three.
        kernels = shape.kernels if ways.compiled else 3 * shape.kernels
        return Work("element-wise", 0.0, 4 * kept, kernels, seconds / _FUSED_EFFICIENCY, seconds)
    width, inner = shape.hidden_size, shape.resolved_feed_forward_size
    # A norm with the sum before it: of the stream five reads and writes, of what branches give and take three.
    norm = width * (5 * stream + 3 * value) * (1.0 if ways.compiled else 1.6)
    # gelu_tanh is bound by its arithmetic where it stands alone; within products its argument is written and read.
    passes = {"swiglu": 8.0, "gelu_tanh": 3.0 if ways.fused_activation else 9.0}.get(shape.activation, 5.0)
    activation = value * inner * passes
    drops = shape.dropout
    sites = (drops.residual > 0) + (drops.feed_forward > 0)
    dropped = sites * width * (2.0 if ways.compiled else 2.0 + 6 * stream)
    moved, kernels, largest = 0.0, 0.0, 0.0
    for stream_ in counts.streams:
        rows = stream_.positions * sequences
        moved += rows * stream_.num_layers * (stream_.norms * norm + activation + dropped) + rows * norm
        kernels += stream_.num_layers * (stream_.norms * (3 if ways.compiled else 7) + 3 + 4 * sites)
        largest = max(largest, rows * width * stream)
        # The embedding: rows read and written, and its gradient sorted and added up.
        moved += rows * width * 3 * value + counts.vocabulary_size * width * 2 * value
        kernels += 12
    for one in counts.attentions:
        heads = (one.num_heads + 2 * one.num_kv_heads) * one.head_size
        turned = (one.num_heads + one.num_kv_heads) * one.head_size
        packed = 2 * value * heads  # the gradients of queries, keys and values become one
        changed = (4 * value if ways.compiled else 40.0) if one.rotated else 0.0
        changed += (6 * value if ways.compiled else 30.0) if one.normalized else 0.0
        moved += sequences * one.queries * one.repeats * (packed + turned * changed)
        kernels += one.repeats * (1 + (2 if ways.compiled else 14) * (one.rotated or one.normalized))
    rate = _rate(device, largest)
    return Work("element-wise", 0.0, moved, kernels, moved / rate / _FUSED_EFFICIENCY, moved / rate)


def _loss(counts: ModelCounts, device: Device, ways: Ways, sequences: int) -> Work:
    logits = counts.targets * sequences * head_rows(counts, ways)
    # Fused: read twice, overwritten with the gradient. Else: widened, masked, judged, scored, and all the way back.
    each = 3.0 * ways.value_bytes if ways.fused_loss else 40.0
    moved = logits * each
    seconds = moved / _rate(device, 4.0 * logits)
    return Work("loss", 0.0, moved, 4.0 if ways.fused_loss else 20.0, seconds, seconds)


def _casts(counts: ModelCounts, device: Device) -> Work:
    """Weights to 16 bits, and their gradients back and added."""
    moved = counts.total_parameters * 22.0
    seconds = moved / device.bytes_per_second
    kernels = 4.0 * sum(product.repeats for product in counts.products)
    return Work("casts of weights", 0.0, moved, kernels, seconds, seconds)


def _rate(device: Device, num_bytes: float) -> float:
    """Bytes a second of a tensor of this size."""
    return device.cache_bytes_per_second if num_bytes <= device.cache_bytes else device.bytes_per_second


def scaled(works: list[Work], factor: float) -> list[Work]:
    """All of them so often."""
    return [work.times(factor) for work in works]
