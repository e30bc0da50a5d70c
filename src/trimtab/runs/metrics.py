"""Every metric that trimtab writes: unit, which way is better, how it is reduced, and who writes it.

One literal table. Names with <…> stand for a family. Losses are sums over counted tokens divided by counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table."""

    unit: str
    better: Literal["lower", "higher", "neither"]
    window: Literal["per_step", "mean", "last", "sum", "max", "evaluation"]
    """How the values of a window become what is written."""
    ranks: Literal["sum", "mean", "max", "same"]
    """How the values of several ranks become one."""
    writer: str
    """The room that measures it."""
    description: str


METRICS: dict[str, Metric] = {
    "train/loss": Metric(
        "nats", "lower", "per_step", "mean", "training", "total of the objective's terms per counted target"
    ),
    "train/loss/<term>": Metric(
        "nats",
        "lower",
        "per_step",
        "mean",
        "objective",
        "one term, unweighted; written when there is more than one",
    ),
    "train/accuracy": Metric(
        "fraction",
        "higher",
        "per_step",
        "mean",
        "objective",
        "counted targets whose most probable prediction is right",
    ),
    "train/mae": Metric(
        "units of the data", "lower", "per_step", "mean", "objective", "mean size of the error, of a regression"
    ),
    "grad_norm": Metric(
        "norm",
        "neither",
        "per_step",
        "same",
        "optimizer",
        "2-norm of the whole gradient, unscaled, before clipping",
    ),
    "learning_rate": Metric("rate", "neither", "per_step", "same", "training", "rate applied in the step"),
    "tokens": Metric("tokens", "neither", "per_step", "sum", "training", "counted targets: tokens, or texts"),
    "skipped": Metric("flag", "lower", "per_step", "same", "optimizer", "1 when the update was skipped"),
    "loss_scale": Metric("factor", "neither", "per_step", "same", "training", "fp16 loss scale of the step"),
    "step_seconds": Metric(
        "seconds",
        "lower",
        "per_step",
        "max",
        "training",
        "from boundary to boundary, without evaluation and checkpoints",
    ),
    "data_seconds": Metric("seconds", "lower", "per_step", "max", "training", "of it, waiting for data"),
    "tokens_per_second": Metric(
        "tokens/s", "higher", "mean", "sum", "training", "counted targets over the window's seconds"
    ),
    "memory_bytes": Metric("bytes", "lower", "max", "max", "training", "peak allocated on CUDA; resident set on CPU"),
    "penalty/l1": Metric("nats", "neither", "last", "same", "loop", "lambda * sum |w| of what penalties.l1 shrinks"),
    "penalty/l2": Metric("nats", "neither", "last", "same", "loop", "lambda / 2 * sum w^2 of what penalties.l2 takes"),
    "penalty/zero_fraction": Metric(
        "fraction", "neither", "last", "same", "loop", "of the weights that penalties.l1 shrinks, those that are 0"
    ),
    "gradient_noise_scale": Metric(
        "sequences", "neither", "last", "same", "monitor", "gradient_noise / gradient_signal: see gradient noise scale"
    ),
    "gradient_noise_error": Metric(
        "fraction", "lower", "last", "same", "monitor", "standard error of gradient_noise_scale, as a part of it"
    ),
    "gradient_noise": Metric(
        "norm²", "neither", "last", "same", "monitor", "variance of one sequence's gradient, all parameters together"
    ),
    "gradient_signal": Metric(
        "norm²", "neither", "last", "same", "monitor", "squared norm of the mean gradient, without the noise"
    ),
    "batch_size": Metric(
        "sequences", "neither", "last", "sum", "monitor", "those of the update in which the noise was last measured"
    ),
    "validation/loss": Metric(
        "nats", "lower", "evaluation", "same", "evaluation", "per counted target, eval mode, main set"
    ),
    "validation/accuracy": Metric(
        "fraction", "higher", "evaluation", "same", "evaluation", "counted targets predicted right, main set"
    ),
    "validation/macro_f1": Metric(
        "fraction", "higher", "evaluation", "same", "evaluation", "mean over classes of 2 · hits / (said + wanted)"
    ),
    "validation/f1": Metric(
        "fraction", "higher", "evaluation", "same", "evaluation", "of two classes, that of the second by name"
    ),
    "validation/micro_f1": Metric(
        "fraction", "higher", "evaluation", "same", "evaluation", "of several labels, over all of them together"
    ),
    "validation/reciprocal_rank": Metric(
        "fraction", "higher", "evaluation", "same", "evaluation", "mean of 1 / place of what belongs to a text"
    ),
    "validation/alignment": Metric(
        "squared distance", "lower", "evaluation", "same", "evaluation", "mean over vectors that belong together"
    ),
    "validation/uniformity": Metric(
        "logarithm", "lower", "evaluation", "same", "evaluation", "of the mean exp(-2 distance²) of different texts"
    ),
    "validation/exact_match": Metric(
        "fraction", "higher", "evaluation", "same", "evaluation", "texts with every label right"
    ),
    "validation/rmse": Metric(
        "units of the data", "lower", "evaluation", "same", "evaluation", "root of the mean squared error"
    ),
    "validation/mae": Metric(
        "units of the data", "lower", "evaluation", "same", "evaluation", "mean size of the error"
    ),
    "validation/r2": Metric(
        "fraction", "higher", "evaluation", "same", "evaluation", "1 - squared error / squares around the mean"
    ),
    "validation/bits_per_byte": Metric(
        "bits/byte",
        "lower",
        "evaluation",
        "same",
        "evaluation",
        "total loss in bits over UTF-8 bytes of the text, main set",
    ),
    "validation/perplexity": Metric(
        "ratio", "lower", "evaluation", "same", "evaluation", "exp of the loss per token, main set"
    ),
    "validation/<set>/<metric>": Metric(
        "as the metric",
        "neither",
        "evaluation",
        "same",
        "evaluation",
        "the same on a further set",
    ),
    "training_slice/loss": Metric(
        "nats",
        "lower",
        "evaluation",
        "same",
        "evaluation",
        "loss on a fixed slice of the training set, eval mode",
    ),
    "generalization_gap": Metric(
        "nats", "lower", "evaluation", "same", "evaluation", "validation/loss - training_slice/loss"
    ),
    "<metric>@<average>": Metric(
        "as the metric",
        "neither",
        "evaluation",
        "same",
        "evaluation",
        "that metric of an evaluation, of averaged weights: validation/loss@ema, validation/loss@swa",
    ),
    "mfu": Metric(
        "fraction",
        "higher",
        "mean",
        "mean",
        "training",
        "model FLOPs utilization: 6 N + 12 L H K T a position, over the window's seconds, of the peak in plan.json",
    ),
    "memory_bytes_per_second": Metric(
        "bytes/s",
        "neither",
        "mean",
        "sum",
        "training",
        "an estimate: what the step's kernels read and write as counted by `trimtab plan`, over the window's seconds",
    ),
    "time/host_to_device_seconds": Metric(
        "seconds", "lower", "mean", "max", "training", "of a step that was split: copying batches to the device"
    ),
    "time/forward_seconds": Metric(
        "seconds", "lower", "mean", "max", "training", "of a step that was split: forward passes and losses"
    ),
    "time/backward_seconds": Metric(
        "seconds", "lower", "mean", "max", "training", "of a step that was split: backward passes, gradients added up"
    ),
    "time/accumulate_seconds": Metric(
        "seconds", "lower", "mean", "max", "training", "copy, forward and backward, where they are captured as one"
    ),
    "time/optimizer_seconds": Metric(
        "seconds",
        "lower",
        "mean",
        "max",
        "training",
        "of a step that was split: gradients emptied, norms, clipping, update, averages",
    ),
    "time/update_seconds": Metric(
        "seconds", "lower", "mean", "max", "training", "optimizer and inline probes, where they are captured as one"
    ),
    "time/probe_seconds": Metric(
        "seconds", "lower", "mean", "max", "training", "of a step that was split: inline probes and the ring's row"
    ),
    "time/logging_seconds": Metric(
        "seconds", "lower", "mean", "max", "training", "of a step on average: writing the record, and its monitors"
    ),
    "hardware/cpu_percent": Metric(
        "percent", "neither", "mean", "mean", "monitor", "of all cores of the machine, by whatever program"
    ),
    "hardware/process_cpu_percent": Metric(
        "percent", "neither", "mean", "sum", "monitor", "of one core, by this process: 200 is two cores"
    ),
    "hardware/load": Metric("processes", "neither", "mean", "mean", "monitor", "that run or wait, over a minute"),
    "hardware/process_memory_bytes": Metric("bytes", "lower", "mean", "sum", "monitor", "resident set of this process"),
    "hardware/memory_available_bytes": Metric(
        "bytes", "higher", "mean", "mean", "monitor", "memory of the machine left"
    ),
    "hardware/swap_bytes": Metric("bytes", "lower", "mean", "mean", "monitor", "memory that was moved to the disk"),
    "hardware/disk_read_bytes_per_second": Metric("bytes/s", "neither", "mean", "mean", "monitor", "of all disks"),
    "hardware/disk_written_bytes_per_second": Metric("bytes/s", "neither", "mean", "mean", "monitor", "of all disks"),
    "hardware/disk_free_bytes": Metric("bytes", "higher", "mean", "mean", "monitor", "left where the run is written"),
    "hardware/network_received_bytes_per_second": Metric(
        "bytes/s", "neither", "mean", "mean", "monitor", "of the machine"
    ),
    "hardware/network_sent_bytes_per_second": Metric("bytes/s", "neither", "mean", "mean", "monitor", "of the machine"),
    "hardware/cpu_power_watts": Metric("watts", "neither", "mean", "mean", "monitor", "of the processors, by RAPL"),
    "hardware/energy_wh": Metric(
        "Wh", "lower", "sum", "sum", "monitor", "since the readings before: of GPU and processors, as far as they tell"
    ),
    "hardware/tokens_per_wh": Metric(
        "tokens/Wh", "higher", "mean", "mean", "monitor", "counted targets for the energy spent meanwhile"
    ),
    "hardware/sampling_percent": Metric(
        "percent", "lower", "mean", "max", "monitor", "of one core, by the thread that takes these readings"
    ),
    "hardware/<gpu>/utilization_percent": Metric(
        "percent", "higher", "mean", "mean", "monitor", "time with any kernel"
    ),
    "hardware/<gpu>/memory_busy_percent": Metric(
        "percent", "neither", "mean", "mean", "monitor", "time in which its memory was read or written"
    ),
    "hardware/<gpu>/memory_bytes": Metric("bytes", "lower", "mean", "max", "monitor", "in use, by whatever program"),
    "hardware/<gpu>/power_watts": Metric("watts", "neither", "mean", "sum", "monitor", "of the board"),
    "hardware/<gpu>/temperature_celsius": Metric("°C", "lower", "mean", "max", "monitor", "of the chip"),
    "hardware/<gpu>/sm_clock_mhz": Metric("MHz", "higher", "mean", "mean", "monitor", "of its processors"),
    "hardware/<gpu>/memory_clock_mhz": Metric("MHz", "higher", "mean", "mean", "monitor", "of its memory"),
    "hardware/<gpu>/throttled_power": Metric(
        "fraction", "lower", "mean", "max", "monitor", "readings with clocks held down by the limit of power"
    ),
    "hardware/<gpu>/throttled_heat": Metric(
        "fraction", "lower", "mean", "max", "monitor", "readings with clocks held down by heat"
    ),
    "hardware/<gpu>/throttled_hardware": Metric(
        "fraction", "lower", "mean", "max", "monitor", "readings with clocks held down by the board, for any reason"
    ),
    "group/<name>/learning_rate": Metric(
        "rate",
        "neither",
        "last",
        "same",
        "training",
        "rate applied to a group of parameters, factor included; written when groups differ in it",
    ),
    "layer/<name>/grad_norm": Metric(
        "norm", "neither", "mean", "same", "optimizer", "2-norm of the gradient of one parameter"
    ),
    "layer/<name>/weight_norm": Metric("norm", "neither", "last", "same", "optimizer", "2-norm of one parameter"),
    "layer/<name>/activation_rms": Metric(
        "rms", "neither", "mean", "mean", "model", "root mean square of a block's output"
    ),
    "rank/<n>/<metric>": Metric(
        "as the metric", "neither", "last", "same", "training", "the same of a further process of the run, by its rank"
    ),
    "ranks/<metric>/<how>": Metric(
        "as the metric",
        "neither",
        "last",
        "same",
        "training",
        "over all processes of the run: min, mean, max, and whose they are (min_rank, max_rank)",
    ),
    "user/<name>": Metric("user's", "neither", "last", "mean", "user", "the user's own"),
}


def better_direction(name: str) -> Literal["lower", "higher", "neither"]:
    """Which way `name` is better; further validation sets are judged like the main one."""
    plain = name.split("@")[0]
    if plain in METRICS:
        return METRICS[plain].better
    last = plain.rsplit("/", 1)[-1]
    main = METRICS.get(f"validation/{last}")
    return main.better if plain.startswith("validation/") and main is not None else "neither"


def of_the_same_weights(name: str, other: str) -> str:
    """`name` as it is called for the weights that the metric `other` is of: `…@ema` beside `validation/loss@ema`."""
    return name + "".join(other.partition("@")[1:])


def selection_direction(name: str) -> Literal["lower", "higher"]:
    """Which way `name` is better, for choosing by it: a metric without a direction is taken as a loss."""
    return "higher" if better_direction(name) == "higher" else "lower"
