"""Averages of the weights."""

from trimtab.config.registry import Spec

AVERAGES: dict[str, Spec] = {
    "ema": Spec(
        "trimtab.optimizer.average:exponential",
        "an exponential moving average of the weights",
        "Polyak and Juditsky 1992; Morales-Brotons et al. 2024, arXiv 2411.18704",
        capturable=True,
        state="4 bytes a parameter",
    ),
    "swa": Spec(
        "trimtab.optimizer.average:equal",
        "the equal mean of the weights of the last part of a run",
        "Izmailov et al. 2018, arXiv 1803.05407, algorithm 1",
        capturable=True,
        state="4 bytes a parameter",
    ),
}
