"""Controllers."""

from trimtab.config.registry import Spec

CONTROLLERS: dict[str, Spec] = {
    "patience": Spec(
        "trimtab.control.stopping.patience:Patience",
        "stop when the metric no longer improves",
        "Prechelt 1998",
    ),
    "batch_size": Spec(
        "trimtab.control.batch_size:BatchSize",
        "raise the batch towards the gradient noise scale",
        "McCandlish et al. 2018, arXiv 1812.06162",
    ),
    "switch": Spec(
        "trimtab.control.switching:SwitchOptimizer",
        "another optimizer when the metric no longer improves",
        "Keskar and Socher 2017, arXiv 1712.07628",
    ),
    "unfreezing": Spec(
        "trimtab.control.unfreezing:UnfreezeOnPlateau",
        "train more of a frozen model when the metric no longer improves",
        "after Howard and Ruder 2018, arXiv 1801.06146, section 3.3",
    ),
    "plateau": Spec(
        "trimtab.control.learning_rate:ReduceOnPlateau",
        "lower the learning rate when the metric no longer improves",
        "as in torch's ReduceLROnPlateau",
    ),
    "unsteadiness": Spec(
        "trimtab.control.learning_rate:ReduceOnUnsteadiness",
        "lower the learning rate while gradient norm or loss are far more unsteady than they were",
        "robust z-score: Iglewicz and Hoaglin 1993; the rule is our own",
    ),
    "gap": Spec(
        "trimtab.control.regularization:RegularizeByGap",
        "more dropout, weight decay and label smoothing while the generalization gap is wide",
        "own",
    ),
    "spikes": Spec("trimtab.control.rollback:ReportSpikes", "tell of spikes, with the samples of their steps", "own"),
    "recovery": Spec(
        "trimtab.control.rollback:Recovery",
        "go back to before a spike, or before steps that were not finite, without their data",
        "own; after Chowdhery et al. 2022, arXiv 2204.02311, section 5.1",
    ),
    "doctor": Spec("trimtab.control.doctor:Doctor", "show what the doctor finds while the run goes on", "own"),
    "saving": Spec("trimtab.control.saving:SaveBest", "save when the metric is the best so far", "own"),
    "skipped": Spec("trimtab.control.stopping.skipped:SkippedSteps", "stop after too many skipped steps on end", "own"),
}
