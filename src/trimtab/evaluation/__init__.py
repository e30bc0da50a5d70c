"""How good a model is, measured exactly, and what it writes."""

from trimtab.evaluation.baseline import Baseline, forget_losses, judged_on, write_losses
from trimtab.evaluation.batch_norm import batch_norm_buffers, batch_norms, renew_batch_norm
from trimtab.evaluation.counting import count_labels, count_sets
from trimtab.evaluation.counting_tags import count_tags
from trimtab.evaluation.details import Details, groupings_of, in_lines
from trimtab.evaluation.generate import choose_token, generate
from trimtab.evaluation.language import evaluate, spread_indices
from trimtab.evaluation.perplexity import calculate_perplexity
from trimtab.evaluation.predict import predict, predict_probabilities
from trimtab.evaluation.round import Evaluation, Weights, named
from trimtab.evaluation.sample_losses import Difference, SampleLosses, paired_bootstrap
from trimtab.evaluation.temperature import (
    Calibration,
    calibrate_temperature,
    fit_label_temperatures,
    fit_temperature,
)
from trimtab.evaluation.translate import translate
from trimtab.evaluation.writing import WRITERS, Sampling, write_text
from trimtab.evaluation.yardsticks import yardsticks

__all__ = [
    "WRITERS",
    "Baseline",
    "Calibration",
    "Details",
    "Difference",
    "Evaluation",
    "SampleLosses",
    "Sampling",
    "Weights",
    "batch_norm_buffers",
    "batch_norms",
    "calculate_perplexity",
    "calibrate_temperature",
    "choose_token",
    "count_labels",
    "count_sets",
    "count_tags",
    "evaluate",
    "fit_label_temperatures",
    "fit_temperature",
    "forget_losses",
    "generate",
    "groupings_of",
    "in_lines",
    "judged_on",
    "named",
    "paired_bootstrap",
    "predict",
    "predict_probabilities",
    "renew_batch_norm",
    "spread_indices",
    "translate",
    "write_losses",
    "write_text",
    "yardsticks",
]
