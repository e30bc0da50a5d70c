"""Which metric broke first: planted breaks are found within their spans, and nothing is ordered that is not known."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from cases import case_of, cosine, falling, noise_of

from trimtab.doctor.diagnose import diagnose
from trimtab.doctor.finding import Break
from trimtab.doctor.load import open_case
from trimtab.doctor.order import breaks_of, order_of, told_order, with_order
from trimtab.report.lags import lag_diagram, lag_lines
from trimtab.report.text import render_text
from trimtab.runs import RunDirectory

ARCHIVE = Path(__file__).parent / "runs" / "runs.tar.xz"
STEPS = np.arange(1, 401)


@pytest.mark.parametrize("seed", range(8))
def test_a_sound_course_has_no_break(seed: int) -> None:
    loss = falling(400, noise=0.1, seed=seed)
    assert list(breaks_of("train/loss", STEPS, loss, "up")) == []
    growing = 1.0 + 0.01 * STEPS + 0.02 * noise_of(400, seed)
    assert list(breaks_of("layer/a/weight_norm", STEPS, growing, "up")) == []


@pytest.mark.parametrize("seed", range(8))
def test_a_step_up_is_found_where_it_is(seed: int) -> None:
    loss = falling(400, noise=0.1, seed=seed)
    loss[250:] += 1.0
    found = next(iter(breaks_of("train/loss", STEPS, loss, "up")))
    assert found.earliest <= 251 <= found.latest
    assert found.latest - found.earliest <= 20


def test_a_single_high_value_is_none() -> None:
    loss = falling(400, noise=0.1)
    loss[200] += 50.0
    assert list(breaks_of("train/loss", STEPS, loss, "up")) == []


def test_the_bad_way_of_an_accuracy_is_down() -> None:
    accuracy = 0.5 + 0.01 * noise_of(400)
    accuracy[300:] -= 0.2
    (found,) = list(breaks_of("train/accuracy", STEPS, accuracy, "down"))[:1]
    assert found.direction == "down"
    assert found.earliest <= 301 <= found.latest
    assert list(breaks_of("train/accuracy", STEPS, 1 - accuracy, "down")) == []


@pytest.mark.parametrize("seed", range(4))
def test_a_divergence_that_ends_in_no_number_is_one_event_with_one_onset(seed: int) -> None:
    """Where the loss stood low for long before, the lowest of its values says nothing of when it left."""
    rise = np.expm1(0.15 * np.maximum(np.arange(400) - 320, 0))
    loss = 1.0 + np.exp(-np.arange(400) / 30) + 0.05 * noise_of(400, seed) + rise
    norms = np.exp(0.2 * noise_of(400, seed + 9)) * (1.0 + 20.0 * rise)
    loss[352:] = norms[352:] = np.nan
    case = case_of(loss, grad_norm=norms)
    diagnosis = with_order(case, diagnose(case))
    (error,) = (finding for finding in diagnosis.findings if finding.severity == "error")
    assert {"divergence", "nan-loss"} <= {error.code, *error.consequences}
    assert 300 <= error.onset_step <= 330
    for one in diagnosis.order:
        if one.metric == error.evidence[0].metric and one.direction == "up":
            assert one.earliest <= error.onset_step <= one.latest


def test_metrics_are_put_in_order() -> None:
    norms, loss = 1.0 + 0.05 * noise_of(400, 1), falling(400, noise=0.05)
    norms[239:] += 3.0
    loss[279:] += 2.0
    case = case_of(loss, rates=cosine(400), grad_norm=norms)
    order = order_of(case, 280)
    assert [one.metric for one in order] == ["grad_norm", "train/loss"]
    assert [how for _, how in told_order(order)] == ["first", "then"]
    assert lag_lines(order)[1].startswith("then training loss up, between steps 2")
    assert order_of(case, 60) == (), "what breaks much later does not belong to it"


def test_spans_that_overlap_have_no_order() -> None:
    order = (
        Break("grad_norm", 10, 30, "up"),
        Break("train/loss", 20, 40, "up"),
        Break("validation/loss", 50, 90, "up"),
    )
    assert [how for _, how in told_order(order)] == ["first", "at about the same time", "then"]


def test_only_a_finding_that_begins_later_has_an_order() -> None:
    sound = case_of(falling(400), rates=cosine(400))
    assert with_order(sound, diagnose(sound)).order == ()


def test_a_diagram_needs_two() -> None:
    one = Break("train/loss", 10, 30, "up")
    assert lag_diagram((one,)) == ""
    drawn = lag_diagram((one, Break("layer/blocks.0/grad_norm", 40, 40, "not finite")))
    assert drawn.count('class="lag') == 2
    assert "then gradient norm of blocks.0 not finite, at step 40" in drawn
    assert "need not be the cause" in drawn


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ordered")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_sound_runs_hardly_break(recorded: Path) -> None:
    """After the first three tenths, in which a model finds its scales."""
    rows = json.loads((recorded / "runs.json").read_text())["runs"]
    sound = [row for row in rows if row["truth"] == "healthy"][::2]
    broken = []
    for row in sound:
        case = open_case(RunDirectory.open(recorded / str(row["set"]) / row["name"]))
        total = case.history.last_step
        broken += [row["name"]] * bool([one for one in order_of(case, int(0.7 * total)) if one.latest > 0.3 * total])
    assert len(sound) >= 13
    assert len(broken) <= 1, broken


def test_recorded_runs(recorded: Path) -> None:
    diverged = open_case(RunDirectory.open(recorded / "1/divergence"))
    diagnosis = with_order(diverged, diagnose(diverged))
    assert diagnosis.order, "weights grow from step 201 on"
    assert all(one.earliest >= 190 for one in diagnosis.order)
    assert "what broke first, which need not be the cause:" in render_text(diagnosis)
    assert diagnosis.to_json()["order"][0]["steps"][0] >= 190
    spiked = open_case(RunDirectory.open(recorded / "1/loss-spike"))
    order = {one.metric: one for one in with_order(spiked, diagnose(spiked)).order}
    assert order["learning_rate"] == Break("learning_rate", 201, 201, "up")
    assert order["train/loss"].earliest >= 201
    bound = open_case(RunDirectory.open(recorded / "1/input-bound"))
    assert not any(one.metric.endswith("loss") for one in with_order(bound, diagnose(bound)).order)
