"""A diagram shows every curve, marks what a line cannot show, and stays small."""

from __future__ import annotations

import re

import numpy as np
from test_curves import curve_of

from trimtab.report.diagram import draw
from trimtab.report.panel import Panel, Shade, Trace, Window


def panel_of(values: np.ndarray, **options: object) -> Panel:
    return Panel("loss", (Trace("training", curve_of(values), "train"),), **options)  # type: ignore[arg-type]


def test_a_spike_is_an_arrow_and_a_note_and_does_not_flatten_the_curve() -> None:
    values = np.linspace(4.0, 2.0, 1000)
    values[499] = 900.0
    drawn = draw(panel_of(values), Window(0, 1000))
    assert "up to 900.00 at step 500" in drawn
    assert drawn.count('class="beyond"') == 1
    assert ">900<" not in drawn
    path = re.search(r'class="curve train" d="M\d+ (\d+)', drawn)
    assert path
    assert int(path[1]) < 120, "the first value is near the top"


def test_what_is_not_finite_is_marked() -> None:
    values = np.ones(200)
    values[100:] = np.nan
    drawn = draw(panel_of(values), Window(0, 200))
    assert "not finite: steps 101 to 200" in drawn
    nothing = draw(panel_of(np.full(5, np.nan)), Window(0, 5))
    assert "not finite from step 1 to 5" in nothing


def test_evidence_onset_and_best_are_marked() -> None:
    trace = Trace("validation", curve_of(np.array([3.0, 2.0, 2.5])), "validation", True, 2)
    window = Window(0, 3, ((2, "onset of <overfitting>"),), (Shade(2, 3, "it rises"),))
    drawn = draw(Panel("loss", (trace,)), window)
    assert drawn.count('class="evidence"') == 1
    assert "onset of &lt;overfitting&gt;" in drawn
    assert "best 2.0000" in drawn
    assert drawn.count('class="point validation"') == 3 + 1, "each point, and the legend"


def test_read_outs_hold_the_values() -> None:
    drawn = draw(panel_of(np.array([3.0, 2.5, 2.25])), Window(0, 3))
    assert 'data-steps="1 1 1" data-values="3 2.5 2.25"' in drawn
    assert "training from 3.0000 at step 1 to 2.2500 at step 3" in drawn


def test_a_long_run_is_as_small_as_a_short_one() -> None:
    noise = np.random.default_rng(0).standard_normal(200_000)
    assert len(draw(panel_of(3 + noise), Window(0, 200_000))) < 30_000
