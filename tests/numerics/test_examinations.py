"""What examinations read, against plain calculations in float64."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from trimtab.config import DecoderConfig
from trimtab.model import build_model
from trimtab.monitor.probes import Examiner, sketch
from trimtab.monitor.probes.gradients import GradientExamination
from trimtab.monitor.probes.histogram import histograms
from trimtab.monitor.probes.loss import LossExamination
from trimtab.monitor.probes.parameters import ParameterExamination
from trimtab.monitor.probes.sketch import Sketch
from trimtab.objective import CausalLanguageModelingTask, CrossEntropy
from trimtab.signals import IGNORED, Batch, Examined, Readings

VOCABULARY = 13


def batch_of(tokens_BT: Tensor, targets: Tensor | None = None, first: int = 0) -> Batch:
    rows, length = tokens_BT.shape
    if targets is None:
        targets = tokens_BT.roll(-1, 1)
    count = int((targets != IGNORED).sum()) if targets.dtype == torch.int64 else targets.numel()
    return Batch(
        tokens_BT,
        targets,
        torch.zeros(rows, length, dtype=torch.int32),
        torch.arange(length, dtype=torch.int32).expand(rows, length),
        torch.arange(first, first + rows),
        count,
    )


def examined(
    gradients: Mapping[str, Tensor] | None = None,
    weights: Mapping[str, Tensor] | None = None,
    *,
    batch: Batch | None = None,
    losses: Tensor | None = None,
    newest: Sequence[tuple[Batch, Tensor]] = (),
) -> Examined:
    """What an examination is given, without a pass."""
    batch = batch or batch_of(torch.zeros(1, 2, dtype=torch.int64))
    return Examined(
        step=1,
        model=nn.Identity(),
        task=CausalLanguageModelingTask(CrossEntropy()),
        batch=batch,
        output=torch.zeros(()),
        losses=torch.zeros(batch.targets.shape) if losses is None else losses,
        loss=torch.tensor(1.5),
        gradients=gradients or {},
        weights=weights or {},
        newest=lambda: newest,
        text=lambda tokens: " ".join(map(str, tokens)),
    )


def values(readings: Readings) -> dict[str, float]:
    return {name: float(value) for name, value in {**readings.metrics, **readings.layers}.items()}


class Spy:
    name = "spy"

    def __init__(self) -> None:
        self.seen: list[Examined] = []

    def attach(self, model: nn.Module) -> Any:
        return nullcontext()

    def read(self, examined: Examined) -> Readings:
        self.seen.append(examined)
        return Readings()


def test_the_pass_is_that_of_the_objective_in_eval_mode() -> None:
    config = DecoderConfig.model_validate(
        {"num_layers": 2, "hidden_size": 16, "num_heads": 2, "dropout": {"residual": 0.5, "attention": 0.5}}
    )
    model = build_model(config, vocabulary_size=VOCABULARY, sequence_length=8, seed=3)
    model.train()
    tokens_BT = torch.randint(0, VOCABULARY, (3, 8), generator=torch.Generator().manual_seed(0))
    targets_BT = tokens_BT.roll(-1, 1)
    targets_BT[1, 5:] = IGNORED
    spy = Spy()
    weights = {name: p.detach() for name, p in reversed(list(model.named_parameters()))}
    del weights["blocks.0.attention_norm.weight"]  # as if it were frozen
    examiner = Examiner(
        [spy],
        model=model,
        task=CausalLanguageModelingTask(CrossEntropy(label_smoothing=0.1)),
        batch=batch_of(tokens_BT, targets_BT),
        weights=lambda: weights,
        autocast=nullcontext,
        scale=lambda: torch.tensor(1024.0),
        is_due=lambda step: True,
        batch_of=lambda samples: batch_of(tokens_BT[list(samples)]),
        text=str,
        seed=0,
    )
    examiner(7)
    (seen,) = spy.seen
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    names = [name for name, _ in model.named_parameters() if name in weights]
    assert list(seen.gradients) == list(seen.weights) == names

    exact = build_model(config, vocabulary_size=VOCABULARY, sequence_length=8, seed=3).double().eval()
    logits = exact(tokens_BT).logits
    loss = F.cross_entropy(logits.flatten(0, 1), targets_BT.flatten(), ignore_index=IGNORED, label_smoothing=0.1)
    loss.backward()
    assert float(seen.loss) == pytest.approx(float(loss.detach()), rel=1e-5)
    plain = F.cross_entropy(logits.flatten(0, 1), targets_BT.flatten(), ignore_index=IGNORED, reduction="none")
    torch.testing.assert_close(seen.losses.double(), plain.view(3, 8).detach(), rtol=1e-4, atol=1e-6)
    for name, parameter in exact.named_parameters():
        if name in weights:
            assert parameter.grad is not None
            torch.testing.assert_close(seen.gradients[name].double(), parameter.grad, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(("at_once", "sizes"), [(0, [3, 3, 3, 3]), (2, [3, 3, 3, 3]), (5, [5, 5, 2]), (64, [12])])
def test_the_newest_samples_are_judged_in_portions(at_once: int, sizes: list[int]) -> None:
    model = build_model(
        DecoderConfig.model_validate({"num_layers": 1, "hidden_size": 8, "num_heads": 2}),
        vocabulary_size=VOCABULARY,
        sequence_length=4,
        seed=3,
    )
    tokens_BT = torch.randint(0, VOCABULARY, (40, 4), generator=torch.Generator().manual_seed(0))
    found: list[tuple[Batch, Tensor]] = []

    class Judges(Spy):
        def read(self, examined: Examined) -> Readings:
            found.extend(examined.newest())
            return Readings()

    def only(samples: Sequence[int]) -> Batch:
        return batch_of(tokens_BT[list(samples)], first=samples[0])

    examiner = Examiner(
        [Judges()],
        model=model,
        task=CausalLanguageModelingTask(CrossEntropy()),
        batch=only([0, 1, 2]),
        weights=lambda: {name: p.detach() for name, p in model.named_parameters()},
        autocast=nullcontext,
        scale=lambda: None,
        is_due=lambda step: True,
        batch_of=only,
        text=str,
        seed=0,
        newest_at_once=at_once,
    )
    examiner.samples_of = lambda step: range(step, step + 14)
    examiner(20)
    assert [len(batch.sample_ids_B) for batch, _ in found] == sizes
    assert torch.cat([batch.sample_ids_B for batch, _ in found]).tolist() == list(range(20, 32))
    with torch.no_grad():
        logits = model(tokens_BT[20:32]).logits
    plain = F.cross_entropy(logits.flatten(0, 1), tokens_BT[20:32].roll(-1, 1).flatten(), reduction="none")
    torch.testing.assert_close(torch.cat([losses for _, losses in found]), plain.view(12, 4))


def test_gradients() -> None:
    generator = torch.Generator().manual_seed(1)
    first = {
        "a": torch.randn(30, 20, generator=generator),
        "b": torch.randn(7, generator=generator).mul(1e-3),
        "c": torch.zeros(3),
    }
    first["a"][4:9] = 0.0
    second = {
        name: gradient * 0.5 + torch.randn(gradient.shape, generator=generator) for name, gradient in first.items()
    }
    second["c"].zero_()
    examination = GradientExamination(0)
    assert not any("cosine" in name for name in values(examination.read(examined(first))))
    read = values(examination.read(examined(second)))
    exact = {name: gradient.double().numpy().ravel() for name, gradient in second.items()}
    before = {name: gradient.double().numpy().ravel() for name, gradient in first.items()}
    everything, earlier = np.concatenate(list(exact.values())), np.concatenate(list(before.values()))
    for name, part in exact.items():
        assert read[f"layer/{name}/probe_grad_norm"] == pytest.approx(np.linalg.norm(part), rel=1e-6)
        assert read[f"layer/{name}/grad_mean"] == pytest.approx(part.mean(), rel=1e-4, abs=1e-9)
        assert read[f"layer/{name}/grad_variance"] == pytest.approx(part.var(), rel=1e-5)
        assert read[f"layer/{name}/grad_zero_fraction"] == pytest.approx((part == 0).mean())
        sizes = np.linalg.norm(part) * np.linalg.norm(before[name])
        cosine = part @ before[name] / sizes if sizes else 0.0
        assert read[f"layer/{name}/grad_cosine"] == pytest.approx(cosine, rel=1e-6)
    assert read["probe/grad_norm"] == pytest.approx(np.linalg.norm(everything), rel=1e-6)
    assert read["probe/grad_mean"] == pytest.approx(everything.mean(), rel=1e-4)
    assert read["probe/grad_variance"] == pytest.approx(everything.var(), rel=1e-5)
    assert read["probe/grad_zero_fraction"] == pytest.approx((everything == 0).mean())
    whole = everything @ earlier / np.linalg.norm(everything) / np.linalg.norm(earlier)
    assert read["probe/grad_cosine"] == pytest.approx(whole, rel=1e-6)
    assert read["probe/grad_non_finite_fraction"] == 0.0


def test_a_gradient_that_is_not_finite_is_counted() -> None:
    gradients = {"a": torch.tensor([1.0, math.nan, math.inf, 0.0]), "b": torch.ones(4)}
    readings = GradientExamination(0).read(examined(gradients))
    read = values(readings)
    assert read["layer/a/grad_non_finite_fraction"] == 0.5
    assert read["probe/grad_non_finite_fraction"] == 0.25
    assert read["layer/a/grad_zero_fraction"] == 0.25
    assert math.isnan(read["probe/grad_norm"])
    assert read["layer/b/grad_mean"] == 1.0
    assert list(readings.histograms) == ["layer/b/gradient"]


def test_parameters() -> None:
    generator = torch.Generator().manual_seed(2)
    start = {
        "a": torch.randn(25, 40, generator=generator),
        "b": torch.randn(9, generator=generator),
        "c": torch.zeros(5),
    }
    before = {name: weight + 0.1 * torch.randn(weight.shape, generator=generator) for name, weight in start.items()}
    after = {name: weight + 1e-4 * torch.randn(weight.shape, generator=generator) for name, weight in before.items()}
    before["c"], after["c"] = start["c"], start["c"]
    examination = ParameterExamination(5)
    examination.begin(0, start)
    examination.before(before)
    read = values(examination.read(examined(weights=after)))

    def flat(weights: Mapping[str, Tensor]) -> dict[str, Any]:
        return {name: weight.double().numpy().ravel() for name, weight in weights.items()}

    zero, old, new = flat(start), flat(before), flat(after)
    for name in start:
        moved = np.linalg.norm(new[name] - old[name])
        ratio = moved / np.linalg.norm(old[name]) if moved else 0.0
        assert read[f"layer/{name}/update_ratio"] == pytest.approx(ratio, rel=1e-9)
        distance = np.linalg.norm(new[name] - zero[name])
        assert read[f"layer/{name}/distance_from_start"] == pytest.approx(distance, rel=1e-9)
        assert read[f"layer/{name}/weight_mean"] == pytest.approx(new[name].mean(), rel=1e-4)
        assert read[f"layer/{name}/weight_std"] == pytest.approx(new[name].std(), rel=1e-5)
    everything = {name: np.concatenate(list(part.values())) for name, part in (("0", zero), ("1", old), ("2", new))}
    ratio = np.linalg.norm(everything["2"] - everything["1"]) / np.linalg.norm(everything["1"])
    assert read["probe/update_ratio"] == pytest.approx(ratio, rel=1e-9)
    distance = np.linalg.norm(everything["2"] - everything["0"])
    assert read["probe/distance_from_start"] == pytest.approx(distance, rel=1e-9)
    assert read["probe/weight_norm"] == pytest.approx(np.linalg.norm(everything["2"]), rel=1e-6)
    axes = [0.0, 0.0, 0.0]
    for name in start:
        signs = plain_signs(5, name, 1024)
        for index, moved in enumerate((new[name] - zero[name]).tolist()):
            axes[index % 1024 % 3] += signs[index] * moved
    assert [read[f"probe/trajectory/{axis}"] for axis in range(3)] == pytest.approx(axes, rel=1e-6)

    # One that goes on from its state says the same; one without begins anew.
    resumed = ParameterExamination(5)
    resumed.load_state_by_name(examination.state_by_name())
    resumed.begin(7, before)
    resumed.before(before)
    assert values(resumed.read(examined(weights=after))) == read
    anew = ParameterExamination(5)
    anew.begin(7, before)
    assert values(anew.read(examined(weights=after)))["probe/distance_from_start"] == pytest.approx(
        np.linalg.norm(everything["2"] - everything["1"])
    )
    assert "probe/update_ratio" not in values(anew.read(examined(weights=after)))


def test_parameters_that_are_unfrozen_later_have_a_start_of_their_own() -> None:
    examination = ParameterExamination(0)
    examination.begin(0, {"a": torch.zeros(4)})
    examination.before({"a": torch.ones(4), "b": torch.ones(4)})
    read = values(examination.read(examined(weights={"a": torch.ones(4), "b": 3 * torch.ones(4)})))
    assert read["layer/a/distance_from_start"] == 2.0
    assert read["layer/b/distance_from_start"] == 4.0
    assert read["layer/b/update_ratio"] == 2.0


def plain_signs(seed: int, name: str, count: int) -> list[int]:
    """The signs as the docstring of the sketch says: one bit each of Philox's words."""
    import hashlib

    number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
    words = np.random.Philox(key=np.array([seed, number], dtype=np.uint64)).random_raw(-(-count // 64))
    bits = [int(word) >> place & 1 for word in words for place in range(64)]
    # Bit 0 of a 32-bit word is shifted to the sign's place by 31, and so is the sign of the last of its values.
    return [-1 if bits[index // 32 * 32 + 31 - index % 32] else 1 for index in range(count)]


@pytest.mark.parametrize("size", [1, 31, 1024, 1025, 5000])
@pytest.mark.parametrize("chunk", [1, 2, 4096])
def test_a_sketch_is_its_definition(size: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketch, "_CHUNK_ROWS", chunk)
    tensor = torch.randn(size, generator=torch.Generator().manual_seed(size))
    signs = plain_signs(3, "w", -(-size // 1024) * 1024)
    expected = [0.0] * 1024
    for index, value in enumerate(tensor.double().tolist()):
        expected[index % 1024] += signs[index] * value
    assert Sketch(3).of({"w": tensor})["w"].tolist() == pytest.approx(expected, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3000), st.floats(-3, 3), st.integers(0, 2**31))
def test_a_sketch_is_linear_and_knows_no_shape(size: int, factor: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, size, generator=generator).unbind()
    of = Sketch(seed)
    whole = of.of({"w": (a.double() + factor * b.double()).float()})["w"]
    parts = of.of({"w": a})["w"] + factor * of.of({"w": b})["w"]
    torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-4)
    assert torch.equal(of.of({"w": a[None, :, None]})["w"], of.of({"w": a})["w"])


def test_inner_products_of_sketches_are_unbiased_with_the_error_that_is_told() -> None:
    generator = torch.Generator().manual_seed(0)
    u, v = torch.randn(80, generator=generator), torch.randn(200, generator=generator)
    a = torch.outer(u, v)  # as a gradient is: rows that resemble each other
    b = a + torch.randn(a.shape, generator=generator) * 2
    exact = float((a.double() * b.double()).sum() / a.double().norm() / b.double().norm())
    found = []
    for seed in range(60):
        of = Sketch(seed)
        x, y = of.of({"w": a})["w"], of.of({"w": b})["w"]
        found.append(float(x @ y) / float(a.double().norm() * b.double().norm()))
    assert np.mean(found) == pytest.approx(exact, abs=3 * math.sqrt(2 / 1024 / 60))
    assert np.std(found) < 1.3 * math.sqrt(2 / 1024)
    assert np.std(found) > 0.0


def test_histograms_are_numpys() -> None:
    tensors = {
        "a": torch.randn(40, 30),
        "b": torch.rand(7) * 1e-6,
        "flat": torch.full((5,), 2.0),
        "bad": torch.tensor([math.nan]),
    }
    found = histograms(tensors)
    assert set(found) == {"a", "b", "flat"}
    for name in ("a", "b"):
        array = tensors[name].numpy().ravel()
        counts, _ = np.histogram(array, 32)
        assert (found[name].low, found[name].high) == (array.min(), array.max())
        # Bins are cut in fp32 here: a value at an edge may be on the other side.
        assert np.abs(np.cumsum(counts) - np.cumsum(found[name].counts)).max() <= 1
        assert sum(found[name].counts) == len(array)
    assert sum(found["flat"].counts) == 5
    assert found["flat"].low < 2.0 < found["flat"].high
    assert histograms({}) == {}
    assert histograms({"bad": tensors["bad"]}) == {}


def mean_of(losses: Iterable[float]) -> float:
    return float(np.mean(list(losses)))


def test_losses_of_texts() -> None:
    generator = torch.Generator().manual_seed(4)
    targets_BT = torch.randint(0, VOCABULARY, (4, 16), generator=generator)
    targets_BT[0, 3:] = IGNORED
    targets_BT[3] = IGNORED
    losses_BT = torch.rand(4, 16, generator=generator) * (targets_BT != IGNORED)
    batch = batch_of(torch.arange(64).view(4, 16), targets_BT, first=40)
    other = batch_of(torch.arange(64, 96).view(2, 16), first=90)
    others_BT = torch.rand(2, 16, generator=generator) * 3
    readings = LossExamination(0).read(
        examined(batch=batch, losses=losses_BT, newest=[(batch, losses_BT), (other, others_BT)])
    )
    read = values(readings)
    assert read["probe/loss"] == 1.5
    for part in range(8):
        cells = [(row, place) for row in range(4) for place in (2 * part, 2 * part + 1)]
        counted = [losses_BT[cell].item() for cell in cells if targets_BT[cell] != IGNORED]
        assert read[f"probe/position_loss/{part}"] == pytest.approx(mean_of(counted))
    means = {
        40: mean_of(losses_BT[0, :3].tolist()),
        41: mean_of(losses_BT[1].tolist()),
        42: mean_of(losses_BT[2].tolist()),
    }
    means |= {90: mean_of(others_BT[0].tolist()), 91: mean_of(others_BT[1].tolist())}
    for name, part in (("minimum", 0), ("p25", 25), ("median", 50), ("p75", 75), ("p95", 95), ("maximum", 100)):
        assert read[f"probe/sample_loss/{name}"] == pytest.approx(np.percentile(list(means.values()), part))
    ranked = sorted(means, key=lambda sample: -means[sample])[:3]
    assert [sample["sample"] for sample in readings.samples] == ranked
    assert [sample["loss"] for sample in readings.samples] == pytest.approx([means[sample] for sample in ranked])
    first = readings.samples[0]
    losses = (others_BT if ranked[0] >= 90 else losses_BT)[ranked[0] - (90 if ranked[0] >= 90 else 40)]
    assert first["worst"][0] == [int(losses.argmax()), pytest.approx(float(losses.max()))]
    assert list(readings.texts) == ["highest-loss-1", "highest-loss-2", "highest-loss-3"]
    row = other.tokens_BT[ranked[0] - 90] if ranked[0] >= 90 else batch.tokens_BT[ranked[0] - 40]
    assert readings.texts["highest-loss-1"] == " ".join(map(str, row.tolist()))[:400]


def test_a_loss_that_is_no_number_comes_first_and_spoils_nothing() -> None:
    batch = batch_of(torch.arange(6).view(3, 2))
    losses = torch.tensor([[1.0, 3.0], [math.nan, 1.0], [5.0, 5.0]])
    readings = LossExamination(0).read(examined(batch=batch, newest=[(batch, losses)]))
    assert [sample["sample"] for sample in readings.samples] == [1, 2, 0]
    assert values(readings)["probe/sample_loss/median"] == 3.5


@pytest.mark.parametrize(
    ("targets", "losses"),
    [
        (torch.tensor([2, IGNORED, 1]), torch.tensor([0.5, 0.0, 4.0])),  # a class
        (torch.tensor([0.3, 0.1, 9.0]), torch.tensor([0.5, 0.25, 4.0])),  # a number
        (torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.5, 0.5], [0.0, 0.5], [5.0, 3.0]])),
    ],
)
def test_losses_of_whole_texts(targets: Tensor, losses: Tensor) -> None:
    batch = batch_of(torch.arange(12).view(3, 4), targets)
    readings = LossExamination(0).read(examined(batch=batch, losses=losses, newest=[(batch, losses)]))
    assert not any("position" in name for name in readings.metrics)
    assert [(sample["sample"], sample["loss"]) for sample in readings.samples][:2] == [(2, 4.0), (0, 0.5)]
    assert len(readings.samples) == (2 if targets.dtype == torch.int64 else 3)
    assert values(readings)["probe/sample_loss/maximum"] == 4.0
