"""Every code that a finding can have: one closed literal table, and what explains what.

A *root* is a cause that a remedy can act on; a *symptom* is what such causes look like, and stands for itself only
when no root explains it. `explains` is the causal order: when both are found, and the cause begins no later, the
other is its consequence and is listed under it. `signals` are the least that must have been logged to speak of it:
`one or another` is there where either is.
Of a task that is not among `tasks` nothing is said, nor withheld: no log of it could tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Code:
    """One row of the table."""

    sentence: str
    """What it says, and where it ends and its neighbour begins."""
    kind: Literal["root", "symptom", "lint"]
    signals: tuple[str, ...] = ()
    explains: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    """Those that it can be judged for; none named: all. A task that is not known is taken for language."""
    whole: bool = False
    """It is said of a run as a whole: where it begins says nothing of what came first, and any root may explain it."""


SHORT: Final = "stopped-too-early"
"""What looks so where something else keeps a run from learning."""

FAULTS_OF_DATA: Final = (
    "random-labels",
    "label-noise",
    "corrupt-batch",
    "leakage",
    "target-leak",
    "validation-shift",
    "unshuffled-data",
)
"""Where the data are at fault, settings that ease what follows from that only hide it."""
FAULTS_OF_CODE: Final = (
    "accumulation-not-normalised",
    "double-softmax",
    "evaluated-in-training-mode",
    "frozen-parameters",
    "gradients-not-cleared",
    "resume-discontinuity",
    "schedule-mismatch",
)
"""The same of code that does something else than its settings say."""
UNJUDGED: Final = "no-loss"
"""Nearly nothing could be looked for: that nothing was found says nothing."""

CODES: dict[str, Code] = {
    # What can be judged at all
    "no-loss": Code("no training loss is known, so that the run is not judged", "root", whole=True),
    # What the optimizer does
    "nan-loss": Code(
        "the loss or the gradient is not a number or infinite; a loss that left before that is a divergence",
        "symptom",
        ("train/loss",),
        ("learning-rate-too-high", "divergence", "loss-spike", "underfitting", "plateau", "noisy-loss", SHORT),
    ),
    "learning-rate-too-high": Code(
        "updates are too large: the run trains, but noisily or worse than it could; a loss that leaves for good is a "
        "divergence, of which the rate may be the reason",
        "root",
        ("train/loss",),
        (
            "loss-spike",
            "noisy-loss",
            "underfitting",
            "plateau",
            "exploding-gradients",
            "dead-units",
            "class-collapse",
            "validation-too-small",
            SHORT,
        ),
    ),
    "missing-warmup": Code(
        "the rate is at its full height from the first step and the first updates do damage; later ones are sound",
        "root",
        ("train/loss", "learning_rate"),
        (
            "learning-rate-too-high",  # which it looks like in the first steps
            "exploding-gradients",
            "loss-spike",
            "divergence",
            "dead-units",
            "noisy-loss",
            "underfitting",
            "plateau",
            SHORT,
        ),
    ),
    "exploding-gradients": Code(
        "the gradient grows by orders of magnitude and the loss follows; in a divergence the loss leads",
        "symptom",
        ("train/loss", "grad_norm"),
        ("divergence", "nan-loss", "loss-spike", "noisy-loss", "underfitting", "plateau", SHORT),
    ),
    "divergence": Code(
        "the loss leaves for good; one that comes back is a loss-spike",
        "symptom",
        ("train/loss",),
        (
            "learning-rate-too-high",
            "nan-loss",
            "loss-spike",
            "noisy-loss",
            "underfitting",
            "plateau",
            "overfitting",
            "overconfident",
            "validation-regression",
            SHORT,
        ),
    ),
    "loss-spike": Code(
        "the loss leaves and comes back; one traced to its batches is a corrupt-batch",
        "symptom",
        ("train/loss",),
        ("underfitting", "plateau", "class-collapse"),
    ),
    "frozen-parameters": Code(
        "parameters that should learn do not change: no gradient reaches them, or they are left out",
        "root",
        ("layer/*/grad_norm",),
        ("underfitting", "plateau", "learning-rate-too-low", "class-collapse", SHORT),
    ),
    "learning-rate-too-low": Code(
        "updates are too small: the loss still falls steadily where the budget ends, far from what the model could do",
        "root",
        ("train/loss",),
        ("underfitting", "plateau", "class-collapse", SHORT),
        whole=True,
    ),
    "decayed-too-early": Code(
        "the rate is near zero long before the end, while the loss was still falling",
        "root",
        ("train/loss", "learning_rate"),
        ("learning-rate-too-low", "underfitting", "plateau", SHORT),
    ),
    "schedule-mismatch": Code(
        "the rate that was applied is not the one that the configuration describes",
        "root",
        ("learning_rate",),
        (
            "decayed-too-early",
            "missing-warmup",
            "learning-rate-too-high",
            "learning-rate-too-low",
            "exploding-gradients",
            "divergence",
            "nan-loss",
            "loss-spike",
            "noisy-loss",
            "underfitting",
            "plateau",
            SHORT,
        ),
    ),
    "noisy-loss": Code(
        "steps differ so much that progress drowns in them: the batch is too small; if a lower rate cures it, the "
        "learning rate is too high",
        "root",
        ("train/loss",),
        ("plateau", "underfitting", "loss-spike", SHORT),
        ("causal_lm", "masked_lm", "seq2seq"),  # its sizes of batches are counted in tokens that are predicted
    ),
    "loss-scale-collapse": Code(
        "the fp16 loss scale falls to its floor and updates are lost",
        "root",
        ("train/loss",),  # without a loss scale there is none to collapse
        ("nan-loss", "underfitting", "plateau"),
    ),
    "vanishing-gradients": Code(
        "the gradient of early layers is orders of magnitude below that of late ones; exactly zero it is of "
        "frozen-parameters",
        "symptom",
        ("layer/*/grad_norm",),
        (
            "learning-rate-too-low",
            "learning-rate-too-high",
            "class-collapse",
            "underfitting",
            "plateau",
            "random-labels",
            SHORT,
        ),
    ),
    "dead-units": Code(
        "units whose output is zero for every input",
        "symptom",
        ("layer/*/dead_fraction or layer/*/grad_norm",),
        (
            "frozen-parameters",
            "vanishing-gradients",
            "learning-rate-too-low",
            "loss-spike",
            "class-collapse",
            "underfitting",
            "plateau",
            SHORT,
        ),
    ),
    "bad-initialization": Code(
        "the first loss is far above that of a uniform guess, or activations grow or vanish with depth; a loss that "
        "stays as many times too high is accumulation-not-normalised",
        "root",
        ("train/loss",),
        (
            "missing-warmup",
            "learning-rate-too-high",
            "exploding-gradients",
            "vanishing-gradients",
            "dead-units",
            "divergence",
            "nan-loss",
            "loss-spike",
            "underfitting",
            "plateau",
            SHORT,
        ),
    ),
    "unscaled-inputs": Code(
        "inputs far from unit scale",
        "root",
        ("train/loss",),
        (
            "bad-initialization",
            "learning-rate-too-high",
            "exploding-gradients",
            "divergence",
            "nan-loss",
            "loss-spike",
            "noisy-loss",
            "dead-units",
            "underfitting",
            "plateau",
            SHORT,
        ),
    ),
    "outlier-dominated-loss": Code(
        "a few samples make most of the loss, again and again; a batch or two are a corrupt-batch",
        "root",
        ("train/loss",),
        (
            "loss-spike",
            "missing-warmup",
            "divergence",
            "learning-rate-too-high",
            "noisy-loss",
            "corrupt-batch",
            "exploding-gradients",
            "overfitting",  # a few far targets are learned by heart
            "random-labels",
            "validation-shift",
            "underfitting",
            "plateau",
        ),
    ),
    "gradients-not-cleared": Code(
        "gradients of earlier steps are still in the sum, from the first step on; one that grows faster and faster is "
        "exploding-gradients",
        "root",
        ("grad_norm",),
        (
            "learning-rate-too-high",
            "exploding-gradients",
            "divergence",
            "nan-loss",
            "loss-spike",
            "noisy-loss",
            "underfitting",
            "plateau",
            SHORT,
        ),
    ),
    "accumulation-not-normalised": Code(
        "the loss is summed over micro-batches and not divided",
        "root",
        ("train/loss",),
        (
            "learning-rate-too-high",
            "exploding-gradients",
            "divergence",
            "nan-loss",
            "loss-spike",
            "noisy-loss",
            "underfitting",
            "plateau",
            SHORT,
        ),
    ),
    "double-softmax": Code(
        "the logits are probabilities already",
        "root",
        ("train/loss",),
        (
            "learning-rate-too-low",
            "vanishing-gradients",
            "bad-initialization",
            "over-regularised",
            "class-collapse",
            "underfitting",
            "plateau",
            SHORT,
        ),
    ),
    "evaluated-in-training-mode": Code(
        "dropout is active in evaluation, or statistics of the batch are used",
        "root",
        ("validation/loss",),
        ("validation-too-small", "validation-shift", "validation-regression"),
    ),
    # What the model learns
    "overfitting": Code(
        "the validation loss rises while the training loss falls; where both stay high it is underfitting",
        "root",
        ("train/loss", "validation/loss"),
        ("validation-regression",),
    ),
    "underfitting": Code(
        "training and validation loss both stay high, and no longer fall; still falling is stopped-too-early",
        "root",
        ("train/loss", "validation/loss"),
        ("plateau",),
        ("causal_lm",),  # what counting reaches is measured for next-token prediction
        whole=True,
    ),
    "validation-regression": Code(
        "the validation loss is worse than a baseline's on the same samples, by more than chance; where the training "
        "loss goes on falling it is overfitting",
        "symptom",
    ),
    "over-regularised": Code(
        "underfitting for which dropout, weight decay or smoothing is the reason",
        "root",
        ("train/loss",),
        ("underfitting", "plateau", "class-collapse", SHORT),
    ),
    "overconfident": Code(
        "the validation loss rises while the accuracy still improves; where that falls, too, it is overfitting",
        "root",
        ("validation/loss", "validation/accuracy"),
        ("overfitting", "validation-regression"),
        ("classification", "token_classification"),  # of tokens the most likely is right more often all the same
    ),
    "plateau": Code(
        "the training loss stands still early, and nothing else explains it", "symptom", ("train/loss",), whole=True
    ),
    SHORT: Code(
        "all steps are done, and they were far too few: no better than counting tokens, and still falling; one that "
        "stands still there is underfitting",
        "root",
        ("train/loss",),
        (),
        ("causal_lm",),  # what counting reaches is measured for next-token prediction
    ),
    # What it learns from
    "label-noise": Code(
        "part of the labels are wrong; all of them is random-labels",
        "root",
        ("train/loss",),
        ("overfitting", "overconfident", "validation-regression", "underfitting", "plateau", "noisy-loss"),
        ("classification", "token_classification"),
    ),
    "random-labels": Code(
        "no label has to do with its input",
        "root",
        ("train/loss", "validation/loss"),
        (
            "class-collapse",
            "label-noise",
            "overfitting",
            "overconfident",
            "validation-shift",
            "validation-regression",
            "learning-rate-too-low",
            "learning-rate-too-high",
            "underfitting",
            "plateau",
            "noisy-loss",
            SHORT,
        ),
    ),
    "class-collapse": Code(
        "every input gets the same class",
        "symptom",
        ("validation/accuracy",),
        (
            "learning-rate-too-high",
            "exploding-gradients",
            "corrupt-batch",  # of a class that weighs a thousand times as much as others
            "validation-shift",
            "overfitting",
            "overconfident",  # of classes that are never learned
            "loss-spike",
            "noisy-loss",
            "plateau",
            "underfitting",
        ),
        ("classification", "token_classification"),
    ),
    "unshuffled-data": Code(
        "the data comes in an order that the loss follows",
        "root",
        ("train/loss",),
        (
            "loss-spike",
            "divergence",
            "exploding-gradients",
            "overfitting",
            "overconfident",
            "learning-rate-too-high",
            "noisy-loss",
            "class-collapse",
            "validation-shift",
            "validation-too-small",
            "validation-regression",
            "underfitting",
            "plateau",
        ),
    ),
    "corrupt-batch": Code(
        "a spike that is traced to one batch, or to a few in a row",
        "root",
        ("train/loss",),
        ("loss-spike", "nan-loss", "exploding-gradients"),
    ),
    "leakage": Code("validation samples are in the training data", "root", ("facts.leakage",), ("target-leak",)),
    "target-leak": Code("the answer is in the input", "root", ("train/loss",), ("overconfident",)),
    "validation-shift": Code(
        "the validation data is of another kind",
        "root",
        ("validation/loss",),
        ("overfitting", "overconfident", "class-collapse", "validation-regression", "underfitting"),
    ),
    "validation-too-small": Code(
        "the validation loss is too noisy to choose by",
        "root",
        ("validation/loss",),
        ("overfitting", "validation-regression", "overconfident", "learning-rate-too-high"),
    ),
    # What the machine does
    "input-bound": Code(
        "steps wait for data; a loop that slows down over time is throughput-decay",
        "root",
        ("data_seconds", "step_seconds"),
        whole=True,
    ),
    "evaluation-bound": Code("evaluations take a large part of the time", "root"),
    "throughput-decay": Code("steps take longer and longer", "root", explains=("input-bound",)),
    "memory-leak": Code(
        "memory grows steadily", "root", ("memory_bytes or hardware/process_memory_bytes",), ("throughput-decay",)
    ),
    "resume-discontinuity": Code(
        "the loss jumps where a run was resumed",
        "root",
        ("train/loss",),
        ("schedule-mismatch", "learning-rate-too-high", "divergence", "loss-spike", "validation-regression"),
    ),
    "communication-bound": Code("steps wait for other devices", "root", ("communication_seconds",)),
    "rank-imbalance": Code("one device makes all others wait", "root", ("communication_seconds",)),
    "thread-oversubscription": Code(
        "more threads than cores, so that they wait for each other", "root", ("facts.cores",)
    ),
    # What a configuration shows before it costs compute
    "warmup-longer-than-run": Code("the warm-up takes the whole run", "lint"),
    "l2-with-adam": Code("an L2 penalty with an adaptive optimizer", "lint"),
    "batch-norm-in-sequence-model": Code("BatchNorm beside attention, or where each position is judged", "lint"),
    "batch-norm-beside-layer-norm": Code("BatchNorm and LayerNorm on the same activations", "lint"),
    "batch-norm-small-batch": Code("BatchNorm over few samples", "lint"),
    "batch-norm-with-dropout": Code("dropout before BatchNorm", "lint"),
    "batch-norm-with-accumulation": Code("a batch in parts, of which BatchNorm sees one at a time", "lint"),
    "batch-norm-few-for-average": Code("statistics for averaged weights from few samples", "lint"),
    "positions-beyond-training": Code("positions that training never meets", "lint"),
    "l1-in-language-model": Code("single weights made zero in a dense language model", "lint"),
    "decay-beside-penalty": Code("weight decay and a penalty on the same weights", "lint"),
    "validation-in-training": Code("validation texts that are in the training data", "lint"),
    "duplicated-data": Code("texts that the training data holds several times", "lint"),
    "contradicting-targets": Code("equal texts with different targets", "lint"),
    "sorted-data": Code("rows that stand in the order of their targets", "lint"),
    "imbalanced-classes": Code("classes that hardly occur beside others", "lint"),
    "repeated-source": Code("a small source of a mixture that is repeated many times", "lint"),
    "smoothing-beside-teacher": Code("label smoothing of a model that learns from a teacher", "lint"),
    "learning-rate-range": Code("a learning rate that AdamW is hardly ever trained with", "lint"),
    "linear-scaling-with-adam": Code("a rate that grows linearly with the batch, with an optimizer like Adam", "lint"),
    "stopping-before-reduction": Code("early stopping that fires before a plateau has lowered the rate", "lint"),
    "plateau-with-decay": Code("a plateau that lowers a rate which decays by itself", "lint"),
    "clipping-off": Code("no clipping of gradients", "lint"),
    "decay-on-norms": Code("weight decay on norms or biases", "lint"),
    "post-norm-without-warmup": Code("post-norm without warm-up", "lint"),
    "decay-overlaps-warmup": Code("the decay begins before the warm-up ends", "lint"),
    "stopping-before-decay": Code("early stopping that fires before the rate has decayed", "lint"),
    "patience-never": Code("early stopping that cannot fire", "lint"),
    "rollback-out-of-reach": Code("rollbacks that may find no checkpoint to go back to", "lint"),
    "evaluation-never": Code("no evaluation before the end", "lint"),
    "saving-never": Code("no checkpoint before the end", "lint"),
    "alert-on-unknown": Code("an alert that waits for what does not exist", "lint"),
    "high-dropout-small-model": Code("strong dropout in a small model", "lint"),
    "epochs-over-data": Code("many passes over the same data", "lint"),
    "vocabulary-too-large-for-data": Code("a vocabulary that the data cannot fill", "lint"),
    "schedule-free-with-decay": Code("a decaying schedule with an optimizer that needs none", "lint"),
    "swa-with-decay": Code("weights averaged while the rate goes to zero", "lint"),
    "schedule-misses-floor": Code("a schedule that ends before it has decayed", "lint"),
    "tokens-per-parameter": Code("far more or fewer tokens than the model can use", "lint"),
    "attention-dropout": Code("dropout inside the attention", "lint"),
    "short-head-size": Code("heads too narrow for the hardware", "lint"),
    "fp16-without-cuda": Code("fp16 on a device that has no use for it", "lint"),
    "narrow-heads-on-cuda": Code("heads on which a GPU's attention is slow", "lint"),
    "sizes-off-tiles": Code("sizes that a GPU's tiles do not divide", "lint"),
}
