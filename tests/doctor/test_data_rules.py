"""Rules on data, labels and evaluation: on recorded runs, and on curves that look alike.

`runs/data.tar.xz` is written by `benchmarks/doctor/data_runs.py --pack`, which also made the runs: by trimtab, and by a
loop of a few lines.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import Array, case_of, cosine, falling, noise_of

from trimtab.doctor import Case, Finding
from trimtab.doctor.diagnose import diagnose
from trimtab.doctor.finding import Diagnosis, Withheld
from trimtab.doctor.load import open_case, open_foreign_case
from trimtab.doctor.rules import RULES
from trimtab.events import RunStarted
from trimtab.runs import RunDirectory
from trimtab.runs.history import History

ARCHIVE = Path(__file__).parent / "runs" / "data.tar.xz"
OURS = (
    "double-softmax",
    "evaluated-in-training-mode",
    "unscaled-inputs",
    "target-leak",
    "leakage",
    "random-labels",
    "label-noise",
    "class-collapse",
    "unshuffled-data",
    "corrupt-batch",
    "outlier-dominated-loss",
    "validation-shift",
    "validation-too-small",
    "overconfident",
)


def _table() -> list[dict[str, Any]]:
    with tarfile.open(ARCHIVE) as archive:
        content = archive.extractfile("runs.json")
        assert content is not None
        table: list[dict[str, Any]] = json.load(content)["runs"]
        return table


RUNS = [pytest.param(run, id=run["name"]) for run in _table()]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data-runs")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def case_at(path: Path) -> Case:
    log = path / "log.jsonl"
    return open_foreign_case(log)[0] if log.exists() else open_case(RunDirectory.open(path))


def told(diagnosis: Diagnosis) -> list[str]:
    return [finding.code for finding in diagnosis.findings if finding.severity != "info"]


def lead(case: Case) -> str:
    return next(iter(told(diagnose(case))), "")


def found(case: Case, code: str) -> Finding | None:
    return next((said for said in RULES[code](case) if isinstance(said, Finding)), None)


def test_every_code_is_planted() -> None:
    assert {run["truth"] for run in _table()} == {"healthy", *OURS}


@pytest.mark.parametrize("run", RUNS)
def test_the_fault_is_named_first_and_a_sound_run_left_in_peace(run: dict[str, Any], folder: Path) -> None:
    case = case_at(folder / run["name"])
    diagnosis = diagnose(case)
    first = next(iter(told(diagnosis)), "healthy")
    assert first == run["truth"], f"{told(diagnosis)}: {run['sentence']}"
    if first == "healthy":
        return
    finding = diagnosis.findings[0]
    assert finding.evidence
    assert finding.remedies
    onsets = {"corrupt-batch": (10, 75), "overconfident": (75, 175)}
    low, high = onsets.get(first, (0, case.planned_steps // 3))
    assert low <= finding.onset_step <= high


@pytest.mark.parametrize("run", [run for run in RUNS if run.id.startswith("loop-") or run.id == "loop"])
def test_what_a_log_cannot_tell_is_withheld(run: Any, folder: Path) -> None:
    withheld = {item.code: item for item in diagnose(case_at(folder / run["name"])).withheld}
    if run["name"] not in ("loop-numbers", "loop-outliers"):  # which are not evaluated at all
        assert "two evaluations" in withheld["evaluated-in-training-mode"].needs[0]
    assert {"leakage", "unscaled-inputs"} <= set(withheld)


# Look-alikes.


def classes_of(steps: int, *, end: float, seed: int = 0) -> Array:
    """The loss of ten classes, from ln 10 down to `end`."""
    at = np.arange(steps)
    return end + (np.log(10) - end) * np.exp(-at / (steps / 6)) + 0.02 * noise_of(steps, seed)


FACTS: dict[str, Any] = {"task": "classification", "targets": {"classes": list("abcdefghij"), "counts": [100] * 10}}


@pytest.mark.parametrize(("accuracy", "expected"), [(0.95, "double-softmax"), (0.35, "")])
def test_a_floor_is_one_only_where_the_accuracy_is_high(accuracy: float, expected: str) -> None:
    rising = 0.1 + (accuracy - 0.1) * (1 - np.exp(-np.arange(400) / 60))
    case = case_of(classes_of(400, end=1.52), facts=FACTS, **{"train/accuracy": rising})
    assert (found(case, "double-softmax") is not None) == bool(expected)
    smoothed = case_of(
        classes_of(400, end=1.52), facts=FACTS, config={"objective.label_smoothing": 0.1}, **{"train/accuracy": rising}
    )
    assert found(smoothed, "double-softmax") is None


def test_a_sum_that_is_of_as_many_classes_as_the_first_loss_tells_is_sure_while_the_loss_still_falls() -> None:
    at = np.arange(1, 241)
    right = 0.4 + 0.12 * np.minimum(at / 80, 1.0) + 0.2 * np.clip((at - 190) / 50, 0.0, 1.0)  # a class comes late
    off = 0.0055 * np.sign(np.sin(at * np.pi / 40 + 0.1))
    sums = np.log(3.0 + np.e) + off
    log = {"validation/loss": (sums - right)[19::20], "validation/accuracy": right[19::20]}
    loss = np.concatenate([[np.log(4.0)], (sums - right)[1:]])
    case = case_of(loss)
    for name, values in log.items():
        case.history.add(name, np.arange(20, 241, 20), values)
    said = found(case, "double-softmax")
    assert said is not None
    assert said.severity == "warning"


def test_two_evaluations_that_agree_are_no_fault() -> None:
    for facts, expected in (
        ({"repeats_differ": 0.0, "mates_differ": 1e-3}, False),  # half precision
        ({"repeats_differ": 0.3, "mates_differ": 0.3}, True),
        ({"repeats_differ": 0.0, "mates_differ": 0.8}, True),
        ({"repeats_differ": None, "mates_differ": None}, False),
    ):
        case = case_of(falling(200), validation={100: 4.0, 200: 3.5}, facts={"first_batch": facts})
        assert (found(case, "evaluated-in-training-mode") is not None) == expected
    (said,) = RULES["evaluated-in-training-mode"](case_of(falling(200)))
    assert isinstance(said, Withheld)


def stairs(epochs: int, steps: int = 60, noise: float = 0.02) -> Array:
    """The staircase of samples learned by heart: flat within a pass, and down where they come again."""
    return np.repeat(2.0 - 0.25 * np.arange(epochs), steps) + noise * noise_of(epochs * steps)


def sorted_by_class(epochs: int, steps: int = 60) -> Array:
    """Four kinds of samples one after the other in each pass."""
    within = np.concatenate([0.4 + 1.6 * np.exp(-np.arange(steps // 4) / 4) for _ in range(4)])
    return np.tile(within, epochs) + 0.05 * noise_of(epochs * steps)


def waves(epochs: int, steps: int = 60) -> Array:
    return 2.0 + 0.4 * np.repeat(np.tile([0.0, 1.0, -1.0, 0.4], epochs), steps // 4) + 0.1 * noise_of(epochs * steps)


def test_an_order_that_the_loss_follows_is_found_and_stairs_are_not() -> None:
    validation = dict.fromkeys(range(60, 301, 60), 1.9)
    assert found(case_of(sorted_by_class(5), validation=validation), "unshuffled-data") is not None
    assert found(case_of(sorted_by_class(5)), "unshuffled-data") is not None
    assert found(case_of(waves(5)), "unshuffled-data") is not None
    assert found(case_of(stairs(6)), "unshuffled-data") is None
    # The same batches in each pass, in an order by chance.
    again = np.tile(noise_of(60), 5) * 0.3 + falling(300, noise=0.02)
    assert found(case_of(again), "unshuffled-data") is None
    # It says that it was shuffled.
    assert found(case_of(waves(5), config={"data.shuffle": True}), "unshuffled-data") is None


def test_jumps_that_come_as_epochs_do_need_no_validation_loss_above_half_of_them() -> None:
    rising = np.concatenate([[0.1], 0.05 + 8.0 * np.exp(-np.arange(59) / 5)])  # far above what is judged
    loss = np.abs(np.tile(rising, 5) + 0.02 * noise_of(300))
    validation = dict.fromkeys(range(60, 301, 60), 1.2)
    assert found(case_of(loss, validation=validation), "unshuffled-data") is not None
    uneven = np.abs(np.concatenate([np.full(k, 0.05) for k in (20, 47, 9, 90)]) + 0.02 * noise_of(166))
    spikes = np.concatenate([np.concatenate([uneven[:k], rising[1:]]) for k in (20, 47, 9, 90)])
    assert found(case_of(spikes, validation=validation), "unshuffled-data") is None, "spikes come when they will"


def test_two_jumps_do_where_the_validation_loss_goes_up_while_the_training_loss_falls_and_comes_back() -> None:
    blocks = [2.4 + above * np.exp(-np.arange(40) / 9) for above in (2.2, 4.0, 2.4)]
    loss = np.concatenate(blocks) + 0.05 * noise_of(120)
    against = dict(zip(range(11, 109, 11), [3.3, 3.2, 5.6, 3.9, 4.4, 4.9, 4.3, 3.5, 3.3], strict=True))
    assert found(case_of(loss, validation=against), "unshuffled-data") is not None
    along = dict(zip(range(11, 109, 11), [3.3, 3.0, 2.5, 4.9, 3.0, 2.5, 4.1, 3.0, 2.5], strict=True))
    assert found(case_of(loss, validation=along), "unshuffled-data") is None, "spikes"
    one = np.concatenate([0.05 + above * np.exp(-np.arange(60) / 6) for above in (6.0, 9.0)]) + 0.01 * noise_of(120)
    swings = dict(zip(range(10, 121, 10), [1.2, 0.9, 1.0, 1.3, 1.9, 3.2, 1.1, 0.9, 1.0, 1.2, 1.6, 2.4], strict=True))
    assert found(case_of(one, validation=swings, facts={"epochs": 2.0}), "unshuffled-data") is not None, "an epoch ends"
    assert found(case_of(one, validation=swings, facts={"epochs": 2.8}), "unshuffled-data") is None
    stays = dict.fromkeys(against, 3.3)
    assert found(case_of(loss, validation=stays), "unshuffled-data") is None, "nothing is forgotten"


def test_one_jump_does_that_evaluations_do_not_follow() -> None:
    loss = np.concatenate([0.01 + top * np.exp(-np.arange(60) / 9) for top in (1.7, 9.0)]) + 0.002 * noise_of(120)
    for beside, expected in (
        ([1.9, 1.4, 1.2, 1.5, 2.4, 4.6, 2.1, 1.4, 1.2, 1.1, 1.1, 1.1], True),
        ([1.9, 1.4, 1.2, 1.5, 2.4, 4.6, 9.9, 1.4, 1.2, 1.1, 1.1, 1.1], False),  # a spike of what was learned by heart
        ([1.9, 1.7, 1.5, 1.3, 1.2, 1.1, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5], False),  # tasks one after the other
    ):
        case = case_of(loss, validation=dict(zip(range(9, 121, 10), beside, strict=True)))
        assert (found(case, "unshuffled-data") is not None) is expected


def test_jumps_where_epochs_end_are_of_an_order_and_lows_above_a_guess_of_none() -> None:
    loss = np.concatenate([0.01 + top * np.exp(-np.arange(60) / 9) for top in (1.7, 6.0, 5.0)]) + 0.002 * noise_of(180)
    flat = dict.fromkeys(range(25, 181, 25), 1.6)
    assert found(case_of(loss, validation=flat, facts={"epochs": 3.0}), "unshuffled-data") is not None
    assert found(case_of(loss, validation=flat, facts={"epochs": 3.4}), "unshuffled-data") is None
    higher = np.concatenate([np.full(60, 0.6), 2.2 + loss[60:], 2.2 + loss[60:]]) + 0.01 * noise_of(300)
    beside = dict(zip(range(25, 301, 25), [1.0, 1.4, 6.0, 2.5, 2.6, 2.5, 6.0, 2.6, 3.0, 2.9, 2.8, 3.1], strict=True))
    assert found(case_of(higher, validation=beside), "unshuffled-data") is None, "nothing was learned before it"


def test_far_targets_are_told_of_few_rows_and_explain_an_early_jump_that_is_no_higher_than_later_ones() -> None:
    random = np.random.default_rng(3)
    far = np.where(random.random(80) < 0.3, random.uniform(400.0, 9_000.0, 80), random.uniform(0.3, 2.0, 80))
    assert found(case_of(far), "outlier-dominated-loss") is not None
    few = np.where(np.arange(36) % 7 == 5, 5e4 + 1e4 * noise_of(36), 1.5 + 0.2 * noise_of(36))
    judged = {step: 8e3 + step for step in range(4, 37, 4)}
    assert lead(case_of(few, validation=judged)) == "outlier-dominated-loss", (
        "whose validation loss is such a mean, too"
    )
    rates = np.full(200, 5e-3)
    seldom = np.where(np.arange(200) % 9 == 4, random.uniform(10.0, 60.0, 200), random.uniform(0.6, 1.1, 200))
    thrown = np.concatenate([[1.2], 300.0 * np.exp(-np.arange(12) / 3), 0.01 + 0.01 * seldom[13:]])
    assert lead(case_of(seldom, rates=rates, grad_norm=2.0 * seldom)) == "outlier-dominated-loss"
    assert found(case_of(thrown, rates=rates), "outlier-dominated-loss") is None


@pytest.mark.parametrize(("epochs", "expected"), [(0.95, True), (3.0, False)])
def test_a_gap_that_grows_in_a_single_pass_is_of_another_kind(epochs: float, expected: bool) -> None:
    at = np.arange(200)
    loss = 2.0 + 2.5 * np.exp(-at / 20) - 0.7 * at / 200 + 0.02 * noise_of(200)
    beside = {step: float(2.1 + 1.5 * np.exp(-step / 20) + 0.1 * step / 200) for step in range(15, 200, 15)}
    said = found(case_of(loss, validation=beside, facts={"epochs": epochs}), "validation-shift")
    assert (said is not None) is expected


@pytest.mark.parametrize(("moves", "first"), [(0.0, "class-collapse"), (0.03, "validation-shift")])
def test_evaluations_that_say_one_class_tell_no_other_kind_of_data(moves: float, first: str) -> None:
    at = np.arange(240)
    loss = 0.35 + (np.log(6.0) - 0.35) * np.exp(-at / 9) + 0.05 * noise_of(240)
    right = 0.17 + moves * np.sin(np.arange(10.0))
    right[0] = 0.165
    judged = 3.3 + 0.2 * np.sin(np.arange(10.0) * 2.0)
    case = case_of(
        np.concatenate([[np.log(6.0)], loss[1:]]), validation=dict(zip(range(24, 241, 24), judged, strict=True))
    )
    case.history.add("validation/accuracy", np.arange(24, 241, 24), right)
    assert lead(case) == first


@pytest.mark.parametrize(("floor", "severity"), [(2.05, "info"), (1.2, "warning")])
def test_what_is_learned_by_heart_costs_less_than_what_holds_for_all(floor: float, severity: str) -> None:
    at = np.arange(1, 201)
    loss = floor + (2.3 - floor) * np.exp(-at / 60) + 0.02 * noise_of(200)
    judged = [1.86, 2.02, 2.1, 2.13, 2.14, 2.15, 2.16, 2.17, 2.17, 2.18]  # statistics of batches are being found
    said = found(case_of(loss, validation=dict(zip(range(20, 201, 20), judged, strict=True))), "overfitting")
    assert said is not None
    assert said.severity == severity


def test_restarts_of_the_rate_are_no_order_of_the_data() -> None:
    rates = np.tile(cosine(60, warmup=0.02), 5)
    assert found(case_of(sorted_by_class(5), rates=rates), "unshuffled-data") is None


def test_one_step_is_a_batch_and_several_are_a_spike() -> None:
    loss = falling(400, noise=0.05)
    loss[200] += 4.0
    assert lead(case_of(loss)) == "corrupt-batch"
    loss[201:206] += 3.0
    assert found(case_of(loss), "corrupt-batch") is None
    hard = falling(400, noise=0.05)
    hard[np.random.default_rng(1).random(400) < 0.05] += np.random.default_rng(2).gamma(2.0, 0.6)
    assert found(case_of(hard), "corrupt-batch") is None


@pytest.mark.parametrize("seen", [50, 150])
def test_a_jump_at_the_top_of_the_warm_up_is_no_damaged_batch(seen: int) -> None:
    # As recorded of sound text: the rate is at its full height from step 8 on, and gradients grow from step 12 on.
    loss = falling(150, start=7.0, floor=4.6, noise=0.05)
    loss[15] += 1.6
    norms = 0.8 + 0.1 * np.abs(noise_of(150))
    norms[11:16] = [1.6, 3.0, 2.4, 0.6, 53.2]
    rates = 2e-3 * np.minimum(np.arange(1, 151) / 8, 1.0)
    diagnosis = diagnose(case_of(loss[:seen], rates=rates[:seen], grad_norm=norms[:seen], total_steps=150))
    assert not [one for one in diagnosis.findings if one.severity != "info"]
    assert [one.code for one in diagnosis.findings if one.onset_step == 16] == ["loss-spike"]


def test_gradients_that_grew_before_speak_for_the_weights() -> None:
    loss, norms = falling(400, noise=0.05), 0.8 + 0.1 * np.abs(noise_of(400))
    loss[200] += 4.0
    assert lead(case_of(loss, grad_norm=norms)) == "corrupt-batch"
    norms[195:200] = [1.6, 3.0, 2.4, 0.6, 9.0]
    assert lead(case_of(loss, grad_norm=norms)) == "loss-spike"


@pytest.mark.parametrize("height", [0.8, 1.2, 1.6, 2.0, 3.0, 5.0])
def test_one_step_is_told_once(height: float) -> None:
    loss = falling(800, noise=0.08)
    loss[500] += height
    codes = [one.code for one in diagnose(case_of(loss, rates=cosine(800))).findings]
    assert len({"loss-spike", "corrupt-batch"} & set(codes)) == 1


def answers(accuracy: list[float], score: list[float], correlation: list[float]) -> Finding | None:
    """What is said of class-collapse in three classes, of which the first has 47 % of 213 texts."""
    facts = {
        "task": "classification",
        "targets": {"classes": ["a", "b", "c"], "counts": [401, 239, 213]},
        "validation": {"documents": 213},
    }
    steps = range(50, 50 * len(accuracy) + 1, 50)
    case = case_of(falling(50 * len(accuracy), start=1.1, floor=0.9), facts=facts, total_steps=400)
    for name, values in (("accuracy", accuracy), ("macro_f1", score), ("mcc", correlation)):
        case.history.add(f"validation/{name}", np.array(steps), np.array(values))
    return found(case, "class-collapse")


def test_several_classes_said_without_success_are_no_collapse() -> None:
    # As recorded of shuffled labels: one class at first, then all three, by chance.
    assert answers([0.488, 0.460, 0.427], [0.232, 0.313, 0.364], [0.061, 0.059, 0.059]) is None
    assert answers([0.470, 0.471, 0.468], [0.213, 0.240, 0.285], [0.0, 0.03, 0.05]) is not None


def test_a_batch_that_is_no_number_alone_is_a_corrupt_batch() -> None:
    loss = falling(400, noise=0.05)
    loss[[120, 220, 320]] = np.nan
    finding = found(case_of(loss), "corrupt-batch")
    assert finding is not None
    assert finding.onset_step == 121
    assert any("every 100 steps" in item.text for item in finding.evidence)
    loss[200:] = np.nan
    assert found(case_of(loss), "corrupt-batch") is None


def test_overfitting_is_not_overconfident_where_the_accuracy_stands_still() -> None:
    steps = range(50, 501, 50)
    validation = {step: 1.0 - 0.5 * (step / 150) if step <= 150 else 0.5 + (step - 150) / 700 for step in steps}
    for gain, expected in ((0.06, "overconfident"), (0.0, "overfitting")):
        accuracy = {step: min(0.7, 0.6 + step / 1500) + gain * max(0, step - 150) / 350 for step in steps}
        case = case_of(classes_of(500, end=0.05), validation=validation, facts=FACTS)
        for step, value in accuracy.items():
            case.history.add("validation/accuracy", np.array([step]), np.array([value]))
        assert lead(case) == expected


def test_few_validation_samples_are_a_warning_and_some_a_remark() -> None:
    for documents, severity in ((20, "warning"), (60, "info"), (400, None)):
        facts = {**FACTS, "validation": {"documents": documents}}
        case = case_of(classes_of(200, end=0.5), validation={100: 0.8, 200: 0.6}, facts=facts)
        finding = found(case, "validation-too-small")
        assert (None if finding is None else finding.severity) == severity


def test_outliers_matter_under_a_squared_error_alone() -> None:
    for objective, share, severity in (
        ("mse", 0.9, "warning"),
        ("mse", 0.6, "info"),
        ("mse", 0.2, None),
        ("huber", 0.9, None),
    ):
        facts = {"task": "regression", "outliers": {"share": share, "farthest": 300.0}}
        case = case_of(falling(200), facts=facts, config={"objective.name": objective})
        finding = found(case, "outlier-dominated-loss")
        assert (None if finding is None else finding.severity) == severity


def test_more_outliers_than_a_hundredth_are_seen() -> None:
    for part, severity in ((0.97, "warning"), (0.8, None)):
        facts = {"task": "regression", "outliers": {"share": 0.4, "twentieth": part, "farthest": 60.0}}
        finding = found(case_of(falling(200), facts=facts, config={"objective.name": "mse"}), "outlier-dominated-loss")
        assert (None if finding is None else finding.severity) == severity


def test_a_hard_task_is_not_noise_of_labels() -> None:
    for errors, expected in (([0.13, 0.15], True), ([0.01, 0.12], False), ([0.08, 0.25], False)):
        labels = {"texts": 800, "accuracy": 0.75, "majority": 0.1, "sure_errors": errors, "telling": 0.3}
        labels |= {"validation_texts": 200, "validation_accuracy": 0.75}
        case = case_of(classes_of(200, end=0.5), facts={**FACTS, "counting": {"labels": labels}})
        assert (found(case, "label-noise") is not None) == expected


def test_a_place_that_tells_one_of_many_classes_is_a_leak() -> None:
    for placed, expected in ((1.0, True), (0.9, False)):
        labels = {"texts": 800, "accuracy": 0.5, "majority": 0.4, "sure_errors": [0.1, 0.2], "telling": 0.3}
        labels |= {"validation_texts": 200, "validation_accuracy": 0.5, "placed": placed}
        facts = {**FACTS, "counting": {"labels": labels}}
        told = found(case_of(classes_of(200, end=0.5), facts=facts), "target-leak")
        assert (told is not None and told.severity == "warning") == expected


@pytest.mark.parametrize(("placed", "expected"), [(0.999, True), (0.99, False)])
def test_a_column_that_tells_a_number_is_a_leak_and_a_digit_of_it_is_none(placed: float, expected: bool) -> None:
    facts = {"task": "regression", "counting": {"placed": placed}}
    assert (found(case_of(falling(200, start=1.0), facts=facts), "target-leak") is not None) == expected


def test_a_leak_is_counted_by_documents() -> None:
    for leaked, near, config, expected in (
        (0, 0, {}, None),
        (1, 0, {}, None),
        (20, 0, {}, "data.duplicates.exact"),
        (0, 20, {}, "data.duplicates.near"),
        (0, 20, {"data.duplicates.near": "drop"}, None),
    ):
        facts = {"leakage": leaked, "validation": {"documents": 200}, "duplicates": {"near": {"leaked": near}}}
        finding = found(case_of(falling(200), facts=facts, config=config), "leakage")
        assert (None if finding is None else [*finding.remedies[0].config]) == (
            None if expected is None else [expected]
        )


def test_an_accuracy_that_stands_still_is_of_one_class_where_nothing_is_learned() -> None:
    for end, expected in ((2.2, True), (0.05, False)):
        case = case_of(classes_of(400, end=end), validation={s: 2.2 + s / 1e4 for s in range(50, 401, 50)}, facts=FACTS)
        case.history.add("validation/accuracy", np.arange(50, 401, 50), np.full(8, 0.13))
        assert (found(case, "class-collapse") is not None) == expected


def test_a_loss_too_low_for_its_accuracy_is_weighed() -> None:
    steps = np.arange(50, 401, 50)
    for low, expected in ((0.1, True), (0.7, False)):
        case = case_of(
            classes_of(400, end=0.2),
            validation=dict(zip(steps.tolist(), np.linspace(0.5, 0.2, 8), strict=True)),
            facts=FACTS,
        )
        case.history.add("validation/accuracy", steps, np.linspace(low, 0.9, 8))
        assert (found(case, "class-collapse") is not None) == expected


def test_a_text_that_is_copied_is_a_leak() -> None:
    for share, expected in ((1.0, True), (0.5, False)):
        case = case_of(falling(200), facts={"task": "seq2seq", "counting": {"copied": share}})
        assert (found(case, "target-leak") is not None) == expected


def test_pairs_that_have_nothing_in_common_are_random() -> None:
    for value, expected in ((0.4, True), (12.0, False)):
        case = case_of(falling(200), facts={"task": "seq2seq", "counting": {"related": value}})
        assert (found(case, "random-labels") is not None) == expected


# What curves tell of logs that know nothing else.


def judged_log(training: Array, /, **series: Array) -> Case:
    """A log with evaluations each 20 steps: `loss` and `accuracy` of validation, and other series of all steps."""
    case = Case(case_of(training).history, {}, {}, "text")
    for name, values in series.items():
        at = np.arange(1, len(values) + 1) * (20 if name in ("loss", "accuracy") else 1)
        case.history.add(f"validation/{name}" if name in ("loss", "accuracy") else name, at, values)
    return case


def approach(start: float, end: float, number: int = 20) -> Array:
    return end + (start - end) * np.exp(-np.arange(number) / 3.0)


@pytest.mark.parametrize(
    ("floor", "noise", "judged", "expected"),
    [
        (1.25, 0.25, 0.55, True),  # three tenths of the labels wrong, which cost 0.36 at least
        (0.55, 0.03, 0.25, False),  # a tenth of smoothing
        (1.25, 0.01, 0.55, False),  # strong smoothing: no batch differs from another
        (0.45, 0.20, 0.25, False),  # dropout
        (1.25, 0.25, 1.20, False),  # a task that is hard
    ],
)
def test_a_floor_of_wrong_labels_explains_both_losses(
    floor: float, noise: float, judged: float, expected: bool
) -> None:
    steps = np.arange(400)
    loss = floor + (np.log(10) - floor) * np.exp(-steps / 25) + noise * noise_of(400)
    loss[0] = np.log(10)
    case = judged_log(loss, loss=approach(2.2, judged), accuracy=approach(0.3, 0.93))
    finding = found(case, "label-noise")
    assert (finding is not None) == expected
    if finding is not None:
        assert finding.evidence[0].observed == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize(
    ("judged", "gains", "fell", "sure"),
    [(2.31, 0.0, 0.15, 0.7), (2.31, 0.0, 0.0, 0.6), (1.9, 0.2, 0.15, None)],
)
def test_nothing_carries_over_of_random_labels(judged: float, gains: float, fell: float, sure: float | None) -> None:
    loss = np.log(10) - fell * np.arange(400) / 400 + 0.02 * noise_of(400)
    wobble = 0.01 * noise_of(20, 3)
    case = judged_log(loss, loss=np.linspace(2.31, judged, 20), accuracy=0.1 + np.linspace(0.0, gains, 20) + wobble)
    finding = found(case, "random-labels")
    assert (None if finding is None else finding.confidence) == sure


@pytest.mark.parametrize(("number", "first", "last"), [(97, 0.2, 0.27), (5, 0.28, 0.54)])
def test_loss_and_accuracy_add_up_where_probabilities_are_taken_for_logits(
    number: int, first: float, last: float
) -> None:
    accuracy = approach(first, last)
    most = np.log(number - 1 + np.e)
    loss = np.concatenate([np.full(5, np.log(number)), np.repeat(most - accuracy, 20)[5:] + 0.03 * noise_of(395)])
    assert found(judged_log(loss, loss=most - accuracy, accuracy=accuracy), "double-softmax") is not None
    # A sound model of the same accuracy.
    lower = loss - 0.2 * (np.arange(400) >= 5)
    assert found(judged_log(lower, loss=most - accuracy - 0.2, accuracy=accuracy), "double-softmax") is None


@pytest.mark.parametrize(("number", "severity"), [(12, "warning"), (80, "info"), (400, None)])
def test_accuracies_tell_how_many_answers_there_are(number: int, severity: str | None) -> None:
    right = np.round(approach(0.3, 0.85) * number + 2.0 * noise_of(20)).clip(0, number)
    for digits in (6, 4):
        accuracy = np.round(right / number, digits)
        case = judged_log(classes_of(400, end=0.4), loss=approach(2.2, 0.5), accuracy=accuracy)
        finding = found(case, "validation-too-small")
        assert (None if finding is None else finding.severity) == severity


@pytest.mark.parametrize(("first", "times", "expected"), [(8.0, 40.0, True), (0.5, 0.8, False), (1.5, 8.0, False)])
def test_large_inputs_multiply_the_gradient_and_large_weights_do_not(
    first: float, times: float, expected: bool
) -> None:
    loss = 0.3 + 20.0 * np.exp(-np.arange(300) / 6)
    norms = loss * np.where(np.arange(300) < 15, first, times) * np.exp(0.1 * noise_of(300))
    case = judged_log(loss, accuracy=approach(0.3, 0.9, 15), grad_norm=norms)
    assert (found(case, "unscaled-inputs") is not None) == expected


def test_a_warm_up_that_was_logged_hides_no_order() -> None:
    rates = 1e-3 * np.minimum(np.arange(1, 301) / 20, 1.0)
    assert found(case_of(waves(5), rates=rates), "unshuffled-data") is not None


@pytest.mark.parametrize(("lasts", "expected"), [(1, True), (3, False)])
def test_one_logged_value_alone_is_a_batch(lasts: int, expected: bool) -> None:
    loss = falling(100, noise=0.05)
    loss[60 : 60 + lasts] += 4.0
    history = History()
    history.observe(RunStarted(0, 1, 0, None, 500))
    history.add("train/loss", 5 * np.arange(1, 101), loss)
    finding = found(Case(history, {}, {}, "text"), "corrupt-batch")
    assert (finding is not None and finding.onset_step == 305) == expected


def test_an_accuracy_that_has_come_to_rest_is_no_collapse() -> None:
    accuracy = np.concatenate([np.linspace(0.2, 0.45, 14) + 0.01 * noise_of(14), np.full(6, 0.45)])
    case = judged_log(classes_of(400, end=1.9), loss=np.linspace(2.2, 1.9, 20), accuracy=accuracy)
    assert found(case, "class-collapse") is None
    fallen = np.where(np.arange(20) < 14, accuracy, 0.13)
    case = judged_log(classes_of(400, end=1.9), loss=np.linspace(2.2, 1.9, 20), accuracy=fallen)
    assert found(case, "class-collapse") is not None


def test_far_targets_in_most_batches_are_outliers_and_noise_is_none() -> None:
    random = np.random.default_rng(0)
    far = 3.0 + random.random(300) + np.where(random.random(300) < 0.5, random.gamma(1.5, 900.0, 300), 0.0)
    assert found(case_of(far, validation={100: 1900.0, 200: 1850.0, 300: 1850.0}), "outlier-dominated-loss") is not None
    above = 5.0 * random.gamma(1.2, 1.0, 300)
    assert found(case_of(above, validation={100: 0.3, 200: 0.3, 300: 0.3}), "outlier-dominated-loss") is not None
    alike = case_of(above, validation={100: 5.0, 200: 5.0, 300: 5.0})
    assert found(alike, "outlier-dominated-loss") is None
