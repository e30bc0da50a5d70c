"""What made the difference between two runs: planted differences are found, and what cannot be known is not claimed."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import case_of, cosine, falling, noise_of
from typer.testing import CliRunner

from trimtab import cli
from trimtab.doctor import Case
from trimtab.doctor.acts_on import acts_on
from trimtab.doctor.compare import Side, compare, open_side, other_runs
from trimtab.doctor.compare.outcomes import noise_after_descent
from trimtab.doctor.compare.partings import parting_of
from trimtab.doctor.diagnose import diagnose
from trimtab.doctor.effects import RunOutcome
from trimtab.doctor.finding import Finding, Remedy
from trimtab.doctor.reading.curves import Curve
from trimtab.events import Adjust, DecisionTaken
from trimtab.report.comparison import render_comparison
from trimtab.report.comparison_page import render_comparison_page

ARCHIVE = Path(__file__).parent / "runs" / "runs.tar.xz"
CONFIG = {
    "name": "one",
    "seed": 1,
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 1e-3,
    "model.num_layers": 2,
    "checkpoint.metric": "validation/loss",
    "logging.every": 10,
}


def side_of(name: str, case: Case, **facts: Any) -> Side:
    kept = replace(case, facts={**case.facts, **facts})
    return Side(name, f"runs/{name}", kept, diagnose(kept, name))


def run_of(
    name: str,
    *,
    worse: float = 0.0,
    from_step: int = 1,
    seed: int = 0,
    config: dict[str, Any] | None = None,
    **facts: Any,
) -> Side:
    """Of 400 steps, whose losses are `worse` from some step on."""
    loss = falling(400, seed=0, noise=0.05) + 1e-3 * noise_of(400, seed)
    loss[from_step - 1 :] += worse
    at = np.arange(20, 401, 20)
    validation = dict(
        zip(at.tolist(), (falling(400, noise=0.0)[at - 1] + worse * (at >= from_step)).tolist(), strict=True)
    )
    return side_of(name, case_of(loss, rates=cosine(400), validation=validation, config=config or CONFIG), **facts)


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    with tarfile.open(ARCHIVE) as archive:
        wanted = ("1/cosine/", "1/loss-spike/", "1/learning-rate-too-high/", "2/cosine/")
        archive.extractall(folder, [one for one in archive if one.name.startswith(wanted)], filter="data")
    return folder


@pytest.mark.parametrize("at", [1, 100, 250])
def test_where_curves_part(at: int) -> None:
    steps = np.arange(1, 401)
    a = falling(400, noise=0.05)
    b = a.copy()
    b[at - 1 :] += 0.3 + 0.02 * noise_of(400 - at + 1)
    found = parting_of("train/loss", Curve(steps, a), Curve(steps, b))
    assert found is not None
    assert found.same_until == at - 1
    assert found.step is not None
    assert found.earliest is not None
    assert found.earliest <= at <= found.step + 1
    assert found.step - at <= 12
    assert found.difference == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_curves_that_differ_by_noise_alone_do_not_part(seed: int) -> None:
    steps, base = np.arange(1, 401), falling(400, noise=0.0)
    a, b = (base + 0.1 * noise_of(400, one) for one in (seed, 100 + seed))
    found = parting_of("train/loss", Curve(steps, a), Curve(steps, b))
    assert found is not None
    assert found.step is None
    assert found.same_until == 0


def test_curves_that_come_back_do_not_part_for_good() -> None:
    steps, a = np.arange(1, 401), falling(400, noise=0.02)
    b = a.copy()
    b[100:200] += 1.0
    found = parting_of("train/loss", Curve(steps, a), Curve(steps, b))
    assert found is not None
    assert (found.step, found.same_until) == (None, 100)


def test_a_run_that_was_judged_on_its_training_data_is_not_ranked() -> None:
    clean = run_of("clean", worse=0.5, validation={"documents": 100}, leakage=0)
    leaky = run_of("leaky", validation={"documents": 100}, leakage=40)
    found = compare(clean, leaky)
    assert "cannot be held against each other" in found.summary
    assert "leaky was judged on what it was trained on: 40%" in found.obstacles[0]
    assert "better" not in found.recommendation.summary
    assert "neither was trained on" in found.recommendation.summary
    for page in (render_comparison(found), render_comparison_page(found)):
        assert "not comparable: b was judged on training data" in page
        assert "is better" not in page
    for leaked in (0, 2):  # a few change little
        other = run_of("other", validation={"documents": 100}, leakage=leaked)
        assert "b is better" in render_comparison(compare(clean, other))


def test_the_one_setting_that_differs_is_the_reason() -> None:
    a = run_of("a")
    b = run_of("b", worse=0.5, seed=1, config={**CONFIG, "name": "two", "optimizer.learning_rate": 1e-5})
    found = compare(a, b)
    assert found.outcomes[0].better == "a"
    assert found.reasons[0].what == ("optimizer.learning_rate",)
    assert found.reasons[0].confidence >= 0.9
    assert dict(found.recommendation.config) == {"optimizer.learning_rate": 1e-3}
    assert [(one.what, one.kind) for one in found.changes] == [
        ("optimizer.learning_rate", "weights"),
        ("name", "nothing"),
    ]


def test_with_another_seed_chance_is_to_be_parted_from_the_setting() -> None:
    b = run_of("b", worse=0.5, seed=1, config={**CONFIG, "seed": 2, "optimizer.learning_rate": 1e-5})
    found = compare(run_of("a"), b)
    assert found.reasons[0].confidence <= 0.75
    assert dict(found.recommendation.config) == {"seed": 1}


def test_several_settings_are_not_told_apart() -> None:
    b = run_of("b", worse=0.5, config={**CONFIG, "optimizer.learning_rate": 1e-5, "model.num_layers": 1})
    found = compare(run_of("a"), b)
    assert {reason.what for reason in found.reasons} == {("optimizer.learning_rate",), ("model.num_layers",)}
    assert max(reason.confidence for reason in found.reasons) < 0.6
    assert "none can be named alone" in found.recommendation.summary
    many = {f"model.option_{index}": 1 for index in range(6)}
    found = compare(
        run_of("a", config={**CONFIG, **dict.fromkeys(many, 0)}), run_of("b", worse=0.5, config={**CONFIG, **many})
    )
    assert "half of them" in found.recommendation.summary


def test_what_happened_where_late_curves_part_leads_over_settings() -> None:
    b = run_of("b", worse=0.6, from_step=200, config={**CONFIG, "model.num_layers": 3})
    b.case.history.observe(DecisionTaken(198, 198, "plateau", Adjust("it stands", "learning_rate", 8.0)))
    found = compare(run_of("a"), b)
    assert "plateau: adjust learning_rate (8)" in found.reasons[0].text
    assert found.reasons[0].confidence > 2 * found.reasons[1].confidence


def test_only_the_seed_differs() -> None:
    b = run_of("b", worse=0.5, seed=1, config={**CONFIG, "seed": 2})
    found = compare(run_of("a"), b)
    assert "this is what chance alone does" in found.reasons[0].text
    assert {one.better for one in found.outcomes} == {None}
    assert "They differ in the seed alone" in found.summary
    assert "repeat" not in found.summary
    assert "it is what a seed does here" in found.recommendation.summary


def foreign(name: str, validation: list[float]) -> Side:
    at = np.arange(0, 2001, 200)
    kept = dict(zip(at.tolist(), validation, strict=True))
    return side_of(name, case_of(loss=falling(2000), validation=kept))


def test_a_steep_descent_is_no_chance() -> None:
    at = np.arange(0, 2001, 200)
    sound = 2.3 + 4.0 * np.exp(-at / 300) + 0.75 * np.exp(-at / 1500)
    overfit = 2.6 + 1.5 * np.exp(-at / 100) + np.maximum(0, at - 400) / 1000
    assert noise_after_descent(sound) < 0.02
    assert noise_after_descent(overfit) < 0.02
    scatter = 0.1 * noise_of(len(at))
    assert 0.05 < noise_after_descent(sound[-1] + scatter) < 0.2
    assert 0.02 < noise_after_descent(1.0 - np.exp(-at / 200) + scatter) < 0.3
    found = compare(foreign("sound", sound.tolist()), foreign("overfit", overfit.tolist()))
    assert [one.better for one in found.outcomes if one.budget in ("in the whole run", "at the end")] == ["a", "a"]


def test_the_end_counts_where_the_best_are_the_same() -> None:
    level = 2.0 + 0.02 * noise_of(20)
    rising = level + np.linspace(-0.02, 0.8, 20) * (np.arange(20) > 12)
    sides = []
    for name, values in (("a", level), ("b", rising)):
        at = np.arange(20, 401, 20)
        kept = dict(zip(at.tolist(), values.tolist(), strict=True))
        sides.append(side_of(name, case_of(loss=falling(400), validation=kept)))
    found = compare(*sides)
    assert found.outcomes[0].better is None
    assert found.outcomes[1].better == "a"
    assert "a is better in the end" in found.summary
    assert "their best are the same but for chance" in found.summary


def test_a_setting_that_a_fault_of_the_worse_run_names_comes_before_faults_of_the_better() -> None:
    b = run_of("b", worse=0.6, from_step=100, config={**CONFIG, "optimizer.learning_rate": 0.1})
    too_high = Finding(
        "learning-rate-too-high",
        "error",
        0.9,
        1,
        "too high",
        (),
        remedies=(Remedy("lower", "trimtab", {"optimizer.learning_rate": 0.03}),),
    )
    b = replace(b, diagnosis=replace(b.diagnosis, findings=(too_high,)), plan={"compile": {"reason": "89 s"}})
    a = run_of("a")
    spike = Finding("loss-spike", "warning", 0.9, 98, "it jumped", ())
    a = replace(a, diagnosis=replace(a.diagnosis, findings=(spike,)), plan={"compile": {"reason": "71 s"}})
    found = compare(a, b)
    assert [one.what for one in found.changes] == ["optimizer.learning_rate"]
    assert found.reasons[0].what == ("optimizer.learning_rate",)
    assert not any("loss-spike" in one.text for one in found.reasons)
    assert found.recommendation.config == {"optimizer.learning_rate": 1e-3}


def test_a_pair_of_seeds_tells_what_chance_does_even_when_one_is_compared() -> None:
    config = {**CONFIG, "model.num_layers": 1}
    pair = [
        RunOutcome("a", CONFIG, "validation/loss", 3.0, ()),
        RunOutcome("s", {**CONFIG, "seed": 7}, "validation/loss", 3.5, ()),
    ]
    found = compare(run_of("a"), run_of("b", worse=0.4, config=config), pair[1:], themselves=pair[:1])
    assert found.outcomes[0].better is None
    assert "2 runs of the project" in found.outcomes[0].source
    assert compare(run_of("a"), run_of("b", worse=0.4, config=config), pair[1:]).outcomes[0].better == "a"


def test_equal_runs_come_to_the_same() -> None:
    found = compare(run_of("a"), run_of("b"))
    assert found.reasons == ()
    assert found.changes == ()
    assert found.outcomes[0].better is None
    assert "come to the same" in found.summary
    assert found.recommendation.summary.startswith("nothing: ")


def test_a_difference_within_what_seeds_do_is_none() -> None:
    others = [
        RunOutcome(f"r{seed}", {**CONFIG, "seed": seed}, "validation/loss", 3.0 + 0.4 * float(noise_of(8)[seed]), ())
        for seed in range(8)
    ]
    b = run_of("b", worse=0.2, config={**CONFIG, "model.num_layers": 1})
    found = compare(run_of("a"), b, others)
    assert found.outcomes[0].better is None
    assert "8 runs of the project" in found.outcomes[0].source
    assert "repeat both with other seeds" in found.recommendation.summary
    assert compare(run_of("a"), b).outcomes[0].better == "a"


def test_earlier_runs_speak_for_a_setting() -> None:
    others = [
        RunOutcome(
            f"r{seed}-{layers}",
            {**CONFIG, "seed": seed, "model.num_layers": layers},
            "validation/loss",
            3.0 + 0.5 * (layers == 1) + 0.01 * seed,
            (),
        )
        for seed in range(4)
        for layers in (1, 2)
    ]
    b = run_of("b", worse=0.5, config={**CONFIG, "model.num_layers": 1, "optimizer.learning_rate": 9e-4})
    found = compare(run_of("a"), b, others)
    assert found.reasons[0].what == ("model.num_layers",)
    assert found.earlier[0].startswith("model.num_layers, each doubling: -0.5000 (95 %: -0.5")


def test_what_cannot_be_compared_is_said() -> None:
    one = {"tokenizer": {"fingerprint": "x"}, "validation": {"sha256": "p"}}
    other = {"tokenizer": {"fingerprint": "x"}, "validation": {"sha256": "q"}}
    found = compare(run_of("a", **one), run_of("b", **other))
    assert found.obstacles == ("they are judged on different validation data",)
    assert "judge both alike first" in found.recommendation.summary
    found = compare(run_of("a", task="causal_lm"), run_of("b", task="classification"))
    assert "different tasks" in found.obstacles[0]
    assert not found.outcomes
    for names, expected in (
        (("mse", "huber"), ("their losses are not of one kind: objective.name is mse and huber",)),
        (("mse", "rmse"), ()),  # both are told as squares
        (("cross_entropy", "focal"), ()),
    ):
        a, b = ({**CONFIG, "objective.name": name} for name in names)
        assert compare(run_of("a", config=a), run_of("b", config=b, worse=-0.5)).obstacles == expected


def log_of(folder: Path, name: str, columns: str, first: float, floor: float = 0.3) -> Side:
    rows = [f"{step},{floor + (first - floor) * 0.97**step:.4f},{step / 100:.2f},0.5" for step in range(100)]
    (folder / name).write_text("\n".join([f"step,loss,{columns}", *rows]) + "\n")
    return open_side(folder / name)


def test_logs_of_different_tasks_are_not_ranked_and_their_speed_is(tmp_path: Path) -> None:
    text = log_of(tmp_path, "text.csv", "perplexity,step_time", 10.8)
    boxes = log_of(tmp_path, "boxes.csv", "mAP50,step_time", 10.7)
    digits = log_of(tmp_path, "digits.csv", "right,step_time", 2.3)
    more = log_of(tmp_path, "more.csv", "right,step_time", 10.8, floor=3.3)
    new = log_of(tmp_path, "new.csv", "right,step_time", 10.8)
    for one, other, why in (
        (text, boxes, "metrics are of different tasks"),
        (digits, more, "begin at 2.3000 and 10.800"),
    ):
        found = compare(one, other)
        assert why in found.obstacles[0]
        assert [outcome.metric for outcome in found.outcomes] == ["step_seconds"]
        assert "not comparable" in found.summary
        assert "better" not in render_comparison(found)
        assert why in render_comparison_page(found)
    for one, other in ((more, boxes), (digits, new)):  # the new one comes down to where the other began
        found = compare(one, other)
        assert found.obstacles == ()
        assert found.outcomes[0].metric == "train/loss"


def test_budgets_are_made_equal() -> None:
    a = side_of("a", case_of(falling(400, noise=0.0), config=CONFIG, tokens=np.full(400, 512.0)))
    b = side_of("b", case_of(falling(200, noise=0.0), config=CONFIG, tokens=np.full(200, 512.0), total_steps=200))
    outcomes = compare(a, b).outcomes
    assert [one.budget for one in outcomes] == ["in the whole run", "within 200 steps"], "tokens say the same again"
    assert outcomes[1].step_a == outcomes[1].step_b == 200


@pytest.mark.parametrize(
    ("setting", "kind"),
    [
        ("seed", "chance"),
        ("model.num_layers", "weights"),
        ("data.source.path", "data"),
        ("data.source.seed", "data"),
        ("data.validation_fraction", "judgement"),
        ("data.validation_source.path", "judgement"),
        ("training.steps", "length"),
        ("training.precision.name", "numerics"),
        ("training.micro_batch_size", "weights"),
        ("checkpoint.metric", "judgement"),
        ("checkpoint.every", "nothing"),
        ("sinks.0.name", "nothing"),
        ("stopping.patience", "length"),
    ],
)
def test_what_a_setting_acts_on(setting: str, kind: str) -> None:
    assert acts_on(setting) == kind


def test_recorded_runs(recorded: Path) -> None:
    a, b = open_side(recorded / "1/cosine"), open_side(recorded / "1/loss-spike")
    found = compare(a, b)
    assert found.reasons[0].text.startswith("in loss-spike, at step 200: rate_factors: adjust learning_rate (10)")
    parting = next(one for one in found.partings if one.metric == "validation/loss")
    assert (parting.earliest, parting.step) == (200, 240)
    page, text = render_comparison_page(found), render_comparison(found)
    for word in ("a: cosine", "b: loss-spike", "What made the difference", "they part somewhere here"):
        assert word in page
    assert "http" not in page.replace("http-equiv", "")
    assert "=> in loss-spike, take out what raised the learning rate" in text
    assert max(map(len, text.splitlines()[2:])) <= 100
    high = compare(a, open_side(recorded / "1/learning-rate-too-high"), other_runs(recorded / "1/cosine"))
    assert "the doctor finds learning-rate-too-high in learning-rate-too-high alone" in high.reasons[0].text
    assert dict(high.recommendation.config) == {"optimizer.learning_rate": 0.005}
    named_alike = compare(a, open_side(recorded / "2/cosine"))
    assert named_alike.a.name == "1/cosine"
    assert named_alike.outcomes[0].metric == "validation/bits_per_byte"


def test_the_command(recorded: Path, tmp_path: Path) -> None:
    pair = [str(recorded / "1/cosine"), str(recorded / "1/loss-spike")]
    page = tmp_path / "compare.html"
    done = CliRunner().invoke(cli.app, ["compare", *pair, "--output", str(page)])
    assert done.exit_code == 0, done.output
    assert "cosine is better" in done.output
    assert page.read_text().startswith("<!DOCTYPE html>")
    done = CliRunner().invoke(cli.app, ["compare", *pair, "--json"])
    told = json.loads(done.output)
    assert told["schema"] == 1
    assert told["outcomes"][0]["better"] == "a"
    assert {turn["run"] for turn in told["turning_points"]} == {"a", "b"}
    log = tmp_path / "log.csv"
    log.write_text("step,loss\n" + "".join(f"{step},{4 - step / 50}\n" for step in range(1, 60)))
    done = CliRunner().invoke(cli.app, ["compare", pair[0], str(log)])
    assert done.exit_code == 0, done.output
    assert "log.csv" in done.output


def test_a_run_that_failed_is_the_worse_of_two_with_the_same_best() -> None:
    loss = falling(400, noise=0.05)
    good = case_of(loss, rates=cosine(400), validation={200: 3.5, 399: 3.5}, config=CONFIG)
    broken = loss.copy()
    broken[300:] = np.nan
    bad = case_of(broken, rates=cosine(400), validation={200: 3.5}, config=CONFIG)
    found = compare(side_of("a", good), side_of("b", bad))
    assert found.reasons[0].text.startswith("in b, at step 301: nan-loss begins")
    assert "b failed, nan-loss from step 301 on" in found.summary
    assert found.recommendation.summary.startswith("in b, ")


def test_a_remedy_that_leads_away_from_the_other_run_is_no_link() -> None:
    config = {**CONFIG, "optimizer.learning_rate": 0.06}
    high = run_of("b", worse=0.5, config=config)
    finding = Finding(
        "learning-rate-too-high",
        "warning",
        0.9,
        1,
        "too high",
        remedies=(Remedy("lower", "trimtab", {"optimizer.learning_rate": 0.02}),),
    )
    high = replace(high, diagnosis=replace(high.diagnosis, findings=(finding,)))
    for rate, is_linked in ((1e-3, True), (0.2, False)):
        a = run_of("a", config={**CONFIG, "optimizer.learning_rate": rate})
        assert ("the doctor finds learning-rate-too-high" in compare(a, high).reasons[0].text) == is_linked


def test_first_losses_that_scatter_tell_no_task(tmp_path: Path) -> None:
    sides = []
    for name, first in (("a.csv", 3.0), ("b.csv", 0.9)):
        values = 0.95 + np.exp(0.8 * np.random.default_rng(4).normal(size=100))
        values[0] = first
        rows = [f"{step},{value:.4f}" for step, value in enumerate(values)]
        (tmp_path / name).write_text("\n".join(["step,loss", *rows]) + "\n")
        sides.append(open_side(tmp_path / name))
    assert compare(*sides).obstacles == ()
