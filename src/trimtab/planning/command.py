"""What `trimtab plan` answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from trimtab.config import Config, load_config
from trimtab.errors import UsageError
from trimtab.planning.counts import ModelCounts, count_model
from trimtab.planning.devices import find_device
from trimtab.planning.predict import Prediction, predict, that_fits
from trimtab.planning.reached import as_chosen, choices_of, device_of, reached_by
from trimtab.planning.text import render
from trimtab.runs import RunDirectory


@final
@dataclass(frozen=True, slots=True)
class Answer:
    """What was planned, as text and as JSON values, and what to run next."""

    config: Config
    prediction: Prediction
    text: str
    facts: dict[str, Any]
    after: tuple[str, ...]


def planned(
    source: str | None,
    overrides: Sequence[str],
    *,
    model: str | None,
    device: str | None,
    batch: int | None,
    count: Callable[[Config], ModelCounts] = count_model,
) -> Answer:
    """The answer to a command.

    `source` is a configuration, a preset or a run; `model` a preset; `count` says what its model consists of. Raises:
    UsageError for what does not go together.
    """
    if source is not None and "=" in source and not Path(source).exists():  # a setting, where no configuration is given
        overrides, source = [source, *overrides], None
    if source is not None and RunDirectory.is_run(Path(source)):
        return _of_run(Path(source), overrides, model, device, batch, count)
    if source is None and model is None:
        raise UsageError("plan: nothing to plan", hint="name a configuration, a preset or a run, or --model PRESET")
    config = _config(source, list(overrides), model, batch)
    prediction = predict(config, find_device(device or "this"), counts=count(config))
    told = render(source or str(model), config, prediction)
    facts = _facts(source or str(model), config, prediction)
    settings = [*([f"training.micro_batch_size={batch}"] if batch else []), *overrides]
    after = ("check", source or str(model), *settings) if model is None or source is None else ("check", source)
    return Answer(config, prediction, told, facts, after)


def _config(source: str | None, overrides: list[str], model: str | None, batch: int | None) -> Config:
    if batch is not None:
        overrides = [*overrides, f"training.micro_batch_size={batch}"]
    if source is None or model is None:
        return load_config(source if source is not None else model, overrides)
    config, preset = load_config(source, overrides), load_config(model)
    data = config.data.model_copy(
        update={"tokenizer": preset.data.tokenizer, "sequence_length": preset.data.sequence_length}
    )
    return Config.model_validate(config.model_copy(update={"model": preset.model, "data": data}).model_dump())


def _of_run(
    path: Path,
    overrides: Sequence[str],
    model: str | None,
    device: str | None,
    batch: int | None,
    count: Callable[[Config], ModelCounts],
) -> Answer:
    if overrides or model is not None or batch is not None:
        raise UsageError(
            f"plan: {path} is a run, whose settings are what they were. Received: settings besides it",
            hint=f"{path}/config.yaml is its configuration, which takes others",
        )
    run = RunDirectory.open(path)
    if not run.config.exists():
        raise UsageError(f"{path}: no configuration of ours is kept there, so nothing can be counted")
    choices = choices_of(run)
    config = as_chosen(load_config(str(run.config)), choices)
    reached = reached_by(run)
    prediction = predict(
        config,
        find_device(device or device_of(run)),
        compiled=choices.get("compile", {}).get("chosen"),
        micro_batch_size=choices.get("micro_batch", {}).get("chosen"),
        counts=count(config),
    )
    facts = _facts(str(path), config, prediction) | {
        "reached": reached.to_json() | {"times_the_prediction": reached.step_seconds / prediction.step_seconds}
    }
    return Answer(config, prediction, render(str(path), config, prediction, reached), facts, ("show", str(path)))


def _facts(name: str, config: Config, prediction: Prediction) -> dict[str, Any]:
    facts = {"schema": 1, "plan": name, **prediction.to_json()}
    if not prediction.fits:
        smaller = that_fits(config, prediction)
        facts["that_fits"] = None if smaller is None else smaller.to_json()
    return facts
