"""The examiner's runs: planted faults show, logs can be read, and a slot gives the same run again."""

import re
from pathlib import Path
from random import Random

from examiner import loop, voices
from examiner.curve import Curve
from examiner.faults import FAULTS, bad_batch, one_peak
from examiner.maker import slots
from examiner.recipe import draw

from trimtab.doctor import open_foreign_case
from trimtab.doctor.codes import CODES

PLACE = Path(__file__).parents[2] / "benchmarks" / "doctor" / "examiner"


def test_a_third_is_sound_and_every_code_comes_before_any_twice() -> None:
    faulty = [code for code, _ in slots(200) if not code.startswith("healthy")]
    assert len(faulty) == 130
    assert set(faulty[: len(FAULTS)]) == set(FAULTS) <= set(CODES)


def test_a_spoilt_batch_shows_where_the_truth_says_and_comes_again(tmp_path: Path) -> None:
    base = draw(Random(5), ("plain",), ("reg",), ("jsonl",)).but(
        net="mlp", task="tabular", steps=60, rows=600, held=50, eval_every=30
    )
    recipe, twin, onset = bad_batch(base, Random(1), 2)
    rows, others = loop.train(recipe), loop.train(twin)
    assert one_peak(recipe, Curve(rows), Curve(others))
    assert not one_peak(recipe, Curve(others), Curve(others))
    assert int(Curve(rows).step[Curve(rows).loss.argmax()]) == onset
    assert [row["loss"] for row in loop.train(recipe)] == [row["loss"] for row in rows]
    case, _ = open_foreign_case(voices.jsonl(recipe, rows, tmp_path))
    assert {"train/loss", "validation/loss"} <= set(case.history.series)


def test_it_stands_alone() -> None:
    """It makes runs where this project is not installed: only what marks them imports any of it."""
    needs = {
        path.name
        for path in PLACE.glob("*.py")
        if re.search(r"(from|import) (trimtab|bank|strangers)", path.read_text())
    }
    assert needs == {"marks.py"}
