"""A configuration looked over before it costs compute: one rule a file, whose docstring is its page."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from trimtab.config import Config, UnknownLengthError
from trimtab.config.nearest import did_you_mean, nearest_names
from trimtab.doctor.lint import (
    alert_on_unknown,
    attention_dropout,
    batch_norm_beside_layer_norm,
    batch_norm_few_for_average,
    batch_norm_in_sequence_model,
    batch_norm_small_batch,
    batch_norm_with_accumulation,
    batch_norm_with_dropout,
    clipping_off,
    contradicting_targets,
    decay_beside_penalty,
    decay_on_norms,
    decay_overlaps_warmup,
    duplicated_data,
    epochs_over_data,
    evaluation_never,
    fp16_without_cuda,
    high_dropout_small_model,
    imbalanced_classes,
    l1_in_language_model,
    l2_with_adam,
    learning_rate_range,
    linear_scaling_with_adam,
    narrow_heads_on_cuda,
    over_regularised,
    patience_never,
    plateau_with_decay,
    positions_beyond_training,
    post_norm_without_warmup,
    repeated_source,
    rollback_out_of_reach,
    saving_never,
    schedule_free_with_decay,
    schedule_misses_floor,
    short_head_size,
    sizes_off_tiles,
    smoothing_beside_teacher,
    sorted_data,
    stopping_before_decay,
    stopping_before_reduction,
    swa_with_decay,
    tokens_per_parameter,
    validation_in_training,
    vocabulary_too_large_for_data,
    warmup_longer_than_run,
)
from trimtab.doctor.lint.finding import LintFinding
from trimtab.errors import ConfigError

__all__ = ["NEED_DATA", "RULES", "LintFinding", "Rule", "left_out", "lint", "refuse"]

Rule = Callable[[Config, Mapping[str, Any]], Iterator[LintFinding]]
"""What a rule has to say of a configuration and the facts that are known of the run."""

RULES: dict[str, Rule] = {
    "warmup-longer-than-run": warmup_longer_than_run.check,
    "alert-on-unknown": alert_on_unknown.check,
    "l2-with-adam": l2_with_adam.check,
    "l1-in-language-model": l1_in_language_model.check,
    "batch-norm-in-sequence-model": batch_norm_in_sequence_model.check,
    "batch-norm-beside-layer-norm": batch_norm_beside_layer_norm.check,
    "batch-norm-small-batch": batch_norm_small_batch.check,
    "learning-rate-range": learning_rate_range.check,
    "linear-scaling-with-adam": linear_scaling_with_adam.check,
    "clipping-off": clipping_off.check,
    "decay-on-norms": decay_on_norms.check,
    "post-norm-without-warmup": post_norm_without_warmup.check,
    "decay-overlaps-warmup": decay_overlaps_warmup.check,
    "stopping-before-decay": stopping_before_decay.check,
    "stopping-before-reduction": stopping_before_reduction.check,
    "plateau-with-decay": plateau_with_decay.check,
    "patience-never": patience_never.check,
    "rollback-out-of-reach": rollback_out_of_reach.check,
    "evaluation-never": evaluation_never.check,
    "saving-never": saving_never.check,
    "validation-in-training": validation_in_training.check,
    "sorted-data": sorted_data.check,
    "contradicting-targets": contradicting_targets.check,
    "imbalanced-classes": imbalanced_classes.check,
    "duplicated-data": duplicated_data.check,
    "repeated-source": repeated_source.check,
    "decay-beside-penalty": decay_beside_penalty.check,
    "over-regularised": over_regularised.check,
    "smoothing-beside-teacher": smoothing_beside_teacher.check,
    "high-dropout-small-model": high_dropout_small_model.check,
    "batch-norm-with-dropout": batch_norm_with_dropout.check,
    "positions-beyond-training": positions_beyond_training.check,
    "epochs-over-data": epochs_over_data.check,
    "vocabulary-too-large-for-data": vocabulary_too_large_for_data.check,
    "schedule-free-with-decay": schedule_free_with_decay.check,
    "swa-with-decay": swa_with_decay.check,
    "schedule-misses-floor": schedule_misses_floor.check,
    "tokens-per-parameter": tokens_per_parameter.check,
    "batch-norm-with-accumulation": batch_norm_with_accumulation.check,
    "batch-norm-few-for-average": batch_norm_few_for_average.check,
    "attention-dropout": attention_dropout.check,
    "short-head-size": short_head_size.check,
    "fp16-without-cuda": fp16_without_cuda.check,
    "narrow-heads-on-cuda": narrow_heads_on_cuda.check,
    "sizes-off-tiles": sizes_off_tiles.check,
}
"""All rules by code, the gravest first."""


NEED_DATA: Final = (
    "batch-norm-in-sequence-model",
    "batch-norm-beside-layer-norm",
    "validation-in-training",
    "sorted-data",
    "contradicting-targets",
    "imbalanced-classes",
    "duplicated-data",
    "repeated-source",
    "high-dropout-small-model",
    "epochs-over-data",
    "vocabulary-too-large-for-data",
    "tokens-per-parameter",
)
"""Rules that say nothing before data and model are there."""


def left_out(config: Config) -> list[str]:
    """The rules that could not look at `config` without data and model: these, and those that meet a span in epochs."""

    def knows(rule: Rule) -> bool:
        try:
            list(rule(config, {}))
        except UnknownLengthError:
            return False
        return True

    return [code for code, rule in RULES.items() if code in NEED_DATA or not knows(rule)]


def lint(config: Config, facts: Mapping[str, Any] | None = None) -> list[LintFinding]:
    """What the rules have to say, in the order of `RULES`.

    `facts` is what facts.json holds, as far as it is known; a rule whose fact is missing says nothing.

    Raises:
        ConfigError: `lint.allow` names a code that does not exist.
    """
    for code in config.lint.allow:
        if code not in RULES:
            raise ConfigError(
                f"lint.allow: there is no such code. Received: {code!r}\nAllowed: {', '.join(RULES)}",
                hint=did_you_mean(nearest_names(code, RULES)),
            )
    return [finding for rule in RULES.values() for finding in _said(rule, config, facts or {})]


def _said(rule: Rule, config: Config, facts: Mapping[str, Any]) -> list[LintFinding]:
    try:
        return list(rule(config, facts))
    except UnknownLengthError:  # a stretch in epochs, before the data is there
        return []


def refuse(findings: Iterable[LintFinding], allow: Collection[str]) -> None:
    """Nothing, when every refusal among `findings` is allowed.

    Raises:
        ConfigError: with every refusal whose code is not in `allow`, and how to lift it.
    """
    refused = [finding for finding in findings if finding.severity == "refusal" and finding.code not in allow]
    if refused:
        codes = ", ".join(dict.fromkeys([*allow, *(finding.code for finding in refused)]))
        raise ConfigError(
            "the configuration is refused:\n" + "\n".join(f"  {finding}" for finding in refused),
            hint=f"put it right, or lift what is meant so: lint.allow=[{codes}]",
        )
