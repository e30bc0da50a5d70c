"""How each fault is planted in a run of trimtab's own trainer: one function a code, in one table."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from bank import clock, models, patches
from bank.setup import Setup
from bank.texts import read_rows

if TYPE_CHECKING:
    from torch import Tensor, nn

CONSTANT: Final = {"name": "constant", "warmup": 0.05}


def learning_rate_too_high(setup: Setup) -> None:
    setup.rate *= setup.strong(14.0, 6.0)
    if setup.strong(True, False):
        setup.settings["schedule"] = CONSTANT
    setup.onset = 1


def learning_rate_too_low(setup: Setup) -> None:
    setup.rate /= setup.strong(300.0, 60.0)
    setup.onset = 1


def overfitting(setup: Setup) -> None:
    setup.onset_is_turn = True
    setup.settings["schedule"] = {"name": "cosine", "warmup": 0.05, "floor": 0.3}
    if setup.is_rows:
        rows = read_rows(setup.data)
        size = setup.strong(100, 220)
        setup.use_rows(rows[:size], rows[size : size + 200])
        setup.settings["model"].pop("dropout", None)
        setup.steps = round(setup.steps * 1.3)
        return
    text = (setup.data / "corpus.txt").read_text(encoding="utf-8")
    begin = setup.scenario.draw("text").randrange(0, 400_000)
    size = (
        setup.strong(9_000, 22_000)
        if setup.model is None
        else setup.strong(2_500, 5_000) * (3 if setup.scenario.part == "spread" else 1)
    )
    setup.use_text(text[begin : begin + size], text[begin + size : begin + size + 20_000])
    setup.steps = round(setup.steps * setup.strong(1.6, 2.0))


def divergence(setup: Setup) -> None:
    setup.settings["schedule"] = CONSTANT
    onset, growth = setup.at(0.5), setup.strong(0.03, 0.015)

    def grow(step: Any, number: int, kept: Any) -> None:
        import torch

        if number >= onset:
            torch._foreach_mul_(patches.weights_of(step), 1.0 + growth)

    setup.patches.append(patches.around_update(after=grow))


def nan_loss(setup: Setup) -> None:
    onset = setup.at(setup.strong(0.4, 0.75))
    passes = {"step": 0}

    def count(step: Any, batches: list[Any], number: int) -> list[Any]:
        passes["step"] = number
        return batches

    def divide(model: nn.Module) -> None:
        last = list(model.modules())[-1]

        def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
            return output * 0.0 / 0.0 if passes["step"] >= onset else output

        last.register_forward_hook(hook)

    setup.patches += [patches.before_step(count), changed(setup, divide)]


def loss_spike(setup: Setup) -> None:
    onset, size = setup.at(0.5), setup.strong(2.5, 1.4)

    def disturb(step: Any, number: int, kept: Any) -> None:
        import torch

        if number == onset - 1:
            generator = torch.Generator().manual_seed(number)
            for weight in patches.weights_of(step):
                if weight.ndim > 1:
                    noise = torch.randn(weight.shape, generator=generator)
                    weight.add_(noise * weight.std() * size)

    setup.patches.append(patches.around_update(after=disturb))


def underfitting(setup: Setup) -> None:
    size = setup.strong(4, 8) // 2 * 2  # an even one
    setup.settings["model"] = {"name": "decoder", "num_layers": 1, "hidden_size": size, "num_heads": 1}
    setup.settings["schedule"] = {"name": "cosine", "warmup": 0.05, "floor": 0.0}
    if setup.scenario.part == "spread":
        setup.settings["optimizer"] = {"name": "adamw"}  # whose rate it is
    setup.rate = 2e-2
    setup.steps = 1_000
    setup.onset = 1


def noisy_loss(setup: Setup) -> None:
    setup.settings["training"]["micro_batch_size"] = 1
    setup.settings["data.sequence_length"] = setup.strong(10, 18)
    setup.settings["schedule"] = CONSTANT
    setup.rate /= setup.strong(3.0, 4.0)
    setup.steps = 900
    setup.onset = 1


def frozen_parameters(setup: Setup) -> None:
    setup.settings["model"]["num_layers"] = setup.sizes["deeper"] if setup.scenario.task != "seq2seq" else 3
    setup.settings["model"]["tied_embeddings"] = False
    is_cut = setup.scenario.round % 2 == 0
    share = setup.strong(0.8, 0.5)

    def freeze(model: nn.Module) -> None:
        blocks = getattr(model, "blocks", None) or model.encoder.blocks  # type: ignore[union-attr]
        last = max(0, round(len(blocks) * share) - 1)  # type: ignore[arg-type]
        if is_cut:
            blocks[last].register_forward_hook(lambda module, inputs, output: _detached(output))  # type: ignore[index]
            return
        embedding = getattr(model, "embedding", None)
        for module in [embedding, *list(blocks)[: last + 1]]:  # type: ignore[arg-type]
            if module is not None:
                module.requires_grad_(False)

    setup.patches.append(patches.model_changed(freeze))
    setup.onset = 1


def _detached(output: Any) -> Any:
    if isinstance(output, tuple):
        return tuple(one.detach() if hasattr(one, "detach") else one for one in output)
    return output.detach()


def stopped_too_early(setup: Setup) -> None:
    setup.steps = setup.strong(30, 50)
    setup.settings["schedule"] = {"name": "constant", "warmup": 5}
    setup.onset = setup.steps


def input_bound(setup: Setup) -> None:
    setup.steps = 60
    seconds, every = setup.strong((0.08, 1), (0.25, 5))
    setup.patches.append(patches.reading_waits(lambda number: seconds if number % every == 0 else 0.0))
    setup.onset = 1


def loss_scale_collapse(setup: Setup) -> None:
    setup.settings["training"]["precision"] = {"name": "fp16", "initial_scale": 1024.0}
    onset, every = setup.at(0.35), setup.strong(1, 2)

    def overflow(step: Any, number: int) -> None:
        if step.precision.scaler is not None and number >= onset and number % every == 0:  # in fp16
            patches.gradients_of(step)[0].fill_(float("inf"))

    setup.patches.append(patches.around_update(before=overflow))


def plateau(setup: Setup) -> None:
    onset = setup.at(setup.strong(0.1, 0.2))
    setup.settings["schedule"] = CONSTANT

    def keep(step: Any, number: int) -> Any:
        return [weight.clone() for weight in patches.weights_of(step)] if number >= onset else None

    def put_back(step: Any, number: int, kept: Any) -> None:
        if kept is not None:
            for weight, was in zip(patches.weights_of(step), kept, strict=True):
                weight.copy_(was)

    setup.patches.append(patches.around_update(keep, put_back))


def missing_warmup(setup: Setup) -> None:
    # The height was chosen by trying: with a warm-up over 15 % of the steps these runs end 0.2 nats lower.
    setup.settings.pop("optimizer.learning_rate")
    setup.settings["optimizer"] = {"name": "sgd", "learning_rate": setup.strong(0.5, 0.4)}
    setup.settings["gradients.clip"] = {"name": "none"}
    setup.settings["schedule"] = {"name": "cosine", "warmup": 0, "floor": 0.1}
    setup.onset = 1


def exploding_gradients(setup: Setup) -> None:
    onset, growth = setup.at(0.4), setup.strong(1.08, 1.04)
    setup.settings["gradients.clip"] = {"name": "none"}
    setup.settings["schedule"] = CONSTANT
    setup.settings["optimizer.weight_decay"] = 0.0
    setup.make_optimizer = _sgd(setup, 0.1)

    def explode(step: Any, number: int) -> None:
        import torch

        if number >= onset:
            torch._foreach_mul_(patches.gradients_of(step), growth ** (number - onset + 1))

    setup.patches.append(patches.around_update(before=explode))


def _sgd(setup: Setup, rate: float) -> Callable[[list[dict[str, Any]]], Any]:
    setup.rate = rate

    def make(groups: list[dict[str, Any]]) -> Any:
        import torch

        return torch.optim.SGD(groups, lr=rate, momentum=0.9)

    return make


def decayed_too_early(setup: Setup) -> None:
    at = setup.strong(0.15, 0.3)
    setup.settings["schedule"] = {"name": "piecewise", "warmup": 0.02, "levels": [1.0, 0.001], "lengths": [at]}
    setup.onset = round(setup.steps * (at + 0.05))


def schedule_mismatch(setup: Setup) -> None:
    factor = setup.strong(3.0, 0.4)
    setup.settings["schedule"] = {"name": "cosine", "warmup": 0.05, "floor": 0.02}
    setup.patches.append(patches.schedule_runs(factor))
    setup.onset = 1


def vanishing_gradients(setup: Setup) -> None:
    depth = setup.strong(9, 6)
    setup.model = lambda vocabulary, seed: models.SigmoidStack(vocabulary, setup.sizes["width"], seed=seed, depth=depth)
    setup.onset = 1


def dead_units(setup: Setup) -> None:
    setup.settings["model"] |= {"activation": "relu_squared", "bias": True}
    share = setup.strong(0.95, 0.6)

    def kill(model: nn.Module) -> None:
        for block in model.blocks:  # type: ignore[union-attr]
            bias = block.feed_forward.up.bias  # type: ignore[union-attr]
            if bias is None:  # mended
                continue
            bias.data[: round(len(bias) * share)] = -20.0  # type: ignore[operator, index, arg-type]

    setup.patches.append(patches.model_changed(kill))
    setup.onset = 1


def bad_initialization(setup: Setup) -> None:
    size = setup.strong(1.0, 0.35)
    setup.onset = 1
    if setup.model is None:
        setup.settings["model"]["initialization"] = {"standard_deviation": size, "depth_scaled": False}
        return

    def enlarge(model: nn.Module) -> None:
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.data.mul_(setup.strong(12.0, 5.0))

    setup.patches.append(changed(setup, enlarge))


def outlier_dominated_loss(setup: Setup) -> None:
    rows, draw = read_rows(setup.data), setup.scenario.draw("outliers")
    for row in draw.sample(rows, round(len(rows) * setup.strong(0.01, 0.03))):
        row["value"] = row["value"] * setup.strong(300.0, 60.0)
    setup.use_rows(rows)
    setup.onset = 1


def gradients_not_cleared(setup: Setup) -> None:
    setup.patches.append(patches.gradients_kept(setup.strong(0, 8)))
    setup.onset = 2


def accumulation_not_normalised(setup: Setup) -> None:
    parts = setup.strong(8, 4)
    setup.settings["training"] |= {"micro_batch_size": max(1, setup.batch // 4), "accumulation": parts}
    setup.patches.append(patches.losses_summed(parts))
    setup.onset = 1


def double_softmax(setup: Setup) -> None:
    setup.onset = 1
    if setup.model is not None:
        build = setup.model
        setup.model = lambda vocabulary, seed: models.Smoothed(build(vocabulary, seed))
        return

    def smooth(model: nn.Module) -> None:
        model.head.register_forward_hook(lambda module, inputs, output: output.softmax(-1))  # type: ignore[union-attr]

    setup.patches.append(patches.model_changed(smooth))


def evaluated_in_training_mode(setup: Setup) -> None:
    rate = setup.strong(0.4, 0.2)
    use_dropout(setup, rate)
    setup.patches.append(patches.evaluates_in_training_mode)
    setup.onset = 1


def use_dropout(setup: Setup, rate: float) -> None:
    """Dropout at every site that the model has."""
    if setup.scenario.task in ("mlp", "cnn"):
        kind = models.WindowMlp if setup.scenario.task == "mlp" else models.CausalConvolutions
        width = setup.sizes["width"]
        setup.model = lambda vocabulary, seed: kind(vocabulary, width, seed=seed, dropout=rate)
        return
    setup.settings["model"]["dropout"] = {"embedding": rate, "residual": rate, "feed_forward": rate}


def over_regularised(setup: Setup) -> None:
    setup.onset = 1
    way = setup.scenario.draw("way").choice(["dropout", "decay", "smoothing"])
    if way == "decay":
        setup.settings["optimizer.weight_decay"] = setup.strong(60.0, 20.0) / (setup.rate * 200)
    elif way == "smoothing" and setup.scenario.task != "regression":
        setup.settings["objective.label_smoothing"] = setup.strong(0.8, 0.6)
    else:
        use_dropout(setup, setup.strong(0.75, 0.55))


def overconfident(setup: Setup) -> None:
    rows = read_rows(setup.data)
    size = setup.strong(160, 300)
    setup.use_rows(rows[:size], rows[size : size + 300])
    setup.settings["model"].pop("dropout", None)
    setup.settings["optimizer.weight_decay"] = 0.0
    setup.settings["schedule"] = CONSTANT
    setup.steps = round(setup.steps * 1.3)
    setup.onset_is_turn = True


def label_noise(setup: Setup) -> None:
    draw, (rows, held_out) = setup.scenario.draw("labels"), labelled_apart(setup)
    classes = sorted({row["label"] for row in [*rows, *held_out]})
    for row in draw.sample(rows, round(len(rows) * setup.strong(0.5, 0.25))):
        row["label"] = draw.choice([one for one in classes if one != row["label"]])
    setup.use_rows(rows, held_out)
    setup.onset = 1


def labelled_apart(setup: Setup) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows that are trained on, and those to judge by, whose labels stay right."""
    rows = read_rows(setup.data)
    cut = round(len(rows) * 0.8)
    return rows[:cut], rows[cut:]


def random_labels(setup: Setup) -> None:
    rows, draw = read_rows(setup.data), setup.scenario.draw("labels")
    values = [row["label"] for row in rows]
    draw.shuffle(values)
    setup.use_rows([row | {"label": value} for row, value in zip(rows, values, strict=True)])
    setup.steps = round(setup.steps * setup.strong(1.5, 1.0))
    setup.onset = 1


def class_collapse(setup: Setup) -> None:
    classes = sorted({row["label"] for row in read_rows(setup.data)})
    weights = {label: setup.strong(0.0, 0.001) for label in classes[1:]} | {classes[0]: 1.0}
    setup.settings["task"] = {"name": "classification", "class_weights": weights}
    setup.onset = 1


def unshuffled_data(setup: Setup) -> None:
    setup.settings["data.shuffle"] = False
    setup.onset = 1
    if setup.is_rows:
        key = {"classification": "label", "seq2seq": "target", "regression": "value"}[setup.scenario.task]
        rows = sorted(read_rows(setup.data), key=lambda row: row[key])
        draw = setup.scenario.draw("held out")
        held = set(draw.sample(range(len(rows)), len(rows) // 5))
        setup.use_rows(
            [row for index, row in enumerate(rows) if index not in held],
            [row for index, row in enumerate(rows) if index in held],
        )
        return
    tokens = setup.steps * setup.batch * setup.sizes["sequence_length"]
    size = tokens // setup.strong(8, 4)
    own = (setup.data / "corpus.txt").read_text(encoding="utf-8")[:size]
    other = (setup.data / "other.txt").read_text(encoding="utf-8")[:size]
    numbers = random.Random(3)
    table = " ".join(f"{numbers.randrange(10**6):06d}" for _ in range(size // 7))
    setup.use_text(own + table + other, own[-8_000:] + table[-8_000:] + other[-8_000:])


def corrupt_batch(setup: Setup) -> None:
    onset = setup.at(0.6)

    def garble(batch: Any) -> Any:
        import torch

        generator = torch.Generator().manual_seed(onset)
        highest = int(batch.tokens_BT.max()) + 1
        tokens = torch.randint(0, highest, batch.tokens_BT.shape, generator=generator)
        targets: Tensor = batch.targets
        if targets.is_floating_point():
            return replace(batch, tokens_BT=tokens, targets=targets * 30.0)
        drawn = torch.randint(0, int(targets.max()) + 1, targets.shape, generator=generator)
        targets = torch.where(targets < 0, targets, drawn)
        if setup.strong(True, False) or setup.is_rows:
            tokens = torch.zeros_like(tokens) + tokens[0, 0]
        return replace(batch, tokens_BT=tokens, targets=targets)

    setup.patches.append(patches.batch_replaced(onset, garble))


def leakage(setup: Setup) -> None:
    setup.onset = 1
    if setup.is_rows:
        rows = read_rows(setup.data)[:500]
        new = read_rows(setup.data)[500:]
        setup.use_rows(rows, rows[:200] + new[: setup.strong(0, 120)])
        setup.steps = round(setup.steps * 1.3)
        return
    setup.settings["data.source"] = {"name": "jsonl", "path": ""}
    training, held_out, copies = pieces_apart(setup)
    setup.use_rows(training, copies + held_out)


def pieces_apart(setup: Setup) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Pieces of the text, as documents: those that are trained on, others, and some of the first."""
    text = (setup.data / "corpus.txt").read_text(encoding="utf-8")[:60_000]
    pieces = [{"text": text[at : at + 600]} for at in range(0, len(text), 600)]
    cut = len(pieces) * 4 // 5
    return pieces[:cut], pieces[cut : cut + setup.strong(2, 8)], pieces[:15]


def target_leak(setup: Setup) -> None:
    setup.onset = 1
    if setup.scenario.task == "classification":
        kept = setup.strong(1.0, 0.9)
        draw, rows = setup.scenario.draw("leak"), read_rows(setup.data)
        classes = sorted({row["label"] for row in rows})
        setup.use_rows(
            [
                row | {"text": f"{row['label'] if draw.random() < kept else draw.choice(classes)} {row['text']}"}
                for row in rows
            ]
        )
        return
    if setup.scenario.task == "seq2seq":
        setup.use_rows([row | {"signature": row["target"]} for row in read_rows(setup.data)])
        return

    def sees_ahead(model: nn.Module) -> None:
        features = model.features  # type: ignore[union-attr]

        def bidirectional(*arguments: Any, **named: Any) -> Any:
            return features(*arguments, **(named | {"causal": False}))  # type: ignore[operator]

        model.features = bidirectional  # type: ignore[assignment]

    setup.model = None
    setup.patches.append(patches.model_changed(sees_ahead))


def validation_shift(setup: Setup) -> None:
    setup.onset = 1
    if setup.scenario.task == "classification":
        rows, draw = read_rows(setup.data), setup.scenario.draw("shift")
        cut = len(rows) * 4 // 5
        shifted = [row | {"text": _garbled(row["text"], draw, setup.strong(0.8, 0.4))} for row in rows[cut:]]
        setup.use_rows(rows[:cut], shifted)
        return
    if setup.scenario.task == "seq2seq":
        rows, draw = read_rows(setup.data), setup.scenario.draw("shift")
        cut = len(rows) * 4 // 5
        setup.use_rows(
            rows[:cut],
            [
                row | {"target": row["target"][::-1] if setup.strong(1, 0) else row["target"].upper()}
                for row in rows[cut:]
            ],
        )
        return
    numbers = random.Random(5)
    prose = " ".join("".join(numbers.choice("äöüßéèñçå xyz") for _ in range(6)) for _ in range(3_000))
    other = (setup.data / "other.txt").read_text(encoding="utf-8")[:20_000].upper()
    setup.settings["data.validation_source"] = {
        "name": "text",
        "path": setup.write_text(setup.strong(prose, other), "held_out.txt"),
    }


def _garbled(text: str, draw: random.Random, rate: float) -> str:
    """A text of which so many words are put in capitals backwards."""
    return " ".join(word[::-1].upper() if draw.random() < rate else word for word in text.split())


def validation_too_small(setup: Setup) -> None:
    setup.onset = 1
    if setup.is_rows:
        rows = read_rows(setup.data)
        size = setup.strong(6, 14)
        setup.use_rows(rows[size:], rows[:size])
        return
    setup.settings["evaluation"] |= {"max_tokens": setup.strong(1, 3) * setup.sizes["sequence_length"], "gap_tokens": 0}


def throughput_decay(setup: Setup) -> None:
    onset, slope = setup.at(0.3), setup.strong(3e-4, 1e-4)

    def wait(step: Any, batches: list[Any], number: int) -> list[Any]:
        clock.wait(max(0, number - onset) * slope)
        return batches

    setup.patches.append(patches.before_step(wait))


def memory_leak(setup: Setup) -> None:
    setup.patches.append(patches.memory_kept(setup.strong(3_000_000, 1_000_000)))
    setup.onset = 1


def resume_discontinuity(setup: Setup) -> None:
    killed = round(setup.steps * 0.55)
    setup.killed_at = killed
    share = setup.strong(1.0, 0.4)

    def lose(step: Any) -> None:
        import torch

        generator = torch.Generator().manual_seed(1)
        for weight in patches.weights_of(step):
            if weight.ndim > 1:
                noise = torch.randn(weight.shape, generator=generator) * weight.std()
                weight.mul_(1.0 - share).add_(noise * share)

    setup.resumed_patches.append(patches.after_resuming(lose))
    setup.onset = killed  # told exactly by the checkpoint that the second attempt begins from


def thread_oversubscription(setup: Setup) -> None:
    setup.settings["training"]["threads"] = setup.strong(24, 8)
    setup.steps = 60
    setup.onset = 1


def changed(setup: Setup, change: Callable[[nn.Module], None]) -> patches.Patch:
    """`change` applied to the model, wherever it comes from."""
    if setup.model is None:
        return patches.model_changed(change)
    build = setup.model

    def built(vocabulary: int, seed: int) -> nn.Module:
        model = build(vocabulary, seed)
        change(model)
        return model

    setup.model = built
    return lambda: None


PLANT: Final[dict[str, Callable[[Setup], None]]] = {
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
    "vanishing-gradients": vanishing_gradients,
    "dead-units": dead_units,
    "bad-initialization": bad_initialization,
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
    "thread-oversubscription": thread_oversubscription,
}
