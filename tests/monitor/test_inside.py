"""What examinations say of layers, heads and predictions, against texts looked at one by one and without padding."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trimtab.config import EncoderConfig
from trimtab.events import ExaminationEnded
from trimtab.model import EncoderDecoder, Translator, build_model, evaluating, wrap_model
from trimtab.model.activation_functions import activations_read
from trimtab.model.attention_maps import attention_read
from trimtab.model.recompute import Recompute, set_recompute
from trimtab.model.structure import streams_read
from trimtab.monitor.probes.activations import FLAT, ActivationExamination
from trimtab.monitor.probes.attention import AttentionExamination
from trimtab.monitor.probes.examiner import Examiner
from trimtab.monitor.probes.positions import written
from trimtab.monitor.probes.predictions import PredictionExamination
from trimtab.objective import ClassificationTask, CrossEntropy, Regression, RegressionTask, SequenceToSequenceTask
from trimtab.signals import IGNORED, Batch, Outputs, SpecialTokens, Task

LENGTHS = (5, 9, 2)
NAMES = (
    "activation_mean",
    "probe_activation_rms",
    "activation_kurtosis",
    "residual_growth",
    "dead_fraction",
    "saturated_fraction",
)


def encoder(activation: str = "gelu", outputs: int = 3) -> nn.Module:
    config = {"name": "encoder", "num_layers": 2, "hidden_size": 16, "num_heads": 2, "activation": activation}
    model = build_model(
        EncoderConfig.model_validate(config),
        vocabulary_size=23,
        sequence_length=16,
        outputs=Outputs(outputs, pooled=True, task="classification"),
        seed=0,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model


def padded() -> Batch:
    """Three texts of these lengths, in nine positions; what stands on padding must not count."""
    generator = torch.Generator().manual_seed(0)
    tokens_BT = torch.randint(1, 23, (3, 9), generator=generator)
    places_T = torch.arange(9)
    real_BT = places_T < torch.tensor(LENGTHS)[:, None]
    documents_BT = torch.where(real_BT, torch.arange(3)[:, None], -1).int()
    return Batch(
        tokens_BT, torch.tensor([0, 2, 1]), documents_BT, places_T.expand(3, 9).int(), torch.arange(3), count=3
    )


def examined(model: nn.Module, task: Task, batch: Batch, *examinations: Any) -> ExaminationEnded:
    examiner = Examiner(
        examinations,
        model=model,
        task=task,
        batch=batch,
        weights=lambda: {name: one.detach() for name, one in model.named_parameters()},
        autocast=nullcontext,
        scale=lambda: None,
        is_due=lambda step: True,
        batch_of=lambda samples: batch,
        text=str,
        seed=0,
    )
    (event,) = examiner(7)
    assert isinstance(event, ExaminationEnded)
    return event


def moments(values: NDArray[Any]) -> tuple[float, float, float]:
    x = values.astype(np.float64).ravel()
    centred = x - x.mean()
    return x.mean(), np.sqrt((x**2).mean()), (centred**4).mean() / (centred**2).mean() ** 2


@pytest.mark.parametrize("activation", ["gelu", "relu_squared"])
def test_layers_of_texts_without_their_padding(activation: str) -> None:
    model, batch = encoder(activation).train(), padded()
    event = examined(model, ClassificationTask(CrossEntropy(), 3, "classification"), batch, ActivationExamination(0))
    assert model.training
    outputs: dict[str, list[NDArray[Any]]] = {}
    inputs: dict[str, list[NDArray[Any]]] = {}
    arguments: dict[str, list[Tensor]] = {}

    def stream(name: str, before: Tensor, after: Tensor) -> None:
        inputs.setdefault(name, []).append(before[0].numpy())
        outputs.setdefault(name, []).append(after[0].numpy())

    for row, length in enumerate(LENGTHS):
        with (
            evaluating(model),
            streams_read(model, stream),
            activations_read(model, lambda name, x, *_: arguments.setdefault(name, []).append(x[0].double())),
        ):
            model(batch.tokens_BT[row : row + 1, :length])
    for name in ("blocks.0", "blocks.1"):
        out, into = np.concatenate(outputs[name]), np.concatenate(inputs[name])
        mean, rms, kurtosis = moments(out)
        x = torch.cat(arguments[name])
        said = x.relu().square() if activation == "relu_squared" else torch.nn.functional.gelu(x)
        normal = torch.distributions.Normal(0.0, 1.0)
        slope = 2 * x.relu() if activation == "relu_squared" else normal.cdf(x) + x * normal.log_prob(x).exp()
        near = 0.0 if activation == "relu_squared" else FLAT
        expected = {
            "activation_mean": mean,
            "probe_activation_rms": rms,
            "activation_kurtosis": kurtosis,
            "residual_growth": rms / moments(into)[1],
            "dead_fraction": float(
                ((said.abs().amax(0) <= near) & ((slope.abs().amax(0) < FLAT) | (near == 0))).double().mean()
            ),
            "saturated_fraction": float((slope.abs() < FLAT).double().mean()),
        }
        found = {key: event.layers[f"layer/{name}/{key}"] for key in expected}
        assert found == pytest.approx(expected, rel=1e-4)
        assert 0 < found["saturated_fraction"] < 1
        histogram = event.histograms[f"layer/{name}/activation"]
        assert (histogram.low, histogram.high) == (out.min(), out.max())
        assert sum(histogram.counts) == out.size == 16 * sum(LENGTHS)
    growth = moments(np.concatenate(outputs["blocks.1"]))[1] / moments(np.concatenate(inputs["blocks.0"]))[1]
    assert event.metrics["probe/residual_growth"] == pytest.approx(growth, rel=1e-4)
    assert event.metrics["probe/activation_kurtosis"] == pytest.approx(
        max(event.layers[f"layer/blocks.{index}/activation_kurtosis"] for index in (0, 1))
    )


@pytest.mark.parametrize("how", ["selective", "full"])
def test_what_is_computed_again_in_backward_is_not_read_again(how: Recompute) -> None:
    found = []
    asked: tuple[Recompute, ...] = ("none", how)
    for recompute in asked:
        model = encoder()
        set_recompute(model, recompute)
        task = ClassificationTask(CrossEntropy(), 3, "classification")
        event = examined(model, task, padded(), ActivationExamination(0), AttentionExamination(0))
        found.append((dict(event.metrics), dict(event.layers), event.histograms))
    assert len(found[0][1]) > 20
    assert found[0] == found[1]


def test_heads_in_texts_without_their_padding() -> None:
    model, batch = encoder(), padded()
    event = examined(model, ClassificationTask(CrossEntropy(), 3, "classification"), batch, AttentionExamination(0))
    weights: dict[str, list[Tensor]] = {}
    largest: dict[str, list[Tensor]] = {}
    for row, length in enumerate(LENGTHS):

        def keep(call: Any) -> None:
            weights.setdefault(call.name, []).append(call.weights(0).double())
            largest.setdefault(call.name, []).append(call.logits(0)[0].amax((1, 2)))

        with evaluating(model), attention_read(model, keep):
            model(batch.tokens_BT[row : row + 1, :length])
    for name, texts in weights.items():
        entropies = [-(one * one.log()).sum(-1) for one in texts]
        expected = {
            "attention_entropy": torch.cat(entropies, 1).mean(1),
            "attention_relative_entropy": torch.cat(
                [one / np.log(length) for one, length in zip(entropies, LENGTHS, strict=True)], 1
            ).mean(1),
            "attention_on_first": torch.cat([one[:, :, 0] for one in texts], 1).mean(1),
            "largest_attention_logit": torch.stack(largest[name]).amax(0),
        }
        for key, values_H in expected.items():
            found = [event.layers[f"layer/{name}.head_{head}/{key}"] for head in range(2)]
            assert found == pytest.approx(values_H.tolist(), rel=1e-4), key
    assert len(event.layers) == 2 * 2 * 4
    every = [value for name, value in event.layers.items() if name.endswith("largest_attention_logit")]
    assert event.metrics["probe/largest_attention_logit"] == pytest.approx(max(every))


def test_predictions_and_none_of_a_regression() -> None:
    model, batch = encoder(), padded()
    event = examined(model, ClassificationTask(CrossEntropy(), 3, "classification"), batch, PredictionExamination(0))
    with evaluating(model):
        logits = model(batch.tokens_BT, None, batch.document_ids_BT).logits.double()
    p = logits.softmax(-1)
    right = (p.argmax(-1) == batch.targets).double()
    assert event.metrics["probe/accuracy"] == pytest.approx(right.mean().item())
    assert event.metrics["probe/confidence"] == pytest.approx(p.amax(-1).mean().item(), rel=1e-5)
    assert event.metrics["probe/prediction_entropy"] == pytest.approx(-(p * p.log()).sum(-1).mean().item(), rel=1e-5)
    asked = replace(batch, targets=torch.tensor([0.5, -1.0, 2.0]))
    nothing = examined(encoder(outputs=1), RegressionTask(Regression("mse"), 0.0, 1.0), asked, PredictionExamination(0))
    assert nothing.metrics == {}


def pairs() -> tuple[Translator, Batch]:
    shape: Any = {"vocabulary_size": 23, "max_positions": 16, "num_layers": 1, "hidden_size": 16, "num_heads": 2}
    model = EncoderDecoder(feed_forward_size=32, **shape)
    batch = padded()
    second_BS = torch.tensor([[22, 4, 5, 0, 0, 0], [22, 1, 2, 3, 4, 5], [22, 0, 0, 0, 0, 0]])
    targets = torch.where(written(second_BS), 1, IGNORED)
    return model, Batch(
        batch.tokens_BT, targets, batch.document_ids_BT, batch.positions_BT, batch.sample_ids_B, 10, second_BS
    )


def test_padding_of_a_second_text_is_left_out_of_the_decoder() -> None:
    model, batch = pairs()
    examinations = (ActivationExamination(0), AttentionExamination(0))
    event = examined(model, SequenceToSequenceTask(CrossEntropy()), batch, *examinations)
    counts = {name: sum(one.counts) for name, one in event.histograms.items()}
    assert counts == {
        "layer/encoder.blocks.0/activation": 16 * sum(LENGTHS),
        "layer/decoder.blocks.0/activation": 16 * (3 + 6 + 1),
    }
    heads = {name.rpartition(".head_")[0] for name in event.layers if ".head_" in name}
    assert heads == {
        "layer/encoder.blocks.0.attention",
        "layer/decoder.blocks.0.attention",
        "layer/decoder.blocks.0.memory_attention",
    }


def test_a_model_of_transformers_has_layers_and_heads_too() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=23,
        num_hidden_layers=2,
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=3,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=1,
    )
    torch.manual_seed(0)
    model = wrap_model(
        transformers.BertForSequenceClassification(config),
        23,
        Outputs(3, pooled=True, task="classification", classes=("a", "b", "c")),
        longest_sequence=9,
        special=SpecialTokens(1, 0, 1),
    )
    task = ClassificationTask(CrossEntropy(), 3, "classification")
    event = examined(model, task, padded(), ActivationExamination(0), AttentionExamination(0), PredictionExamination(0))
    prefix = "layer/module.bert.encoder.layer"
    assert sum(event.histograms[f"{prefix}.1/activation"].counts) == 16 * sum(LENGTHS)
    assert {name for name in event.layers if name.startswith(f"{prefix}.0/")} == {
        f"{prefix}.0/{metric}" for metric in NAMES
    }
    assert 0 < event.layers[f"{prefix}.0.attention.self.head_1/attention_relative_entropy"] <= 1


def test_a_residual_net_that_writes_in_place_is_examined() -> None:
    """Of each layer its channels, of both widths; functions that write into what they are given leave it alone here."""

    class Layer(nn.Module):
        def __init__(self, into: int, wide: int, out: int) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(into, wide, 1), nn.Conv2d(wide, out, 1)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(self.second(self.relu(self.first(x))))

    torch.manual_seed(0)
    layers = nn.Sequential(Layer(1, 8, 4), Layer(4, 6, 4))
    with torch.no_grad():
        layers[0].first.bias[:6] = -1e3
        layers[1].second.bias[:] = -1e3
    net = nn.Sequential(nn.Unflatten(1, (1, 3, 3)), layers, nn.Flatten(), nn.Linear(36, 3))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, tokens: Tensor) -> Tensor:
            return self.net(tokens.float())

    outputs = Outputs(3, pooled=True, task="classification", classes=("a", "b", "c"))
    model = wrap_model(Model(), 23, outputs, longest_sequence=9)
    task = ClassificationTask(CrossEntropy(), 3, "classification")
    event = examined(model, task, padded(), ActivationExamination(0))
    assert not event.layers.keys() - {f"layer/module.net.1.{at}/{name}" for at in (0, 1) for name in NAMES}
    assert event.layers["layer/module.net.1.0/dead_fraction"] >= 6 / 12
    assert event.layers["layer/module.net.1.1/dead_fraction"] >= 4 / 10
