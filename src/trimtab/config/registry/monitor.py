"""Sinks."""

from trimtab.config.registry import Spec

SINKS: dict[str, Spec] = {
    "tensorboard": Spec(
        "trimtab.monitor.sinks.tensorboard:TensorBoard",
        "event files in the run's folder: scalars, histograms, texts, pictures, hyperparameters",
        "https://www.tensorflow.org/tensorboard",
        needs=("tensorboard",),
    ),
    "wandb": Spec(
        "trimtab.monitor.sinks.wandb:WeightsAndBiases",
        "a run of Weights & Biases, online or offline",
        "https://docs.wandb.ai",
        needs=("wandb",),
    ),
    "mlflow": Spec(
        "trimtab.monitor.sinks.mlflow:Mlflow",
        "a run of MLflow, on a server or in files",
        "https://mlflow.org/docs/latest",
        needs=("mlflow",),
    ),
    "trackio": Spec(
        "trimtab.monitor.sinks.trackio:Trackio",
        "a run in trackio's local database",
        "https://huggingface.co/docs/trackio",
        needs=("trackio",),
    ),
    "prometheus": Spec(
        "trimtab.monitor.sinks.prometheus:Prometheus",
        "the newest values, for Prometheus to collect",
        "https://prometheus.io/docs/instrumenting/exposition_formats",
    ),
}
