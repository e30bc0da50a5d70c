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
    "wsd": Spec(
        "trimtab.schedules.curves:Wsd",
        "warm-up, stable, decay",
        "Hu et al. 2024, arXiv 2404.06395, section 4",
    ),
}
