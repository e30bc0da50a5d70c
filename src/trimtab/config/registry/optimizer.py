"""Optimizers."""

from trimtab.config.registry import Spec

OPTIMIZERS: dict[str, Spec] = {
    "adamw": Spec(
        "trimtab.optimizer.algorithms.adamw:AdamW",
        "Adam with decoupled weight decay; 8 bytes of state per parameter",
        "Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2",
        capturable=True,
        layouts=("flat",),
    ),
    "custom": Spec(
        "trimtab.optimizer.foreign:ForeignOptimizer",
        "any torch.optim.Optimizer class, wrapped",
        "own",
        layouts=("per_tensor",),
    ),
}
