"""What is seen inside a model on CUDA, where parts of it are one kernel, in 16 bits, and its step is captured."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trimtab import Trainer, load_config
from trimtab.config import DecoderConfig
from trimtab.events import ExaminationEnded, StepsEnded
from trimtab.model import build_model, fuses_activation, packs_attention
from trimtab.monitor.probes.activations import ActivationExamination
from trimtab.monitor.probes.attention import AttentionExamination
from trimtab.monitor.probes.examiner import Examiner
from trimtab.monitor.probes.predictions import PredictionExamination
from trimtab.objective import CausalLanguageModelingTask, CrossEntropy
from trimtab.runs import read_record
from trimtab.runs.record import event_from_json
from trimtab.signals import Batch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

SHAPE = {
    "num_layers": 2,
    "hidden_size": 128,
    "num_heads": 2,
    "positions": {"name": "learned"},
    "activation": "gelu_tanh",
    "bias": True,
}


def examined(device: str, dtype: torch.dtype) -> ExaminationEnded:
    model = build_model(DecoderConfig.model_validate(SHAPE), vocabulary_size=64, sequence_length=64, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    model.to(device, dtype)
    packs_attention(model, torch.device(device))
    fuses_activation(model, torch.device(device), dtype)
    tokens = torch.randint(0, 64, (4, 64), generator=torch.Generator().manual_seed(0))
    zeros = torch.zeros(4, 64, dtype=torch.int32)
    zeros[1, 40:] = -1
    batch = Batch(tokens, tokens.roll(-1, 1), zeros, zeros, torch.arange(4), 256).to(torch.device(device))
    examiner = Examiner(
        [ActivationExamination(0), AttentionExamination(0), PredictionExamination(0)],
        model=model,
        task=CausalLanguageModelingTask(CrossEntropy().to(device)),
        batch=batch,
        weights=lambda: {name: one.detach().float() for name, one in model.named_parameters()},
        autocast=nullcontext,
        scale=lambda: None,
        is_due=lambda step: True,
        batch_of=lambda samples: batch,
        text=str,
        seed=0,
    )
    (event,) = examiner(1)
    assert isinstance(event, ExaminationEnded)
    return event


@pytest.mark.parametrize("deterministic", [False, True])
def test_in_16_bits_it_is_what_the_processor_says(deterministic: bool) -> None:
    expected = examined("cpu", torch.float32)
    torch.use_deterministic_algorithms(deterministic)
    try:
        found = examined("cuda", torch.bfloat16)
    finally:
        torch.use_deterministic_algorithms(False)
    assert found.layers.keys() == expected.layers.keys()
    assert found.histograms.keys() == expected.histograms.keys()
    for name, value in expected.layers.items():
        assert found.layers[name] == pytest.approx(value, rel=0.05, abs=0.02), name
    for name, value in expected.metrics.items():
        assert found.metrics[name] == pytest.approx(value, rel=0.05, abs=0.05), name


SMALL = (
    "training.device=cuda",
    "training.steps=8",
    "evaluation.every=8",
    "data.tokenizer.name=bytes",
    "model.num_layers=2",
    "model.hidden_size=64",
    "model.num_heads=2",
    "data.sequence_length=64",
    "evaluation.gap_tokens=0",
    "evaluation.max_tokens=500",
    "evaluation.yardsticks=false",
    "evaluation.samples.max_tokens=0",
    "training.micro_batch_size=4",
)


def trained(run: Path, *settings: str) -> tuple[dict[str, Tensor], dict[str, Any], list[float]]:
    trainer = Trainer(load_config("gpt-1m", [*SMALL, *settings]), run=run)
    trainer.fit()
    assert trainer.model is not None
    assert trainer.run is not None
    plan = trainer.run.read_json(trainer.run.plan)
    record = trainer.run.record.read_text()
    assert "examination_failed" not in record
    weights = {name: one.clone() for name, one in trainer.model.state_dict().items()}
    return weights, plan, [line.count('"probe/confidence"') for line in record.splitlines()]


@pytest.mark.parametrize("execution", ["training.compile=off", "training.compile=on"])
def test_weights_of_a_captured_run_are_the_same_with_all_examinations(tmp_path: Path, execution: str) -> None:
    plain, plan, none = trained(tmp_path / "plain", execution)
    looked, _, found = trained(
        tmp_path / "looked",
        execution,
        "logging.examine.every=2",
        "logging.examine.which=all",
        "logging.capture.layers=[blocks.*]",
    )
    assert (sum(none), sum(found)) == (0, 4)
    assert plan["capture"]["chosen"]
    assert all(torch.equal(plain[name], looked[name]) for name in plain)


def test_the_cosine_of_gradients_is_captured_and_changes_nothing(tmp_path: Path) -> None:
    def cosines(name: str) -> list[float]:
        events = [event_from_json(line) for line in read_record(tmp_path / name / "record.jsonl")]
        told = [event.values for event in events if isinstance(event, StepsEnded)]  # a window may take several lines
        return [values[name] for values in told for name in ("grad_cosine", "grad_cosine_error") if name in values]

    settings = ("training.compile=off", "training.steps=40", "training.deterministic=true")
    seen = "logging.grad_cosine=true"
    with_it, plan, _ = trained(tmp_path / "captured", *settings, seen)
    without, _, _ = trained(tmp_path / "without", *settings)
    trained(tmp_path / "plain", *settings, seen, "training.capture=off")
    assert plan["capture"]["chosen"]
    assert all(torch.equal(with_it[name], without[name]) for name in without)
    found = cosines("captured")
    assert len(found) >= 6
    assert found == pytest.approx(cosines("plain"), abs=5e-3)
    assert any(abs(value) > 0.01 for value in found)
