"""What is written when a run is over: its quantized model, where its time went, verdict and report."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

from torch import nn

from trimtab.config import Config, NoQuantization, calibrates
from trimtab.data import PreparedData
from trimtab.doctor import Diagnosis
from trimtab.errors import DataError
from trimtab.events import ArtifactLogged, Monitor, RunEnded
from trimtab.report import write_report
from trimtab.runs import RunDirectory
from trimtab.runs.calibration import in_words as in_words_of
from trimtab.runs.calibration import write_calibration
from trimtab.runs.described import describe_verdict
from trimtab.runs.goodput import describe_goodput, goodput_of
from trimtab.training.checkpoint import load_model
from trimtab.training.judging import build_evaluation, calibrate_run, examine
from trimtab.training.quantized import in_fp32, in_words, quantize_kept, write_quantized
from trimtab.training.telling import show
from trimtab.training.trained import choose_of


@final
class Closing:
    """Writes it, and shows it to the monitors."""

    def __init__(self, run: RunDirectory, config: Config, monitors: Sequence[Monitor]) -> None:
        self._run, self._config, self._monitors = run, config, tuple(monitors)

    def complete(self, data: PreparedData, model: nn.Module, ended: RunEnded, weights: str) -> None:
        """What is made of these `weights` when a run is over: quantized model, temperature, details, as asked for."""
        self.quantize(data, model, ended, weights)
        self.calibrate(data, model, ended, weights)
        if self._config.evaluation.details and ended.status in ("finished", "stopped"):
            step = ended.step if ended.restored_step is None else ended.restored_step
            try:
                examine(self._run, self._config, model, data, step, weights)
            except Exception as error:  # as the report: it costs no run
                warnings.warn(f"it cannot be told where the model is wrong: {error!r}", stacklevel=2)

    def quantize(self, data: PreparedData, model: nn.Module, ended: RunEnded, weights: str) -> None:
        """Write the quantized model where the run was trained for one, of these `weights`; tell the loss of both."""
        quantize = self._config.training.quantize
        if isinstance(quantize, NoQuantization) or ended.status not in ("finished", "stopped"):
            return
        step = ended.step if ended.restored_step is None else ended.restored_step
        self._tell_quantized(ended, write_quantized(self._run, model, quantize, self._judge(data), step, weights))

    def quantize_kept(self, data: PreparedData, ended: RunEnded) -> nn.Module:
        """What `quantize` does, from a checkpoint of a run that is over; gives the model that was not quantized."""
        model, found = quantize_kept(self._run, self._config, ended, self._judge(data))
        self._tell_quantized(ended, found)
        return model

    def calibrate(self, data: PreparedData, model: nn.Module, ended: RunEnded, weights: str) -> None:
        """Fit the temperature of the answers of these `weights` where that is asked for, and show what it does.

        Few validation texts are a warning: they cost no run.
        """
        if not calibrates(self._config) or ended.status not in ("finished", "stopped"):
            return
        step = ended.step if ended.restored_step is None else ended.restored_step
        try:
            found = calibrate_run(self._run, self._config, model, data, step, weights)
        except DataError as error:
            warnings.warn(f"no temperature was fitted: {error.message}", stacklevel=2)
            found = {"temperature": 1.0, "why": error.message}
            write_calibration(self._run, step, weights, found)
        self._show(ended.step, "calibration", in_words_of(found), self._run.calibration.name)

    def calibrate_kept(self, data: PreparedData, ended: RunEnded) -> None:
        """What `calibrate` does, from a checkpoint of a run that is over."""
        step = ended.step if ended.restored_step is None else ended.restored_step
        chosen = choose_of(self._run, self._config, str(step))
        model = chosen.build()
        load_model(model, chosen.tensors())
        self.calibrate(data, model, ended, chosen.weights)

    def account(self, step: int) -> None:
        """Show where the time of all attempts went."""
        try:
            if (found := goodput_of(self._run)) is not None:
                self._show(step, "goodput", describe_goodput(found.to_json()))
        except Exception as error:
            warnings.warn(f"it cannot be told where the time went: {error!r}", stacklevel=2)

    def diagnose(self, step: int) -> Diagnosis | None:
        """Write verdict and report, and show the verdict; a failure there costs no run, so it is a warning."""
        try:
            diagnosis = write_report(self._run)
        except Exception as error:
            warnings.warn(f"there is no report: {error!r}; try: trimtab report {self._run.path}", stacklevel=2)
            return None
        verdict = describe_verdict(diagnosis.verdict, diagnosis.beaten_by)
        self._show(step, "diagnosis", f"{verdict}: {diagnosis.summary}", self._run.report.name)
        return diagnosis

    def _judge(self, data: PreparedData) -> Callable[[nn.Module], Mapping[str, float]]:
        judged = in_fp32(self._config)
        return lambda module: build_evaluation(judged, module, data).metrics()

    def _tell_quantized(self, ended: RunEnded, found: Mapping[str, Any]) -> None:
        self._show(ended.step, "quantized", in_words(found), self._run.quantized.name)

    def _show(self, step: int, name: str, text: str, path: str | None = None) -> None:
        show(self._monitors, ArtifactLogged(step, "text", name, text, path))
