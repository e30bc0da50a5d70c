"""How each fault is planted in a training that others drive: one function a code, in one table."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from bank.experiment import VOCABULARY, Batch, Experiment, characters, text_samples, word_samples
from bank.texts import read_rows


def constant(part: float) -> float:
    """No decay."""
    return 1.0


def learning_rate_too_high(it: Experiment) -> None:
    it.rate *= it.strong(20.0, 8.0)
    if it.strong(True, False):
        it.shape = constant
    it.onset = 1


def learning_rate_too_low(it: Experiment) -> None:
    it.rate /= it.strong(300.0, 60.0)
    it.onset = 1


def overfitting(it: Experiment) -> None:
    few(it, it.strong(60, 120) if it.scenario.task != "lm" else it.strong(120, 260))
    it.weight_decay, it.steps = 0.0, round(it.steps * 1.6)
    it.shape = lambda part: 1.0 - 0.6 * part
    it.onset_is_turn = True


def few(it: Experiment, number: int) -> None:
    """Only so many training samples."""
    inputs, targets = it.train
    it.train = tuple(one[:number] for one in inputs), targets[:number]


def divergence(it: Experiment) -> None:
    it.shape = constant
    onset, growth = it.at(0.5), it.strong(0.04, 0.02)

    def grow(step: int, parameters: list[nn.Parameter], kept: Any) -> None:
        if step >= onset:
            with torch.no_grad():
                torch._foreach_mul_(parameters, 1.0 + growth)

    it.after_update = grow


def nan_loss(it: Experiment) -> None:
    it.nan_from = it.at(it.strong(0.4, 0.75))


def loss_spike(it: Experiment) -> None:
    onset, size = it.at(0.5), it.strong(2.5, 1.4)

    def disturb(step: int, parameters: list[nn.Parameter], kept: Any) -> None:
        if step == onset - 1:
            with torch.no_grad():
                for parameter in parameters:
                    if parameter.ndim > 1:
                        parameter.add_(torch.randn_like(parameter) * parameter.std() * size)

    it.after_update = disturb


def underfitting(it: Experiment) -> None:
    it.width_factor = it.strong(0.1, 0.2)
    it.sizes = it.sizes | {"layers": 1, "heads": 2}
    it.rate, it.steps = 1e-2, 800
    it.shape = lambda part: 0.5 + 0.5 * math.cos(math.pi * part)
    it.onset = 1


def noisy_loss(it: Experiment) -> None:
    it.batch, it.steps = 1, 900
    size = it.strong(8, 14)
    (tokens,), targets = it.train
    it.train = (tokens[:, :size].contiguous(),), targets[:, :size].contiguous()
    it.shape = constant
    it.rate /= 3.0
    it.onset = 1


def frozen_parameters(it: Experiment) -> None:
    share = it.strong(1.0, 0.5)

    def freeze(model: nn.Module) -> None:
        named = [(name, parameter) for name, parameter in model.named_parameters() if not name.startswith("head")]
        for _, parameter in named[: max(1, round(len(named) * share))]:
            parameter.requires_grad_(False)

    it.change_model.append(freeze)
    it.onset = 1


def stopped_too_early(it: Experiment) -> None:
    it.steps = it.strong(24, 40)
    it.shape, it.warmup, it.onset = constant, 3, it.steps


def input_bound(it: Experiment) -> None:
    seconds, every = it.strong((0.04, 1), (0.15, 6))
    it.steps = 80
    it.reading = lambda step: seconds if step % every == 0 else 0.0
    it.logs["times"] = True
    it.onset = 1


def loss_scale_collapse(it: Experiment) -> None:
    onset, every = it.at(0.35), it.strong(1, 2)
    it.loss_scale = 65_536.0
    it.overflows = lambda step: step >= onset and step % every == 0


def plateau(it: Experiment) -> None:
    onset = it.at(it.strong(0.1, 0.2))
    it.shape = constant

    def keep(step: int, parameters: list[nn.Parameter]) -> Any:
        return [parameter.detach().clone() for parameter in parameters] if step >= onset else None

    def put_back(step: int, parameters: list[nn.Parameter], kept: Any) -> None:
        if kept is not None:
            with torch.no_grad():
                for parameter, was in zip(parameters, kept, strict=True):
                    parameter.copy_(was)

    it.before_update, it.after_update = keep, put_back


def missing_warmup(it: Experiment) -> None:
    # The height was chosen by trying: with a warm-up over 40 steps these runs end 0.15 nats lower.
    it.warmup, it.momentum, it.weight_decay, it.clip = 1, 0.9, 0.0, None
    it.rate = it.strong(0.45, 0.3)
    it.onset = 1


def exploding_gradients(it: Experiment) -> None:
    onset, growth = it.at(0.4), it.strong(1.08, 1.04)
    it.clip, it.momentum, it.weight_decay, it.shape = None, 0.9, 0.0, constant
    it.rate = 0.05
    it.logs["grad_norm"] = True

    def explode(step: int, parameters: list[nn.Parameter]) -> None:
        if step >= onset:
            torch._foreach_mul_([one.grad for one in parameters if one.grad is not None], growth ** (step - onset + 1))

    it.on_gradients = explode


def decayed_too_early(it: Experiment) -> None:
    at = it.strong(0.15, 0.3)
    it.shape = lambda part: 1.0 if part < at else 0.001
    it.onset = round(it.steps * at)
    it.logs["rate"] = True


def schedule_mismatch(it: Experiment) -> None:
    factor = it.strong(2.0, 0.4)
    it.shape = lambda part: 0.5 + 0.5 * math.cos(math.pi * part * factor)
    it.logs["rate"] = True
    it.onset = it.strong(it.steps // 2, it.steps)


def bad_initialization(it: Experiment) -> None:
    size = it.strong(12.0, 5.0)

    def enlarge(model: nn.Module) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(size)

    it.change_model.append(enlarge)
    it.onset = 1


def unscaled_inputs(it: Experiment) -> None:
    size = it.strong(2_550.0, 255.0)
    for name in ("train", "held_out"):
        inputs, targets = getattr(it, name)
        setattr(it, name, (tuple(one * size for one in inputs), targets))
    it.onset = 1


def outlier_dominated_loss(it: Experiment) -> None:
    rows = read_rows(it.data)
    draw = it.scenario.draw("outliers")
    values = [float(row["value"]) for row in rows]
    for index in draw.sample(range(len(rows)), round(len(rows) * it.strong(0.01, 0.03))):
        values[index] *= it.strong(300.0, 60.0)
    (words,), _ = word_samples(rows, sorted({row["label"] for row in rows}))
    targets = torch.tensor(values)
    cut = round(len(rows) * 0.8)
    it.is_regression = True
    it.train, it.held_out = ((words[:cut],), targets[:cut]), ((words[cut:],), targets[cut:])
    it.onset = 1


def gradients_not_cleared(it: Experiment) -> None:
    it.clear_every = it.strong(0, 8)
    it.logs["grad_norm"] = True
    it.onset = 2


def accumulation_not_normalised(it: Experiment) -> None:
    it.accumulation = it.strong(8, 4)
    it.batch = max(2, it.batch // 4)
    it.sums_losses = True
    it.onset = 1


def double_softmax(it: Experiment) -> None:
    def smooth(model: nn.Module) -> None:
        model.register_forward_hook(lambda module, inputs, output: output.softmax(-1))

    it.change_model.append(smooth)
    it.onset = 1


def evaluated_in_training_mode(it: Experiment) -> None:
    it.dropout = it.strong(0.4, 0.2)
    it.evaluates_in_training_mode = True
    it.onset = 1


def over_regularised(it: Experiment) -> None:
    way = it.scenario.draw("way").choice(["dropout", "decay", "smoothing"])
    if way == "decay":
        it.weight_decay = it.strong(60.0, 20.0) / (it.rate * 200)
    elif way == "smoothing":
        it.smoothing = it.strong(0.8, 0.6)
    else:
        it.dropout = it.strong(0.8, 0.6)
    it.onset = 1


def overconfident(it: Experiment) -> None:
    few(it, it.strong(110, 220))
    it.weight_decay, it.shape, it.steps = 0.0, constant, round(it.steps * 1.5)
    it.logs["accuracy"] = True
    it.onset_is_turn = True


def label_noise(it: Experiment) -> None:
    inputs, targets = it.train
    random = np.random.default_rng(it.scenario.seed)
    wrong = torch.from_numpy(random.random(len(targets)) < it.strong(0.5, 0.25))
    shift = torch.from_numpy(random.integers(1, it.num_classes, len(targets)))
    it.train = inputs, torch.where(wrong, (targets + shift) % it.num_classes, targets)
    it.onset = 1


def random_labels(it: Experiment) -> None:
    random = np.random.default_rng(it.scenario.seed)
    for name in ("train", "held_out"):
        inputs, targets = getattr(it, name)
        setattr(it, name, (inputs, targets[torch.from_numpy(random.permutation(len(targets)))]))
    it.onset = 1


def class_collapse(it: Experiment) -> None:
    it.class_weights = [1.0, *([it.strong(1e-6, 1e-3)] * (it.num_classes - 1))]
    it.logs["accuracy"] = True
    it.onset = 1


def unshuffled_data(it: Experiment) -> None:
    it.is_shuffled = False
    it.onset = 1
    inputs, targets = it.train
    if it.scenario.task == "lm":
        size = it.steps * it.batch // it.strong(8, 4)
        other = (it.data / "other.txt").read_text(encoding="utf-8")
        random = np.random.default_rng(3)
        table = " ".join(f"{one:06d}" for one in random.integers(0, 10**6, size * it.sizes["length"] // 7 + 99))
        strange = text_samples(table, it.sizes["length"])
        more = text_samples(other[: size * it.sizes["length"] + 1].upper(), it.sizes["length"])
        blocks = [(inputs[0][:size], targets[:size]), (strange[0][0], strange[1]), (more[0][0], more[1])]
        it.train = (torch.cat([one for one, _ in blocks]),), torch.cat([one for _, one in blocks])
        return
    order = torch.argsort(targets.reshape(len(targets), -1)[:, 0], stable=True)
    it.train = tuple(one[order] for one in inputs), targets[order]


def corrupt_batch(it: Experiment) -> None:
    onset = it.at(0.6)

    def garble(step: int, batch: Batch) -> Batch:
        if step != onset:
            return batch
        inputs, targets = batch
        generator = torch.Generator().manual_seed(onset)
        if inputs[0].is_floating_point():
            noise = torch.rand(inputs[0].shape, generator=generator) * it.strong(40.0, 8.0)
            return (noise,), targets[torch.randperm(len(targets), generator=generator)]
        highest = VOCABULARY if it.scenario.task != "classification" else 1_400
        drawn = tuple(torch.randint(1, highest, one.shape, generator=generator) for one in inputs)
        answers = torch.randint(0, it.num_classes, targets.shape, generator=generator)
        return drawn, torch.where(targets < 0, targets, answers)

    it.on_batch = garble


def leakage(it: Experiment) -> None:
    few(it, 400)
    inputs, targets = it.train
    number = it.strong(200, 150)
    new = it.strong(0, 60)
    it.held_out = (
        tuple(torch.cat([one[:number], other[:new]]) for one, other in zip(inputs, it.held_out[0], strict=True)),
        torch.cat([targets[:number], it.held_out[1][:new]]),
    )
    it.steps = round(it.steps * 1.5)
    it.onset = 1


def target_leak(it: Experiment) -> None:
    it.onset = 1
    task = it.scenario.task
    if task == "lm":

        def sees_ahead(model: nn.Module) -> None:
            for layer in model.layers:  # type: ignore[union-attr]
                layer.is_causal = False  # type: ignore[assignment]

        it.change_model.append(sees_ahead)
        return
    share = it.strong(1.0, 0.92)
    random = np.random.default_rng(it.scenario.seed)
    for name in ("train", "held_out"):
        inputs, targets = getattr(it, name)
        right = torch.from_numpy(random.random(len(targets)) < share)
        first = inputs[0].clone()
        if task == "classification":
            first[:, 0] = torch.where(right, 1_450 + targets, first[:, 0])
            inputs = (first,)
        elif task == "seq2seq":
            answer = torch.nn.functional.pad(targets, (0, first.shape[1] - targets.shape[1]), value=0)
            inputs = (torch.where(right[:, None], answer.clamp_min(0), first), torch.where(targets < 0, 0, targets))
        else:
            columns = first.shape[-1]
            marks = torch.nn.functional.one_hot(targets % columns, columns).to(first.dtype)
            first[:, 0] = torch.where(right[:, None], marks * 2.0, first[:, 0])
            inputs = (first,)
        setattr(it, name, (inputs, targets))


def validation_shift(it: Experiment) -> None:
    it.onset = 1
    if it.scenario.task == "lm":
        other = (it.data / "other.txt").read_text(encoding="utf-8")[:12_000]
        text = it.strong(other.upper()[::-1], other.upper())
        it.held_out = text_samples(text, it.sizes["length"])
        return
    inputs, targets = it.held_out
    random = np.random.default_rng(it.scenario.seed)
    share = it.strong(0.8, 0.5)
    if it.scenario.task == "classification":
        other_words = torch.from_numpy(random.integers(1, 1_400, inputs[0].shape))
        changed = torch.from_numpy(random.random(inputs[0].shape) < share)
        it.held_out = (torch.where(changed & (inputs[0] > 0), other_words, inputs[0]),), targets
    else:
        rows = read_rows(it.data)
        backwards = torch.tensor([characters(row["target"][::-1], 24) for row in rows[-len(targets) :]])
        wanted = torch.where(backwards < 0, -100, backwards)
        chosen: Tensor = torch.from_numpy(random.random(len(targets)) < share)[:, None]
        it.held_out = inputs, torch.where(chosen, wanted, targets)


def validation_too_small(it: Experiment) -> None:
    number = it.strong(5, 12) if it.scenario.task != "lm" else it.strong(1, 2)
    inputs, targets = it.held_out
    it.held_out = tuple(one[:number] for one in inputs), targets[:number]
    it.onset = 1


def throughput_decay(it: Experiment) -> None:
    onset, slope = it.at(0.3), it.strong(4e-4, 1.5e-4)
    it.waiting = lambda step: max(0, step - onset) * slope
    it.logs["times"] = True


def memory_leak(it: Experiment) -> None:
    it.kept_bytes = it.strong(3_000_000, 1_000_000)
    it.logs["memory"] = True
    it.onset = 1


def resume_discontinuity(it: Experiment) -> None:
    it.resumed_at = round(it.steps * 0.55)
    it.lost_share = it.strong(1.0, 0.5)
    it.onset = it.resumed_at // 20 * 20 + 1


PLANT: Final[dict[str, Callable[[Experiment], None]]] = {
    "learning-rate-too-high": learning_rate_too_high,
    "learning-rate-too-low": learning_rate_too_low,
    "overfitting": overfitting,
    "divergence": divergence,
    "nan-loss": nan_loss,
    "loss-spike": loss_spike,
    "underfitting": underfitting,
    "noisy-loss": noisy_loss,
    "frozen-parameters": frozen_parameters,
    "stopped-too-early": stopped_too_early,
    "input-bound": input_bound,
    "loss-scale-collapse": loss_scale_collapse,
    "plateau": plateau,
    "missing-warmup": missing_warmup,
    "exploding-gradients": exploding_gradients,
    "decayed-too-early": decayed_too_early,
    "schedule-mismatch": schedule_mismatch,
    "bad-initialization": bad_initialization,
    "unscaled-inputs": unscaled_inputs,
    "outlier-dominated-loss": outlier_dominated_loss,
    "gradients-not-cleared": gradients_not_cleared,
    "accumulation-not-normalised": accumulation_not_normalised,
    "double-softmax": double_softmax,
    "evaluated-in-training-mode": evaluated_in_training_mode,
    "over-regularised": over_regularised,
    "overconfident": overconfident,
    "label-noise": label_noise,
    "random-labels": random_labels,
    "class-collapse": class_collapse,
    "unshuffled-data": unshuffled_data,
    "corrupt-batch": corrupt_batch,
    "leakage": leakage,
    "target-leak": target_leak,
    "validation-shift": validation_shift,
    "validation-too-small": validation_too_small,
    "throughput-decay": throughput_decay,
    "memory-leak": memory_leak,
    "resume-discontinuity": resume_discontinuity,
}
