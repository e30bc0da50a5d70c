"""From a configuration to a trained model.

    Config -> data, model, objective -> optimizer, step -> loop -> record

`Trainer.fit` reads top to bottom: open the run, prepare the data, build the parts (assembly.py), go on from a
checkpoint, train.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, final

import numpy as np
import torch
from torch import nn

from trimtab.assembly import MakeOptimizer, Parts, build_evaluation, build_parts, held_back
from trimtab.config import (
    Config,
    NoAveraging,
    NoQuantization,
    PatienceStopping,
    SamplesConfig,
    Split,
    dump_config,
    effective,
)
from trimtab.config.paths import with_absolute_paths
from trimtab.config.registry import require, require_module
from trimtab.config.registry.optimizer import OPTIMIZERS
from trimtab.control import build_controllers, lowest_scale
from trimtab.data import LabelledTexts, Loader, PreparedData, Sequences, prepare_data
from trimtab.doctor import Diagnosis
from trimtab.doctor.lint import lint, refuse
from trimtab.errors import EXIT_INTERRUPTED, ConfigError, UsageError
from trimtab.evaluation import Evaluation, batch_norm_buffers, predict, write_text
from trimtab.events import ArtifactLogged, Controller, EvaluationEnded, Monitor, RunEnded, RunStarted
from trimtab.optimizer import (
    clip_threshold,
)
from trimtab.planning.reached import as_chosen, choices_of
from trimtab.report import write_report
from trimtab.runs import Lock, Recorder, RunDirectory, format
from trimtab.runs.checkpoints import clean, list_checkpoints
from trimtab.runs.company import OtherPrograms
from trimtab.runs.drift import drift, refuse_drift
from trimtab.runs.environment import environment
from trimtab.runs.files import read_json, write_json
from trimtab.runs.files import write_text as write_file
from trimtab.runs.goodput import describe_goodput, goodput_of
from trimtab.runs.left_undone import ending_of, left_undone
from trimtab.runs.metrics import selection_direction
from trimtab.runs.start import next_attempt, open_run, start_facts, undone_on_failure
from trimtab.schedules import build_schedule
from trimtab.signals import Batch
from trimtab.training import (
    Calendar,
    Keeper,
    Loop,
    Progress,
    Requests,
    Settings,
    build_adjustments,
)
from trimtab.training.alerts import StepAlerts
from trimtab.training.checkpoint.clock import SaveClock
from trimtab.training.endings import run_ended
from trimtab.training.execution import (
    choose_activation,
    choose_attention,
    choose_capture,
    choose_compile,
    choose_device,
    garbage_rests,
    keep_freed_memory,
    set_threads,
    synchronizer,
)
from trimtab.training.facts import facts_of, identity_of, identity_of_plan, planned_tokens
from trimtab.training.memory import memory_meter, out_of_memory_explained
from trimtab.training.micro_batch import find_micro_batch
from trimtab.training.outside import what_applies
from trimtab.training.precision import resolved_name
from trimtab.training.products import choose_precision
from trimtab.training.quantized import in_fp32, in_words, quantize_kept, write_quantized
from trimtab.training.step_data import StepData
from trimtab.training.switch import planned_changes
from trimtab.training.threads import choose_threads
from trimtab.training.variants import hand_back, variants_of
from trimtab.training.watchdog import Watchdog, on_freeze

_LONG_SECONDS: Final = 3600.0
"""A run that will take longer is told how long, before it begins."""
_BATCH = {f"config.training.{name}" for name in ("micro_batch_size", "accumulation", "batch_size")}
_SHAPES = (
    "config.model.",
    "config.data.",
    "config.optimizer.",
    "config.training.memory_budget",
    "config.logging.noise_scale.",
)
"""Settings on which memory depends."""


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
        if self._make_optimizer is None:
            for key, one in config.named_optimizers.items():
                require(OPTIMIZERS[one.name], f"{key}.name={one.name}")
        if (quantize := config.training.quantize).name != "none":
            require_module("torchao", "lowbit", f"training.quantize.name={quantize.name}")
        if self._run_path is not None:
            over = RunDirectory(self._run_path)
            if undone := left_undone(over, quantizes=quantize.name != "none"):
                return self._carry_out(over, undone)
        controllers = _distinct([*build_controllers(config), *self._given_controllers])
        device = choose_device(config.training.device)
        run, made = open_run(self._run_path, config.name)
        self.run = run
        with Lock.acquire(run.lock) as lock, undone_on_failure(run, made), out_of_memory_explained():
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
                ),
            }
            changes = self._changes(run, facts)

            split = config.split or Split(config.sequences_per_step, 1)
            batch = config.sequences_per_step
            progress = Progress(
                accumulation=split.accumulation, micro_batch_size=split.micro_batch_size, configured_batch=batch
            )
            watchdog = Watchdog(config.training.watchdog_seconds)
            clock = SaveClock(config.checkpoint.every_minutes)
            keeper = _keeper(config, run, parts, progress, controllers, watchdog, clock)
            resumed_from = keeper.resume()
            keeper.prepare()
            # Not by facts.json, which also an attempt writes that dies before it saves anything.
            known = progress.configured_batch
            if not known:  # of an older checkpoint
                known = read_json(run.facts)["learning_rate"]["batch"] if changes & _BATCH else batch
            progress.configured_batch, is_other_batch = batch, known != batch
            if is_other_batch:
                progress.accumulation, progress.micro_batch_size = split.accumulation, split.micro_batch_size
            elif changes & _BATCH:  # divided otherwise: what it was raised to stays
                progress.divide(split.micro_batch_size, config.largest_batch)
            progress.attempt, progress.branch = next_attempt(run)
            plan = self._choose(run, data, parts, changes)
            progress.divide(plan["micro_batch"]["chosen"], config.largest_batch)
            self._describe(run, data, facts, plan)

            recorder = Recorder.open(run, branch=progress.branch)
            requests = Requests(run.path, clock)
            loop = self._loop(data, parts, progress, controllers, keeper, recorder, requests, lock, watchdog)
            progress.spend("start", time.perf_counter() - begun)
            notes = [*keeper.warnings, *_fallbacks(plan), *_cut(data)]
            if self._restart:
                notes.insert(0, f"begun again by the supervisor: {self._restart}")
            notes += what_applies(parts.model, config, plan)
            if resumed_from is None and progress.attempt > 1:
                notes.append("no checkpoint had been saved yet, so the run begins anew (checkpoint.every)")
            if config.split is None:
                reason = plan["micro_batch"]["reason"]
                notes.append(f"micro-batches of {progress.micro_batch_size} × {progress.accumulation}: {reason}")
            notes += [f.text for f in lint(config, facts) if f.severity != "info"]
            if parts.step.precision.is_emulated:
                notes.append("bf16 is slow here: this device has no instructions for it (training.precision.name=auto)")
            if parts.device.type == "cuda" and torch.version.hip is not None:
                notes.append("an AMD GPU, by way of ROCm: trimtab was never tested on one")
            if parts.device.type == "cpu" and (warning := others.warning(plan["threads"])):
                notes.append(warning)
            told = facts | {"notes": notes, "run": str(run.path), "plan": plan, "best_value": progress.best_value}
            told |= {"metrics": progress.metrics, "begun_by": self._source, "is_other_batch": is_other_batch}
            told |= {"restart": self._restart} if self._restart else {}
            told |= start_facts(lock, lock.holder.process_started if self._ends_process else begun_seconds)
            steps = config.training.steps
            started = RunStarted(progress.step, progress.attempt, progress.branch, resumed_from, steps, told)
            with requests.listening():  # to the end of the report: who asks a run that is over to end asks for nothing
                waits = True
                try:
                    frozen = on_freeze(run, progress, recorder.record, ends_process=self._ends_process)
                    with garbage_rests(), watchdog.watching(run.artifacts, frozen):
                        ended = _train(loop, started, recorder)
                    left = hand_back(parts.step, config.selected, is_restored=ended.restored_step is not None)
                    self._quantize(run, data, parts.model, ended, left)
                except KeyboardInterrupt:
                    waits = not self._ends_process
                    raise
                except Exception:
                    self._diagnose(run, progress.step)
                    raise
                finally:
                    loop.close()
                    keeper.close(wait=waits)
                    recorder.close()
                self._account(run, ended.step)
                diagnosis = self._diagnose(run, ended.step)
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
        config = self.config
        return prepare_data(
            config.data,
            config.task,
            seed=config.seed,
            micro_batch_size=1 if config.split is None else config.split.micro_batch_size,
            block=config.sequences_per_step if config.split is None else None,
            progress=self._report,
        )

    def _account(self, run: RunDirectory, step: int) -> None:
        """Show where the time of all attempts went."""
        try:
            if (found := goodput_of(run)) is not None:
                told = ArtifactLogged(step, "text", "goodput", describe_goodput(found.to_json()))
                for monitor in self._monitors:
                    monitor.observe(told)
        except Exception as error:
            warnings.warn(f"it cannot be told where the time went: {error!r}", stacklevel=2)

    def _diagnose(self, run: RunDirectory, step: int) -> Diagnosis | None:
        """Write verdict and report, and show the verdict; a failure there costs no run, so it is a warning."""
        try:
            diagnosis = write_report(run)
            told = f"{diagnosis.verdict}: {diagnosis.summary}"
            for monitor in self._monitors:
                monitor.observe(ArtifactLogged(step, "text", "diagnosis", told, run.report.name))
        except Exception as error:
            warnings.warn(f"there is no report: {error!r}; try: trimtab report {run.path}", stacklevel=2)
            return None
        return diagnosis

    def _quantize(self, run: RunDirectory, data: PreparedData, model: nn.Module, ended: RunEnded, weights: str) -> None:
        """Write the quantized model where the run was trained for one, of these `weights`; tell the loss of both."""
        quantize = self.config.training.quantize
        if isinstance(quantize, NoQuantization) or ended.status not in ("finished", "stopped"):
            return
        step = ended.step if ended.restored_step is None else ended.restored_step
        self._tell_quantized(run, ended, write_quantized(run, model, quantize, self._judge(data), step, weights))

    def _judge(self, data: PreparedData) -> Callable[[nn.Module], Mapping[str, float]]:
        judged = in_fp32(self.config)
        return lambda module: build_evaluation(judged, module, data).metrics()

    def _tell_quantized(self, run: RunDirectory, ended: RunEnded, found: Mapping[str, Any]) -> None:
        for monitor in self._monitors:
            monitor.observe(ArtifactLogged(ended.step, "text", "quantized", in_words(found), run.quantized.name))

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
            now = was | {f"config.{name}": value for name, value in effective(self._asked).items()}
            self.config = as_chosen(self._asked, plan)
            if "quantized" in undone:
                set_threads(plan.get("threads", self.config.training.threads))
                self.data = self._prepare()
                now |= {"data.fingerprint": self.data.fingerprint}
            if not self._accept_drift:
                refuse_drift(drift(was, now))
            if self.data is not None and "quantized" in undone:
                self.model, found = quantize_kept(run, self.config, ended, self._judge(self.data))
                self._tell_quantized(run, ended, found)
            diagnosis = self._diagnose(run, ended.step)
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

    def _choose(self, run: RunDirectory, data: PreparedData, parts: Parts, changes: set[str]) -> dict[str, Any]:
        """The choices made by measuring: those of plan.json, or new ones where the settings behind them changed."""
        training, precision = self.config.training, parts.step.precision
        decides = [
            *(f"training.{name}" for name in ("threads", "compile", "capture", "attention", "fused_activation")),
            *("training.precision.name", "training.precision.parameters"),
            *("optimizer.name", "model.name", "task.padding"),
        ]
        stale = changes & {"device", *(f"config.{name}" for name in decides)}
        earlier = {} if stale or not run.plan.exists() else read_json(run.plan)
        if earlier.get("precision", precision.name) != precision.name:
            earlier = {}
        set_threads(earlier.get("threads", training.threads))
        report = self._report or (lambda what, fraction: None)
        micro_batch = earlier.get("micro_batch")
        if micro_batch is None or changes & _BATCH or any(change.startswith(_SHAPES) for change in changes):
            micro_batch = self.choose_micro_batch(data, parts, report)
        rows, accumulation = micro_batch["chosen"], micro_batch["accumulation"]
        if parts.device.type == "cpu":
            keep_freed_memory()
        example = data.training.batch(np.arange(rows), rows)
        shape = (rows, self.config.data.sequence_length)
        attention = choose_attention(training, parts.model, precision.dtype, shape, earlier.get("attention"))
        fused = choose_activation(training, parts.model, parts.device, precision)
        why_not = held_back(self.config, parts)
        choice = earlier.get("threads_choice")
        if choice is None and "threads" in earlier:  # of a run that was begun by an earlier version
            choice = {"chosen": earlier["threads"], "reason": "as when the run was begun"}
        threads = choose_threads(training, parts.step, example, choice, report, accumulation=accumulation)
        captured = (why_not is None and earlier.get("capture")) or choose_capture(training, parts.device, why_not)
        begun = time.perf_counter()
        compiled = choose_compile(
            training,
            parts.step,
            example,
            parts.compilable,
            earlier.get("compile"),
            report,
            accumulation=accumulation,
            captures=captured["chosen"],
        )
        if compiled["chosen"] or "compile_seconds" in compiled:
            compiled |= {"seconds": time.perf_counter() - begun}
        return {
            "device": str(parts.device),
            "threads": threads["chosen"],
            "threads_choice": threads,
            "micro_batch": micro_batch,
            "precision": precision.name,
            **({} if self._precision is None else {"precision_choice": self._precision}),
            "parameters": {"chosen": str(precision.parameters).removeprefix("torch."), "reason": parts.parameters},
            "attention": attention,
            "activation": fused,
            "compile": compiled,
            "capture": captured,
        }

    def choose_micro_batch(
        self, data: PreparedData, parts: Parts, report: Callable[[str, float], None]
    ) -> dict[str, Any]:
        """Sequences in a micro-batch, and micro-batches in a step: as configured, or the most that memory holds."""
        config = self.config
        if (split := config.split) is not None:
            given = "training.batch_size and " if config.training.batch_size is not None else ""
            reason = f"{given}training.micro_batch_size is {split.micro_batch_size}"
            return {"chosen": split.micro_batch_size, "accumulation": split.accumulation, "reason": reason}
        batch_size, most = config.sequences_per_step, len(data.training)
        if config.logging.noise_scale.every:
            most = max(1, min(most, batch_size // 2))  # it compares two or more
        return find_micro_batch(
            parts.step,
            lambda rows: _longest_batch(data.training, rows),
            batch_size,
            most=most,
            meter=memory_meter(parts.device),
            budget_bytes=config.training.memory_budget_bytes,
            grows=config.training.accumulation_schedule is not None or config.largest_batch is not None,
            report=report,
        )

    def _loop(
        self,
        data: PreparedData,
        parts: Parts,
        progress: Progress,
        controllers: Sequence[Controller],
        keeper: Keeper,
        recorder: Recorder,
        requests: Requests,
        lock: Lock,
        watchdog: Watchdog,
    ) -> Loop:
        """The loop over all that was built."""
        config, steps = self.config, self.config.training.steps
        budget, decay = config.budget(data.facts | planned_tokens(config, data)), config.decay_schedule
        use = parts.step.use_optimizer
        adjustments = build_adjustments(config, parts.model, parts.objective, progress, budget, use)
        adjustments.restore()
        average, step_data = parts.step.average, StepData(progress, data.order)

        def alive(micro_batches: int) -> None:
            shape = f"{progress.optimizer}/{progress.micro_batch_size}/{micro_batches > 1}"
            if micro_batches:
                watchdog.beat(f"step {progress.step + 1}", f"step/{shape}")
            else:
                watchdog.beat(f"what follows step {progress.step}")
            lock.beat()

        watchdog.beat(f"the start, before step {progress.step + 1}", "start")
        evaluation = build_evaluation(config, parts.model, data, variants_of(config, parts.step))
        evaluation.report = lambda what, fraction: watchdog.beat(what, f"evaluation/{what}")
        if average is not None and not isinstance(config.averaging, NoAveraging):
            renew = partial(evaluation.renew_batch_norm, config.averaging.batch_norm_batches)
            average.belongs(batch_norm_buffers(parts.model), renew)
        return Loop(
            step=parts.step,
            loader=Loader(
                data.training,
                data.order,
                progress.micro_batch_size,
                prefetch=config.data.prefetch * adjustments.most_micro_batches,
                pin_memory=parts.device.type == "cuda",
            ),
            windows=parts.windows,
            calendar=Calendar(steps, config.logging.every, config.evaluation.every, config.save_every),
            settings=[
                Settings(
                    build_schedule(config.schedule, budget),
                    config.full_rate_of(one),
                    clip_threshold(config.gradients.clip),
                    {name: build_schedule(other, budget) for name, other in one.rates.schedules.items()},
                    None if decay is None else build_schedule(decay, budget),
                )
                for _, one in config.optimizer_stages
            ],
            progress=progress,
            controllers=controllers,
            monitors=self._monitors,
            recorder=recorder,
            evaluate=partial(_evaluated, evaluation),
            checkpoints=keeper,
            requests=requests,
            selection_metric=config.checkpoint.metric,
            restore_best=isinstance(config.stopping, PatienceStopping) and config.stopping.restore_best,
            adjustments=adjustments,
            heartbeat=alive,
            saves_in_background=config.checkpoint.background,
            synchronize=synchronizer(parts.device),
            keep_split=lambda choice: write_json(
                keeper.run.plan, read_json(keeper.run.plan) | {"micro_batch": dict(choice)}
            ),
            planned=planned_changes(config, budget, progress),
            data_of=step_data.of_decision,
            alerts=StepAlerts(step_data.of_steps, lowest_scale(config)).of,
        )

    def evaluate(self) -> dict[str, float]:
        """The metrics of the model as it stands, on the validation set."""
        model, data = self.trained()
        return build_evaluation(self.config, model, data).metrics()

    def predict(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """The task's answer for each text: a class, labels of 0 and 1, a number, or a class for each of its words.

        Raises: UsageError for a task whose answer is a text.
        """
        model, data = self.trained()
        evaluation = build_evaluation(self.config, model, data)
        return predict(
            model,
            evaluation.task,
            data.tokenizer,
            texts,
            sequence_length=self.config.data.sequence_length,
            device=evaluation.device,
        )

    def generate(
        self, prompt: str, *, max_tokens: int = 100, temperature: float = 0.8, top_k: int = 50, seed: int = 0
    ) -> str:
        """`prompt`, and what the model writes after it."""
        model, data = self.trained()
        sampling = SamplesConfig(max_tokens=max_tokens, temperature=temperature, top_k=top_k)
        length = self.config.data.sequence_length
        return write_text(model, data.tokenizer, prompt, sampling, context_length=length, seed=seed)

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
        self, run: RunDirectory, data: PreparedData, facts: Mapping[str, Any], plan: Mapping[str, Any]
    ) -> None:
        """Write what a reader of the run needs, before step 1."""
        surroundings = environment(seed=self.config.seed, source=self._source)
        if torch.cuda.is_available():
            surroundings["hardware"]["gpu"] = torch.cuda.get_device_name()
        write_file(run.config, dump_config(self._asked))
        write_json(run.environment, surroundings)
        write_json(run.plan, plan)
        write_json(run.facts, dict(facts) | {"identity": facts["identity"] | identity_of_plan(plan)})
        if not (run.artifacts / "tokenizer.json").exists():
            run.artifacts.mkdir(exist_ok=True)
            data.tokenizer.save(run.artifacts / "tokenizer.json")


def _longest_batch(sequences: Sequences, rows: int) -> Batch:
    """A micro-batch that takes as much memory as any."""
    indices = np.arange(rows)
    if isinstance(sequences, LabelledTexts):
        indices = np.argsort(sequences.lengths, kind="stable")[::-1][:rows].copy()
    return sequences.batch(indices, rows)


def _evaluated(evaluation: Evaluation, step: int) -> tuple[EvaluationEnded, Sequence[ArtifactLogged]]:
    """A round of evaluation; where memory does not suffice for it, that is said."""
    shape = f"{evaluation.batch_size} × up to {evaluation.data.validation.sequence_length:,} tokens at once"
    hint = f"lower evaluation.batch_size, which is {evaluation.batch_size} here: the metrics are the same"
    if evaluation.batch_size == 1:
        hint = "take a smaller model, or a shorter data.sequence_length"
    with out_of_memory_explained(f"in the evaluation after step {step:,}, {shape}", hint):
        return evaluation(step)


def _cut(data: PreparedData) -> list[str]:
    """Lines on texts that are read in part, where these are not few, and on what cannot be used."""
    part = data.facts.get("cut_texts", 0) / len(data.training)
    longer = f"{part:.0%} of the texts are longer than data.sequence_length and are cut"
    return ([longer] if part > 0.01 else []) + _unusable(data)


def _unusable(data: PreparedData) -> list[str]:
    """Lines on records that were passed over (data.on_bad)."""
    named = data.facts.get("unusable", [])
    more = f"; and {len(named) - 3} more, all in facts.json" if len(named) > 3 else ""
    return [f"{len(named)} that cannot be used were left out: {'; '.join(named[:3])}{more}"] if named else []


def _fallbacks(plan: Mapping[str, Any]) -> list[str]:
    """One line for each fast way that this run does not go, though it was not told so."""
    told = [str(entry["reason"]) for entry in plan.values() if isinstance(entry, Mapping) and entry.get("fallback")]
    expected = plan["compile"].get("expected_seconds", 0.0)
    if expected > _LONG_SECONDS and "compiled_seconds" not in plan["compile"]:
        told.append(f"at the pace measured before step 1 this takes about {format.duration(expected)} in all")
    return told


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
        recorder.record(run_ended(progress, "failed", reason))
        raise


def _keeper(
    config: Config,
    run: RunDirectory,
    parts: Parts,
    progress: Progress,
    controllers: Sequence[Controller],
    watchdog: Watchdog,
    clock: SaveClock,
) -> Keeper:
    return Keeper(
        run,
        step=parts.step,
        windows=parts.windows,
        progress=progress,
        controllers=controllers,
        keep_latest=config.checkpoint.keep_latest,
        keep_best=config.checkpoint.keep_best,
        metric=config.checkpoint.metric,
        better=selection_direction(config.checkpoint.metric),
        description={"seed": config.seed},
        failure_stops=config.checkpoint.on_failure == "stop",
        watchdog=watchdog,
        clock=clock,
        differential=config.checkpoint.differential,
        keep_every_steps=config.checkpoint.keep_every,
        keep_every_seconds=None if (minutes := config.checkpoint.keep_every_minutes) is None else 60 * minutes,
    )


def _metrics_left(run: RunDirectory, ended: RunEnded, progress: Progress) -> dict[str, float]:
    """The metrics of the weights that the model was left with."""
    if ended.restored_step is None:
        return progress.metrics
    found = _metrics_at(run, ended.restored_step)
    return progress.metrics if found is None else found


def _metrics_at(run: RunDirectory, step: int) -> dict[str, float] | None:
    """Those in the checkpoint of `step`; None where there is none."""
    return next((dict(info.metrics) for info in list_checkpoints(run.path) if info.step == step), None)
