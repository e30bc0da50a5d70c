"""Procedures of a micro-batch and of a step, and what is done to embeddings."""

from trimtab.config.registry import Spec

_HOOK = "changes embeddings as it goes"
_AGAIN = "draws the same dropout again, which a graph cannot"

PROCEDURES: dict[str, Spec] = {
    "plain": Spec(
        "trimtab.objective.procedures.plain:Plain",
        "one pass forward, one back",
        "own",
        capturable=True,
        compilable=True,
    ),
    "r_drop": Spec(
        "trimtab.objective.procedures.r_drop:RDrop",
        "two passes under different dropout, whose answers are kept together",
        "Liang et al. 2021, arXiv 2106.14448",
        compilable=True,
        held_back="draws twice in a micro-batch, which was not tried in a graph",
    ),
    "fgm": Spec(
        "trimtab.objective.procedures.pgd:ProjectedGradient",
        "a second pass at embeddings that one step made worse",
        "Miyato et al. 2017, arXiv 1605.07725, equations 5 and 6",
        held_back=_AGAIN,
    ),
    "pgd": Spec(
        "trimtab.objective.procedures.pgd:ProjectedGradient",
        "the same by several steps, each back into a ball",
        "Madry et al. 2018, arXiv 1706.06083, section 2.1",
        held_back=_AGAIN,
    ),
    "free_lb": Spec(
        "trimtab.objective.procedures.free_lb:FreeLB",
        "every step of a perturbation gives its part of the gradient",
        "Zhu et al. 2020, arXiv 1909.11764, algorithm 1",
        held_back=_AGAIN,
    ),
    "gradient_cache": Spec(
        "trimtab.objective.procedures.gradient_cache:cached_gradients",
        "an objective over all micro-batches of a step, in the memory of one",
        "Gao et al. 2021, arXiv 2101.06983, section 3.2",
        compilable=True,
        held_back="goes twice over the micro-batches of a step",
    ),
}

SHARPNESS: dict[str, Spec] = {
    "none": Spec(
        "trimtab.training.sharpness:Sharpness",
        "the gradient where the weights are",
        "own",
        capturable=True,
        compilable=True,
    ),
    "sam": Spec(
        "trimtab.training.sharpness:Sharpness",
        "the gradient at weights that a step made worse",
        "Foret et al. 2021, arXiv 2010.01412, equation 2",
        compilable=True,
        held_back="goes twice over the micro-batches of a step",
    ),
    "asam": Spec(
        "trimtab.training.sharpness:Sharpness",
        "the same, each weight moved by its own size",
        "Kwon et al. 2021, arXiv 2102.11600, equation 10",
        compilable=True,
        held_back="goes twice over the micro-batches of a step",
    ),
}

EMBEDDING_TRANSFORMS: dict[str, Spec] = {
    "mixup.alpha": Spec(
        "trimtab.model.embeddings.mixup:Mixup",
        "two texts, and the losses of their targets, in one",
        "Guo et al. 2019, arXiv 1905.08941; Zhang et al. 2018, arXiv 1710.09412",
        held_back=_HOOK,
    ),
    "cutout.rate": Spec(
        "trimtab.model.embeddings.cutout:Cutout",
        "parts of embeddings set to 0",
        "Shen et al. 2020, arXiv 2009.13818, section 3.1",
        held_back=_HOOK,
    ),
    "noise.alpha": Spec(
        "trimtab.model.embeddings.noise:EmbeddingNoise",
        "noise on embeddings (NEFTune)",
        "Jain et al. 2023, arXiv 2310.05914, algorithm 1",
        held_back=_HOOK,
    ),
}
