"""What may steer a run, from host values alone, with a reason for every decision: learning rate, stopping, saving."""

from trimtab.config import (
    Acting,
    Config,
    Fp16,
    GapControl,
    NoiseScaleBatch,
    PatienceStopping,
    PlateauControl,
    PlateauUnfreezing,
    RollBackSpikes,
    UnsteadinessControl,
    regularized,
)
from trimtab.config import ReportSpikes as ReportSpikesConfig
from trimtab.control.acts import Acts
from trimtab.control.batch_size import BatchSize
from trimtab.control.doctor import Doctor
from trimtab.control.learning_rate import ReduceOnPlateau, ReduceOnUnsteadiness
from trimtab.control.regularization import RegularizeByGap
from trimtab.control.rollback import Recovery, ReportSpikes
from trimtab.control.saving import SaveBest
from trimtab.control.spikes import SpikeDetector
from trimtab.control.stopping import Patience, SkippedSteps
from trimtab.control.switching import SwitchOptimizer
from trimtab.control.tripwire import Tripwire
from trimtab.control.unfreezing import UnfreezeOnPlateau
from trimtab.errors import ConfigError
from trimtab.events import Controller
from trimtab.runs.metrics import METRICS

__all__ = [
    "Acts",
    "BatchSize",
    "Doctor",
    "Patience",
    "Recovery",
    "ReduceOnPlateau",
    "ReduceOnUnsteadiness",
    "RegularizeByGap",
    "ReportSpikes",
    "SaveBest",
    "SkippedSteps",
    "SpikeDetector",
    "SwitchOptimizer",
    "Tripwire",
    "UnfreezeOnPlateau",
    "build_controllers",
    "lowest_scale",
]


def build_controllers(config: Config) -> list[Controller]:
    """The controllers that `config` asks for, in the order in which they are asked.

    Raises: ConfigError when one of them waits for a metric that no evaluation measures.
    """
    controllers: list[Controller] = _recovery(config, SkippedSteps(config.gradients.max_skipped, lowest_scale(config)))
    _require_measured(config, "checkpoint.metric", config.checkpoint.metric)
    if config.checkpoint.keep_best:
        controllers.append(
            SaveBest(config.checkpoint.metric, config.checkpoint.keep_best, config.checkpoint.min_improvement)
        )
    stopping = config.stopping
    if isinstance(stopping, PatienceStopping):
        _require_measured(config, "stopping.metric", stopping.metric)
        if stopping.restore_best and not config.checkpoint.keep_best:
            raise ConfigError(
                "stopping.restore_best: the best checkpoint must be kept to be restored. "
                "Received: true, with checkpoint.keep_best=0",
                hint="set checkpoint.keep_best=1, or stopping.restore_best=false",
            )
        controllers.append(
            Patience(
                stopping.patience,
                metric=stopping.metric,
                min_delta=stopping.min_delta,
                restore_best=stopping.restore_best,
            )
        )
    if isinstance(batch := config.batch_control, NoiseScaleBatch):
        controllers.append(
            BatchSize(part=batch.part, most=batch.most, hysteresis=batch.hysteresis, wait=batch.wait, error=batch.error)
        )
    switch = config.optimizer_switch
    if switch is not None and switch.patience is not None:
        _require_measured(config, "optimizer_switch.metric", switch.metric)
        controllers.append(SwitchOptimizer(switch.to.name, switch.patience, switch.metric))
    if isinstance(unfreezing := config.control.unfreezing, PlateauUnfreezing):
        _require_measured(config, "control.unfreezing.metric", unfreezing.metric)
        controllers.append(UnfreezeOnPlateau(len(config.model.unfreeze), unfreezing.patience, unfreezing.metric))
    controllers += [*_learning_rate(config), *_regularization(config)]
    if config.doctor.live:
        controllers.append(_doctor(config))
    return controllers


def _doctor(config: Config) -> Doctor:
    policy, acts = config.doctor.policy, None
    if isinstance(policy, Acting):
        acts = Acts(
            budget=policy.budget,
            confidence=policy.confidence,
            factor=policy.factor,
            stops=not isinstance(config.stopping, PatienceStopping),
            restores_best=config.checkpoint.keep_best > 0,
        )
    return Doctor(Tripwire() if config.doctor.watch else None, acts)


def lowest_scale(config: Config) -> float:
    """The loss scale at which a gradient that overflows is no longer a matter of the scale."""
    precision = config.training.precision
    return precision.initial_scale if isinstance(precision, Fp16) and precision.scaling == "static" else 1.0


def _recovery(config: Config, skipped: SkippedSteps) -> list[Controller]:
    """What watches for steps that do harm; who rolls back comes first, so that no other rollback overrules it."""
    recovery, spikes = config.recovery, config.recovery.spikes
    detector = None
    if isinstance(spikes, ReportSpikesConfig | RollBackSpikes):
        detector = SpikeDetector(
            spikes.signal, memory=spikes.memory, deviations=spikes.deviations, patience=spikes.patience
        )
    goes_back = isinstance(spikes, RollBackSpikes)
    controllers: list[Controller] = []
    if recovery.goes_back:
        rollback = recovery.rollback
        controllers = [
            Recovery(
                detector if goes_back else None,
                skipped if recovery.non_finite == "rollback" else None,
                budget=rollback.budget,
                margin=rollback.margin,
                factor=rollback.factor,
                slow_steps=rollback.slow_steps,
            )
        ]
    if recovery.non_finite == "stop":
        controllers.append(skipped)
    if detector is not None and not goes_back:
        controllers.append(ReportSpikes(detector))
    return controllers


def _learning_rate(config: Config) -> list[Controller]:
    match config.control.learning_rate:
        case PlateauControl() as plateau:
            _require_measured(config, "control.learning_rate.metric", plateau.metric)
            return [
                ReduceOnPlateau(
                    plateau.patience,
                    metric=plateau.metric,
                    factor=plateau.factor,
                    minimum=plateau.minimum,
                    threshold=plateau.threshold,
                    threshold_mode=plateau.threshold_mode,
                    cooldown=plateau.cooldown,
                )
            ]
        case UnsteadinessControl() as unsteadiness:
            return [
                ReduceOnUnsteadiness(
                    unsteadiness.signal,
                    every=unsteadiness.every,
                    memory=unsteadiness.memory,
                    deviations=unsteadiness.deviations,
                    patience=unsteadiness.patience,
                    factor=unsteadiness.factor,
                    minimum=unsteadiness.minimum,
                    cooldown=unsteadiness.cooldown,
                    recovery=unsteadiness.recovery,
                )
            ]
        case _:
            return []


def _regularization(config: Config) -> list[Controller]:
    gap = config.control.regularization
    if not isinstance(gap, GapControl):
        return []
    return [
        RegularizeByGap(
            setting,
            high=gap.high,
            low=gap.low,
            factor=gap.factor,
            highest=gap.highest,
            lowest=gap.lowest,
            patience=gap.patience,
            cooldown=gap.cooldown,
        )
        for setting in regularized(config)
    ]


def _require_measured(config: Config, setting: str, name: str) -> None:
    measured = [metric for metric, row in METRICS.items() if row.window == "evaluation" and "<" not in metric]
    if config.evaluation.gap_tokens == 0:
        measured = [metric for metric in measured if metric not in ("training_slice/loss", "generalization_gap")]
    if name.partition("@")[0] not in measured:
        raise ConfigError(f"{setting}: no evaluation measures it. Received: {name!r}; measured: {', '.join(measured)}")
