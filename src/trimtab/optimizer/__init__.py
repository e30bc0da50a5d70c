"""How gradients become updates: storage of parameters, their groups, transforms of gradients, optimizers."""

from trimtab.optimizer.algorithms.adafactor import adafactor
from trimtab.optimizer.algorithms.adam import adam
from trimtab.optimizer.algorithms.adamw import AdamW
from trimtab.optimizer.algorithms.adamw_8bit import adamw_8bit
from trimtab.optimizer.algorithms.galore import galore
from trimtab.optimizer.algorithms.lamb import lamb
from trimtab.optimizer.algorithms.lion import lion
from trimtab.optimizer.algorithms.muon import muon
from trimtab.optimizer.algorithms.rule import Now, Rule
from trimtab.optimizer.algorithms.schedule_free import schedule_free_adamw
from trimtab.optimizer.algorithms.sgd import sgd
from trimtab.optimizer.algorithms.soap import soap
from trimtab.optimizer.algorithms.sophia import sophia
from trimtab.optimizer.average import WeightAverage, equal, exponential
from trimtab.optimizer.by_rule import RuleOptimizer
from trimtab.optimizer.contract import Optimizer, Rehearsal
from trimtab.optimizer.curvature import Curvature
from trimtab.optimizer.factory import (
    build_average,
    build_groups,
    build_optimizer,
    build_transforms,
    clip_threshold,
    planned_groups,
)
from trimtab.optimizer.for_torch import (
    CosineAnnealingWarmupScheduler,
    adaptive_gradient_clipping,
    get_parameter_groups,
    gradient_centralization,
)
from trimtab.optimizer.foreign import ForeignOptimizer
from trimtab.optimizer.parameter_groups import (
    Factors,
    ParameterGroup,
    applied_rates,
    depths,
    kinds,
    parameter_groups,
)
from trimtab.optimizer.penalties import build_penalties
from trimtab.optimizer.running_norms import ClipByQuantile, ClipByZScore, SkipOutliers
from trimtab.optimizer.storage import FlatStorage, PerTensorStorage, Storage, left_over
from trimtab.optimizer.transforms import (
    ClipByGroup,
    Noise,
    Stateless,
    centralize,
    clip_by_norm,
    clip_by_parameter,
    clip_by_unit,
    clip_by_value,
    skip_non_finite,
)
from trimtab.optimizer.weight_norms import WeightNormControl

__all__ = [
    "AdamW",
    "ClipByGroup",
    "ClipByQuantile",
    "ClipByZScore",
    "CosineAnnealingWarmupScheduler",
    "Curvature",
    "Factors",
    "FlatStorage",
    "ForeignOptimizer",
    "Noise",
    "Now",
    "Optimizer",
    "ParameterGroup",
    "PerTensorStorage",
    "Rehearsal",
    "Rule",
    "RuleOptimizer",
    "SkipOutliers",
    "Stateless",
    "Storage",
    "WeightAverage",
    "WeightNormControl",
    "adafactor",
    "adam",
    "adamw_8bit",
    "adaptive_gradient_clipping",
    "applied_rates",
    "build_average",
    "build_groups",
    "build_optimizer",
    "build_penalties",
    "build_transforms",
    "centralize",
    "clip_by_norm",
    "clip_by_parameter",
    "clip_by_unit",
    "clip_by_value",
    "clip_threshold",
    "depths",
    "equal",
    "exponential",
    "galore",
    "get_parameter_groups",
    "gradient_centralization",
    "kinds",
    "lamb",
    "left_over",
    "lion",
    "muon",
    "parameter_groups",
    "planned_groups",
    "schedule_free_adamw",
    "sgd",
    "skip_non_finite",
    "soap",
    "sophia",
]
