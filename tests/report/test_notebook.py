"""The figure shows what was given, and touches nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trimtab import monitor_training_metrics
from trimtab.errors import UsageError
from trimtab.events import EvaluationEnded, RunStarted, StepsEnded
from trimtab.runs import Recorder, RunDirectory
from trimtab.runs.history import History

pytest.importorskip("matplotlib")


def test_lists_become_panels(tmp_path: Path) -> None:
    losses = [3.0 / (1 + step / 10) for step in range(40)]
    figure = monitor_training_metrics(losses, [2.5, 2.0, 1.8, 1.9], [1e-3] * 40, grad_norms=[1.0] * 40, title="mine")
    assert [axis.get_ylabel() for axis in figure.axes] == ["loss", "gap", "learning rate", "gradient norm"]
    training, validation, best = figure.axes[0].get_lines()
    assert training.get_ydata().tolist() == losses
    assert validation.get_xdata().tolist() == [10, 20, 30, 40]
    assert "1.8 at step 30" in str(best.get_label())
    gap = figure.axes[1].get_lines()[1].get_ydata()
    assert gap[0] == pytest.approx(2.5 - np.mean(losses[:10]))
    figure.savefig(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_steps_smoothing_and_gaps() -> None:
    losses = np.array([1.0, np.nan, 3.0, np.inf])
    figure = monitor_training_metrics(losses, steps=[10, 20, 30, 40], smoothing=0.5)
    raw, smooth, bad = figure.axes[0].get_lines()
    assert raw.get_xdata().tolist() == [10, 20, 30, 40]
    assert smooth.get_ydata().tolist() == [1.0, pytest.approx(7 / 3)]
    assert bad.get_xdata().tolist() == [20, 40]
    assert len(monitor_training_metrics(np.ones(500)).axes[0].get_lines()) == 2  # smoothed by default


def test_runs_histories_and_foreign_logs(tmp_path: Path) -> None:
    run = RunDirectory.create_at(tmp_path / "run")
    recorder = Recorder.open(run)
    for event in (
        RunStarted(0, 1, 0, None, 4),
        StepsEnded(1, 4, {"train/loss": np.array([4.0, 3, 2, 1]), "learning_rate": np.full(4, 0.1)}, {}),
        EvaluationEnded(4, {"validation/loss": 1.5}, 0.1),
    ):
        recorder.record(event)
    recorder.close()
    log = tmp_path / "log.csv"
    log.write_text("step,loss,val_loss,lr\n" + "".join(f"{step},{5 - step},1.5,0.1\n" for step in range(1, 5)))
    for source in (run.path, str(run.path), History.read(run.record), log):
        figure = monitor_training_metrics(source)
        assert [axis.get_ylabel() for axis in figure.axes] == ["loss", "gap", "learning rate"]
        assert figure.axes[0].get_lines()[0].get_ydata().tolist() == [4, 3, 2, 1]
    with pytest.raises(UsageError, match="give nothing beside it"):
        monitor_training_metrics(log, [1.0])


def test_what_cannot_be_drawn_is_said() -> None:
    with pytest.raises(UsageError, match="no loss to draw"):
        monitor_training_metrics([])
    with pytest.raises(UsageError, match=r"learning_rates: must be as many as the steps, 2\. Received: 3"):
        monitor_training_metrics([1.0, 2.0], None, [1, 2, 3])
    with pytest.raises(UsageError, match="must be numbers"):
        monitor_training_metrics(["low"])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="smoothing"):
        monitor_training_metrics([1.0], smoothing=1.0)


def test_without_matplotlib_one_line_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = sys.modules['matplotlib.figure'] = None; import trimtab\n"
        "try: trimtab.monitor_training_metrics([1.0])\n"
        "except trimtab.errors.UsageError as error: print(error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "pip install 'trimtab[plots]'"


def test_pyplot_and_torch_stay_away() -> None:
    code = (
        "import sys, trimtab; assert 'matplotlib' not in sys.modules and 'numpy' not in sys.modules\n"
        "trimtab.monitor_training_metrics([2.0, 1.0])\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
