from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trimtab.doctor.lint as room
from trimtab.config import Config, list_presets, load_config
from trimtab.config.keys import keys
from trimtab.config.registry.schedules import SCHEDULES
from trimtab.doctor.lint import NEED_DATA, RULES, LintFinding, left_out, lint, refuse
from trimtab.errors import ConfigError
from trimtab.planning import DEVICES

POST = "model.norm.placement=post"
ADAM = ["optimizer.name=custom", "optimizer.target=torch.optim:Adam"]
GPT2 = ["model.hidden_size=768", "model.num_heads=12"]
TEACHER = "objective.distillation.teacher=runs/teacher"
PLATEAU = "control.learning_rate.name=plateau"
SMALL = {"parameters": {"total": 1_000_000}}
DATA = {"tokens_per_epoch": 1_000_000, "tokenizer": {"vocabulary_size": 4096}}

SMOOTH = ["model.dropout.residual=0.3", "optimizer.weight_decay=0.01", "objective.label_smoothing=0.2"]
CLASSES = ["task.name=classification", "model.name=encoder", "data.source={name: jsonl, path: rows.jsonl}"]

FIRES: list[tuple[str, Sequence[str], Mapping[str, Any]]] = [
    ("warmup-longer-than-run", ["schedule={name: triangular, rise: 1000}"], {}),
    ("warmup-longer-than-run", ["schedule.warmup='9e9 tokens'"], {}),
    ("warmup-longer-than-run", ["schedule.warmup='2 epochs'"], {"tokens_per_epoch": 3_000_000}),
    ("schedule-free-with-decay", ["optimizer.name=schedule_free_adamw"], {}),
    ("swa-with-decay", ["averaging.name=swa", "schedule={name: linear}"], {}),
    ("swa-with-decay", ["averaging={name: swa, start: 0.5}", "schedule.floor=0.0"], {}),
    ("swa-with-decay", ["averaging={name: swa, start: 900 steps}", "schedule={name: wsd}"], {}),
    ("alert-on-unknown", ["alerts.rules={a: {when: train/los > 3}}"], {}),
    ("alert-on-unknown", ["alerts.rules={a: {when: finding overfiting}}"], {}),
    ("l2-with-adam", ["optimizer.name=adam", "optimizer.weight_decay=0.1"], {}),
    ("l2-with-adam", ["penalties.l2.strength=0.01", "optimizer.weight_decay=0"], {}),
    ("l2-with-adam", ["penalties.l2.strength=0.01", "optimizer.name=muon"], {}),
    ("decay-beside-penalty", ["penalties.l2.strength=0.01", "optimizer={name: sgd, weight_decay: 0.1}"], {}),
    ("decay-beside-penalty", [*CLASSES, "penalties.l1.strength=0.01"], {}),
    ("l1-in-language-model", ["penalties.l1.strength=1e-5"], {}),
    ("schedule-misses-floor", ["schedule.name=inverse_square_root", "schedule.warmup=0.5"], {}),
    ("schedule-misses-floor", ["schedule={name: step, every: 1.0}"], {}),
    ("warmup-longer-than-run", ["schedule.warmup=1000"], {}),
    ("warmup-longer-than-run", ["schedule.warmup=1.0"], {}),
    ("warmup-longer-than-run", ["training.steps=10", "schedule.warmup=500"], {}),
    ("l2-with-adam", [*ADAM, "optimizer.weight_decay=0.01"], {}),
    ("l2-with-adam", [ADAM[0], "optimizer.target=torch.optim.nadam:NAdam", "optimizer.weight_decay=0.01"], {}),
    ("learning-rate-range", ["optimizer.learning_rate=0.03"], {}),
    ("learning-rate-range", ["optimizer.learning_rate=3e-7"], {}),
    ("clipping-off", ["gradients.clip.name=none"], {}),
    ("clipping-off", ["gradients.clip.threshold=100"], {}),
    ("decay-on-norms", ["optimizer.decay.norms=true"], {}),
    ("decay-on-norms", ["optimizer.decay.biases=true", "model.bias=true"], {}),
    ("post-norm-without-warmup", [POST, "schedule.warmup=0"], {}),
    ("post-norm-without-warmup", [POST, "schedule.warmup=9"], {}),
    ("decay-overlaps-warmup", ["schedule={name: wsd, warmup: 0.5, decay: 0.6}"], {}),
    ("decay-overlaps-warmup", ["schedule={name: wsd, decay: 2000}"], {}),
    ("stopping-before-decay", ["evaluation.every=50"], {}),
    ("stopping-before-decay", ["schedule.name=wsd"], {}),
    ("stopping-before-decay", ["schedule.name=linear", "stopping.patience=2"], {}),
    ("patience-never", ["stopping.patience=10"], {}),
    ("rollback-out-of-reach", ["recovery.spikes.name=rollback", "checkpoint={every: 10, keep_latest: 3}"], {}),
    ("rollback-out-of-reach", ["recovery.non_finite=rollback", "checkpoint={every: 20, keep_latest: 2}"], {}),
    ("patience-never", ["evaluation.every=1000"], {}),
    ("evaluation-never", ["evaluation.every=1001"], {}),
    ("evaluation-never", ["evaluation.every=1000"], {}),
    ("saving-never", ["evaluation.every=1000"], {}),
    ("saving-never", ["training.steps=10"], {}),
    ("saving-never", ["checkpoint={every: 5000, keep_best: 0}", "stopping.restore_best=false"], {}),
    *(
        ("decay-overlaps-warmup", [f"schedule={{name: wsd, warmup: {warmup}, decay: 0.3}}"], {})
        for warmup in (0.9, 997)
    ),
    *(
        ("schedule-misses-floor", [f"schedule={{name: {schedule}}}"], {})
        for schedule in (
            "step, factor: 0.9",
            "step, factor: 0.6, every: 0.9",
            "step, factor: 0.9, floor: 0.7, warmup: 0.5",
            "triangular, rise: 0.4",
            "inverse_square_root, timescale: 10000",
            "wsd, floor: 0.8",
            "warm_restarts, period: 0.8",
            "exp_range, floor: 0.7, rise: 0.7",
            "exponential, floor: 0.9",
            "constant, warmup: 0.1",
        )
    ),
    ("smoothing-beside-teacher", [TEACHER, "objective.label_smoothing=0.1"], {}),
    ("over-regularised", ["model.dropout.residual=0.2", "objective.label_smoothing=0.1"], {}),
    ("over-regularised", [*CLASSES, *SMOOTH, "data.augmentation={token_dropout: 0.2, replacement: 0.15}"], {}),
    ("over-regularised", [*CLASSES, *SMOOTH, "data.augmentation.replacement=0.2", "embedding.cutout.rate=0.2"], {}),
    ("over-regularised", [*CLASSES, *SMOOTH, "embedding.mixup.alpha=0.4"], {}),
    ("high-dropout-small-model", ["model.dropout.residual=0.4"], SMALL),
    ("high-dropout-small-model", [CLASSES[0], "model={name: cnn, dropout: {head: 0.5}}", CLASSES[2]], SMALL),
    ("high-dropout-small-model", [CLASSES[0], "model={name: mlp, dropout: {hidden: 0.5}}", CLASSES[2]], SMALL),
    ("epochs-over-data", [], {"tokens_per_epoch": 1_000_000}),
    ("epochs-over-data", [], {"tokens_per_epoch": 1_000_000, "planned_tokens": 4_000_001}),
    ("vocabulary-too-large-for-data", [], {"tokens_per_epoch": 400_000}),
    ("vocabulary-too-large-for-data", [], {"tokens_per_epoch": 400_000, "tokenizer": {"vocabulary_size": 5000}}),
    ("schedule-misses-floor", ["schedule.name=constant"], {}),
    ("schedule-misses-floor", ["schedule={name: wsd, decay: 0}"], {}),
    ("schedule-misses-floor", ["schedule.floor=0.9"], {}),
    ("tokens-per-parameter", [], SMALL),
    ("tokens-per-parameter", [], SMALL | {"planned_tokens": 9_999_999}),
    ("attention-dropout", ["model.dropout.attention=0.1"], {}),
    ("short-head-size", ["model.num_heads=16"], {}),
    ("short-head-size", ["model.hidden_size=328", "model.num_heads=4"], {}),
    ("fp16-without-cuda", ["training.precision.name=fp16"], {}),
    ("fp16-without-cuda", ["training.precision.name=fp16"], {"device": "cpu"}),
    ("narrow-heads-on-cuda", [*GPT2, "training.precision.name=bf16", "training.device=cuda"], {}),
    ("narrow-heads-on-cuda", [*GPT2, "training={device: cuda, precision: {name: auto}}"], {}),
    ("narrow-heads-on-cuda", ["model.num_heads=8", "training.precision.name=fp16", "training.device=cuda"], {}),
    ("sizes-off-tiles", ["model.hidden_size=200", "training.device=cuda"], {}),
    ("sizes-off-tiles", ["model.feed_forward_size=1000", "training.device=cuda"], {}),
    ("sizes-off-tiles", ["data.sequence_length=250", "training.device=cuda"], {}),
    (
        "sizes-off-tiles",
        ["data.tokenizer.vocabulary_size=4097", "objective.fused=off", "training.device=cuda"],
        {},
    ),
    ("linear-scaling-with-adam", ["optimizer.batch_scaling={name: linear, reference_batch: 8}"], {}),
    ("linear-scaling-with-adam", ["optimizer={name: lamb, batch_scaling: {name: linear, reference_batch: 64}}"], {}),
    (
        "learning-rate-range",
        ["optimizer.batch_scaling={name: square_root, reference_batch: 1}", "optimizer.learning_rate=5e-3"],
        {},
    ),
    ("plateau-with-decay", [PLATEAU], {}),
    ("plateau-with-decay", [PLATEAU, "schedule={name: one_cycle, warmup: '30 steps'}"], {}),
    ("plateau-with-decay", [PLATEAU, "schedule.name=triangular"], {}),
    ("stopping-before-reduction", [PLATEAU, "stopping.patience=3"], {}),
    ("stopping-before-reduction", ["control.learning_rate={name: plateau, patience: 9, cooldown: 4}"], {}),
]

TO = "optimizer_switch={at: 0.5, to: "
FIRES += [
    ("l2-with-adam", [TO + "{name: adam, weight_decay: 0.1}}"], {}),
    ("l2-with-adam", [TO + "{name: custom, target: 'torch.optim:Adam', weight_decay: 0.1}}"], {}),
    ("learning-rate-range", [TO + "{name: adamw, learning_rate: 0.5}}"], {}),
    ("learning-rate-range", [TO + "{name: adamw, learning_rate: 3e-7}}"], {}),
    ("decay-on-norms", [TO + "{name: adamw, decay: {norms: true}}}"], {}),
    (
        "linear-scaling-with-adam",
        [TO + "{name: adamw, batch_scaling: {name: linear, reference_batch: 4}}}"],
        {},
    ),
    (
        "over-regularised",
        [
            "optimizer.weight_decay=0.0",
            "model.dropout.residual=0.2",
            "objective.label_smoothing=0.1",
            TO + "{name: adamw, weight_decay: 0.1}}",
        ],
        {},
    ),
]

SILENT: list[tuple[str, Sequence[str], Mapping[str, Any]]] = [
    ("l2-with-adam", ["penalties.l2.strength=0.01", "optimizer={name: sgd, weight_decay: 0}"], {}),
    ("l2-with-adam", ["penalties.l2.strength=0.01", "optimizer={name: custom, target: 'torch.optim:SGD'}"], {}),
    ("decay-beside-penalty", ["penalties.l1.strength=0.01", "optimizer.weight_decay=0"], {}),
    ("l1-in-language-model", [*CLASSES, "penalties.l1.strength=0.01"], {}),
    ("swa-with-decay", ["averaging.name=swa"], {}),
    ("swa-with-decay", ["averaging.name=ema", "schedule.name=linear"], {}),
    ("swa-with-decay", ["averaging={name: swa, start: 3 epochs}", "schedule.name=linear"], {}),
    ("swa-with-decay", ["averaging.name=swa", "schedule={name: warm_restarts, floor: 0.2}"], {}),
    ("warmup-longer-than-run", ["schedule.warmup=999"], {}),
    ("warmup-longer-than-run", ["training.steps=1", "schedule.warmup=1"], {}),
    ("l2-with-adam", ADAM, {}),
    ("l2-with-adam", [ADAM[0], "optimizer.target=torch.optim:AdamW", "optimizer.weight_decay=0.01"], {}),
    ("l2-with-adam", [ADAM[0], "optimizer.target=torch.optim:SGD", "optimizer.weight_decay=0.01"], {}),
    ("l2-with-adam", [ADAM[0], "optimizer.target=mine:Adam", "optimizer.weight_decay=0.01"], {}),
    (
        "l2-with-adam",
        [*ADAM, "optimizer.weight_decay=0.01", "optimizer.arguments={decoupled_weight_decay: true}"],
        {},
    ),
    ("learning-rate-range", ["optimizer.learning_rate=1e-2"], {}),
    ("learning-rate-range", [*ADAM, "optimizer.learning_rate=1.0"], {}),
    ("clipping-off", ["gradients.clip.threshold=10"], {}),
    ("decay-on-norms", ["optimizer.decay.embeddings=true"], {}),
    ("post-norm-without-warmup", [POST], {}),
    ("post-norm-without-warmup", ["schedule.warmup=0"], {}),
    ("decay-overlaps-warmup", ["schedule={name: wsd, warmup: 0.5, decay: 0.5}"], {}),
    ("stopping-before-decay", ["schedule.name=wsd", "stopping.name=none"], {}),
    ("warmup-longer-than-run", ["schedule.warmup='2 epochs'"], {}),
    ("schedule-misses-floor", ["schedule.name=warm_restarts"], {}),
    ("schedule-misses-floor", ["optimizer.name=schedule_free_adamw", "schedule.name=constant"], {}),
    ("schedule-free-with-decay", ["optimizer.name=schedule_free_adamw", "schedule.name=constant"], {}),
    ("clipping-off", ["gradients.clip.name=quantile"], {}),
    ("alert-on-unknown", ["alerts.rules={a: {when: train/loss > 3}, b: {when: finding overfitting}}"], {}),
    ("l2-with-adam", ["optimizer.name=adam"], {}),
    ("stopping-before-decay", ["schedule.name=constant"], {}),
    ("stopping-before-decay", ["schedule.name=wsd", "stopping.patience=8"], {}),
    ("patience-never", ["stopping.patience=9"], {}),
    ("rollback-out-of-reach", ["recovery.spikes.name=rollback", "checkpoint={every: 10, keep_latest: 4}"], {}),
    ("rollback-out-of-reach", ["checkpoint={every: 1, keep_latest: 1}"], {}),
    ("patience-never", ["evaluation.every=1000", "stopping.name=none"], {}),
    ("evaluation-never", ["evaluation.every=500"], {}),
    ("saving-never", ["checkpoint.every=5000"], {}),
    ("saving-never", ["checkpoint.every=500", "evaluation.every=1000"], {}),
    ("saving-never", ["training.steps=1"], {}),
    ("evaluation-never", ["evaluation.every=1", "training.steps=1"], {}),
    ("over-regularised", ["model.dropout.residual=0.3"], {}),
    ("over-regularised", [*CLASSES, *SMOOTH, "data.augmentation={token_dropout: 0.1, replacement: 0.15}"], {}),
    ("over-regularised", [*CLASSES, *SMOOTH[:2], "data.augmentation={token_dropout: 0.4, replacement: 0.3}"], {}),
    ("high-dropout-small-model", [CLASSES[0], "model={name: cnn, dropout: {head: 0.3}}", CLASSES[2]], SMALL),
    ("high-dropout-small-model", [CLASSES[0], "model={name: cnn, dropout: {head: 0.5}}", CLASSES[2]], {}),
    ("smoothing-beside-teacher", [TEACHER], {}),
    ("smoothing-beside-teacher", ["objective.label_smoothing=0.1"], {}),
    ("high-dropout-small-model", ["model.dropout.residual=0.4"], {}),
    ("high-dropout-small-model", ["model.dropout.residual=0.4"], {"parameters": {"total": 5_000_000}}),
    ("high-dropout-small-model", ["model.dropout.residual=0.3"], SMALL),
    ("epochs-over-data", [], {}),
    ("epochs-over-data", [], {"tokens_per_epoch": 1_000_000, "planned_tokens": 4_000_000}),
    ("vocabulary-too-large-for-data", [], DATA),
    ("vocabulary-too-large-for-data", ["data.tokenizer.name=bytes"], {"tokens_per_epoch": 30_000}),
    ("vocabulary-too-large-for-data", CLASSES, {"tokens_per_epoch": 30_000}),
    ("schedule-misses-floor", ["schedule.name=wsd"], {}),
    ("tokens-per-parameter", [], {}),
    ("tokens-per-parameter", [], SMALL | {"planned_tokens": 10_000_000}),
    ("attention-dropout", ["model.dropout.residual=0.1"], {}),
    ("short-head-size", ["model.num_heads=8"], {}),
    ("fp16-without-cuda", ["training.precision.name=fp16", "training.device=cuda"], {}),
    ("fp16-without-cuda", ["training.precision.name=fp16"], {"device": "cuda:0"}),
    ("fp16-without-cuda", ["training.precision.name=bf16"], {}),
    ("narrow-heads-on-cuda", [*GPT2, "training.precision.name=bf16"], {}),
    ("narrow-heads-on-cuda", [*GPT2, "training.precision.name=fp32", "training.device=cuda"], {}),
    ("narrow-heads-on-cuda", [*GPT2, "training.precision.name=bf16"], {"device": "cpu"}),
    ("narrow-heads-on-cuda", [GPT2[0], "model.num_heads=6", "training.precision.name=bf16"], {"device": "cuda"}),
    ("narrow-heads-on-cuda", ["model.hidden_size=320", "training.precision.name=bf16"], {"device": "cuda"}),
    ("sizes-off-tiles", ["model.hidden_size=200"], {}),
    ("sizes-off-tiles", ["model.hidden_size=320", "data.sequence_length=192"], {"device": "cuda"}),
    ("sizes-off-tiles", ["data.tokenizer.vocabulary_size=4097"], {"device": "cuda"}),
    ("sizes-off-tiles", ["data.tokenizer.vocabulary_size=4104", "objective.fused=off"], {"device": "cuda"}),
    ("linear-scaling-with-adam", ["optimizer.batch_scaling={name: linear, reference_batch: 12}"], {}),
    ("linear-scaling-with-adam", ["optimizer.batch_scaling={name: square_root, reference_batch: 1}"], {}),
    ("linear-scaling-with-adam", ["optimizer={name: sgd, batch_scaling: {name: linear, reference_batch: 1}}"], {}),
    ("plateau-with-decay", [PLATEAU, "schedule={name: cosine, floor: 0.5}"], {}),
    ("plateau-with-decay", ["control.learning_rate.name=unsteadiness"], {}),
    ("schedule-misses-floor", [PLATEAU, "schedule.name=constant"], {}),
    ("stopping-before-reduction", [PLATEAU, "stopping.patience=4"], {}),
    ("stopping-before-reduction", [PLATEAU, "stopping.name=none"], {}),
    ("stopping-before-reduction", [PLATEAU, "stopping={name: patience, patience: 1, metric: validation/accuracy}"], {}),
]

SORT = ["task.name=classification", "model.name=encoder", "data.source={name: jsonl, path: x.jsonl}"]
MIXED = ["data.source={name: mixture, sources: {a: {name: text, path: a}, b: {name: text, path: b}}"]
WEIGHTS = [MIXED[0] + ", weights: {a: 1.0, b: 9.0}}"]


def documents(exact: int = 0, near: int = 0, side: str = "leaked", **more: Any) -> dict[str, Any]:
    """Of 1,000 training and 100 validation documents so many repeat another."""
    counts = {"training": 0, "validation": 0, "leaking": 0, "leaked": 0}
    duplicates = {"exact": counts | {side: exact}, "near": counts | {side: near}}
    return {"training": {"documents": 1000}, "validation": {"documents": 100}, "duplicates": duplicates} | more


def balance(most: float, least: float, never: Sequence[str] = ()) -> dict[str, Any]:
    told = {"most": "a", "most_share": most, "least": "b", "least_share": least, "never": list(never)}
    return {"balance": told}


def mixture(repeats: float, epochs: float) -> dict[str, Any]:
    return {"mixture": {"a": {"repeats": 0.5}, "b": {"repeats": repeats}}, "epochs": epochs}


FIRES += [
    ("validation-in-training", [], documents(exact=1)),
    ("validation-in-training", [], documents(near=3)),
    ("validation-in-training", ["data.duplicates.exact=drop"], documents(near=1)),
    ("sorted-data", [*SORT, "data.shuffle=false"], {"order": {"found": 0.99, "expected": 0.5}}),
    ("contradicting-targets", SORT, documents(contradictions=10)),
    ("imbalanced-classes", SORT, balance(0.95, 0.05)),
    ("imbalanced-classes", [*SORT, "task.class_weights=balanced"], balance(0.9, 0.0, ["c"])),
    ("duplicated-data", [], documents(exact=60, near=40, side="training")),
    ("duplicated-data", [], documents(exact=100, side="training")),
    ("duplicated-data", [], documents(near=100, side="leaking")),
    ("repeated-source", WEIGHTS, mixture(3.0, 1.5)),
    ("repeated-source", [MIXED[0] + ", temperature: 3.0}"], mixture(3.0, 1.5)),
]
SILENT += [
    ("validation-in-training", [], documents(side="training", exact=900)),
    ("validation-in-training", ["data.duplicates.near=drop"], documents(exact=5, near=5)),
    ("validation-in-training", [], documents() | {"validation": {"documents": 1000}}),
    ("sorted-data", SORT, {"order": {"found": 0.99, "expected": 0.5}}),
    ("sorted-data", [*SORT, "data.shuffle=false"], {"order": {"found": 0.55, "expected": 0.5}}),
    ("contradicting-targets", SORT, documents(contradictions=9)),
    ("imbalanced-classes", SORT, balance(0.9, 0.1)),
    ("imbalanced-classes", [*SORT, "task.class_weights=balanced"], balance(0.99, 0.01)),
    ("imbalanced-classes", [*SORT, "objective.name=focal"], balance(0.99, 0.01)),
    ("duplicated-data", [], documents(exact=99, side="training")),
    ("duplicated-data", ["data.duplicates.exact=drop"], documents(exact=500, near=10, side="training")),
    ("repeated-source", WEIGHTS, mixture(2.0, 1.9)),
    ("repeated-source", [MIXED[0] + "}"], mixture(1.0, 9.0)),
]

MLP = ["task.name=classification", "model.name=mlp", "data.source={name: jsonl, path: x.jsonl}"]
CNN = [MLP[0], "model.name=cnn", MLP[2]]
EMA = "averaging={name: ema, batch_norm_batches: 10}"
OUTSIDE = ["model={name: custom, target: 'a:b'}"]
NORMS = {"batch_norm": {"layers": 2, "beside_attention": False}}
BESIDE = {"batch_norm": {"layers": 2, "beside_attention": True}}
TWICE = {"first_batch": {"normalized_twice": ["body.1"]}}

FIRES += [
    ("batch-norm-small-batch", MLP, {}),
    ("batch-norm-small-batch", [*CNN, "training={batch_size: 64, micro_batch_size: 16}"], {}),
    ("batch-norm-with-accumulation", [*MLP, "training={micro_batch_size: 32, accumulation: 2}"], {}),
    ("batch-norm-with-accumulation", [*CNN, "training={batch_size: 64, micro_batch_size: 32}"], {}),
    ("batch-norm-with-dropout", [*MLP, "model.dropout.hidden=0.1"], {}),
    ("batch-norm-with-dropout", [*CNN, "model.dropout.embedding=0.1"], {}),
    ("batch-norm-few-for-average", [*MLP, "training.micro_batch_size=32", EMA], {}),
    ("batch-norm-few-for-average", [*MLP, "model.batch_norm.momentum=0.001", "averaging.name=ema"], {}),
    ("batch-norm-in-sequence-model", OUTSIDE, NORMS),
    ("batch-norm-in-sequence-model", OUTSIDE, BESIDE),
    ("batch-norm-beside-layer-norm", OUTSIDE, TWICE),
    ("positions-beyond-training", ["model.max_positions=512"], {}),
    ("positions-beyond-training", ["model.max_positions=512", "model.positions.name=learned"], {}),
]
SILENT += [
    ("batch-norm-small-batch", [*MLP, "training.micro_batch_size=32"], {}),
    ("batch-norm-small-batch", [*MLP, "training={batch_size: 64, micro_batch_size: auto}"], {}),
    ("batch-norm-small-batch", [*MLP, "model.batch_norm=null"], {}),
    ("batch-norm-small-batch", [], {}),
    ("batch-norm-with-accumulation", MLP, {}),
    ("batch-norm-with-accumulation", ["training.accumulation=4"], {}),
    ("batch-norm-with-dropout", [*MLP, "model.dropout.hidden=0.1", "model.num_layers=1"], {}),
    ("batch-norm-with-dropout", [*CNN, "model.dropout.head=0.5"], {}),
    ("batch-norm-with-dropout", [*MLP, "model.dropout.hidden=0.1", "model.batch_norm=null"], {}),
    ("batch-norm-few-for-average", [*MLP, "averaging.name=ema"], {}),
    ("batch-norm-few-for-average", [EMA], {}),
    ("batch-norm-in-sequence-model", OUTSIDE, {}),
    ("batch-norm-beside-layer-norm", OUTSIDE, BESIDE),
    ("batch-norm-in-sequence-model", MLP, NORMS),
    ("positions-beyond-training", ["model.max_positions=256"], {}),
    ("positions-beyond-training", MLP, {}),
]


def findings(overrides: Sequence[str], facts: Mapping[str, Any]) -> dict[str, LintFinding]:
    return {found.code: found for found in lint(load_config(None, overrides, environment={}), facts)}


@pytest.mark.parametrize("code, overrides, facts", FIRES)
def test_fires(code: str, overrides: Sequence[str], facts: Mapping[str, Any]) -> None:
    finding = findings(overrides, facts)[code]
    assert finding.key in keys()
    assert finding.severity in ("info", "warning", "refusal")
    if finding.fix is not None and not {"planned_tokens", "tokenizer"} & set(facts):
        alone = ["optimizer_switch.at=0.5"] if finding.fix.startswith("optimizer_switch") else []
        given = alone if code == "l2-with-adam" else overrides  # another class may not take the arguments
        assert code not in findings([*given, finding.fix], facts)
    text = str(finding)
    assert text.startswith(f"{finding.severity} {code}: {finding.key}: ")
    assert "\n" not in text
    assert all(part for part in (finding.message, finding.reason, finding.source))


@pytest.mark.parametrize("code, overrides, facts", SILENT)
def test_stays_silent(code: str, overrides: Sequence[str], facts: Mapping[str, Any]) -> None:
    assert code not in findings(overrides, facts)


def test_of_a_switch_it_is_told_which_optimizer_is_meant() -> None:
    found = findings([TO + "{name: adam, weight_decay: 0.1, learning_rate: 0.5}}"], {})
    assert found["l2-with-adam"].key == "optimizer_switch.to.weight_decay"
    assert found["l2-with-adam"].fix == "optimizer_switch.to.name=adamw"
    assert found["learning-rate-range"].key == "optimizer_switch.to.learning_rate"
    both = lint(
        load_config(None, ["optimizer.learning_rate=0.5", TO + "{name: adamw, learning_rate: 0.4}}"], environment={})
    )
    assert [one.key for one in both if one.code == "learning-rate-range"] == [
        "optimizer.learning_rate",
        "optimizer_switch.to.learning_rate",
    ]


def test_every_rule_fires_and_stays_silent_somewhere() -> None:
    assert {code for code, _, _ in FIRES} == {code for code, _, _ in SILENT} == set(RULES)


def test_the_default_has_no_remarks() -> None:
    assert lint(Config()) == []


@pytest.mark.parametrize("name", list_presets())
def test_presets_are_not_refused(name: str) -> None:
    refuse(lint(load_config(name, environment={})), ())


def test_custom_model_is_no_obstacle() -> None:
    assert "clipping-off" in findings(
        ["model.name=custom", "model.target=a:b", "gradients.clip.name=none"], SMALL | DATA
    )


def test_refusal_and_how_to_lift_it() -> None:
    overrides = ["schedule.warmup=5000", *ADAM, "optimizer.weight_decay=0.1"]
    found = lint(load_config(None, overrides, environment={}))
    with pytest.raises(ConfigError) as caught:
        refuse(found, ())
    message = str(caught.value)
    assert caught.value.exit_code == 2
    assert "schedule.warmup: a warm-up of 5000 steps in a run of 1000 steps" in message
    assert "lint.allow=[warmup-longer-than-run, l2-with-adam]" in message
    with pytest.raises(ConfigError, match="l2-with-adam"):
        refuse(found, ["warmup-longer-than-run"])
    refuse(found, ["warmup-longer-than-run", "l2-with-adam"])


def test_the_heads_of_gpt2_are_told_by_what_was_measured() -> None:
    found = findings([*GPT2, "training.precision.name=bf16"], {"device": "cuda"})["narrow-heads-on-cuda"]
    assert "12 heads of 64: 6 of 128 run attention 1.23× faster on an H100" in found.message
    assert found.fix == "model.num_heads=6"
    rates = DEVICES["h100"].attention
    assert rates[128] / rates[64] == pytest.approx(0.725 / 0.589, rel=0.01)


def test_batch_norm_of_a_model_from_outside_is_told_by_a_fact() -> None:
    overrides = [*OUTSIDE, "training={micro_batch_size: 8, accumulation: 2}", EMA]
    found = findings(overrides, NORMS)
    assert {"batch-norm-small-batch", "batch-norm-with-accumulation", "batch-norm-few-for-average"} <= set(found)
    assert "8 sequences" in found["batch-norm-small-batch"].message
    # 8 texts, and (2 - 0.1) / 0.1 micro-batches that count in a mean with momentum 0.1.
    assert found["batch-norm-few-for-average"].fix == "averaging.batch_norm_batches=19"
    assert found["batch-norm-in-sequence-model"].severity == "warning"
    assert "the positions that follow" in found["batch-norm-in-sequence-model"].reason
    beside = findings(overrides, BESIDE)["batch-norm-in-sequence-model"]
    assert beside.severity == "refusal"
    with pytest.raises(ConfigError, match="beside attention"):
        refuse([beside], ())
    refuse([beside], ["batch-norm-in-sequence-model"])


@pytest.mark.parametrize(
    "told, length, fires",
    [
        ({"n_positions": 128}, 256, True),
        ({"max_position_embeddings": 256}, 256, False),
        ({"max_position_embeddings": 128, "rope_scaling": {"type": "linear", "factor": 2.0}}, 256, False),
        ({"max_position_embeddings": 128, "rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, 256, False),
        ({"max_position_embeddings": 128, "rope_parameters": {"full": {"rope_type": "yarn"}}}, 256, False),
        ({"n_positions": 128, "rope_parameters": {"full": {"rope_type": "default"}}, "alibi": False}, 256, True),
        ({"n_positions": 128, "relative_attention_num_buckets": 32}, 256, False),  # T5
        ({"max_position_embeddings": 128, "alibi": True}, 256, False),  # Falcon of 1 billion
        ({"n_positions": 128, "relative_attention": True, "position_biased_input": False}, 256, False),  # DeBERTa
        ({}, 256, False),
        (None, 256, False),
    ],
)
def test_positions_that_a_pretrained_model_was_not_trained_for(
    tmp_path: Path, told: dict[str, Any] | None, length: int, fires: bool
) -> None:
    (tmp_path / "config.json").write_text("[1" if told is None else json.dumps(told))
    model = {"name": "hugging_face", "path": str(tmp_path)}
    config = Config.model_validate({"model": model, "data": {"sequence_length": length}})
    found = [one for one in lint(config) if one.code == "positions-beyond-training"]
    assert [one.fix for one in found] == (["data.sequence_length=128"] if fires else [])
    for change in ({"rope_scaling": {"type": "linear"}}, {"rope_parameters": {"rope_type": "linear", "factor": 2.0}}):
        stretched = config.model_copy(update={"model": config.model.model_copy(update={"config": change})})
        assert not [one for one in lint(stretched) if one.code == "positions-beyond-training"]


def test_unknown_code() -> None:
    with pytest.raises(ConfigError, match="did you mean 'clipping-off'"):
        lint(load_config(None, ["lint.allow=[cliping-off]"], environment={}))


def test_what_needs_the_data_is_known() -> None:
    """The rules that speak only when facts are given, in all that is known to fire; and spans in epochs."""
    by_facts = {code for code, overrides, facts in FIRES if facts and code not in findings(overrides, {})}
    assert by_facts - {"warmup-longer-than-run"} == set(NEED_DATA)  # that one, of a warm-up in epochs
    plain = load_config(None, [], environment={})
    assert left_out(plain) == [code for code in RULES if code in NEED_DATA]
    epochs = left_out(load_config(None, ["schedule.warmup='2 epochs'"], environment={}))
    assert "warmup-longer-than-run" in epochs


def test_every_rule_has_its_file_and_its_page() -> None:
    files = {module.name for module in pkgutil.iter_modules(room.__path__)} - {"finding"}
    assert {code.replace("-", "_") for code in RULES} == files
    for code, rule in RULES.items():
        page = importlib.import_module(rule.__module__).__doc__ or ""
        assert page.startswith(f"{code}: ")
        for part in ("Looks for:", "Why:", "Evidence:", "Remedy:", "False alarms:", "Source:"):
            assert part in page, (code, part)


@given(
    steps=st.integers(1, 5000),
    every=st.integers(1, 5000),
    patience=st.integers(1, 50),
    schedule=st.sampled_from(sorted({*SCHEDULES} - {"triangular", "exp_range"})),
    warmup=st.floats(0, 1) | st.integers(0, 6000),
)
def test_any_budget_is_judged(steps: int, every: int, patience: int, schedule: str, warmup: float) -> None:
    config = Config.model_validate(
        {
            "training": {"steps": steps},
            "evaluation": {"every": every},
            "stopping": {"name": "patience", "patience": patience},
            "schedule": {"name": schedule, "warmup": warmup},
        }
    )
    for finding in lint(config, {"tokens_per_epoch": 1, "planned_tokens": 0, **SMALL}):
        assert finding.code in RULES


def test_a_pretrained_model_is_not_measured_by_the_text_that_it_is_tuned_on() -> None:
    facts = {"parameters": {"total": 10**8}, "tokens_per_epoch": 10**5, "tokenizer": {"vocabulary_size": 50_000}}
    codes = {"tokens-per-parameter", "vocabulary-too-large-for-data"}
    for model, found in (({"config": {"model_type": "gpt2"}}, codes), ({"path": "folder"}, set())):
        config = load_config({"model": {"name": "hugging_face", **model}}, environment={})
        assert codes & {finding.code for finding in lint(config, facts)} == found


@pytest.mark.parametrize("per_epoch", [1_000, 100_000, 1_000_000, 5_000_000, 100_000_000])
def test_no_rule_asks_for_more_steps_where_another_asks_for_fewer(per_epoch: int) -> None:
    facts = SMALL | {"tokens_per_epoch": per_epoch, "planned_tokens": 9_999_999}
    found = findings([], facts)
    few, often = found.get("tokens-per-parameter"), found.get("epochs-over-data")
    assert few is not None
    assert (often is not None) == (4 * per_epoch < 9_999_999)
    if 4 * per_epoch < 20_000_000:
        assert few.fix is None
        assert "more text helps, or a smaller model" in few.reason
    else:
        assert often is None
        assert few.fix is not None


def test_a_question_ends_with_its_own_sign() -> None:
    config = load_config(None, environment={}, overrides=["alerts.rules={a: {when: train/los > 3}}"])
    (told,) = [str(finding) for finding in lint(config) if finding.code == "alert-on-unknown"]
    assert "did you mean 'train/loss'? the rule" in told


@pytest.mark.parametrize("steps", [5, 60])
def test_a_preset_that_is_tried_for_a_few_steps_is_not_warned_about(steps: int) -> None:
    """Its evaluations and checkpoints are for its own length; of a longer run that lacks them it is said aloud."""
    for preset in list_presets():
        found = lint(load_config(preset, [f"training.steps={steps}"], environment={}))
        assert {one.code for one in found if one.severity != "info"} == set(), preset
    longer = lint(load_config("gpt-10m", ["training.steps=120"], environment={}))
    assert {one.code for one in longer if one.severity == "warning"} == {"evaluation-never", "saving-never"}
