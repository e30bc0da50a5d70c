"""What settings, facts and examinations of our own runs settle: each sign on curves by formula, and its look-alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from cases import Array, case_of, cosine, falling, noise_of

from trimtab.doctor import Case, Finding
from trimtab.doctor.codes import CODES
from trimtab.doctor.diagnose import ask, diagnose
from trimtab.doctor.reading.bumps import bump_in_evaluations
from trimtab.doctor.remedies import sound_rate, uses_adam
from trimtab.events import RunStarted
from trimtab.runs.history import History


def _told(code: str, case: Case) -> Finding | None:
    return next((one for one in ask(code, case) if isinstance(one, Finding)), None)


def _judged(case: Case, steps: list[int], **metrics: list[float]) -> Case:
    for name, values in metrics.items():
        for step, value in zip(steps, values, strict=True):
            case.history.add(name.replace("_of_", "/"), np.array([step]), np.array([value]))
    return case


def _classes(weights: Mapping[str, float] | None, right: float, **labels: Any) -> Case:
    facts = {
        "task": "classification",
        "targets": {"classes": ["a", "b", "c", "d"], "counts": [30, 20, 30, 20]},
        "counting": {"labels": {"texts": 800, "majority": 0.3, "sure_errors": [0.0, 0.1], **labels}},
        "validation": {"documents": 200, "tokens": 4_000},
    }
    config = {"task.class_weights": weights, "evaluation.max_tokens": 10_000, "data.sequence_length": 32}
    case = case_of(falling(200, start=1.4, floor=0.9), rates=cosine(200), config=config, facts=facts)
    steps = list(range(20, 201, 20))
    return _judged(case, steps, validation_of_loss=[1.3] * 10, validation_of_accuracy=[right] * 10)


def test_weights_that_leave_one_class_the_loss_are_read_off_the_settings() -> None:
    found = _told("class-collapse", _classes({"a": 1.0, "b": 0.001, "c": 0.001, "d": 0.001}, 0.32))
    assert found is not None
    assert found.severity == "warning"
    assert "99.8% of the loss" in found.evidence[0].text
    even = {"a": 1.0, "b": 1.5, "c": 1.0, "d": 1.5}
    for weights, accuracy in ((even, 0.32), ({"a": 1.0, "b": 0.001, "c": 0.001, "d": 0.001}, 0.8)):
        told = _told("class-collapse", _classes(weights, accuracy))
        assert told is None or "weighs" not in told.cause


def test_labels_that_are_counted_otherwise_in_validation_are_no_random_labels() -> None:
    case = _classes(None, 0.02, accuracy=0.9, validation_accuracy=0.01, validation_texts=200)
    found = _told("validation-shift", case)
    assert found is not None
    assert "mean other classes" in found.cause
    assert _told("random-labels", case) is None
    # Worse by chance, or labels that nothing tells: not so.
    for right, elsewhere in ((0.9, 0.2), (0.33, 0.01)):
        told = _told(
            "validation-shift",
            _classes(None, 0.02, accuracy=right, validation_accuracy=elsewhere, validation_texts=200),
        )
        assert told is None or "mean other classes" not in told.cause


def _examined(times: float, **settings: Any) -> Case:
    usual = {"procedure.name": "plain", "sharpness.name": "none", "penalties.l2.strength": 0.0}
    usual |= {f"embedding.{name}": 0.0 for name in ("mixup.alpha", "noise.alpha", "cutout.rate")}
    norms = times * np.exp(0.3 * noise_of(200, 3))
    case = case_of(falling(200), rates=cosine(200), grad_norm=norms, config=usual | settings)
    case.history.add("probe/grad_norm", np.array([60, 120, 180]), np.array([1.0, 0.9, 1.1]))
    return case


def test_a_gradient_is_held_against_a_batchs_own() -> None:
    found = _told("gradients-not-cleared", _examined(12.0))
    assert found is not None
    assert found.evidence[-1].metric == "probe/grad_norm"
    assert (found.severity, found.onset_step) == ("warning", 1)
    assert _told("gradients-not-cleared", _examined(1.3)) is None
    # An L2 penalty is in the one and not in the other; so is a loss that is summed over micro-batches.
    assert _told("gradients-not-cleared", _examined(12.0, **{"penalties.l2.strength": 0.1})) is None
    summed = _judged(_examined(4.0), [100, 200], training_slice_of_loss=[1.0, 0.8])
    assert _told("gradients-not-cleared", summed) is None


def test_a_sum_that_is_cleared_every_few_steps_need_not_rise_each_time() -> None:
    saw: Array = np.tile([1.0, 1.7, 2.3, 2.8], 21)[:83] * np.exp(0.22 * noise_of(83, 2))
    found = _told("gradients-not-cleared", case_of(falling(83), rates=cosine(83), grad_norm=saw))
    assert found is not None
    assert "every 4 steps" in found.cause
    assert _told("gradients-not-cleared", case_of(falling(83), grad_norm=np.exp(0.4 * noise_of(83, 2)))) is None
    thrice: Array = np.tile([1.0, 1.7, 2.3], 40) * np.exp(0.1 * noise_of(120, 2))
    for config, severity in (({"data.shuffle": True}, "warning"), ({}, "info")):  # batches of three kinds look alike
        found = _told("gradients-not-cleared", case_of(falling(120), grad_norm=thrice, config=config))
        assert found is not None
        assert found.severity == severity


def test_a_gradient_of_nothing_is_a_plateau_and_no_divergence() -> None:
    loss = np.concatenate([falling(60, noise=0.02), 3.4 + 0.015 * np.arange(140)])
    norms = np.concatenate([np.ones(60), np.zeros(140)])
    found = diagnose(case_of(loss, rates=np.full(200, 1e-3), grad_norm=norms)).findings[0]
    assert (found.code, found.onset_step, found.severity) == ("plateau", 61, "warning")
    still = diagnose(case_of(loss, rates=np.full(200, 1e-3), grad_norm=np.ones(200))).findings[0]
    assert still.code == "divergence"


def _bumped(rise: float, slice_rise: float, **config: Any) -> Case:
    loss = falling(240, noise=0.8)
    loss[99:150] += rise * np.exp(-np.arange(51) / 30)
    case = case_of(loss, rates=cosine(240), config=config)
    judged = np.array([5.0, 4.2, 3.8, 3.5, 3.3, 3.2])
    both = [judged + lift * (np.arange(6) == 2) for lift in (rise, slice_rise)]
    steps = list(range(40, 241, 40))
    return _judged(case, steps, validation_of_loss=both[0].tolist(), training_slice_of_loss=both[1].tolist())


def test_evaluations_show_a_spike_that_steps_hide() -> None:
    bump = bump_in_evaluations(_bumped(1.6, 1.7))
    assert bump is not None
    assert 80 < bump.onset <= 120
    assert bump.last == 160
    found = _told("loss-spike", _bumped(1.6, 1.7))
    assert found is not None
    assert found.severity == "warning"
    # One set alone is chance or another fault; a schedule that rises does it by plan.
    assert bump_in_evaluations(_bumped(1.6, 0.0)) is None
    assert bump_in_evaluations(_bumped(0.4, 0.4)) is None
    restarts = {"schedule.name": "warm_restarts", "schedule.period": 0.375, "schedule.warmup": 0}
    assert bump_in_evaluations(_bumped(1.6, 1.7, **restarts)) is None


def test_planned_stairs_are_no_controllers() -> None:
    rates = 1e-3 * 0.1 ** (np.arange(100) // 7)
    case = case_of(falling(100, start=2.1, floor=1.95, noise=0.1), rates=rates)
    planned = Case(case.history, {"schedule.name": "step", "schedule.every": 0.07, "schedule.factor": 0.1})
    found = _told("decayed-too-early", planned)
    assert found is not None
    assert found.severity == "warning"
    unknown = _told("decayed-too-early", case)
    assert unknown is None or unknown.severity == "info"


def _resumed(height: float) -> Case:
    loss = falling(200, noise=0.25)
    loss[92:] += height
    history = History()
    history.observe(RunStarted(0, 1, 0, None, 200))
    history.observe(RunStarted(92, 2, 1, 92, 200))
    history.add("train/loss", np.arange(1, 201), loss)
    history.add("learning_rate", np.arange(1, 201), cosine(200))
    return Case(history)


def test_a_jump_within_the_noise_shows_where_a_run_was_resumed() -> None:
    found = _told("resume-discontinuity", _resumed(1.0))
    assert found is not None
    assert found.onset_step == 93
    assert _told("resume-discontinuity", _resumed(0.0)) is None


@pytest.mark.parametrize(("part", "says"), [(0.4, True), (3.0, False)])
def test_nothing_need_be_held_back_in_less_than_one_pass(part: float, says: bool) -> None:
    """The dropout of a model that was given is a fact; in one pass there is nothing to learn by heart."""
    facts = {"task": "causal_lm", "largest_dropout": 0.7, "epochs": part, "parameters": {"total": 10_000}}
    case = case_of(falling(200) + 0.1, rates=cosine(200), config={"procedure.name": "plain"}, facts=facts)
    steps = list(range(20, 201, 20))
    case = _judged(case, steps, validation_of_loss=(falling(200)[19::20]).tolist())
    assert (_told("over-regularised", case) is not None) == says


def test_rates_are_held_against_what_the_optimizer_bears() -> None:
    def case(name: str, **config: Any) -> Case:
        facts = {"optimizer": name, "parameters": {"total": 10**6, "non_embedding": 10**6}}
        return case_of(falling(50), config=config, facts=facts)

    adam, lion = sound_rate(case("adamw")), sound_rate(case("lion"))
    assert adam is not None
    assert lion == pytest.approx(0.2 * adam)
    assert uses_adam(case("lion"))
    assert uses_adam(case("muon", **{"optimizer.scaling": "adamw"}))
    assert not uses_adam(case("muon", **{"optimizer.scaling": "shape"}))
    assert not uses_adam(case("sgd"))


def test_weights_that_were_not_brought_back_are_seen_in_their_norms() -> None:
    def case(kept: float) -> Case:
        given = _resumed(0.0)
        names = tuple(f"layer/blocks.{number}.up.weight/weight_norm" for number in range(2))
        for step in range(10, 201, 10):
            norm = 10.0 * 1.01 ** (step / 10) * (kept if step > 92 else 1.0)
            given.history.layers.append(step, names, np.full(2, norm))
        return given

    found = _told("resume-discontinuity", case(0.8))
    assert found is not None
    assert (found.severity, found.onset_step) == ("warning", 93)
    assert found.evidence[0].metric == "layer/*/weight_norm"
    assert _told("resume-discontinuity", case(0.99)) is None


def test_a_gradient_that_jumps_once_with_the_loss_is_no_explosion() -> None:
    at = np.arange(200)
    jump = np.where(at >= 100, 20.0 * np.exp(-(at - 100) / 4), 0.0)
    loss, norms = falling(200) + jump, np.exp(0.1 * noise_of(200, 1)) * (1.0 + 3.0 * jump)
    assert _told("exploding-gradients", case_of(loss, rates=cosine(200), grad_norm=norms)) is None
    growing = np.exp(0.1 * noise_of(200, 1)) * np.where(at >= 100, 1.12 ** (at - 100.0), 1.0)
    late = falling(200) + np.where(at >= 120, 0.05 * 1.09 ** (at - 120.0), 0.0)
    assert _told("exploding-gradients", case_of(late, rates=cosine(200), grad_norm=growing)) is not None


def test_layers_that_give_back_a_thousand_times_as_much_were_thrown_by_the_rate() -> None:
    def case(times: float, rate: float) -> Case:
        config = {"optimizer.learning_rate": rate, "model.hidden_size": 64}
        facts = {"optimizer": "adamw", "parameters": {"total": 10**5, "non_embedding": 10**5}}
        given = case_of(falling(200), rates=cosine(200, rate), config=config, facts=facts)
        names = tuple(
            f"layer/{name}" for name in ("blocks.0/activation_rms", "blocks.1/activation_rms", "up/weight_norm")
        )
        for step in range(5, 201, 5):
            grown = min((step - 5) / 20, 1.0)
            given.history.layers.append(step, names, np.array([0.03 * times**grown] * 2 + [3.0 * 8**grown]))
        return given

    found = _told("learning-rate-too-high", case(5e4, 3e-2))
    assert found is not None
    assert any("50,000-fold" in one.text for one in found.evidence)
    assert _told("learning-rate-too-high", case(200.0, 3e-2)) is None
    assert _told("learning-rate-too-high", case(5e4, 2e-3)) is None  # a residual stream that grows at a usual rate


def test_counting_is_reached_or_missed_by_more_than_the_judged_tokens_are_uncertain() -> None:
    def case(lowest: float, judged: float, tokens: float, noise: float) -> Case:
        yardsticks = {"bigram": 2.5 / np.log(2), "unigram": 3.3 / np.log(2), "judged_tokens": 100, "judged_bytes": 100}
        facts = {"task": "causal_lm", "yardsticks": yardsticks, "parameters": {"total": 1e6}}
        facts |= {"validation": {"tokens": judged}, "tokenizer": {"vocabulary_size": 257}}
        loss = lowest + 2.0 * np.exp(-np.arange(300) / 40) + noise * noise_of(300)
        rates, seen = np.full(300, 1e-3), np.full(300, tokens)
        return _judged(
            case_of(loss, rates=rates, facts=facts, tokens=seen), [150, 300], validation_of_loss=[lowest + 0.1, lowest]
        )

    for lowest, judged, says in ((2.55, 3_000, False), (2.55, 10**6, True), (2.8, 3_000, True)):
        found = _told("stopped-too-early", case(lowest, judged, 16.0, 0.01))
        assert (found is not None) == says, (lowest, judged)
    for lowest, judged, severity in ((2.45, 3_000, "warning"), (2.45, 10**6, "info"), (2.2, 3_000, "info")):
        found = _told("noisy-loss", case(lowest, judged, 16.0, 0.5))
        assert found is not None
        assert found.severity == severity, (lowest, judged)


def _with_weights(case: Case, norms: Mapping[str, Array], every: int = 5) -> Case:
    names = tuple(f"layer/{name}/weight_norm" for name in norms)
    values = np.stack(list(norms.values()), axis=1)
    for step in range(every, len(values) + 1, every):
        case.history.layers.append(step, names, values[step - 1])
    return case


def test_weights_that_are_multiplied_in_each_step_are_a_divergence_before_the_loss_tells() -> None:
    at = np.arange(1, 201)
    grows = 1.02 ** np.maximum(at - 100.0, 0.0)

    def case(gain: Array) -> Case:
        given = case_of(falling(200, noise=0.4), rates=cosine(200))
        given = _with_weights(given, {"up": 3.0 * grows, "down": 2.0 * grows, "norm": 7.5 * gain})
        return _judged(given, [40, 80, 120, 160, 200], validation_of_loss=[5.0, 4.0, 4.0, 4.1, 4.2])

    found = _told("divergence", case(grows))
    assert found is not None
    assert (found.severity, found.onset_step) == ("error", 101)
    assert "2.0% in each step" in found.evidence[0].text
    assert _told("divergence", case(np.ones(200))) is None  # those that learn grow, and what norms multiply by does not


def test_weights_that_jump_at_once_are_a_spike_and_no_explosion() -> None:
    def case(times: float) -> Case:
        jump = np.where(np.arange(1, 201) > 100, times, 1.0)
        lift = (times - 1.0) * np.where(np.arange(200) >= 100, np.exp(-(np.arange(200) - 100) / 25), 0.0)
        slow = 1.0 + 0.001 * np.arange(200)
        given = case_of(falling(200, noise=0.4) + 0.3 * lift, rates=cosine(200), grad_norm=1.0 + 20.0 * lift)
        given = _with_weights(given, {"up": 3.0 * slow * jump, "down": 2.0 * slow * jump})
        raised = [5.0, 4.5, 4.2, 4.2 + 0.3 * (times - 1.0), 4.2 + 0.1 * (times - 1.0), 4.2]
        return _judged(given, [40, 80, 100, 120, 160, 200], validation_of_loss=raised)

    found = _told("loss-spike", case(2.5))
    assert found is not None
    assert found.evidence[0].metric == "layer/*/weight_norm"
    assert (found.severity, found.onset_step) == ("warning", 101)
    assert _told("loss-spike", case(1.1)) is None
    assert _told("exploding-gradients", case(2.5)) is None


def test_gradients_that_are_not_zero_as_a_step_begins_settle_it() -> None:
    def case(left: list[float]) -> Case:
        given = case_of(falling(120), rates=cosine(120), grad_norm=np.exp(0.2 * noise_of(120, 1)))
        given.history.add("probe/grad_left", np.array([40, 80, 120]), np.array(left))
        return given

    found = _told("gradients-not-cleared", case([1.0, 0.0, 1.0]))
    assert found is not None
    assert (found.severity, found.confidence) == ("warning", 0.95)
    assert _told("gradients-not-cleared", case([0.0, 0.0, 0.0])) is None


def test_the_last_batches_tell_no_divergence_where_all_evaluations_fall() -> None:
    loss = np.concatenate([falling(100, noise=0.02), 6.0 + 0.02 * noise_of(12)])
    steps = list(range(16, 113, 16))

    def case(last: float) -> Case:
        levels = [*np.linspace(4.5, 3.6, 6).tolist(), last]
        return _judged(
            case_of(loss, rates=np.full(112, 1e-3)), steps, validation_of_loss=levels, training_slice_of_loss=levels
        )

    assert _told("divergence", case(3.5)) is None
    assert _told("divergence", case(4.0)) is not None


def test_at_its_pace_a_small_model_never_comes_to_what_counting_reaches() -> None:
    def case(lowest: float, gained: float) -> Case:
        yardsticks = {"bigram": 2.5 / np.log(2), "unigram": 4.5 / np.log(2), "judged_tokens": 100, "judged_bytes": 100}
        facts = {"task": "causal_lm", "yardsticks": yardsticks, "parameters": {"total": 5e3}}
        at = np.arange(300)
        loss = lowest + gained * (1 - at / 300) + 1.0 * np.exp(-at / 10)
        given = case_of(loss, rates=cosine(300), facts=facts, tokens=np.full(300, 1e3))
        return _judged(given, list(range(30, 301, 30)), validation_of_loss=loss[29::30].tolist())

    assert _told("underfitting", case(3.9, 0.4)) is not None
    assert _told("underfitting", case(2.8, 0.4)) is None


def test_a_fault_of_weights_of_classes_comes_before_what_it_looks_like() -> None:
    weights = {"a": 1.0, "b": 0.001, "c": 0.001, "d": 0.001}
    assert _told("gradients-not-cleared", _examined(12.0, **{"task.class_weights": weights})) is None
    assert "overconfident" in CODES["class-collapse"].explains


def test_blocks_that_are_set_to_enlarge_begin_badly_though_the_loss_does_not_show_it() -> None:
    def case(deviation: float, size: float) -> Case:
        config = {
            "model.initialization.matrices": "normal",
            "model.initialization.standard_deviation": deviation,
            "model.hidden_size": 64,
        }
        given = case_of(falling(120, start=1.9, floor=1.5, noise=0.02), rates=cosine(120), config=config)
        for step in range(5, 121, 5):
            given.history.layers.append(step, ("layer/blocks.0/activation_rms",), np.array([size]))
        return given

    found = _told("bad-initialization", case(0.5, 60.0))
    assert found is not None
    assert found.evidence[0].metric == "model.initialization.standard_deviation"
    assert _told("bad-initialization", case(0.02, 60.0)) is None
    assert _told("bad-initialization", case(0.5, 1.0)) is None


def test_a_gradient_that_has_faded_for_most_of_the_run_counts_though_it_comes_back() -> None:
    def case(back: int) -> Case:
        given = case_of(falling(120), rates=cosine(120))
        names = tuple(f"layer/layers.{depth}.weight/grad_norm" for depth in range(6))
        for step in range(5, 121, 5):
            given.history.layers.append(step, names, 10.0 ** np.linspace(-5.0 if step < back else -1.0, 0.0, 6))
        return given

    found = _told("vanishing-gradients", case(80))
    assert found is not None
    assert found.severity == "warning"
    assert _told("vanishing-gradients", case(40)) is None


def test_steps_that_begin_empty_are_no_sum_since_the_first_whatever_the_norm_looks_like() -> None:
    def case(known: bool) -> Case:
        norms = np.arange(1.0, 121.0) ** 0.9 * np.exp(0.01 * noise_of(120, 1))
        given = case_of(falling(120), rates=cosine(120), grad_norm=norms)
        if known:
            given.history.add("probe/grad_left", np.array([40, 80, 120]), np.zeros(3))
        return given

    assert _told("gradients-not-cleared", case(known=False)) is not None
    assert _told("gradients-not-cleared", case(known=True)) is None


@pytest.mark.parametrize(("examined", "silent"), [([20, 40, 60], False), ([20, 30, 60], True)])
def test_steps_that_begin_empty_are_no_sum_of_fewer_than_lie_between_them(examined: list[int], silent: bool) -> None:
    """Examinations that come as often as gradients are cleared find them empty each time."""
    norms = (1.0 + np.arange(160) % 20) ** 0.9 * np.exp(0.05 * noise_of(160, 1))
    given = case_of(falling(160), rates=cosine(160), grad_norm=norms)
    given.history.add("probe/grad_left", np.array(examined), np.zeros(3))
    assert (_told("gradients-not-cleared", given) is None) == silent


def test_a_gradient_that_outgrows_that_of_the_batch_explodes_before_the_loss_follows() -> None:
    def case(own: list[float], **config: object) -> Case:
        norms = np.exp(0.1 * noise_of(200, 2)) * 1.03 ** np.maximum(np.arange(200) - 80.0, 0.0)
        given = case_of(falling(200, noise=0.02), rates=np.full(200, 0.1), grad_norm=norms, config=config)
        given.history.add("probe/grad_norm", np.array([60, 120, 180]), np.array(own))
        return given

    found = _told("exploding-gradients", case([1.0, 1.1, 0.9]))
    assert found is not None
    assert (found.severity, found.evidence[0].metric) == ("warning", "probe/grad_norm")
    assert _told("exploding-gradients", case([1.0, 4.0, 20.0])) is None  # that of the batch grows as well
    assert _told("exploding-gradients", case([1.0, 1.1, 0.9], **{"penalties.l2.strength": 0.1})) is None


def test_a_single_layer_that_was_not_brought_back_is_enough() -> None:
    def case(kept: float) -> Case:
        given = _resumed(0.0)
        names = tuple(f"layer/blocks.{number}.up.weight/weight_norm" for number in range(5))
        for step in range(10, 201, 10):
            norms = np.full(5, 10.0 * 1.01 ** (step / 10))
            norms[0] *= kept if step > 92 else 1.0
            given.history.layers.append(step, names, norms)
        return given

    found = _told("resume-discontinuity", case(0.8))
    assert found is not None
    assert "blocks.0.up.weight" in found.evidence[0].text
    assert _told("resume-discontinuity", case(0.99)) is None


def test_batches_that_grow_by_chance_do_not_explain_memory_that_doubles() -> None:
    def case(longer: float) -> Case:
        tokens, memory = 100.0 * np.linspace(1.0, longer, 90), 3e8 + 3e6 * np.arange(90.0)
        return case_of(falling(90), rates=cosine(90), tokens=tokens, memory_bytes=memory)

    assert _told("memory-leak", case(1.1)) is not None
    assert _told("memory-leak", case(1.8)) is None


def test_lions_decay_is_held_against_lions_rate_and_counting_against_a_wide_gap() -> None:
    def case(optimizer: str, dropout: float, right: float) -> Case:
        config = {"optimizer.weight_decay": 0.3, "objective.label_smoothing": 0.1, "model.dropout.residual": dropout}
        facts = {"optimizer": optimizer, "task": "classification", "epochs": 2.2, "parameters": {"total": 10_000}}
        facts |= {"targets": {"classes": list("abcdef")}, "counting": {"labels": {"validation_accuracy": 0.86}}}
        given = case_of(falling(120, start=1.8, floor=1.6, noise=0.02), rates=cosine(120), config=config, facts=facts)
        steps, even = list(range(20, 121, 20)), [1.7, 1.6, 1.5, 1.4, 1.4, 1.4]
        given = _judged(given, steps, validation_of_loss=even, validation_of_accuracy=[right] * 6)
        return _judged(given, steps, generalization_gap=[0.3] * 6, training_slice_of_loss=[one - 0.3 for one in even])

    assert _told("over-regularised", case("adamw", 0.0, 0.47)) is not None
    assert _told("over-regularised", case("lion", 0.0, 0.47)) is None
    assert _told("over-regularised", case("lion", 0.65, 0.47)) is not None
    assert _told("over-regularised", case("lion", 0.65, 0.85)) is None  # an open gap asks for it


def test_what_rises_far_is_no_chance_of_few_tokens() -> None:
    facts = {"task": "causal_lm", "validation": {"tokens": 2_600.0}}
    jumps = 0.25 * np.array([0, 1, -1, 1, -1, 1, -1, 1, -1, 1, 0, 1])

    def case(end: float) -> Case:
        levels = np.concatenate([[6.0, 5.0, 4.6], np.linspace(4.6, end, 9)]) + jumps
        given = case_of(falling(120, noise=0.01), rates=cosine(120), facts=facts)
        return _judged(given, list(range(10, 121, 10)), validation_of_loss=levels.tolist())

    for end, severity in ((4.6, "warning"), (12.0, "info")):
        found = _told("validation-too-small", case(end))
        assert found is not None
        assert found.severity == severity


def test_waiting_for_most_of_the_time_is_sure_however_rare_the_waits_are() -> None:
    waits = np.where(np.arange(70) % 5 == 0, 0.25, 0.0005)
    found = _told("input-bound", case_of(falling(70), data_seconds=waits, step_seconds=0.006 + waits))
    assert found is not None
    assert (found.severity, found.confidence) == ("warning", 0.95)


def test_a_rate_moves_nothing_where_no_evaluation_changes() -> None:
    config = {"optimizer.learning_rate": 5e-2, "model.hidden_size": 64}
    facts = {"optimizer": "adamw", "parameters": {"total": 10**5, "non_embedding": 10**5}}

    def case(levels: list[float]) -> Case:
        given = case_of(falling(200, noise=0.02), rates=np.full(200, 5e-2), config=config, facts=facts)
        given = _with_weights(given, {"up": 3.0 * np.minimum(1.0 + np.arange(200) / 5, 8.0)})
        return _judged(given, list(range(20, 201, 20)), validation_of_loss=levels)

    found = _told("learning-rate-too-high", case([4.0 - 0.04321 * number for number in range(10)]))
    assert found is not None
    assert (found.severity, found.confidence) == ("warning", 0.65)  # with no mark on the curve
    assert _told("learning-rate-too-high", case([5.1, 4.2, *[3.98765432] * 8])) is None


def test_a_level_that_evaluations_show_to_fall_does_not_stand_in_the_noise() -> None:
    def case(levels: list[float]) -> Case:
        loss = np.concatenate([np.linspace(5.5, 3.0, 60), np.full(240, 3.0)]) + 0.45 * noise_of(300)
        given = case_of(loss, rates=np.full(300, 1e-3), tokens=np.full(300, 128.0))
        return _judged(given, list(range(30, 301, 30)), validation_of_loss=levels)

    stands = _told("noisy-loss", case([3.8, 3.1, *[3.0] * 8]))
    assert stands is not None
    assert stands.severity == "warning"
    falls = _told("noisy-loss", case(np.linspace(3.8, 2.6, 10).tolist()))
    assert falls is not None
    assert falls.severity == "info"
