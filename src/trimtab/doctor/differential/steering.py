"""What gradients, the learning rate and the machine look like."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trimtab.doctor.case import Case
from trimtab.doctor.differential.loss import smooth
from trimtab.doctor.differential.sums import Measured, autocorrelation, ranks_agree, ratio
from trimtab.doctor.reading.curves import Curve
from trimtab.doctor.reading.medians import median
from trimtab.doctor.reading.trends import parts_of

LOW_RATE = 1e-3
"""Below it a rate tells nothing: large models and fine-tuning need it."""


def of_gradients(case: Case) -> Iterator[Measured]:
    """The features of the gradient norm."""
    series = case.history.get("grad_norm")
    curve = Curve.of(series)
    if series is None or curve is None or len(curve) < 5:
        return
    values, num = curve.values, len(curve)
    middle = median(values)
    quarter = max(2, num // 4)
    begin, end = median(values[:quarter]), median(values[-quarter:])
    yield "gradient_start", ratio(float(values[: max(1, num // 100)].mean()), middle)
    yield "gradient_growth", ratio(end, begin)
    yield "gradient_tail", ratio(float(values.max()), middle)
    yield "gradient_spread", ratio(float(np.quantile(values, 0.9)), float(np.quantile(values, 0.1)))
    yield "gradient_zeros", float((values <= 1e-9 * max(middle, 1e-12)).mean())
    yield "gradient_same", float(np.isclose(values, values[num // 2 :].max(), rtol=1e-4).mean())
    yield "gradient_bad", series.num_bad / series.num_samples
    positive = values > 0
    if positive.sum() >= 10:
        logs = np.log(values[positive])
        yield "gradient_steadiness", parts_of(Curve(curve.steps[positive], logs), min(8, len(logs))).steadiness
        yield "gradient_noise", float(np.median(np.abs(np.diff(logs))))
        if num >= 16:
            yield "gradient_memory", float(autocorrelation(logs, 2)[1])
    loss = Curve.of(case.loss())
    if loss is not None and len(loss) >= 5:
        yield "gradient_follows", ranks_agree(smooth(values), np.interp(curve.steps, loss.steps, smooth(loss.values)))


def of_rate(case: Case) -> Iterator[Measured]:
    """The features of the learning rate."""
    curve, loss = Curve.of(case.history.get("learning_rate")), Curve.of(case.loss())
    if curve is None or len(curve) < 3 or float(curve.values.max()) <= 0.0:
        return
    values, num = curve.values, len(curve)
    peak = float(values.max())
    yield "rate_peak", ratio(max(peak, LOW_RATE), 1.0)
    yield "rate_first", float(values[0]) / peak
    yield "rate_last", float(values[-1]) / peak
    yield "rate_mean", float(values.mean()) / peak
    yield "rate_warmup", float(np.flatnonzero(values >= 0.98 * peak)[0]) / num
    yield "rate_tiny", float((values < 0.03 * peak).mean())
    steps = np.diff(values) / peak
    yield "rate_up", float(np.maximum(steps[int(values.argmax()) :], 0.0).sum())
    yield "rate_largest_drop", float(-steps.min(initial=0.0))
    yield "rate_largest_rise", float(steps.max(initial=0.0))
    yield "rate_constant", float((np.abs(steps) < 1e-9).mean())
    if loss is not None and len(loss) >= 5:
        smoothed = smooth(loss.values)
        rate = np.interp(loss.steps, curve.steps, values)
        falls = -np.diff(smoothed)
        covered = float(smoothed[0] - smoothed.min())
        if covered > 0:
            yield "descent_at_low_rate", float(falls[rate[1:] < 0.1 * peak].sum()) / covered


def of_machine(case: Case) -> Iterator[Measured]:
    """The features of times, memory, and the length of the run."""
    seconds, data = Curve.of(case.history.get("step_seconds")), Curve.of(case.history.get("data_seconds"))
    speed, memory = (
        Curve.of(case.history.get("tokens_per_second")),
        Curve.of(case.history.get("memory_bytes", "hardware/process_memory_bytes")),
    )
    if seconds is not None and len(seconds) >= 8:
        quarter = len(seconds) // 4
        yield "time_growth", ratio(median(seconds.values[-quarter:]), median(seconds.values[1 : quarter + 1]))
        yield "time_steadiness", parts_of(seconds, 8).steadiness
        if data is not None and len(data) >= 4:
            yield "time_data", median(data.values) / max(median(seconds.values), 1e-12)
    elif speed is not None and len(speed) >= 8:
        quarter = len(speed) // 4
        yield "time_growth", ratio(median(speed.values[1 : quarter + 1]), median(speed.values[-quarter:]))
        yield "time_steadiness", -parts_of(speed, 8).steadiness
    if memory is not None and len(memory) >= 8:
        quarter = len(memory) // 4
        yield "memory_growth", ratio(median(memory.values[-quarter:]), median(memory.values[1 : quarter + 1]))
        yield "memory_steadiness", parts_of(memory, 8).steadiness
    yield "length_of_plan", case.history.last_step / case.planned_steps if case.history.total_steps else None
