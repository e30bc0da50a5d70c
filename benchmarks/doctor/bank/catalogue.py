"""Which faults and which healthy oddities there are, and where each can be planted: two literal tables.

A fault is one of the codes of `trimtab.doctor.codes`. Left out are the codes of the lint, those about several devices
(communication-bound, rank-imbalance), validation-regression, which needs a second run to be a baseline, and
evaluation-bound, which is a remark that runs of seconds do not deserve; and no-loss, which is said of logs, not of
runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

OURS: Final = ("trimtab",)
LOGS: Final = ("csv", "jsonl", "huggingface", "lightning")
BARE: Final = ("csv", "jsonl")
ALL: Final = (*OURS, *LOGS)

TEXT: Final = ("lm", "classification", "seq2seq")
LABELS: Final = ("classification", "mlp", "cnn")
EVERY: Final = ("lm", "classification", "seq2seq", "mlp", "cnn")


@dataclass(frozen=True, slots=True)
class Kind:
    """A fault, or an oddity: who logs it, of which tasks, and what happens in a sentence."""

    loggers: tuple[str, ...]
    tasks: tuple[str, ...]
    sentence: str
    ours: tuple[str, ...] | None = None
    """The tasks in trimtab's own runs, where those are others. There `mlp` and `cnn` are language models."""


FAULTS: Final[dict[str, Kind]] = {
    "learning-rate-too-high": Kind(ALL, EVERY, "a rate several times that which suits the model"),
    "overfitting": Kind(ALL, EVERY, "little data, seen many times, without regularization"),
    "divergence": Kind(ALL, EVERY, "weight decay gets the wrong sign: weights grow, the loss leaves for good"),
    "nan-loss": Kind(ALL, EVERY, "a division of 0 by 0 in the model from some step on"),
    "loss-spike": Kind(ALL, EVERY, "weights are disturbed in one step, and recover"),
    "learning-rate-too-low": Kind(ALL, EVERY, "a rate far below that which suits the model"),
    "underfitting": Kind(ALL, ("lm",), "a model far too small for the text"),
    "noisy-loss": Kind(ALL, ("lm",), "one short sequence a step at a constant rate"),
    "frozen-parameters": Kind(ALL, TEXT, "a forgotten detach: what lies below is never trained"),
    "stopped-too-early": Kind(ALL, ("lm",), "a small part of the steps that are needed"),
    "input-bound": Kind(ALL, EVERY, "batches take longer to be read than to be trained on"),
    "loss-scale-collapse": Kind(
        ("trimtab", *BARE), ("lm", "classification"), "fp16 gradients overflow again and again"
    ),
    "plateau": Kind(ALL, EVERY, "the optimizer stops changing weights early, without a word"),
    "missing-warmup": Kind(ALL, ("lm",), "SGD at its full rate from the first step, without clipping"),
    "exploding-gradients": Kind(ALL, EVERY, "gradients grow by some per cent a step; plain SGD without clipping"),
    "decayed-too-early": Kind(ALL, EVERY, "the rate is near zero after a third of the run"),
    "schedule-mismatch": Kind(ALL, EVERY, "the schedule counts other steps than the run has"),
    "vanishing-gradients": Kind(OURS, ("lm",), "many sigmoid layers without residual connections"),
    "dead-units": Kind(OURS, ("lm", "classification"), "biases so low that most units say nothing"),
    "bad-initialization": Kind(ALL, EVERY, "weights begin far too large"),
    "unscaled-inputs": Kind(LOGS, ("mlp", "cnn"), "inputs of several hundred, not of one"),
    "outlier-dominated-loss": Kind(
        ("trimtab", *BARE), ("mlp",), "a few targets a hundred times the others, squared", ("regression",)
    ),
    "gradients-not-cleared": Kind(ALL, EVERY, "gradients of earlier steps stay in the sum"),
    "accumulation-not-normalised": Kind(ALL, EVERY, "losses of micro-batches are summed and not divided"),
    "double-softmax": Kind(ALL, EVERY, "the model gives probabilities where logits are wanted"),
    "evaluated-in-training-mode": Kind(ALL, EVERY, "dropout is active in evaluations"),
    "over-regularised": Kind(ALL, EVERY, "dropout, decay or smoothing so strong that little is learned"),
    "overconfident": Kind(
        ALL,
        LABELS,
        "a small labelled set, many epochs: the loss rises, the accuracy still improves",
        ("classification",),
    ),
    "label-noise": Kind(ALL, LABELS, "part of the labels are wrong", ("classification",)),
    "random-labels": Kind(ALL, LABELS, "labels have nothing to do with their inputs", ("classification",)),
    "class-collapse": Kind(ALL, LABELS, "one class weighs so much that the others are never said", ("classification",)),
    "unshuffled-data": Kind(ALL, EVERY, "data comes sorted by its class or its source"),
    "corrupt-batch": Kind(ALL, EVERY, "one batch of the run is random"),
    "leakage": Kind(ALL, TEXT, "validation samples are in the training data"),
    "target-leak": Kind(ALL, EVERY, "the answer is in the input"),
    "validation-shift": Kind(ALL, TEXT, "the validation data is of another kind"),
    "validation-too-small": Kind(ALL, EVERY, "a handful of samples to choose by"),
    "throughput-decay": Kind(ALL, EVERY, "steps take longer and longer"),
    "memory-leak": Kind(("trimtab", *BARE), EVERY, "memory that is kept in every step"),
    "resume-discontinuity": Kind(("trimtab", *BARE), EVERY, "a resumed run has lost part of its weights"),
    "thread-oversubscription": Kind(OURS, ("lm",), "many more threads than cores"),
}

ODDITIES: Final[dict[str, Kind]] = {
    "cosine": Kind(ALL, EVERY, "the plainest of runs"),
    "wsd": Kind(ALL, EVERY, "a constant rate and a steep fall at the end, in which the loss drops"),
    "dropout": Kind(ALL, EVERY, "dropout: the training loss lies above the validation loss"),
    "small-batch": Kind(ALL, EVERY, "a small batch at a rate to match: noisy, and it learns"),
    "warm-restarts": Kind(ALL, EVERY, "the rate jumps back up, and the loss with it"),
    "step-decay": Kind(ALL, EVERY, "the rate falls in steps, and the loss drops with each"),
    "constant": Kind(ALL, EVERY, "a sound constant rate: the loss still creeps down at the end"),
    "single-epoch": Kind(ALL, ("lm",), "less than one pass over the data"),
    "fast-descent": Kind(ALL, EVERY, "most is learned in the first tenth"),
    "label-smoothing": Kind(ALL, EVERY, "a training loss with a floor of its own"),
    "resumed": Kind(("trimtab", *BARE), EVERY, "killed, and resumed as it should be"),
    "epoch-staircase": Kind(ALL, EVERY, "a few epochs: the training loss falls with each new one"),
    "growing-gradients": Kind(ALL, EVERY, "a gradient norm that grows slowly while the loss falls"),
    "evaluation-noise": Kind(ALL, EVERY, "a modest validation set, judged often: its loss wobbles"),
    "accumulation": Kind(ALL, EVERY, "several micro-batches in every update"),
    "one-cycle": Kind(ALL, EVERY, "a rise over a third of the run, and a fall to nothing"),
    "post-norm": Kind(OURS, TEXT, "post-norm with a long warm-up: slow at first"),
    "curriculum": Kind(OURS, TEXT, "from short texts to long ones: the loss is uneven at first"),
    "averaging": Kind(OURS, TEXT, "an average of the weights is judged besides"),
    "patience": Kind(OURS, TEXT, "little data; patience stops in time"),
    "foreign-model": Kind(OURS, ("lm",), "a model from elsewhere: convolutions, or an MLP over the last tokens"),
    "masked": Kind(OURS, ("lm",), "masked language modelling: a loss that falls late"),
    "regression": Kind(OURS, ("regression",), "numbers instead of classes"),
    "imbalanced": Kind(ALL, LABELS, "uneven classes, and all of them are learned", ("classification",)),
    "sgd": Kind(ALL, EVERY, "SGD with momentum at a rate far above those of AdamW"),
    "short": Kind(ALL, EVERY, "a short trial, planned so, with a schedule to match"),
    "easy": Kind(ALL, LABELS, "a task that is easy: nearly all is right", ("classification",)),
}

PRACTICES: Final[dict[str, Kind]] = {
    "another-optimizer": Kind(OURS, TEXT, "an optimizer that few use, at its own rate"),
    "batch-ramp": Kind(OURS, TEXT, "a batch that grows as planned"),
    "noise-scale-batch": Kind(OURS, ("lm",), "a batch that follows the noise of gradients"),
    "stochastic-depth": Kind(OURS, ("lm",), "layers that are left out at random"),
    "r-drop": Kind(OURS, ("classification", "lm"), "two passes, kept together"),
    "adversarial": Kind(OURS, ("classification",), "embeddings that a step made worse"),
    "sharpness-aware": Kind(OURS, TEXT, "the gradient at weights that a step made worse"),
    "embedding-mixup": Kind(OURS, ("classification",), "mixup"),
    "embedding-cutout": Kind(OURS, ("classification", "regression"), "cutout"),
    "noisy-embeddings": Kind(OURS, ("lm",), "noise on embeddings"),
    "augmented": Kind(OURS, ("classification",), "tokens left out or replaced"),
    "average-judged": Kind(OURS, TEXT, "an average of the weights, alone or besides"),
    "long-warmup": Kind(OURS, TEXT, "a warm-up over half of the run"),
    "other-schedule": Kind(OURS, TEXT, "a schedule that few use"),
    "rate-at-plateaus": Kind(OURS, TEXT, "the rate is halved where the loss stands"),
    "another-clip": Kind(OURS, TEXT, "gradients clipped otherwise, or not"),
    "gradient-noise": Kind(OURS, TEXT, "noise on gradients"),
    "rates-by-layer": Kind(OURS, TEXT, "rates by layer"),
    "other-optimizer-later": Kind(OURS, ("lm",), "SGD takes over after more than half"),
    "other-body": Kind(OURS, TEXT, "other positions, norms, activations"),
    "rms-post-norm": Kind(OURS, ("lm",), "post-norm with RMSNorm"),
    "bf16": Kind(OURS, TEXT, "bf16"),
    "quantized": Kind(OURS, ("lm",), "quantization-aware from some step on"),
    "penalized": Kind(OURS, ("lm",), "a mild penalty on weights"),
    "z-loss": Kind(OURS, ("lm",), "a z-loss"),
    "mixed-sources": Kind(OURS, ("lm",), "two sources, mixed by weights"),
    "large-batch": Kind(OURS, TEXT, "few steps of a large batch"),
    "one-row-accumulated": Kind(OURS, TEXT, "micro-batches of one row"),
    "judged-often": Kind(OURS, TEXT, "sixty evaluations"),
    "judged-seldom": Kind(OURS, TEXT, "two evaluations"),
    "small-evaluation": Kind(OURS, ("lm",), "an evaluation that is small, as its configuration says"),
    "longer": Kind(OURS, TEXT, "three times the steps"),
    "pattern": Kind(OURS, ("lm",), "a text of which most can be known"),
    "weighted-classes": Kind(OURS, ("classification",), "uneven classes, weighed"),
    "focal": Kind(OURS, ("classification",), "the focal loss"),
    "several-labels": Kind(OURS, ("classification",), "several labels a row"),
    "many-classes": Kind(OURS, ("classification",), "tens of classes"),
    "tagged-words": Kind(OURS, ("classification",), "a class for each word"),
    "vectors": Kind(OURS, ("classification",), "vectors of texts"),
    "small-network": Kind(OURS, ("classification", "regression"), "an MLP or a CNN, with BatchNorm or without"),
    "other-numbers": Kind(OURS, ("regression",), "another error of numbers"),
    "smoothed-and-dropped": Kind(OURS, TEXT, "dropout and smoothing together"),
    "spikes-watched": Kind(OURS, ("lm",), "spikes are looked for"),
    "curriculum-paced": Kind(OURS, TEXT, "a curriculum in another pace"),
    "as-large-models": Kind(OURS, ("lm",), "as large models are trained"),
    "resumed-often": Kind(OURS, TEXT, "killed early or late, and resumed"),
}
"""Further sound runs of trimtab's own trainer, for the part `spread` alone: what people do and are right to do."""
