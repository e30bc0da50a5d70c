"""Further ways to plant each fault in a run of trimtab's own trainer, as users do: for the part `spread`.

A fault is planted in another way in each round; the first is that of the other parts.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bank import clock, models, patches
from bank.ours_faults import CONSTANT, PLANT, changed, labelled_apart, pieces_apart, use_dropout
from bank.setup import Setup
from bank.texts import read_rows

if TYPE_CHECKING:
    from bank.spread import Plant


def adam_of_torch(setup: Setup, rate: float, **more: Any) -> None:
    """The optimizer is one that the user builds."""
    setup.rate = rate
    setup.make_optimizer = lambda groups: torch.optim.AdamW(groups, lr=rate, weight_decay=0.01, **more)


def sgd_of_torch(setup: Setup, rate: float, momentum: float = 0.9) -> None:
    setup.rate = rate
    setup.make_optimizer = lambda groups: torch.optim.SGD(groups, lr=rate, momentum=momentum)


def rate_of_adams_too_high(setup: Setup) -> None:
    adam_of_torch(setup, setup.strong(0.12, 0.04) * (48 / setup.sizes["width"]) ** 0.5)
    setup.onset = 1


def rate_of_lions_too_high(setup: Setup) -> None:
    rate = setup.sizes["rate"][setup.scenario.task] * setup.strong(2.5, 1.2)
    setup.settings["optimizer"] = {"name": "lion"}
    setup.rate = rate
    setup.onset = 1


def rate_of_fine_tuning(setup: Setup) -> None:
    adam_of_torch(setup, setup.strong(1e-5, 5e-5))
    setup.onset = 1


def rate_of_adam_for_sgd(setup: Setup) -> None:
    sgd_of_torch(setup, setup.strong(1e-4, 3e-4))
    setup.onset = 1


def overfitting_without_regularization(setup: Setup) -> None:
    """A model that is twice as wide, nothing that holds it, and little to learn from."""
    PLANT["overfitting"](setup)
    setup.settings["model"] |= {"hidden_size": 128}
    setup.settings["training"]["micro_batch_size"] = min(setup.batch, 8)
    setup.settings["model"].pop("dropout", None)


def gradient_of_the_wrong_sign(setup: Setup) -> None:
    setup.settings["schedule"] = CONSTANT
    onset = setup.at(setup.strong(0.4, 0.7))

    def turn(step: Any, number: int) -> None:
        if number >= onset:
            torch._foreach_neg_(patches.gradients_of(step))

    setup.patches.append(patches.around_update(before=turn))


def weight_not_a_number(setup: Setup) -> None:
    onset = setup.at(setup.strong(0.3, 0.8))

    def spoil(step: Any, number: int, kept: Any) -> None:
        if number == onset - 1:
            patches.weights_of(step)[-1].view(-1)[0] = float("nan")

    setup.patches.append(patches.around_update(after=spoil))


def logarithm_of_nothing(setup: Setup) -> None:
    onset = setup.at(setup.strong(0.35, 0.65))
    passes = {"step": 0}

    def count(step: Any, batches: list[Any], number: int) -> list[Any]:
        passes["step"] = number
        return batches

    def logarithm(model: nn.Module) -> None:
        list(model.modules())[-1].register_forward_hook(
            lambda module, inputs, output: output + 0.0 * torch.log(output * 0.0) if passes["step"] >= onset else output
        )

    setup.patches += [patches.before_step(count), changed(setup, logarithm)]


def one_update_far_too_large(setup: Setup) -> None:
    onset, size = setup.at(0.5), setup.strong(2.5, 1.4)

    def enlarge(step: Any, number: int, kept: Any) -> None:
        if number == onset - 1:
            generator = torch.Generator().manual_seed(number)
            for weight in patches.weights_of(step):
                if weight.ndim > 1:
                    weight.sub_(torch.randn(weight.shape, generator=generator).sign() * weight.std() * size)

    setup.patches.append(patches.around_update(after=enlarge))


def bottleneck(setup: Setup) -> None:
    width = setup.strong(4, 6)
    setup.model = lambda vocabulary, seed: models.WindowMlp(vocabulary, width, seed=seed, window=2)
    setup.settings["schedule"] = {"name": "cosine", "warmup": 0.05, "floor": 0.0}
    setup.settings["optimizer"] = {"name": "adamw"}
    setup.rate = 1e-2
    setup.steps = 900
    setup.onset = 1


def few_tokens_a_step(setup: Setup) -> None:
    setup.settings["training"]["micro_batch_size"] = setup.strong(1, 2)
    setup.settings["data.sequence_length"] = setup.strong(8, 12)
    setup.settings["schedule"] = {"name": "linear", "warmup": 0.02, "floor": 0.5}
    setup.rate /= setup.strong(2.0, 3.0)
    setup.steps = 800
    setup.onset = 1


def _untie(setup: Setup) -> None:
    if setup.scenario.task in ("lm", "seq2seq"):
        setup.settings["model"]["tied_embeddings"] = False


def optimizer_of_the_head(setup: Setup) -> None:
    """The user's optimizer is given the last parameters alone."""
    kept = setup.strong(1, 2)
    rate = setup.rate

    def make(groups: list[dict[str, Any]]) -> Any:
        parameters = [one for group in groups for one in group["params"]]
        matrices = [one for one in parameters if one.ndim > 1]
        left = {id(one) for one in matrices[-kept:]} | {id(one) for one in parameters if one.ndim < 2}
        for one in parameters:
            if id(one) not in left:
                one.requires_grad_(False)
        return torch.optim.AdamW(groups, lr=rate)

    _untie(setup)
    setup.make_optimizer = make
    setup.onset = 1


def pass_without_gradient(setup: Setup) -> None:
    """A block that is run without gradients."""
    setup.settings["model"]["num_layers"] = setup.sizes["deeper"] if setup.scenario.task != "seq2seq" else 3
    _untie(setup)

    def freeze(model: nn.Module) -> None:
        blocks: Any = getattr(model, "blocks", None) or model.encoder.blocks  # type: ignore[union-attr]
        block = blocks[len(blocks) - 1 if setup.strong(True, False) else len(blocks) // 2]
        forward = block.forward

        def without(*arguments: Any, **named: Any) -> Any:
            with torch.no_grad():
                return forward(*arguments, **named)

        block.forward = without

    setup.patches.append(patches.model_changed(freeze))
    setup.onset = 1


def short_trial_of_a_large_batch(setup: Setup) -> None:
    setup.steps = setup.strong(24, 45)
    setup.settings["schedule"] = {"name": "linear", "warmup": 3, "floor": 0.5}
    setup.onset = setup.steps


def reading_waits_now_and_then(setup: Setup) -> None:
    setup.steps = 70
    seconds, every = setup.strong((0.15, 2), (0.2, 4))
    setup.patches.append(patches.reading_waits(lambda number: seconds if number % every == 0 else 0.001))
    setup.onset = 1


def overflow_by_chance(setup: Setup) -> None:
    setup.settings["training"]["precision"] = {"name": "fp16", "initial_scale": 256.0}
    onset, numbers, share = setup.at(0.25), random.Random(setup.scenario.seed), setup.strong(0.9, 0.6)

    def overflow(step: Any, number: int) -> None:
        if step.precision.scaler is not None and number >= onset and (number == onset or numbers.random() < share):
            patches.gradients_of(step)[-1].fill_(float("inf"))

    setup.patches.append(patches.around_update(before=overflow))


def gradients_zeroed(setup: Setup) -> None:
    onset = setup.at(setup.strong(0.12, 0.25))
    setup.settings["schedule"] = CONSTANT
    sgd_of_torch(setup, 0.3 if not setup.is_rows else 0.1, momentum=0.0)  # which has nothing to go on with

    def clear(step: Any, number: int) -> None:
        if number >= onset:
            torch._foreach_zero_(patches.gradients_of(step))

    setup.patches.append(patches.around_update(before=clear))


def residual_that_grows(setup: Setup) -> None:
    """A factor on what a layer gives back that grows in every step."""
    onset, growth = setup.at(0.4), setup.strong(1.06, 1.035)
    setup.settings["gradients.clip"] = {"name": "none"}
    setup.settings["schedule"] = CONSTANT
    setup.settings["optimizer"] = {"name": "sgd", "weight_decay": 0.0}
    setup.rate = 0.1

    def explode(step: Any, number: int) -> None:
        if number >= onset:
            gradients = patches.gradients_of(step)
            torch._foreach_mul_(gradients[: max(1, len(gradients) // 2)], growth ** (number - onset + 1))

    setup.patches.append(patches.around_update(before=explode))


def falls_in_steps_too_soon(setup: Setup) -> None:
    every = setup.strong(0.06, 0.1)
    setup.settings["schedule"] = {"name": "step", "warmup": 0.02, "every": every, "factor": 0.1}
    setup.onset = round(setup.steps * 2 * every)


def exponential_too_steep(setup: Setup) -> None:
    floor = setup.strong(1e-12, 1e-8)
    setup.settings["schedule"] = {"name": "exponential", "warmup": 0.02, "floor": floor}
    setup.onset = round(setup.steps * 2 / -torch.log10(torch.tensor(floor)).item())


def schedule_never_moved(setup: Setup) -> None:
    """Scheduler.step() is called once an epoch: the rate stays where the warm-up began."""
    setup.settings["schedule"] = {"name": "cosine", "warmup": 0.1, "floor": 0.02}
    setup.patches.append(patches.schedule_runs(setup.strong(0.03, 0.1)))
    setup.onset = 1


def small_weights_of_many_layers(setup: Setup) -> None:
    depth, width = setup.strong(10, 7), setup.sizes["width"]

    def build(vocabulary: int, seed: int) -> nn.Module:
        model = models.SigmoidStack(vocabulary, width, seed=seed, depth=depth, activation=torch.tanh)
        for layer in model.layers:
            layer.weight.data.mul_(0.25)  # type: ignore[operator, union-attr]
        return model

    setup.model = build
    setup.onset = 1


def dead_in_a_given_model(setup: Setup) -> None:
    if setup.scenario.task != "lm":
        PLANT["dead-units"](setup)
        return
    share, width = setup.strong(0.97, 0.7), setup.sizes["width"]

    def build(vocabulary: int, seed: int) -> nn.Module:
        model = models.WindowMlp(vocabulary, width, seed=seed)
        for layer in (model.first, model.second):
            layer.bias.data[: round(len(layer.bias) * share)] = -30.0
        return model

    setup.model = build
    setup.onset = 1


def head_far_too_large(setup: Setup) -> None:
    _untie(setup)
    size = setup.strong(120.0, 50.0)

    def enlarge(model: nn.Module) -> None:
        head: Any = model.head
        head.weight.data.mul_(size)

    setup.patches.append(changed(setup, enlarge))
    setup.onset = 1


def targets_with_a_heavy_tail(setup: Setup) -> None:
    rows, draw = read_rows(setup.data), setup.scenario.draw("outliers")
    power = setup.strong(0.7, 1.0)
    for row in rows:
        row["value"] = row["value"] + draw.paretovariate(power) ** 1.5 * draw.choice([-1.0, 1.0])
    setup.use_rows(rows)
    setup.onset = 1


def cleared_every_few_steps(setup: Setup) -> None:
    setup.patches.append(patches.gradients_kept(setup.strong(5, 3)))
    setup.onset = 2


def loss_summed_over_sequences(setup: Setup) -> None:
    """A sum over the sequences of a batch in place of their mean."""
    setup.patches.append(patches.losses_summed(setup.batch))
    setup.onset = 1


@final
class _Probabilities(nn.Module):
    def __init__(self, head: nn.Module, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.act = head, act

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.act(self.linear(features))
        return found


def sigmoid_before_the_loss(setup: Setup) -> None:
    setup.onset = 1
    act = setup.strong(lambda logits: logits.softmax(-1), lambda logits: (2.0 * logits).softmax(-1))

    def smooth(model: nn.Module) -> None:
        model.head.register_forward_hook(lambda module, inputs, output: act(output))  # type: ignore[union-attr]

    setup.patches.append(changed(setup, smooth))


@final
class _AlwaysDropout(nn.Module):
    """`F.dropout(x, p)`, whose default is that of training."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.rate)


def functional_dropout(setup: Setup) -> None:
    rate = setup.strong(0.5, 0.25)

    def always(model: nn.Module) -> None:
        drop = _AlwaysDropout(rate)
        target: Any = getattr(model, "final_norm", None) or getattr(model, "second", None) or model
        blocks = getattr(model, "blocks", None) or getattr(getattr(model, "encoder", None), "blocks", None)
        modules = list(blocks) if blocks is not None else [target]
        for module in modules:
            module.register_forward_hook(
                lambda _, inputs, output: (drop(output[0]), *output[1:]) if isinstance(output, tuple) else drop(output)
            )

    setup.patches.append(changed(setup, always))
    setup.onset = 1


def penalized_too_much(setup: Setup) -> None:
    setup.onset = 1
    setup.settings["optimizer"] = {"name": "sgd", "weight_decay": 0.0}
    setup.rate = 0.1
    setup.settings["penalties.l2"] = {"strength": setup.strong(0.5, 0.15)}


def dropout_and_decay(setup: Setup) -> None:
    use_dropout(setup, setup.strong(0.7, 0.5))
    setup.settings["optimizer.weight_decay"] = 1.0
    setup.onset = 1


def classes_confused(setup: Setup) -> None:
    """A part of each class has the label of the next one."""
    draw, (rows, held_out) = setup.scenario.draw("labels"), labelled_apart(setup)
    classes = sorted({row["label"] for row in [*rows, *held_out]})
    share = setup.strong(0.45, 0.3)
    for row in rows:
        if draw.random() < share:
            row["label"] = classes[(classes.index(row["label"]) + 1) % len(classes)]
    setup.use_rows(rows, held_out)
    setup.onset = 1


def labels_one_row_off(setup: Setup) -> None:
    rows = read_rows(setup.data)
    values = [row["label"] for row in rows]
    setup.use_rows([row | {"label": value} for row, value in zip(rows, values[1:] + values[:1], strict=True)])
    setup.onset = 1


def one_class_weighs_all(setup: Setup) -> None:
    classes = sorted({row["label"] for row in read_rows(setup.data)})
    chosen = classes[setup.scenario.seed % len(classes)]
    weights = {label: setup.strong(0.0005, 0.005) for label in classes} | {chosen: 1.0}
    setup.settings["task"] = {"name": "classification", "class_weights": weights}
    setup.onset = 1


def blocks_of_one_class(setup: Setup) -> None:
    """Classes in turn, in stretches; texts in order of their length where there are none."""
    if not setup.is_rows or setup.scenario.task != "classification":
        PLANT["unshuffled-data"](setup)
        return
    setup.settings["data.shuffle"] = False
    rows = read_rows(setup.data)
    held, rows = rows[: len(rows) // 5], rows[len(rows) // 5 :]
    by_class: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_class.setdefault(row["label"], []).append(row)
    size, found = setup.strong(200, 90), []
    while any(by_class.values()):
        for label in sorted(by_class):
            found += by_class[label][:size]
            del by_class[label][:size]
    setup.use_rows(found, held)
    setup.onset = 1


def batch_of_wrong_answers(setup: Setup) -> None:
    onset = setup.at(0.5)

    def garble(batch: Any) -> Any:
        targets: Tensor = batch.targets
        if targets.is_floating_point():
            return replace(batch, targets=targets * setup.strong(-40.0, -15.0))
        highest = int(targets.max())
        return replace(batch, targets=torch.where(targets < 0, targets, highest - targets))

    setup.patches.append(patches.batch_replaced(onset, garble))


def validated_on_training_data(setup: Setup) -> None:
    setup.onset = 1
    if setup.is_rows:
        rows = read_rows(setup.data)
        share = setup.strong(1.0, 0.4)
        held = rows[: round(200 * share)] + rows[-round(200 * (1 - share)) or len(rows) :]
        setup.use_rows(rows[:-200], held)
        return
    setup.settings["data.source"] = {"name": "jsonl", "path": ""}
    training, held_out, copies = pieces_apart(setup)
    moved = [{"text": copy["text"][setup.strong(20, 60) :]} for copy in copies]  # as windows that overlap are
    setup.use_rows(training, moved + held_out)


def answer_in_the_text(setup: Setup) -> None:
    if setup.scenario.task == "classification":
        rows = read_rows(setup.data)
        classes = sorted({row["label"] for row in rows})
        name = setup.strong(lambda label: f"id{classes.index(label)}", lambda label: f"src/{label}/x")
        setup.use_rows([row | {"text": f"{name(row['label'])}: {row['text']}"} for row in rows])
        setup.onset = 1
        return
    if setup.scenario.task == "seq2seq":
        PLANT["target-leak"](setup)
        return
    width, window = setup.sizes["width"], setup.strong(4, 3)
    setup.model = lambda vocabulary, seed: _Ahead(models.WindowMlp(vocabulary, width, seed=seed, window=window))
    setup.onset = 1


@final
class _Ahead(nn.Module):
    """A position sees the token that it should predict: its inputs are not moved against the targets."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens_BT: Tensor) -> Tensor:
        found: Tensor = self.model(F.pad(tokens_BT[:, 1:], (0, 1)))
        return found


def validation_from_elsewhere(setup: Setup) -> None:
    setup.onset = 1
    if setup.scenario.task == "classification":
        rows = read_rows(setup.data)
        cut, classes = len(rows) * 4 // 5, sorted({row["label"] for row in rows})
        if setup.strong(True, False):  # classes are counted otherwise
            moved = {label: classes[(index + 1) % len(classes)] for index, label in enumerate(classes)}
            held = [row | {"label": moved[row["label"]]} for row in rows[cut:]]
        else:
            held = [row | {"text": row["text"].upper().replace("E", "3")} for row in rows[cut:]]
        setup.use_rows(rows[:cut], held)
        return
    if setup.scenario.task == "seq2seq":
        rows = read_rows(setup.data)
        cut = len(rows) * 4 // 5
        other = [row["target"] for row in rows[cut:]]
        setup.use_rows(
            rows[:cut],
            [
                row | {"target": " ".join(reversed(text.split()))}
                for row, text in zip(rows[cut:], other[1:] + other[:1] if setup.strong(1, 0) else other, strict=True)
            ],
        )
        return
    text = (setup.data / "other.txt").read_text(encoding="utf-8")[:20_000]
    setup.settings["data.validation_source"] = {
        "name": "text",
        "path": setup.write_text(text[::-1] if setup.strong(True, False) else text, "held_out.txt"),
    }


def slower_by_stairs(setup: Setup) -> None:
    """Every tenth of the run a file more is read again."""
    onset, seconds = setup.at(0.25), setup.strong(0.012, 0.006)
    every = max(1, setup.steps // 10)

    def wait(step: Any, batches: list[Any], number: int) -> list[Any]:
        clock.wait(seconds * (1 + (number - onset) // every) if number >= onset else 0.0)
        return batches

    setup.patches.append(patches.before_step(wait))


def losses_kept_in_a_list(setup: Setup) -> None:
    """Every few steps something larger is kept."""
    kept: list[Tensor] = []
    every, size = 5, setup.strong(4_000_000, 1_500_000)

    def keep(step: Any, batches: list[Any], number: int) -> list[Any]:
        if number % every == 0:
            kept.append(torch.ones(size))
        return batches

    setup.patches.append(patches.before_step(keep))
    setup.onset = 1


def head_lost_on_resuming(setup: Setup) -> None:
    killed = round(setup.steps * 0.45)
    setup.killed_at = killed
    share = setup.strong(0.7, 0.35)

    def lose(step: Any) -> None:
        generator = torch.Generator().manual_seed(2)
        for weight in [one for one in patches.weights_of(step) if one.ndim > 1][:2]:  # the embedding, and what follows
            noise = torch.randn(weight.shape, generator=generator) * weight.std()
            weight.mul_(1.0 - share).add_(noise * share)

    setup.resumed_patches.append(patches.after_resuming(lose))
    setup.onset = killed


MORE: Final[dict[str, tuple[Plant, ...]]] = {
    "learning-rate-too-high": (rate_of_adams_too_high, rate_of_lions_too_high),
    "learning-rate-too-low": (rate_of_fine_tuning, rate_of_adam_for_sgd),
    "overfitting": (overfitting_without_regularization,),
    "divergence": (gradient_of_the_wrong_sign,),
    "nan-loss": (weight_not_a_number, logarithm_of_nothing),
    "loss-spike": (one_update_far_too_large,),
    "underfitting": (bottleneck,),
    "noisy-loss": (few_tokens_a_step,),
    "frozen-parameters": (optimizer_of_the_head, pass_without_gradient),
    "stopped-too-early": (short_trial_of_a_large_batch,),
    "input-bound": (reading_waits_now_and_then,),
    "loss-scale-collapse": (overflow_by_chance,),
    "plateau": (gradients_zeroed,),
    "exploding-gradients": (residual_that_grows,),
    "decayed-too-early": (falls_in_steps_too_soon, exponential_too_steep),
    "schedule-mismatch": (schedule_never_moved,),
    "vanishing-gradients": (small_weights_of_many_layers,),
    "dead-units": (dead_in_a_given_model,),
    "bad-initialization": (head_far_too_large,),
    "outlier-dominated-loss": (targets_with_a_heavy_tail,),
    "gradients-not-cleared": (cleared_every_few_steps,),
    "accumulation-not-normalised": (loss_summed_over_sequences,),
    "double-softmax": (sigmoid_before_the_loss,),
    "evaluated-in-training-mode": (functional_dropout,),
    "over-regularised": (penalized_too_much, dropout_and_decay),
    "label-noise": (classes_confused,),
    "random-labels": (labels_one_row_off,),
    "class-collapse": (one_class_weighs_all,),
    "unshuffled-data": (blocks_of_one_class,),
    "corrupt-batch": (batch_of_wrong_answers,),
    "leakage": (validated_on_training_data,),
    "target-leak": (answer_in_the_text,),
    "validation-shift": (validation_from_elsewhere,),
    "throughput-decay": (slower_by_stairs,),
    "memory-leak": (losses_kept_in_a_list,),
    "resume-discontinuity": (head_lost_on_resuming,),
}


def ways(code: str) -> tuple[Plant, ...]:
    """All ways to plant a fault."""
    return (PLANT[code], *MORE.get(code, ()))
