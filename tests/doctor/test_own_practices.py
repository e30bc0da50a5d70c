"""Sound practice of our own runs beside the faults that it looks like: curves by formula, each with both."""

from __future__ import annotations

import numpy as np
from cases import Array, case_of, cosine, falling, noise_of

from trimtab.doctor import Case, Finding
from trimtab.doctor.diagnose import ask
from trimtab.doctor.reading.curves import Curve, Phases
from trimtab.doctor.reading.unsteady import early_jump, hump


def _severity(code: str, case: Case) -> str | None:
    found = next((one for one in ask(code, case) if isinstance(one, Finding)), None)
    return None if found is None else found.severity


def _judged(case: Case, metric: str, values: list[float]) -> Case:
    steps = np.linspace(0, case.history.last_step, len(values) + 1)[1:].astype(np.int64)
    case.history.add(metric, steps, np.array(values))
    return case


def test_a_loss_that_a_curriculum_holds_up_does_not_stand_where_evaluations_fall() -> None:
    yardsticks = {"unigram": 3.5 / np.log(2), "judged_tokens": 100, "judged_bytes": 100}
    facts = {"task": "causal_lm", "yardsticks": yardsticks, "validation": {"tokens": 10**6}}
    loss = 3.4 + 2.0 * np.exp(-np.arange(300) / 6) + 0.03 * noise_of(300)

    def case(last: float) -> Case:
        given = case_of(loss, rates=np.full(300, 6e-3), facts=facts)
        names, grown = ("layer/a/weight_norm", "layer/b/weight_norm"), 1.0 + 4.0 * np.minimum(np.arange(300) / 30, 1.0)
        for step in range(1, 301, 5):
            given.history.layers.append(step, names, np.full(2, grown[step - 1]))
        return _judged(given, "validation/loss", np.linspace(3.7, last, 12).tolist())

    assert _severity("learning-rate-too-high", case(3.65)) == "warning"
    assert _severity("learning-rate-too-high", case(3.2)) is None


def test_evaluations_that_fall_outweigh_half_the_noise_of_a_step() -> None:
    loss = 4.7 + 2.3 * np.exp(-np.arange(170) / 12) + 0.7 * noise_of(170)

    def case(levels: list[float]) -> Case:
        given = case_of(loss, rates=np.full(170, 1e-3), tokens=np.full(170, 133.0))
        return _judged(given, "validation/loss", levels)

    assert _severity("noisy-loss", case([5.3, 5.2, 5.18, 5.17, 5.17, 5.17])) == "warning"
    assert _severity("noisy-loss", case([5.3, 5.1, 4.98, 4.92, 4.86, 4.8])) == "info"


def test_a_word_that_goes_with_a_class_is_not_in_every_text_of_it() -> None:
    for telling, severity in ((0.99, "warning"), (0.92, "info"), (0.5, None)):
        labels = {"texts": 800, "accuracy": 0.99, "majority": 0.5, "sure_errors": [0.0, 0.0], "telling": telling}
        facts = {"task": "classification", "targets": {"counts": [10, 10]}, "counting": {"labels": labels}}
        assert _severity("target-leak", case_of(falling(100, start=0.7, floor=0.1), facts=facts)) == severity


def test_a_gradient_that_a_temperature_enlarges_is_not_of_unscaled_texts() -> None:
    loss = falling(200, start=3.5, floor=0.1, noise=0.01)
    for config, severity in (({}, "warning"), ({"data.tokenizer.name": "bpe"}, None)):
        case = case_of(loss, config=config, rates=cosine(200), grad_norm=40.0 * np.abs(loss))
        case.history.add("validation/accuracy", np.array([100, 200]), np.array([0.8, 0.9]))
        assert _severity("unscaled-inputs", case) == severity


def test_stairs_are_stairs_after_a_warmup_too() -> None:
    def rates(warmup: int) -> Array:
        stairs = np.repeat([1e-3, 1e-4, 1e-5, 1e-6], [100, 85, 85, 14])
        stairs[:warmup] = np.linspace(1e-5, 1e-3, warmup)
        return stairs

    loss = np.concatenate([np.linspace(2.1, 1.8, 100), np.full(184, 1.79)]) + 0.02 * noise_of(284)
    for warmup in (0, 14):
        assert _severity("decayed-too-early", case_of(loss, rates=rates(warmup))) is None
    smooth = np.concatenate([np.linspace(1e-3, 1e-5, 180), np.full(104, 1e-5)])
    assert _severity("decayed-too-early", case_of(loss, rates=smooth)) == "warning"


def test_steps_are_held_against_what_steps_scatter_by_while_they_are_early() -> None:
    def signs(early: float) -> int:
        scatter = np.where(np.arange(288) < 60, early, 0.004)
        rise = 0.6 * np.exp(-(((np.arange(288) - 26) / 5.0) ** 2))
        case = case_of(0.02 + 1.5 * np.exp(-np.arange(288) / 30) + rise + scatter * noise_of(288))
        curve = Curve.of(case.loss())
        assert curve is not None
        phases = Phases(peak=1e-3, peak_from=30, high_until=150, first=1, last=288)
        return len([*hump(case, curve, phases), *early_jump(curve, phases)])

    assert signs(0.004) == 1
    assert signs(0.25) == 0


def test_a_spike_of_one_wrong_answer_is_a_hard_sample() -> None:
    def case(wrong: int) -> Case:
        loss, right = falling(200, start=0.7, floor=0.002, noise=0.001), np.ones(200)
        for step in (90, 150):
            loss[step], right[step] = 0.45 * wrong, 1.0 - wrong / 12
        given = case_of(np.abs(loss), rates=cosine(200), tokens=np.full(200, 12.0))
        given.history.add("train/accuracy", np.arange(1, 201), right)
        return given

    given = {wrong: case(wrong) for wrong in (1, 6)}
    assert {wrong: _severity("loss-spike", one) for wrong, one in given.items()} == {1: "info", 6: "warning"}


def test_errors_of_counting_that_grow_with_doubt_are_no_noise_of_labels() -> None:
    for errors, severity in (([0.4, 0.55], "warning"), ([0.316, 0.573], None)):
        labels = {"texts": 2_487, "accuracy": 0.45, "majority": 0.12, "sure_errors": errors, "telling": 0.3}
        facts = {"task": "classification", "targets": {"counts": [10] * 26}, "counting": {"labels": labels}}
        assert _severity("label-noise", case_of(falling(200, start=3.2, floor=2.0), facts=facts)) == severity


def test_weights_that_halved_the_loss_were_moved() -> None:
    config = {"optimizer.name": "lion", "optimizer.learning_rate": 5e-5}
    config |= {"model.initialization.standard_deviation": 0.02, "model.hidden_size": 64}
    for end, severity in ((2.6, "warning"), (0.3, None)):
        loss = end + (3.0 - end) * np.exp(-np.arange(175) / 40)
        case = case_of(loss, rates=cosine(175, 5e-5), config=config, facts={"task": "contrastive"})
        assert _severity("learning-rate-too-low", case) == severity
