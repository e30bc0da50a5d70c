"""Tasks and losses."""

from trimtab.config.registry import Spec

TASKS: dict[str, Spec] = {
    "causal_lm": Spec("trimtab.objective.tasks.causal_lm:CausalLanguageModelingTask", "predict each next token", "own"),
    "masked_lm": Spec(
        "trimtab.objective.tasks.masked_lm:MaskedLanguageModelingTask",
        "predict tokens that were hidden",
        "Devlin et al. 2019, arXiv 1810.04805, section 3.1",
    ),
    "classification": Spec(
        "trimtab.objective.tasks.classification:ClassificationTask", "the class of a text, or its labels", "own"
    ),
    "token_classification": Spec(
        "trimtab.objective.tasks.classification:ClassificationTask", "the class of each word", "own"
    ),
    "regression": Spec("trimtab.objective.tasks.regression:RegressionTask", "a number for each text", "own"),
    "seq2seq": Spec(
        "trimtab.objective.tasks.seq2seq:SequenceToSequenceTask",
        "write a second text after reading a first",
        "Sutskever et al. 2014, arXiv 1409.3215",
    ),
    "contrastive": Spec(
        "trimtab.objective.tasks.contrastive:ContrastiveTask",
        "a vector for each text, near those that belong to it",
        "Gao et al. 2021, arXiv 2104.08821; Wang and Isola 2020, arXiv 2005.10242",
    ),
}

OBJECTIVES: dict[str, Spec] = {
    "cross_entropy": Spec(
        "trimtab.objective.cross_entropy:CrossEntropy",
        "cross-entropy with label smoothing, class weights and z-loss",
        "Szegedy et al. 2016, arXiv 1512.00567; Chowdhery et al. 2022, arXiv 2204.02311, section 5",
        capturable=True,
        compilable=True,
    ),
    "focal": Spec(
        "trimtab.objective.focal:Focal",
        "cross-entropy that counts less what is predicted well already",
        "Lin et al. 2017, arXiv 1708.02002, eq. 5",
        capturable=True,
        compilable=True,
    ),
    "binary_cross_entropy": Spec(
        "trimtab.objective.binary:BinaryCrossEntropy",
        "labels decided one by one, with smoothing and the focal power",
        "Lin et al. 2017, arXiv 1708.02002, eq. 5",
        capturable=True,
        compilable=True,
    ),
    **{
        name: Spec("trimtab.objective.regression:Regression", what, source, capturable=True, compilable=True)
        for name, what, source in (
            ("mse", "square of the error", "own"),
            ("rmse", "root of the mean square of a batch's errors", "own"),
            ("mae", "size of the error", "own"),
            ("huber", "square of small errors, size of large ones", "Huber 1964"),
            ("quantile", "pinball loss, whose minimum is a quantile", "Koenker and Bassett 1978"),
            ("log_cosh", "log cosh of the error", "own"),
        )
    },
    "info_nce": Spec(
        "trimtab.objective.contrastive:InfoNce",
        "find the partner of a text among those of its batch",
        "van den Oord et al. 2018, arXiv 1807.03748, eq. 4",
        compilable=True,
    ),
    "supervised_contrastive": Spec(
        "trimtab.objective.contrastive:SupervisedContrastive",
        "find the texts of the same class in the batch",
        "Khosla et al. 2020, arXiv 2004.11362, eq. 2",
        compilable=True,
    ),
}
