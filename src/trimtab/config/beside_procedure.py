"""What procedures and changed embeddings do not go with, told before torch is imported."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trimtab.config.control import NoiseScaleBatch
from trimtab.config.fit import over_whole_batch
from trimtab.config.model import CustomModel
from trimtab.config.procedure import ADVERSARIAL, FreeLBConfig, GradientCacheConfig, PgdConfig, RDropConfig
from trimtab.config.registry import Spec
from trimtab.config.registry.procedures import EMBEDDING_TRANSFORMS, PROCEDURES, SHARPNESS
from trimtab.config.regularizers import regularizers
from trimtab.config.task import Contrastive
from trimtab.config.training import Fp8

if TYPE_CHECKING:
    from trimtab.config.run import Config


def procedures_of(config: Config) -> dict[str, Spec]:
    """The cards of all that makes gradients otherwise than by one pass, by what chose them."""
    return {
        f"procedure.name {config.procedure.name}": PROCEDURES[config.procedure.name],
        f"sharpness.name {config.sharpness.name}": SHARPNESS[config.sharpness.name],
        **{f"embedding.{name}": EMBEDDING_TRANSFORMS[name] for name in config.embedding.asked},
    }


def passes_of(config: Config) -> float:
    """Passes forward and back over each micro-batch of a step, in those of a plain one."""
    procedure = config.procedure
    match procedure:
        case PgdConfig():
            passes = procedure.steps + 1.0
        case FreeLBConfig():
            passes = float(procedure.steps)
        case GradientCacheConfig():
            passes = 4.0 / 3.0  # the first is forward alone
        case _:
            passes = 1.0 if procedure.name == "plain" else 2.0
    if isinstance(config.task, Contrastive) and config.has_parts:
        passes = 4.0 / 3.0
    return passes if config.sharpness.name == "none" else 2.0 * passes


def changes_embeddings(config: Config) -> str:
    """What asks for the output of the model's embedding; "" where nothing does."""
    if isinstance(config.procedure, ADVERSARIAL):
        return f"procedure.name {config.procedure.name}"
    return f"embedding.{config.embedding.asked[0]}" if config.embedding.asked else ""


def beside_procedure(config: Config) -> Iterator[str]:
    """Each choice of `config` that its procedure, sharpness and embedding cannot be with, in words."""
    model, procedure, training, task = config.model, config.procedure, config.training, config.task
    changes = changes_embeddings(config)
    if changes and isinstance(model, CustomModel):
        yield f"{changes} changes the embeddings of tokens, and where those of model.name custom are is not known"
    for key, spec in procedures_of(config).items():
        if isinstance(training.precision, Fp8) and not spec.capturable:
            yield f"{key} does not go with training.precision.name fp8, which counts one plain pass a micro-batch"
        if training.compile in ("on", "whole") and not spec.compilable:
            yield f"{key} cannot be compiled, and training.compile is {training.compile}. Fitting: auto, off"
    if isinstance(task, Contrastive) and procedure.name != "plain":
        why = "which caches gradients by itself" if procedure.name == "gradient_cache" else "which compares all texts"
        yield f"procedure.name {procedure.name} does not go with task contrastive, {why}. Fitting: plain"
        return
    still = regularizers(config)["dropout"]
    if isinstance(procedure, RDropConfig) and still and not config.embedding.asked:
        yield f"procedure.name r_drop has no effect: its two passes are one, as {still}"
    if config.embedding.mixup.alpha > 0:
        if task.name != "classification":
            yield (
                f"embedding.mixup.alpha mixes the losses of two texts' classes, and task {task.name} has none. "
                "Fitting: classification"
            )
        if isinstance(procedure, RDropConfig | GradientCacheConfig):
            why = "whose two passes would mix other texts" if procedure.name == "r_drop" else "which judges all at once"
            yield f"embedding.mixup.alpha does not go with procedure.name {procedure.name}, {why}"
        if training.micro_batch_size == 1:
            yield "embedding.mixup.alpha mixes texts of a micro-batch, and training.micro_batch_size is 1"
    if isinstance(procedure, GradientCacheConfig):
        if not over_whole_batch(config):
            yield (
                f"procedure.name gradient_cache has no effect: objective.name {config.objective.name} is a sum over "
                "micro-batches, which plain gives, too"
            )
        if not config.has_parts:
            yield "procedure.name gradient_cache has no effect: a step has one micro-batch; raise training.accumulation"
        if config.logging.noise_scale.every or isinstance(config.batch_control, NoiseScaleBatch):
            yield (
                "procedure.name gradient_cache has no gradient of a single micro-batch, and logging.noise_scale "
                "compares these. Fitting: logging.noise_scale.every 0"
            )
