"""Schedules of the learning rate."""

from trimtab.config.registry import Spec

SCHEDULES: dict[str, Spec] = {
    "constant": Spec("trimtab.schedules.curves:Constant", "full rate after a linear warm-up", "own"),
    "linear": Spec("trimtab.schedules.curves:Linear", "warm-up, then a straight line to the floor", "own"),
    "cosine": Spec(
        "trimtab.schedules.curves:Cosine",
        "warm-up, then half a cosine to the floor",
        "Loshchilov and Hutter 2017, arXiv 1608.03983, eq. 5",
    ),
    "polynomial": Spec(
        "trimtab.schedules.curves:Polynomial", "warm-up, then a power of what is left of the run", "as in torch"
    ),
    "exponential": Spec(
        "trimtab.schedules.curves:Exponential", "warm-up, then the same factor in every step", "as in torch"
    ),
    "inverse_square_root": Spec(
        "trimtab.schedules.curves:InverseSquareRoot",
        "warm-up, then falling with the root of the steps",
        "Vaswani et al. 2017, arXiv 1706.03762, eq. 3",
    ),
    "step": Spec("trimtab.schedules.curves:StepDecay", "warm-up, then a stair", "He et al. 2016, arXiv 1512.03385"),
    "wsd": Spec(
        "trimtab.schedules.curves:Wsd",
        "warm-up, stable, decay",
        "Hu et al. 2024, arXiv 2404.06395, section 4",
    ),
    "triangular": Spec(
        "trimtab.schedules.cycles:Triangular",
        "rising and falling in straight lines, again and again",
        "Smith 2017, arXiv 1506.01186, section 3.2",
    ),
    "exp_range": Spec(
        "trimtab.schedules.cycles:Triangular",
        "triangles whose height falls by the same factor in every step",
        "Smith 2017, arXiv 1506.01186, section 3.2",
    ),
    "one_cycle": Spec(
        "trimtab.schedules.cycles:OneCycle",
        "one rise, and a long fall far below its start",
        "Smith and Topin 2018, arXiv 1708.07120, section 3",
    ),
    "warm_restarts": Spec(
        "trimtab.schedules.cycles:WarmRestarts",
        "half cosines, each from the full rate anew",
        "Loshchilov and Hutter 2017, arXiv 1608.03983, eq. 5",
    ),
    "piecewise": Spec(
        "trimtab.schedules.pieces:Piecewise", "warm-up, then one level after the other, joined by ramps", "own"
    ),
}
