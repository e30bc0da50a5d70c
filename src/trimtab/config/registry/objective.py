"""Tasks and losses."""

from trimtab.config.registry import Spec

TASKS: dict[str, Spec] = {
    "causal_lm": Spec("trimtab.objective.tasks.causal_lm:CausalLanguageModelingTask", "predict each next token", "own"),
}

OBJECTIVES: dict[str, Spec] = {
    "cross_entropy": Spec(
        "trimtab.objective.cross_entropy:CrossEntropy",
        "token cross-entropy with label smoothing and z-loss",
        "Szegedy et al. 2016, arXiv 1512.00567; Chowdhery et al. 2022, arXiv 2204.02311, section 5",
        capturable=True,
        compilable=True,
    ),
}
