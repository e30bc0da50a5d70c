"""From a configuration to a trained model.

    Config -> data, model, objective -> optimizer, step -> loop -> record

`Trainer.fit` reads top to bottom: open the run, prepare the data, build the parts (assembly.py), go on from a
checkpoint, choose what is measured (choices.py), train, close (closing.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Unpack, final

import torch
from torch import nn

from trimtab.assembly import Parts, build_keeper, build_loop, build_parts
from trimtab.choices import BATCH, choose, notes_on
from trimtab.closing import Closing
from trimtab.config import (
    Config,
    Split,
    calibrates,
    dump_config,
    effective,
)
from trimtab.config.paths import with_absolute_paths
from trimtab.config.registry import require, require_module
from trimtab.config.registry.optimizer import OPTIMIZERS
from trimtab.config.secrets import hidden, hide
from trimtab.control import SaveBest, build_controllers
from trimtab.data import PreparedData
from trimtab.doctor import Diagnosis
from trimtab.doctor.lint import lint, refuse
from trimtab.errors import EXIT_INTERRUPTED, ConfigError, UsageError
from trimtab.evaluation import Sampling, write_text
from trimtab.events import Controller, Monitor, RunEnded, RunStarted
from trimtab.measuring import Measuring
from trimtab.monitor.sinks.build import require_sinks
from trimtab.monitor.standing import standing
from trimtab.planning.reached import as_chosen, choices_of
from trimtab.runs import Lock, Recorder, RunDirectory
from trimtab.runs.checkpoints import clean, list_checkpoints
from trimtab.runs.company import OtherPrograms
from trimtab.runs.drift import drift, refuse_drift
from trimtab.runs.files import read_json, write_json
from trimtab.runs.files import write_text as write_file
from trimtab.runs.left_undone import ending_of, left_undone
from trimtab.runs.start import next_attempt, open_run, start_facts, undone_on_failure
from trimtab.runs.surroundings import write_surroundings
from trimtab.training import Loop, Progress, Requests
from trimtab.training.checkpoint.clock import SaveClock
from trimtab.training.endings import run_ended
from trimtab.training.execution import choose_device, garbage_rests, gpu_name, set_threads
from trimtab.training.facts import facts_of, identity_of, identity_of_plan
from trimtab.training.first_pass import notes_on_scales
from trimtab.training.judging import build_evaluation
from trimtab.training.memory import out_of_memory_explained
from trimtab.training.modules import write_parts
from trimtab.training.optimizers import MakeOptimizer
from trimtab.training.pacing import prepared
from trimtab.training.precision import resolved_name
from trimtab.training.predictor import predictor_of
from trimtab.training.products import choose_precision
from trimtab.training.variants import hand_back
from trimtab.training.watchdog import Watchdog, on_freeze


@dataclass(frozen=True, slots=True)
class Result:
    """What a call of `fit` came to."""

    run: Path
    status: str
    """finished, stopped, interrupted or failed."""
    reason: str
    step: int
    """Updates attempted."""
    metrics: Mapping[str, float]
    """The evaluation of the weights that the model was left with, or the newest one."""
    best_step: int | None
    exit_code: int
    diagnosis: Diagnosis | None = None
    """What the doctor says of it; None when that failed."""


@final
class Trainer:
    """Trains what `config` describes, and keeps a record of it in a run directory.

    `model`, `make_optimizer`, `monitors` and `controllers` are Python objects in place of, or besides, those of
    the configuration; the command line cannot resume a run with such a model or optimizer. `run` is a new
    directory, or that of an unfinished run, which then goes on. `report` is told what is being prepared, and how
    far it is (0 to 1). With `ends_process` a KeyboardInterrupt does not wait for what a thread still writes, and a
    run that stands still ends the process. `restart` says why a supervisor began this process again.
    """

    def __init__(
        self,
        config: Config,
        *,
        run: str | Path | None = None,
        model: nn.Module | None = None,
        make_optimizer: MakeOptimizer | None = None,
        monitors: Sequence[Monitor] = (),
        controllers: Sequence[Controller] = (),
        accept_drift: bool = False,
        report: Callable[[str, float], None] | None = None,
        ends_process: bool = False,
        restart: str = "",
    ) -> None:
        self.config = self._asked = with_absolute_paths(config)
        self.model: nn.Module | None = None
        self.data: PreparedData | None = None
        self.run: RunDirectory | None = None
        self._run_path = None if run is None else Path(run)
        self._given_model, self._make_optimizer = model, make_optimizer
        self._given = {"model": model is not None, "optimizer": make_optimizer is not None}
        self._monitors, self._given_controllers = tuple(monitors), tuple(controllers)
        self._precision: dict[str, Any] | None = None
        self._accept_drift, self._report, self._ends_process = accept_drift, report, ends_process
        self._restart = restart

    def fit(self) -> Result:
        """Train to the end, or to a decision to stop. Raises: TrimtabError."""
        begun, others = time.perf_counter(), OtherPrograms()
        begun_seconds = time.time()
        config = self._asked
        refuse(lint(config), config.lint.allow)
        require_sinks(config.sinks)
        if self._make_optimizer is None:
            for key, one in config.named_optimizers.items():
                require(OPTIMIZERS[one.name], f"{key}.name={one.name}")
        if (quantize := config.training.quantize).name != "none":
            require_module("torchao", "lowbit", f"training.quantize.name={quantize.name}")
        if self._run_path is not None:
            over = RunDirectory(self._run_path)
            if undone := left_undone(over, quantizes=quantize.name != "none", calibrates=calibrates(config)):
                return self._carry_out(over, undone)
        controllers = _distinct([*build_controllers(config), *self._given_controllers])
        device = choose_device(config.training.device)
        run, made = open_run(self._run_path, config.name)
        self.run = run
        with (
            Lock.acquire(run.lock) as lock,
            undone_on_failure(run, made),
            out_of_memory_explained(),
            standing(config, run, self._monitors) as monitors,
        ):
            if not run.config.exists():
                write_file(run.config, dump_config(config))
            kept = read_json(run.plan).get("precision_choice") if run.plan.exists() else None
            self.config, self._precision = choose_precision(config, device, kept)
            config = self.config
            self.data = data = self._prepare()
            parts = self._build(data, device)
            self.model = parts.model
            facts = facts_of(config, data, parts.model, parts.task, parts.step.optimizer) | {
                "given": [name for name, given in self._given.items() if given],
                "identity": identity_of(
                    self._asked,
                    data,
                    device,
                    [controller.name for controller in controllers],
                    resolved_name(config.training.precision, device),
                    None if parts.teacher is None else parts.teacher.fingerprint,
                ),
            }
            refuse(lint(config, facts), config.lint.allow)
            changes = self._changes(run, facts)

            split = config.split or Split(config.sequences_per_step, 1)
            batch = config.sequences_per_step
            progress = Progress(
                accumulation=split.accumulation, micro_batch_size=split.micro_batch_size, configured_batch=batch
            )
            watchdog = Watchdog(config.training.watchdog_seconds)
            clock = SaveClock(config.checkpoint.every_minutes)
            keeper = build_keeper(config, run, parts, progress, controllers, watchdog, clock)
            resumed_from = keeper.resume()
            if "config.checkpoint.metric" in changes:  # older checkpoints do not say of which metric their best is
                progress.best_metric = ""
                for saves in (controller for controller in controllers if isinstance(controller, SaveBest)):
                    saves.forget()
            progress.select(config.checkpoint.metric)
            keeper.prepare()
            # Not by facts.json, which also an attempt writes that dies before it saves anything.
            known = progress.configured_batch
            if not known:  # of an older checkpoint
                known = read_json(run.facts)["learning_rate"]["batch"] if changes & BATCH else batch
            progress.configured_batch, is_other_batch = batch, known != batch
            if is_other_batch:
                progress.accumulation, progress.micro_batch_size = split.accumulation, split.micro_batch_size
            elif changes & BATCH:  # divided otherwise: what it was raised to stays
                progress.divide(split.micro_batch_size, config.largest_batch)
            progress.attempt, progress.branch = next_attempt(run)
            plan = choose(config, run, data, parts, changes, self._precision, self._report or _unsaid)
            progress.divide(plan["micro_batch"]["chosen"], config.largest_batch)
            self._describe(run, data, parts, facts, plan)
            measuring = Measuring(config, run, parts, progress, plan, facts)
            recorder = Recorder.open(run, branch=progress.branch, adaptive=config.logging.adaptive)
            requests = Requests(run.path, clock)
            loop = build_loop(
                config, data, parts, progress, controllers, keeper, recorder, requests, lock, watchdog, monitors
            )
            loop.profiler, closing = measuring.profiler, Closing(run, config, monitors)
            progress.spend("start", time.perf_counter() - begun)
            notes = [*keeper.warnings, *measuring.notes, *notes_on(config, plan, data, parts)]
            if self._restart:
                notes.insert(0, f"begun again by the supervisor: {self._restart}")
            if config.split is None:  # as they are now: what controllers made of them, too
                reason = plan["micro_batch"]["reason"]
                notes.append(f"micro-batches of {progress.micro_batch_size} × {progress.accumulation}: {reason}")
            if resumed_from is None and progress.attempt > 1:
                notes.append("no checkpoint had been saved yet, so the run begins anew (checkpoint.every)")
            notes += notes_on_scales(facts)
            notes += [f.text for f in lint(config, facts) if f.severity != "info"]
            if parts.device.type == "cpu" and (warning := others.warning(plan["threads"])):
                notes.append(warning)
            told = facts | {"notes": notes, "run": str(run.path), "plan": plan, "best_value": progress.best_value}
            told |= {"metrics": progress.metrics, "begun_by": self._source, "is_other_batch": is_other_batch}
            told |= {name: it for name, it in (("restart", self._restart), ("drift", sorted(changes))) if it}
            told |= start_facts(lock, lock.holder.process_started if self._ends_process else begun_seconds)
            steps = config.training.steps
            started = RunStarted(progress.step, progress.attempt, progress.branch, resumed_from, steps, told)
            with requests.listening():  # to the end of the report: who asks a run that is over to end asks for nothing
                waits = True
                try:
                    frozen = on_freeze(run, progress, recorder.record, ends_process=self._ends_process)
                    with measuring, garbage_rests(), watchdog.watching(run.artifacts, frozen):
                        ended = _train(loop, started, recorder)
                    left = hand_back(parts.step, config.selected, is_restored=ended.restored_step is not None)
                    closing.complete(data, parts.model, ended, left)
                except KeyboardInterrupt:
                    waits = not self._ends_process
                    raise
                except Exception:
                    closing.diagnose(progress.step)
                    raise
                finally:
                    loop.close()
                    keeper.close(wait=waits)
                    recorder.close()
                closing.account(ended.step)
                diagnosis = closing.diagnose(ended.step)
        exit_code = EXIT_INTERRUPTED if ended.status == "interrupted" else (progress.stop or {}).get("exit_code", 0)
        metrics = _metrics_left(run, ended, progress)
        return Result(run.path, ended.status, ended.reason, ended.step, metrics, ended.best_step, exit_code, diagnosis)

    def assemble(self) -> tuple[PreparedData, Parts]:
        """The data, and what `fit` would train before its first step; no run directory. Raises: TrimtabError."""
        refuse(lint(self.config), self.config.lint.allow)
        device = choose_device(self.config.training.device)
        data = self._prepare()
        return data, self._build(data, device)

    def facts(self) -> dict[str, Any]:
        """What is known before the first step, of data and model, too; no run directory. Raises: TrimtabError."""
        data, parts = self.assemble()
        return facts_of(self.config, data, parts.model, parts.task, parts.step.optimizer)

    def _prepare(self) -> PreparedData:
        return prepared(self.config, self._report)

    def _carry_out(self, run: RunDirectory, undone: Sequence[str]) -> Result:
        """Do what the process of a run that is over did not come to: the quantized model, the report.

        Raises: DriftError for other settings or data, unless that is accepted; what writing the model raises.
        """
        if (ended := ending_of(run)) is None:
            raise UsageError(f"{run.path}: its record has no end")
        self.run = run
        run.check_writable()
        with Lock.acquire(run.lock):
            clean(run.path)
            plan = choices_of(run)
            was = read_json(run.facts)["identity"]
            now = was | {f"config.{name}": hidden(value, name) for name, value in effective(self._asked).items()}
            self.config = as_chosen(self._asked, plan)
            if undone != ["report"]:
                set_threads(plan.get("threads", self.config.training.threads))
                self.data = self._prepare()
                now |= {"data.fingerprint": self.data.fingerprint}
            if not self._accept_drift:
                refuse_drift(drift(was, now))
            closing = Closing(run, self.config, self._monitors)
            if self.data is not None and "quantized" in undone:
                self.model = closing.quantize_kept(self.data, ended)
            if self.data is not None and "calibration" in undone:
                closing.calibrate_kept(self.data, ended)
            diagnosis = closing.diagnose(ended.step)
        metrics = _metrics_at(run, ended.step if ended.restored_step is None else ended.restored_step) or {}
        return Result(run.path, ended.status, ended.reason, ended.step, metrics, ended.best_step, 0, diagnosis)

    def _changes(self, run: RunDirectory, facts: Mapping[str, Any]) -> set[str]:
        """What differs from the run that is gone on with. Raises: DriftError unless that is accepted."""
        if not run.facts.exists():
            return set()
        plan = identity_of_plan(read_json(run.plan)) if run.plan.exists() else {}
        changes = drift(read_json(run.facts)["identity"], facts["identity"] | plan)
        if not self._accept_drift:
            refuse_drift(changes)
        return {change.what for change in changes}

    def evaluate(self) -> dict[str, float]:
        """The metrics of the model as it stands, on the validation set."""
        model, data = self.trained()
        return build_evaluation(self.config, model, data).metrics()

    def predict(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """The task's answer for each text: a class, labels of 0 and 1, a number, or a class for each of its words.

        Raises: UsageError for a task whose answer is a text.
        """
        return predictor_of(self.config, *self.trained(), self.run).answers(texts)

    def predict_probabilities(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """How probable each class of each text is, with the temperature that was fitted for these weights, if any."""
        return predictor_of(self.config, *self.trained(), self.run).probabilities(texts)

    def generate(self, prompt: str, *, max_tokens: int = 100, seed: int = 0, **sampling: Unpack[Sampling]) -> str:
        """As `write_text`: `prompt` and what follows, or the answer to it. Raises: UsageError; NumericsError."""
        model, data = self.trained()
        about: Any = {"task_name": self.config.task.name, "context_length": self.config.data.sequence_length}
        return write_text(model, data.tokenizer, prompt, max_tokens=max_tokens, seed=seed, **about, **sampling)

    def trained(self) -> tuple[nn.Module, PreparedData]:
        """The model as it stands, and its data. Raises: UsageError before `fit`."""
        if self.model is None or self.data is None:
            raise UsageError("there is no model yet", hint="call fit() first")
        return self.model, self.data

    def _build(self, data: PreparedData, device: torch.device) -> Parts:
        return build_parts(
            self.config, data, device, given_model=self._given_model, make_optimizer=self._make_optimizer
        )

    @property
    def _source(self) -> Literal["config", "python"]:
        """What the run is begun from: "python" when the command line cannot build it again."""
        from_python = self._given_model or self._make_optimizer or self._given_controllers
        return "python" if from_python else "config"

    def _describe(
        self, run: RunDirectory, data: PreparedData, parts: Parts, facts: Mapping[str, Any], plan: Mapping[str, Any]
    ) -> None:
        """Write what a reader of the run needs, before step 1."""
        write_surroundings(run, self.config, self._source, gpu_name())
        write_file(run.config, dump_config(self._asked))
        write_json(run.plan, plan)
        write_json(run.facts, dict(facts) | {"identity": facts["identity"] | identity_of_plan(plan)})
        write_parts(run, parts.model, parts.task, data)


def _distinct(controllers: list[Controller]) -> list[Controller]:
    """`controllers`, whose state and factors are kept by name. Raises: ConfigError for a name given twice."""
    names = [controller.name for controller in controllers]
    if len(set(names)) < len(names) or {"request", "plan"} & set(names):
        raise ConfigError(
            f"controllers: their names must be distinct, and not 'request' or 'plan'. Received: {', '.join(names)}",
            hint="stopping={name: none} leaves the configuration's own patience out",
        )
    return controllers


def _train(loop: Loop, started: RunStarted, recorder: Recorder) -> RunEnded:
    """Run the loop; what it raises is in the record, too."""
    try:
        return loop.run(started)
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt):
            loop.settle()
        progress = loop.progress
        reason = "interrupted twice" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
        recorder.record(run_ended(progress, "failed", hide(reason)))
        raise


def _metrics_left(run: RunDirectory, ended: RunEnded, progress: Progress) -> dict[str, float]:
    """The metrics of the weights that the model was left with."""
    if ended.restored_step is None:
        return progress.metrics
    found = _metrics_at(run, ended.restored_step)
    return progress.metrics if found is None else found


def _metrics_at(run: RunDirectory, step: int) -> dict[str, float] | None:
    """Those in the checkpoint of `step`; None where there is none."""
    return next((dict(info.metrics) for info in list_checkpoints(run.path) if info.step == step), None)


def _unsaid(what: str, fraction: float) -> None:
    """Nobody is told."""
