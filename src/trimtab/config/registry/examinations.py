"""What is read of a model: inside every step, and every so many steps from a pass of its own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class InlineSpec:
    """The card of a probe inside the step."""

    path: str
    sentence: str
    switch: str
    """The setting that asks for it."""
    cadence: str
    cost: str
    serves: tuple[str, ...] = ()
    """Codes of the doctor for which its values are evidence."""


@dataclass(frozen=True, slots=True)
class ExaminationSpec:
    """The card of an examination. All that are chosen share one forward and one backward pass."""

    path: str
    """'package.module:name' of what makes it, given the run's seed."""
    sentence: str
    cost: str
    """Beyond the pass that all share."""
    serves: tuple[str, ...] = ()
    """Codes of the doctor for which its readings are evidence."""


INLINE: dict[str, InlineSpec] = {
    "gradient_norms": InlineSpec(
        "trimtab.monitor.probes.layers:GradientNorms",
        "norm of every parameter's gradient, before clipping",
        "logging.layers",
        "every step, the mean of a window",
        "none: clipping needs the norms anyway",
        ("vanishing-gradients", "exploding-gradients", "frozen-parameters"),
    ),
    "clipped_norms": InlineSpec(
        "trimtab.monitor.probes.layers:ClippedNorms",
        "norm of the gradient after clipping; of every parameter's where clipping treats them apart",
        "logging.layers",
        "every step; of parameters the mean of a window",
        "some operations on scalars",
        ("exploding-gradients",),
    ),
    "weight_norms": InlineSpec(
        "trimtab.monitor.probes.layers:WeightNorms",
        "norm of every parameter after the update",
        "logging.layers",
        "the last step of a window",
        "one pass over the weights",
        ("frozen-parameters", "bad-initialization"),
    ),
    "activation_scale": InlineSpec(
        "trimtab.monitor.probes.layers:ActivationScale",
        "root mean square of every block's output, of trimtab's own models",
        "logging.layers",
        "every step, the mean of a window",
        "a sum on the way of a norm",
        ("exploding-gradients", "bad-initialization"),
    ),
    "gradient_cosine": InlineSpec(
        "trimtab.monitor.probes.cosine:GradientCosine",
        "cosine between the gradients of successive steps, from a sample of 65,536 values",
        "logging.grad_cosine",
        "every step, the mean of a window",
        "a dozen operations on the sample, which is kept in memory twice",
    ),
    "gradient_noise_scale": InlineSpec(
        "trimtab.monitor.probes.noise_scale:GradientNoiseScale",
        "how far the gradients of micro-batches scatter, with its error",
        "logging.noise_scale.every",
        "every so many steps",
        "four passes over the gradients for each micro-batch, and a copy of them in memory",
        ("noisy-loss",),
    ),
}
"""By the name of what is measured; a closed set."""

EXAMINATIONS: dict[str, ExaminationSpec] = {
    "gradients": ExaminationSpec(
        "trimtab.monitor.probes.gradients:GradientExamination",
        "norm, mean, variance, zeros and non-finite values of every gradient, and its cosine with the one before",
        "about ten passes over the gradients",
        serves=("vanishing-gradients", "exploding-gradients", "frozen-parameters", "learning-rate-too-high"),
    ),
    "activations": ExaminationSpec(
        "trimtab.monitor.probes.activations:ActivationExamination",
        "mean, root mean square, kurtosis and histogram of each layer's output, the growth of the residual stream, "
        "dead units and saturated values",
        "ten passes over the outputs of layers and what goes into their activation functions, some in fp64",
        serves=("dead-units", "bad-initialization", "vanishing-gradients", "exploding-gradients"),
    ),
    "attention": ExaminationSpec(
        "trimtab.monitor.probes.attention:AttentionExamination",
        "entropy, weight on the first key and largest logit of each head",
        "the weights of attention once more in fp32, a few sequences at a time: up to 1 GiB for a moment",
        serves=("divergence", "learning-rate-too-high", "bad-initialization"),
    ),
    "predictions": ExaminationSpec(
        "trimtab.monitor.probes.predictions:PredictionExamination",
        "entropy, confidence, accuracy and calibration error of what is predicted",
        "the head once more, a portion of the targets at a time",
        serves=("overconfident", "class-collapse", "random-labels"),
    ),
    "parameters": ExaminationSpec(
        "trimtab.monitor.probes.parameters:ParameterExamination",
        "mean, deviation and spread of all weights, update-to-weight ratios, the distance and the way from the start",
        "about ten passes over the weights, three of them before the step",
        serves=("learning-rate-too-high", "learning-rate-too-low", "frozen-parameters", "bad-initialization"),
    ),
    "loss": ExaminationSpec(
        "trimtab.monitor.probes.loss:LossExamination",
        "quantiles of the loss over samples, the samples with the highest, and the loss by position",
        "a forward pass over samples of the newest step, at most four probe batches",
        serves=("outlier-dominated-loss", "label-noise", "corrupt-batch"),
    ),
}
