"""What other trainers call the metrics is known, and what is another thing is not taken for them."""

from __future__ import annotations

import pytest

from trimtab.errors import UsageError
from trimtab.runs.importers.names import evaluation_seconds, meaning
from trimtab.runs.importers.plan import check_mapping

MEANT = {
    "train/loss": "loss Loss train_loss trainLoss training/loss train/loss train/loss_step train_loss_epoch loss/train "
    "Train_Loss nll_loss lm_loss total_loss batch_loss running_loss train_loss_avg Training.Loss",
    "validation/loss": "eval_loss val_loss validation_loss valid_loss valid/loss eval/loss loss/val loss_eval dev_loss "
    "val_loss/dataloader_idx_0 test_loss test/loss val_loss_epoch",
    "train/accuracy": "accuracy acc train_acc train/accuracy mean_token_accuracy sparse_categorical_accuracy",
    "validation/accuracy": "eval_accuracy val_acc val_accuracy valid/acc eval/accuracy val_binary_accuracy",
    "validation/perplexity": "val_ppl eval_perplexity valid_perplexity",
    "learning_rate": "lr learning_rate LearningRate lr-AdamW lr-AdamW/pg1 train/learning_rate lr/group_0 optimizer/lr "
    "optim/lr cur_lr scheduler.learning_rate",
    "grad_norm": "grad_norm gradient_norm gnorm train/grad_norm grad/norm grad_2.0_norm_total GradNorm "
    "optim/grad_norm gradients/l2_norm grad/total_norm norm/gradient stats.gnorm",
    "layer/h.0/dead_fraction": "dead_fraction/h.0 layer/h.0/dead_fraction train/dead_fraction/h.0 "
    "dead_neuron_ratio/h.0",
    "tokens_per_second": "train/perf/tokens_per_second "
    "tokens_per_sec tokens/s tok/s tps train/tokens_per_second tokens_per_second",
    "step_seconds": "step_time step_time_ms iter_time time_per_step dt batch_time steps_per_second it/s "
    "train_step_time timing/step_time",
    "data_seconds": "data_time data_time_ms train/data_time dataloader_time",
    "memory_bytes": "gpu_mem gpu_mem_gb memory_mb max_memory gpu_memory_allocated",
    "layer/h.0.weight/grad_norm": "grad_norm/h.0.weight grad_2.0_norm/h.0.weight layer/h.0.weight/grad_norm",
}
UNKNOWN = (
    "reward val_f1 aux_loss eval_runtime eval_samples_per_second eval_steps_per_second train_samples_per_second "
    "samples/s train_perplexity lr-AdamW-momentum "
    "lr_decay weight_decay layer1/grad_norm encoder/grad_norm grad_norm_after_clip grad/norm_clipped max_lr "
    "val/grad_norm aux/loss optim/loss "
    " temperature step epoch total_flos entropy eval_lr num_tokens x loss_weight"
)


@pytest.mark.parametrize(("ours", "theirs"), [(ours, name) for ours, names in MEANT.items() for name in names.split()])
def test_names_in_the_wild(ours: str, theirs: str) -> None:
    found = meaning(theirs)
    assert found is not None
    assert found.ours == ours


@pytest.mark.parametrize("name", UNKNOWN.split())
def test_what_is_something_else_stays_so(name: str) -> None:
    assert meaning(name) is None


def test_units_in_names() -> None:
    factors = {"step_time_ms": 1e-3, "data_time (s)": 1.0, "gpu_mem_gb": 1e9, "gpu_memory_MiB": 2.0**20, "dt_us": 1e-6}
    for name, factor in factors.items():
        found = meaning(name)
        assert found is not None
        assert found.factor == factor, name


def test_a_mapping_to_an_unknown_metric_names_the_nearest() -> None:
    for ours in ("train/loss", "train/loss/aux", "validation/news/loss", "user/reward", "step", "epoch"):
        check_mapping({"x": ours})
    with pytest.raises(UsageError, match="two columns are mapped to train/loss: x and y"):
        check_mapping({"x": "train/loss", "y": "train/loss"})
    with pytest.raises(UsageError, match="validation/loss"):
        check_mapping({"x": "validation/los"})
    with pytest.raises(UsageError, match="learning_rate"):
        check_mapping({"x": "learning_rat"})


def test_seconds_of_evaluations_under_the_names_that_trainers_give_them() -> None:
    for name in [
        "eval_runtime",
        "evalTime",
        "val/seconds",
        "validation/seconds",
        "dev_time",
        "valid_wall",
        "valid/eval_seconds",
    ]:
        assert evaluation_seconds(name) == 1.0, name
    assert evaluation_seconds("val_time_ms") == 1e-3
    for name in ["eval_loss", "train_time", "eval_samples_per_second", "step_time", "evaluation"]:
        assert evaluation_seconds(name) is None, name
