"""Every metric that trimtab writes: unit, which way is better, how it is reduced, and who writes it.

One literal table. Names with <…> stand for a family. Losses are sums over counted tokens divided by counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table."""

    unit: str
    better: Literal["lower", "higher", "neither"]
    window: Literal["per_step", "mean", "last", "sum", "max", "evaluation", "examination"]
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
    "grad_norm_clipped": Metric(
        "norm", "neither", "per_step", "same", "optimizer", "2-norm of the whole gradient after clipping, before noise"
    ),
    "grad_cosine": Metric(
        "cosine",
        "neither",
        "mean",
        "same",
        "monitor",
        "between the gradients of successive steps, from a sample of their values",
    ),
    "grad_cosine_error": Metric(
        "cosine",
        "lower",
        "mean",
        "same",
        "monitor",
        "standard error of grad_cosine in one step: 0.004 where values weigh alike, more where few carry the gradient",
    ),
    "learning_rate": Metric("rate", "neither", "per_step", "same", "training", "rate applied in the step"),
    "tokens": Metric("tokens", "neither", "per_step", "sum", "training", "counted targets: tokens, or texts"),
    "tokens_read": Metric(
        "tokens",
        "neither",
        "per_step",
        "sum",
        "training",
        "tokens that the model reads, where not each is a target; no padding",
    ),
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
        "tokens/s", "higher", "mean", "sum", "training", "tokens that the model reads, over the window's seconds"
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
    "validation/mcc": Metric(
        "correlation", "higher", "evaluation", "same", "evaluation", "Matthews' correlation of classes said and right"
    ),
    "validation/calibration_error": Metric(
        "fraction",
        "lower",
        "evaluation",
        "same",
        "evaluation",
        "mean distance of confidence and share that is right, over 15 bins of confidence",
    ),
    "validation/micro_f1": Metric(
        "fraction", "higher", "evaluation", "same", "evaluation", "of several labels, over all of them together"
    ),
    "validation/entropy": Metric(
        "nats", "neither", "evaluation", "same", "evaluation", "mean over counted targets of -sum of p log p"
    ),
    "validation/teacher_divergence": Metric(
        "nats", "lower", "evaluation", "same", "evaluation", "mean over counted targets of KL(teacher, model)"
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
    "validation/pearson": Metric(
        "correlation", "higher", "evaluation", "same", "evaluation", "of answers and targets, of a regression"
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
    "validation/rouge_1": Metric(
        "fraction",
        "higher",
        "evaluation",
        "same",
        "evaluation",
        "words that a written text and the wanted one share, F1; see evaluation.decoded",
    ),
    "validation/rouge_2": Metric(
        "fraction", "higher", "evaluation", "same", "evaluation", "the same of pairs of words"
    ),
    "validation/rouge_l": Metric(
        "fraction", "higher", "evaluation", "same", "evaluation", "the same of the longest words in the same order"
    ),
    "validation/bleu": Metric(
        "percent",
        "higher",
        "evaluation",
        "same",
        "evaluation",
        "n-grams of written texts that are in the wanted ones, of all texts together",
    ),
    "validation/chrf": Metric(
        "percent", "higher", "evaluation", "same", "evaluation", "n-grams of characters, F-score, of all texts together"
    ),
    "validation/loss_over_baseline": Metric(
        "nats",
        "lower",
        "evaluation",
        "same",
        "evaluation",
        "loss less that of the baseline on the same samples; see evaluation.baseline",
    ),
    "validation/loss_over_baseline_low": Metric(
        "nats",
        "lower",
        "evaluation",
        "same",
        "evaluation",
        "the lower end of its 95 % interval, by a paired bootstrap over samples: above 0 it is worse",
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
    "layer/<name>/grad_norm_clipped": Metric(
        "norm", "neither", "mean", "same", "optimizer", "the same after clipping, where parameters are clipped apart"
    ),
    "layer/<name>/weight_norm": Metric("norm", "neither", "last", "same", "optimizer", "2-norm of one parameter"),
    "layer/<name>/activation_rms": Metric(
        "rms", "neither", "mean", "mean", "model", "root mean square of a block's output"
    ),
    "probe/grad_norm": Metric(
        "norm", "neither", "examination", "same", "monitor", "2-norm of the gradient of the probe batch"
    ),
    "probe/grad_left": Metric(
        "norm", "lower", "examination", "same", "monitor", "2-norm of what gradients hold as the examined step begins"
    ),
    "probe/grad_mean": Metric("gradient", "neither", "examination", "same", "monitor", "mean of its values"),
    "probe/grad_variance": Metric("gradient²", "neither", "examination", "same", "monitor", "their variance"),
    "probe/grad_zero_fraction": Metric("fraction", "neither", "examination", "same", "monitor", "of them exactly 0"),
    "probe/grad_non_finite_fraction": Metric(
        "fraction", "lower", "examination", "same", "monitor", "of them infinite or not a number"
    ),
    "probe/grad_cosine": Metric(
        "cosine", "neither", "examination", "same", "monitor", "with the gradient of the examination before"
    ),
    "layer/<name>/probe_grad_norm": Metric(
        "norm", "neither", "examination", "same", "monitor", "2-norm of one parameter's gradient of the probe batch"
    ),
    "layer/<name>/grad_mean": Metric("gradient", "neither", "examination", "same", "monitor", "mean of its values"),
    "layer/<name>/grad_variance": Metric("gradient²", "neither", "examination", "same", "monitor", "their variance"),
    "layer/<name>/grad_zero_fraction": Metric(
        "fraction", "neither", "examination", "same", "monitor", "of them exactly 0"
    ),
    "layer/<name>/grad_non_finite_fraction": Metric(
        "fraction", "lower", "examination", "same", "monitor", "of them infinite or not a number"
    ),
    "layer/<name>/grad_cosine": Metric(
        "cosine", "neither", "examination", "same", "monitor", "with the gradient of the examination before"
    ),
    "probe/activation_kurtosis": Metric(
        "ratio",
        "neither",
        "examination",
        "same",
        "monitor",
        "the largest of a layer: 3 of a normal distribution, more with outliers",
    ),
    "probe/residual_growth": Metric(
        "ratio",
        "neither",
        "examination",
        "same",
        "monitor",
        "root mean square behind the last layer over that before the first",
    ),
    "probe/dead_fraction": Metric(
        "fraction",
        "lower",
        "examination",
        "same",
        "monitor",
        "units that say nothing at any position, mean over the layers",
    ),
    "layer/<name>/activation_mean": Metric(
        "activation", "neither", "examination", "same", "monitor", "mean of a layer's output, padding left out"
    ),
    "layer/<name>/probe_activation_rms": Metric(
        "rms", "neither", "examination", "same", "monitor", "root mean square of a layer's output, padding left out"
    ),
    "layer/<name>/activation_kurtosis": Metric(
        "ratio", "neither", "examination", "same", "monitor", "fourth central moment over the squared variance of it"
    ),
    "layer/<name>/residual_growth": Metric(
        "ratio",
        "neither",
        "examination",
        "same",
        "monitor",
        "root mean square that comes out of a layer over that which goes in",
    ),
    "layer/<name>/dead_fraction": Metric(
        "fraction",
        "lower",
        "examination",
        "same",
        "monitor",
        "units before an activation function that say nothing at any position",
    ),
    "layer/<name>/saturated_fraction": Metric(
        "fraction",
        "neither",
        "examination",
        "same",
        "monitor",
        "values where the slope of the activation function is below 0.01",
    ),
    "probe/attention_relative_entropy": Metric(
        "fraction",
        "neither",
        "examination",
        "same",
        "monitor",
        "mean over heads: 1 where all keys seen get the same weight",
    ),
    "probe/attention_on_first": Metric(
        "fraction", "neither", "examination", "same", "monitor", "mean over heads: weight on the first key that is seen"
    ),
    "probe/largest_attention_logit": Metric(
        "logit", "neither", "examination", "same", "monitor", "the largest of any head"
    ),
    "layer/<name>/attention_entropy": Metric(
        "nats",
        "neither",
        "examination",
        "same",
        "monitor",
        "of the weights of a head, mean over queries that see several keys",
    ),
    "layer/<name>/attention_relative_entropy": Metric(
        "fraction", "neither", "examination", "same", "monitor", "the same as a part of the largest it could be"
    ),
    "layer/<name>/attention_on_first": Metric(
        "fraction",
        "neither",
        "examination",
        "same",
        "monitor",
        "weight of a head on the first key that is seen: a sink",
    ),
    "layer/<name>/largest_attention_logit": Metric(
        "logit", "neither", "examination", "same", "monitor", "the largest value of a head that softmax is taken of"
    ),
    "probe/prediction_entropy": Metric(
        "nats", "neither", "examination", "same", "monitor", "of what is predicted, mean over counted targets"
    ),
    "probe/confidence": Metric(
        "fraction",
        "neither",
        "examination",
        "same",
        "monitor",
        "probability of what is predicted, mean over counted targets",
    ),
    "probe/accuracy": Metric(
        "fraction",
        "higher",
        "examination",
        "same",
        "monitor",
        "counted targets of the probe batch predicted right, in eval mode",
    ),
    "probe/calibration_error": Metric(
        "fraction",
        "lower",
        "examination",
        "same",
        "monitor",
        "distance of accuracy from confidence, in 15 bins of confidence",
    ),
    "probe/weight_norm": Metric("norm", "neither", "examination", "same", "monitor", "2-norm of all trained weights"),
    "probe/update_ratio": Metric(
        "ratio", "neither", "examination", "same", "monitor", "2-norm of the newest update over that of the weights"
    ),
    "probe/distance_from_start": Metric(
        "norm", "neither", "examination", "same", "monitor", "2-norm of all weights less those at the start"
    ),
    "probe/trajectory/<axis>": Metric(
        "weight", "neither", "examination", "same", "monitor", "a coordinate of that difference, projected at random"
    ),
    "layer/<name>/weight_mean": Metric(
        "weight", "neither", "examination", "same", "monitor", "mean of one parameter's values"
    ),
    "layer/<name>/weight_std": Metric(
        "weight", "neither", "examination", "same", "monitor", "their standard deviation"
    ),
    "layer/<name>/update_ratio": Metric(
        "ratio", "neither", "examination", "same", "monitor", "2-norm of its newest update over its own before"
    ),
    "layer/<name>/distance_from_start": Metric(
        "norm", "neither", "examination", "same", "monitor", "2-norm of it less what it was at the start"
    ),
    "probe/loss": Metric(
        "nats", "lower", "examination", "same", "monitor", "total of the objective on the probe batch, eval mode"
    ),
    "probe/position_loss/<part>": Metric(
        "nats", "lower", "examination", "same", "monitor", "mean loss in an eighth of the positions, on the probe batch"
    ),
    "probe/sample_loss/<quantile>": Metric(
        "nats", "lower", "examination", "same", "monitor", "quantile over the newest step's samples, eval mode"
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


def rows_of(name: str) -> dict[str, Metric]:
    """The rows of the table that `name` may be of, by itself or as one of a family; * in it stands for any text."""
    plain = name.split("@")[0]
    return {known: row for known, row in METRICS.items() if "@" not in known and _fits(plain, known)}


def _fits(name: str, known: str) -> bool:
    family = re.sub(r"<[^<>]+>", "*", known)
    return fnmatchcase(name, family) or ("*" in name and fnmatchcase(family, name))


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
