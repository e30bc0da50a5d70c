"""A prediction as text for people."""

from __future__ import annotations

from trimtab.config import Config
from trimtab.planning.memory import USABLE
from trimtab.planning.predict import Prediction, predict, that_fits
from trimtab.runs import format
from trimtab.runs.pace import Pace


def render(name: str, config: Config, prediction: Prediction, reached: Pace | None = None) -> str:
    """The prediction, and what a run reached beside it."""
    device, counts = prediction.device, prediction.counts
    rows = [
        (
            "model",
            f"{format.short(counts.total_parameters)} parameters, {format.count(counts.tokens)} tokens a sequence",
        ),
        ("computes", _computes(prediction)),
        ("step", _step(prediction)),
        ("profile", _profile(prediction)),
        ("limit", _limit(prediction)),
        ("memory", _memory(prediction)),
    ]
    if not prediction.fits:
        rows += [("", line) for line in _smaller(config, prediction)]
    rows += [("left out", what) for what in prediction.left_out]
    rows.append(("run", _run(prediction)))
    if device.company > 1.0:
        taken = f"other programs take {device.busy_cores:.1f} of {device.cores} cores just now"
        rows.append(("busy", f"{taken}: the longer time is beside them"))
    rows.append(("ceilings", device.measured))
    if reached is not None:
        rows += _reached(prediction, reached)
    lines = [f"{name} on {device.description}"]
    return "\n".join([*lines, *(f"  {label:<10} {text}" for label, text in rows)])


def _computes(prediction: Prediction) -> str:
    ways = prediction.ways
    numbers = f"{ways.precision} weights over fp32 masters" if ways.narrow else ways.precision
    if ways.autocasts:
        numbers += " over fp32 weights"
    parts = [numbers, "compiled" if ways.compiled else "not compiled"]
    if prediction.device.kind == "cuda":
        parts.append("captured" if ways.captured else "not captured")
    if ways.fused_loss:
        parts.append("head and loss as one")
    return ", ".join(parts)


def _step(prediction: Prediction) -> str:
    rows, parts = prediction.micro_batch_size, prediction.accumulation * prediction.multiple
    batch = f"{rows} sequences" if parts == 1 else f"{parts:g} micro-batches of {rows} sequences"
    return (
        f"{format.step_time(prediction.step_seconds)}: {batch}, {format.count(prediction.tokens_per_step)} tokens; "
        f"{format.tokens_per_second(prediction.tokens_per_second)}, MFU {100 * prediction.utilization:.0f} %"
    )


def _profile(prediction: Prediction) -> str:
    whole = prediction.step_seconds
    parts = [
        f"{part.part} {format.step_time(part.seconds)} ({format.share(part.seconds / whole)})"
        for part in prediction.parts
    ]
    return ", ".join(parts)


def _limit(prediction: Prediction) -> str:
    above = sorted(((part.seconds - part.ceiling_seconds, part.part) for part in prediction.parts), reverse=True)
    told = [
        f"{name} {format.step_time(seconds)}" for seconds, name in above if seconds > 0.01 * prediction.step_seconds
    ]
    rest = f"; above it: {', '.join(told)}" if told else ""
    return f"{format.step_time(prediction.ceiling_seconds)} with every part at the device's ceiling{rest}"


def _memory(prediction: Prediction) -> str:
    parts = sorted(prediction.memory.items(), key=lambda item: -item[1])
    told = ", ".join(f"{name} {format.size(number)}" for name, number in parts)
    of = f"{format.size(prediction.memory_bytes)} of {format.size(prediction.device.memory_bytes)}"
    return f"{of}: {told}"


def _smaller(config: Config, prediction: Prediction) -> list[str]:
    """That it does not fit, and what to lower."""
    usable = format.size(USABLE * prediction.device.memory_bytes)
    found = that_fits(config, prediction)
    if found is not None:
        settings = f"training.micro_batch_size={found.micro_batch_size}"
        if config.training.batch_size is None:
            settings += f" training.accumulation={found.accumulation}"
        takes = f"takes {format.size(found.memory_bytes)}, {format.step_time(found.step_seconds)} a step"
        return [f"does not fit: {usable} can be used; {settings} is the same batch, and {takes}"]
    single = predict(
        config, prediction.device, compiled=prediction.ways.compiled, micro_batch_size=1, counts=prediction.counts
    )
    takes = format.size(single.memory_bytes)
    one = [f"does not fit: {usable} can be used, and one sequence at a time takes {takes}"]
    largest = max(single.memory, key=lambda name: single.memory[name])
    cures = {
        "activations": "a shorter data.sequence_length or a smaller model",
        "logits": "objective.chunks=8" if prediction.ways.fused_loss else "objective.fused=on, or a smaller vocabulary",
        "moments": "optimizer.name=adamw_8bit, or a smaller model",
    }
    return [*one, f"most of it are {largest}: {cures.get(largest, 'a smaller model')}"]


def _run(prediction: Prediction) -> str:
    steps, tokens = prediction.steps, prediction.steps * prediction.tokens_per_step
    energy = prediction.kilowatt_hours
    interval = " to ".join(format.duration(one) for one in prediction.training_interval)
    spent = f"; at most {energy:.3g} kWh at {prediction.device.watts:.0f} W" if energy is not None else ""
    return (
        f"{format.count(steps)} steps, {format.short(tokens)} tokens: about "
        f"{format.duration(prediction.training_seconds)}, estimated ({interval}), evaluations and saves left out{spent}"
    )


def _reached(prediction: Prediction, reached: Pace) -> list[tuple[str, str]]:
    low, high = reached.quartiles
    ratio = reached.step_seconds / prediction.step_seconds
    rows = [
        (
            "reached",
            f"{format.step_time(reached.step_seconds)} a step, median of {format.count(reached.num_steps)} (quartiles "
            f"{format.step_time(low)} to {format.step_time(high)}): {ratio:.2f} times the prediction; "
            f"all steps at that pace: {format.duration(prediction.steps * reached.mean_seconds)}, measured",
        ),
        (
            "of it",
            f"waiting for data {format.share(reached.data_seconds / reached.mean_seconds)}"
            + (f"; {format.tokens_per_second(reached.tokens_per_second)}" if reached.tokens_per_second else ""),
        ),
    ]
    if reached.memory_bytes is not None:
        whole = "" if prediction.device.kind == "cuda" else ", of the whole process"
        rows.append(("", f"memory {format.size(reached.memory_bytes)} at its peak{whole}"))
    return rows
