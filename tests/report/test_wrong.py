"""What the report shows of where a model is wrong: whole, and nothing in it becomes markup."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from example_runs import CASES
from test_markup import Parser

from trimtab.report import render_html
from trimtab.report.gather import gather

BINS = [{"low": 0.4, "high": 0.5, "count": 3, "confidence": 0.45, "accuracy": 0.5}]
JUDGED: dict[str, Any] = {
    "slices": {"length": [{"name": "up to 9 tokens", "count": 3, "loss": 0.5, "accuracy": 0.75}]},
    "classes": [
        {"name": "<b>cat", "count": 2, "precision": None, "recall": 0.5, "f1": 0.4, "taken_for": "dog"},
        {"name": "dog", "count": 1, "precision": 1.0, "recall": 1.0, "f1": 1.0, "taken_for": None},
    ],
    "confusion": {"classes": ["<b>cat", "dog"], "counts": [[1, 1], [0, 1]]},
    "reliability": BINS,
    "calibration_error": 0.1,
    "hardest": [{"sample": 4, "loss": 2.5, "text": "<script>alert(1)</script> a text"}],
}
FOUND = {"loss": 0.5, "calibration_error": 0.1, "reliability": BINS}
CALIBRATION = {"temperature": 2.0, "fitted": 2.0, "fitted_on": 50, "judged_on": 50, "before": FOUND, "after": FOUND}


def page(**more: Any) -> str:
    case, diagnosis = next(iter(CASES.values()))()
    return render_html(replace(gather(None, case, diagnosis), **more))


def test_it_is_there_where_it_was_looked_at() -> None:
    assert "Where it is wrong" not in page()
    shown = page(judged=JUDGED, calibration=CALIBRATION)
    parser = Parser()
    parser.feed(shown)
    parser.close()
    told = " ".join(parser.texts)
    for part in ("Where it is wrong", "temperature of 2", "up to 9 tokens", "75.0%", "taken for", "<b>cat", "alert(1)"):
        assert part in told
    assert "<b>cat" not in shown
    assert "<script>alert" not in shown
    assert shown.count("Right, by how sure") == 2
    assert page(judged=JUDGED).count("Right, by how sure") == 1
    assert shown == page(judged=JUDGED, calibration=CALIBRATION)


def test_a_class_that_was_never_said_has_no_precision() -> None:
    shown = page(judged={"classes": JUDGED["classes"][:1]})
    assert "precision" not in shown
    assert "50.0%" in shown
