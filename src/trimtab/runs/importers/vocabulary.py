"""The words of other trainers: what they call metrics, steps, times and units. Data alone; `names` looks them up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

Side = Literal["train", "validation", "test"]


def _words(names: str) -> tuple[str, ...]:
    return tuple(names.split())


STEPS: Final[Mapping[str, int]] = {
    name: rank
    for rank, names in enumerate(
        (
            "trainer_global_step train_global_step global_step optimizer_step",
            "training_step train_step step steps step_num current_step current_steps",
            "global_iteration global_iter iteration iterations train_iter iter iters n_iter it num_updates "
            "train_num_updates update updates",
            "batch batch_idx batch_index",
        )
    )
    for name in names.split()
}
"""Columns that count steps, to how soon they are preferred."""

EPOCHS: Final = _words("epoch epochs current_epoch train_epoch trainer_epoch epoch_num epoch_idx")

TIMES: Final = _words(
    "time timestamp wall_time walltime wall_clock runtime elapsed elapsed_time elapsed_seconds relative_time "
    "relative_time_process relative_time_wall date datetime created_at"
)
"""Columns that say when, which units are guessed from."""

SIDES: Final[Mapping[str, Side]] = {
    **dict.fromkeys(_words("train training trn tr"), "train"),
    **dict.fromkeys(
        _words("val valid validate validating validation eval evaluate evaluating evaluation dev"), "validation"
    ),
    **dict.fromkeys(_words("test testing holdout"), "test"),
}

WRAPPERS: Final = _words("metrics metric logs scalars monitoring")
"""What some put in front of all names."""

HEADINGS: Final = _words(
    "optim optimizer optimizers optimization opt grad grads gradient gradients sched schedule scheduler lr_scheduler "
    "perf performance throughput speed time times timing timer profile profiler system sys hardware gpu cuda memory "
    "mem stats misc info debug diagnostics monitor global trainer model params hparams amp scaler x"
)
"""Of rooms that metrics stand in which do not depend on whose they are."""

SIDE_COLUMNS: Final = _words("split phase mode stage set subset partition dataset type kind")
"""Columns whose words say whose the numbers of a row are."""

METRIC_COLUMNS: Final = _words("metric metric_name tag key name variable")
"""Columns whose words name the number in `VALUE_COLUMNS`."""

VALUE_COLUMNS: Final = _words("value val metric_value scalar")

SIDED: Final[Mapping[str, str]] = {
    "loss": (
        "loss total_loss loss_total lm_loss lm_loss_value ce_loss nll_loss cross_entropy_loss cross_entropy "
        "crossentropy nll ce bce_loss mse_loss xent xent_loss xe_loss cost loss_train_total language_cross_entropy"
    ),
    "accuracy": (
        "accuracy acc mean_token_accuracy token_accuracy masked_accuracy sparse_categorical_accuracy "
        "categorical_accuracy multiclass_accuracy binary_accuracy top_1_accuracy top1_accuracy accuracy_top1 "
        "acc_top1 acc_1 acc1 top1 top_1"
    ),
    "perplexity": "perplexity ppl lm_loss_ppl",
    "bits_per_byte": "bits_per_byte bpb",
}
"""Ours of which there is one for training and one for validation, to their names, the preferred first."""

COMMON: Final[Mapping[str, str]] = {
    "learning_rate": "learning_rate lr learningrate current_lr last_lr",
    "grad_norm": (
        "grad_norm gradient_norm gradnorm gnorm global_grad_norm global_gradient_norm grad_global_norm "
        "grad_norm_total total_grad_norm total_gradient_norm grad_2_0_norm_total grad_norm_before_clip "
        "grad_norm_preclip gradients_norm grads_norm norm_grad"
    ),
    "tokens_per_second": (
        "tokens_per_second tokens_per_sec tokens_per_s tokens_per_second_per_gpu tokens_per_sec_per_gpu tokens_second "
        "tokens_sec tokens_s toks_per_sec toks_s "
        "tok_per_sec tok_sec tok_s throughput_tokens tps wps"
    ),
    "step_seconds": (
        "step_seconds step_time time_per_step step_duration seconds_per_step sec_per_step s_per_step iter_time "
        "iteration_time time_per_iter time_per_iteration elapsed_time_per_iteration batch_time time_per_batch "
        "update_time time_per_update step_ms ms_per_step iter_ms ms_per_iter s_it dt"
    ),
    "steps_per_second": (
        "steps_per_second steps_per_sec steps_s iterations_per_second iterations_per_sec iters_per_sec iter_per_sec "
        "its_per_sec it_per_sec it_s batches_per_second batches_per_sec updates_per_second ups"
    ),
    "data_seconds": (
        "data_seconds data_time data_wait data_wait_time data_loading_time data_load_time dataloader_time "
        "dataloading_time loader_time time_data data_ms"
    ),
    "memory_bytes": (
        "memory_bytes gpu_mem gpu_memory memory mem max_memory max_mem peak_memory peak_mem peak_gpu_memory "
        "max_gpu_memory gpu_memory_allocated gpu_mem_allocated memory_allocated max_memory_allocated cuda_memory "
        "cuda_mem vram gpu_memory_used gpu_mem_used memory_used rss"
    ),
    "loss_scale": "loss_scale grad_scale scaler_scale amp_scale fp16_scale",
    "skipped": "skipped step_skipped skipped_step",
}
"""The same of those that there is one of."""

SPEEDS: Final = frozenset(
    _words(
        "samples_per_second samples_per_sec samples_s samples_sec examples_per_second examples_per_sec examples_s "
        "images_per_second images_per_sec images_s imgs_per_sec img_s sequences_per_second sequences_per_sec seq_s "
        "sentences_per_second sentences_per_sec frames_per_second fps throughput pace speed"
    )
)
"""What is done in a second, of whatever: only its course can be told."""

ONLY_IN_VALIDATION: Final = ("perplexity", "bits_per_byte")

UNITS: Final[Mapping[str, Mapping[str, float]]] = {
    "seconds": {
        "us": 1e-6,
        "ms": 1e-3,
        "msec": 1e-3,
        "milliseconds": 1e-3,
        "s": 1.0,
        "sec": 1.0,
        "secs": 1.0,
        "seconds": 1.0,
    },
    "bytes": {
        "bytes": 1.0,
        "b": 1.0,
        "kb": 1e3,
        "kib": 2.0**10,
        "mb": 1e6,
        "mib": 2.0**20,
        "gb": 1e9,
        "gib": 2.0**30,
    },
}

MEASURED_IN: Final[Mapping[str, str]] = {"step_seconds": "seconds", "data_seconds": "seconds", "memory_bytes": "bytes"}

GATHERED: Final[Mapping[str, int]] = {
    **dict.fromkeys(_words("step batch iter raw"), 0),
    **dict.fromkeys(_words("global"), 1),
    **dict.fromkeys(_words("avg mean"), 3),
    **dict.fromkeys(_words("epoch"), 4),
    **dict.fromkeys(_words("running smooth smoothed ema"), 6),
}
"""Words that say how a value was gathered, to how little it is preferred."""

DURATIONS: Final[Mapping[str, float]] = {
    **dict.fromkeys(
        _words("time runtime duration wall wall_time elapsed seconds secs sec time_s time_sec time_seconds"), 1.0
    ),
    **dict.fromkeys(_words("ms time_ms"), 0.001),
}
"""What stands beside the side of an evaluation to say how long it took, to seconds."""
