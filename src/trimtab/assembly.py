"""From a configuration and prepared data to the parts of a training, the loop over them, and what judges its model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from trimtab.config import (
    Config,
    Fp8,
    NoAveraging,
    NoQuantization,
    PatienceStopping,
    steps_of,
)
from trimtab.config.fit import f1_of_many
from trimtab.config.registry.model import MODELS
from trimtab.config.registry.optimizer import OPTIMIZERS
from trimtab.control import lowest_scale
from trimtab.data import PreparedData
from trimtab.errors import ConfigError
from trimtab.evaluation import batch_norm_buffers
from trimtab.events import Controller, Monitor
from trimtab.model import (
    Transformer,
    build_model,
    freeze,
    wrap_model,
)
from trimtab.model.fp8 import prepare_fp8
from trimtab.model.quantize import prepare_quantization, set_rounding
from trimtab.monitor.probes import Examiner, add_capture, build_examiner, build_probes
from trimtab.objective import Objective, build_objective, build_task, class_weights
from trimtab.optimizer import build_average, build_penalties, build_transforms, clip_threshold, left_over
from trimtab.planning import one_shape
from trimtab.runs import Lock, Recorder, RunDirectory
from trimtab.runs.counted import counts_every_token
from trimtab.runs.files import read_json, write_json
from trimtab.runs.metrics import selection_direction
from trimtab.runs.privacy import private
from trimtab.schedules import build_schedule
from trimtab.signals import Ring, Task, key, outputs_of
from trimtab.training import (
    Calendar,
    Keeper,
    Loop,
    Precision,
    Progress,
    Requests,
    Settings,
    Step,
    Windows,
    build_adjustments,
    columns_of_step,
    peak_memory_bytes,
)
from trimtab.training.alerts import StepAlerts
from trimtab.training.checkpoint.clock import SaveClock
from trimtab.training.execution import (
    synchronizer,
)
from trimtab.training.facts import planned_tokens
from trimtab.training.judging import build_evaluation, evaluated
from trimtab.training.optimizers import MakeOptimizer, optimizer_builders
from trimtab.training.outside import compiles, refuse_fusing
from trimtab.training.precision import choose_parameters, set_products
from trimtab.training.procedures import build_making
from trimtab.training.step_data import StepData
from trimtab.training.switch import planned_changes
from trimtab.training.teacher import Teacher, taught
from trimtab.training.variants import variants_of
from trimtab.training.watchdog import Watchdog


@dataclass(frozen=True, slots=True)
class Parts:
    """What is trained, and with what."""

    model: nn.Module
    task: Task
    objective: Objective
    step: Step
    windows: Windows
    device: torch.device
    compilable: bool
    parameters: str
    """Why the model computes with weights of this precision."""
    examiner: Examiner | None = None
    teacher: Teacher | None = None


def build_parts(
    config: Config,
    data: PreparedData,
    device: torch.device,
    *,
    given_model: nn.Module | None = None,
    make_optimizer: MakeOptimizer | None = None,
) -> Parts:
    """Model, task, objective, optimizer and probes on `device`, put together into a step.

    `given_model` and `make_optimizer` stand in for those of the configuration. Raises: ConfigError for what does not
    go together.
    """
    if torch.are_deterministic_algorithms_enabled() != config.training.deterministic:
        torch.use_deterministic_algorithms(config.training.deterministic)  # loads the compiler, for seconds
    set_products(config.training.precision, device)
    vocabulary_size = data.vocabulary_size
    outputs = outputs_of(config.task, data.targets, vocabulary_size, config.objective)
    if refused := "; ".join(f1_of_many(config, len(data.targets.classes))):
        raise ConfigError(refused)
    if given_model is not None:
        model: nn.Module = wrap_model(
            given_model,
            vocabulary_size,
            outputs,
            longest_sequence=config.longest_sequence,
            special=data.tokenizer.special,
        )
        freeze(model, config.model.freeze)
    else:
        model = build_model(
            config.model,
            vocabulary_size=vocabulary_size,
            sequence_length=config.longest_sequence,
            outputs=outputs,
            seed=key(config.seed, 0, 0, "model"),
            special=data.tokenizer.special,
        )
    refuse_fusing(config.objective, model)
    quantize = config.training.quantize
    if not isinstance(quantize, NoQuantization):
        if given_model is not None:
            raise ConfigError(
                "training.quantize: a module from outside is prepared by its owner. "
                f"Received: {quantize.name}, with a model",
                hint="prepare it with torchao before handing it over, and leave out training.quantize",
            )
        prepare_quantization(model, quantize)
    model.to(device).train()
    plain = isinstance(model, Transformer) and isinstance(quantize, NoQuantization)
    making = build_making(config, model)
    compilable = one_shape(config) and (plain or compiles(model, config)) and MODELS[config.model.name].compilable
    objective = build_objective(config.objective, class_weights(config.task, data.targets)).to(device)
    task, teacher = taught(build_task(config.task, objective, data.targets), config, data, device)
    layouts = [OPTIMIZERS[one.name].layouts for one in config.optimizers]
    is_flat = make_optimizer is None and all("flat" in layout for layout in layouts)
    # Frozen parameters are in no storage that could hold them in bf16.
    ours = plain and is_flat and all(parameter.requires_grad for parameter in model.parameters())
    parameters, why = choose_parameters(config.training.precision, device, ours)
    if make_optimizer is not None and config.optimizer.decay.target:
        raise ConfigError(
            "optimizer.decay.target: an optimizer from outside decays by itself. "
            f"Received: {config.optimizer.decay.target}",
            hint="leave out make_optimizer, or optimizer.decay.target",
        )
    budget = config.budget(data.facts | planned_tokens(config, data))
    penalties, shrinking, penalty_sizes = build_penalties(config.penalties, model)
    optimizers = optimizer_builders(config, model, parameters, make_optimizer, budget, shrinking)
    optimizer = optimizers[0]()
    precise = config.training.precision
    scaling = prepare_fp8(model, precise.history, precise.margin) if isinstance(precise, Fp8) else None
    probes, remembering, noise_scale = build_probes(
        config.logging, config.gradients.clip, model, optimizer.storage.gradients, device, config.seed
    )
    probes += penalty_sizes
    precision = Precision(config.training.precision, device, parameters)
    term_names = (*task.term_names, *making.procedure.term_names)
    columns = columns_of_step(term_names, precision.scaler is not None, task.score_names)
    ring = Ring([*columns, *(name for probe in probes for name in probe.columns)], config.logging.every, device)
    step = Step(
        model=model,
        task=task,
        optimizer=optimizer,
        transforms=[
            *penalties,
            *build_transforms(config.gradients, device, list(optimizer.storage.gradients), config.recovery.spikes),
        ],
        probes=probes,
        precision=precision,
        ring=ring,
        device=device,
        seed=config.seed,
        remembering=remembering,
        parts_probe=noise_scale,
        scaling=scaling,
        optimizers=optimizers,
        procedure=making.procedure,
        sharpness=making.sharpness,
        embeddings=making.embeddings,
        caches=making.caches,
        average=build_average(config.averaging, optimizer.storage, budget),
    )
    if not isinstance(quantize, NoQuantization):
        start = steps_of(quantize.start, budget)
        if start >= config.training.steps:
            raise ConfigError(
                f"training.quantize.start: leaves no step of {config.training.steps} in which to round. "
                f"Received: {quantize.start!r}"
            )
        step.at_step.append(lambda number: set_rounding(model, in_training=number > start))
    examiner = build_examiner(
        config,
        data,
        model=model,
        task=task,
        device=device,
        weights=lambda: step.optimizer.storage.weights,
        left=lambda: left_over(step.optimizer.storage),
        autocast=precision.autocast,
        scale=lambda: None if precision.scaler is None else precision.scaler.scale,
        is_due=Calendar.of(config).examines,
    )
    if examiner is not None:
        step.examinations = examiner.following
        step.at_begun.append(examiner.begun)
    return Parts(
        model,
        task,
        objective,
        step,
        Windows(ring, peak_memory_bytes(device), tells_read=not counts_every_token({"task": config.task.name})),
        device,
        compilable and making.compilable,
        why,
        examiner,
        teacher,
    )


def build_keeper(
    config: Config,
    run: RunDirectory,
    parts: Parts,
    progress: Progress,
    controllers: Sequence[Controller],
    watchdog: Watchdog,
    clock: SaveClock,
) -> Keeper:
    """Who saves, restores and prunes the checkpoints of `run`."""
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
        description={"seed": config.seed} | ({} if parts.teacher is None else {"teacher": parts.teacher.fingerprint}),
        failure_stops=config.checkpoint.on_failure == "stop",
        watchdog=watchdog,
        clock=clock,
        differential=config.checkpoint.differential,
        keep_every_steps=config.checkpoint.keep_every,
        keep_every_seconds=None if (minutes := config.checkpoint.keep_every_minutes) is None else 60 * minutes,
    )


def build_loop(
    config: Config,
    data: PreparedData,
    parts: Parts,
    progress: Progress,
    controllers: Sequence[Controller],
    keeper: Keeper,
    recorder: Recorder,
    requests: Requests,
    lock: Lock,
    watchdog: Watchdog,
    monitors: Sequence[Monitor],
) -> Loop:
    """The loop over all that was built."""
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

    add_capture(config, parts.examiner, parts.model, keeper.run)
    if parts.examiner is not None:
        parts.examiner.samples_of = lambda step: step_data.of_steps([(step, step)])["samples"]

    watchdog.beat(f"the start, before step {progress.step + 1}", "start")
    teacher = None if parts.teacher is None else parts.teacher.model
    evaluation = build_evaluation(config, parts.model, data, variants_of(config, parts.step), keeper.run, teacher)
    evaluation.report = lambda what, fraction: watchdog.beat(what, f"evaluation/{what}")
    if average is not None and not isinstance(config.averaging, NoAveraging):
        renew = partial(evaluation.renew_batch_norm, config.averaging.batch_norm_batches)
        average.belongs(batch_norm_buffers(parts.model), renew)
    return Loop(
        step=parts.step,
        loader=data.loader(
            progress.micro_batch_size,
            prefetch=config.data.prefetch * adjustments.most_micro_batches,
            pin_memory=parts.device.type == "cuda",
            workers=config.data.workers,
        ),
        windows=parts.windows,
        calendar=Calendar.of(config),
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
        monitors=monitors,
        recorder=recorder,
        evaluate=partial(evaluated, evaluation),
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
        before=(lambda step: 0.0) if parts.examiner is None else parts.examiner.before,
        examined=parts.examiner or (lambda step: ()),
        private=private(config.privacy.samples),
    )
