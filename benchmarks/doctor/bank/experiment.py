"""A training in plain PyTorch that other trainers drive: data, model, loss, and the places where faults are planted.

Shape suffixes: N samples · B batch · T positions · D width · V classes or vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bank import clock, spread
from bank.scenario import Scenario
from bank.texts import read_rows

Batch = tuple[tuple[Tensor, ...], Tensor]
"""Inputs of the model, and targets; -100 where nothing is asked."""

ALPHABET: Final = "\n !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^_`abcdefghijklmnopqrstuvwxyz{|}~"
UNKNOWN, BEGIN, VOCABULARY = len(ALPHABET), len(ALPHABET) + 1, len(ALPHABET) + 2
WORDS: Final = 1_500

SIZES: Final[dict[str, dict[str, Any]]] = {
    "tuning": {"width": 32, "layers": 2, "heads": 2, "length": 48, "batch": 12, "steps": 260, "hidden": 64, "maps": 8},
    "test": {"width": 36, "layers": 3, "heads": 3, "length": 36, "batch": 14, "steps": 230, "hidden": 80, "maps": 12},
}
RATES: Final[dict[str, float]] = {"lm": 4e-3, "classification": 4e-3, "seq2seq": 4e-3, "mlp": 3e-3, "cnn": 3e-3}


@final
@dataclass
class Experiment:
    """What is trained and how; faults and oddities change its fields before `build`."""

    scenario: Scenario
    data: Path
    steps: int
    rate: float
    batch: int
    sizes: dict[str, Any]
    train: Batch
    held_out: Batch
    num_classes: int
    evaluations: int = 10
    evaluate_every: int = 0
    """Steps between evaluations; 0: so that there are `evaluations` of them."""
    accumulation: int = 1
    clip: float | None = 1.0
    weight_decay: float = 0.01
    momentum: float | None = None
    """Plain SGD with this momentum, in place of AdamW."""
    beta2: float = 0.95
    shape: Callable[[float], float] = field(default=lambda part: 0.55 + 0.45 * math.cos(math.pi * part))
    """The factor on the rate at a part of the run, after the warm-up."""
    warmup: int = 12
    dropout: float = 0.0
    smoothing: float = 0.0
    class_weights: list[float] | None = None
    is_regression: bool = False
    is_shuffled: bool = True
    post_norm: bool = False
    width_factor: float = 1.0
    evaluates_in_training_mode: bool = False
    clear_every: int = 1
    """Gradients are cleared before each so-manieth step; 0: never."""
    sums_losses: bool = False
    change_model: list[Callable[[nn.Module], None]] = field(default_factory=list)
    on_batch: Callable[[int, Batch], Batch] = field(default=lambda step, batch: batch)
    on_gradients: Callable[[int, list[nn.Parameter]], None] = field(default=lambda step, parameters: None)
    before_update: Callable[[int, list[nn.Parameter]], Any] = field(default=lambda step, parameters: None)
    after_update: Callable[[int, list[nn.Parameter], Any], None] = field(default=lambda step, parameters, kept: None)
    reading: Callable[[int], float] = field(default=lambda step: 0.0)
    waiting: Callable[[int], float] = field(default=lambda step: 0.0)
    kept_bytes: int = 0
    resumed_at: int | None = None
    """A bare loop loses what follows the last multiple of 20 before that step, and makes it again."""
    lost_share: float = 0.0
    loss_scale: float | None = None
    overflows: Callable[[int], bool] = field(default=lambda step: False)
    nan_from: int | None = None
    onset: int | None = None
    onset_is_turn: bool = False
    logs: dict[str, bool] = field(default_factory=dict)
    """What else is logged: grad_norm, rate, times, memory, accuracy."""

    def strong(self, strong: Any, mild: Any) -> Any:
        """One of two values, by the severity."""
        if self.scenario.part == "spread":
            return spread.between(self.scenario, strong, mild)
        return strong if self.scenario.severity == "strong" else mild

    def at(self, part: float) -> int:
        """A step about there, and the onset of the fault."""
        self.onset = max(2, round(self.steps * part * self.scenario.draw("onset").uniform(0.9, 1.1)))
        return self.onset

    def is_evaluated(self, step: int) -> bool:
        """Whether there is an evaluation after this step."""
        every = self.evaluate_every or max(1, self.steps // self.evaluations)
        return step % every == 0 or step == self.steps

    @property
    def has_classes(self) -> bool:
        """Whether each sample has one class."""
        return self.scenario.task in ("classification", "mlp", "cnn") and not self.is_regression


@final
class Running:
    """An experiment under way: what loops call, step for step, counted from 1."""

    def __init__(self, experiment: Experiment) -> None:
        self.it = experiment
        torch.manual_seed(experiment.scenario.seed)
        self.model = build_model(experiment)
        for change in experiment.change_model:
            change(self.model)
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        decay = experiment.weight_decay
        if experiment.momentum is None:
            betas = (0.9, experiment.beta2)
            self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
                self.parameters, lr=experiment.rate, betas=betas, weight_decay=decay
            )
        else:
            self.optimizer = torch.optim.SGD(
                self.parameters, lr=experiment.rate, momentum=experiment.momentum, weight_decay=decay
            )
        self.step = 1
        self._order = np.random.default_rng(experiment.scenario.seed)
        self._queue: list[int] = []
        self._kept: list[np.ndarray[Any, Any]] = []

    @property
    def batches_per_epoch(self) -> int:
        """Micro-batches in one pass over the data."""
        return max(1, len(self.it.train[1]) // self.it.batch)

    def next_batch(self) -> Batch:
        """The next micro-batch of training."""
        if len(self._queue) < self.it.batch:
            size = len(self.it.train[1])
            order = self._order.permutation(size) if self.it.is_shuffled else np.arange(size)
            self._queue += order.tolist()
        chosen, self._queue = self._queue[: self.it.batch], self._queue[self.it.batch :]
        index = torch.tensor(chosen)
        inputs, targets = self.it.train
        return self.it.on_batch(self.step, (tuple(one[index] for one in inputs), targets[index]))

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The mean loss of a batch, and the model's answers."""
        inputs, targets = batch
        answers: Tensor = self.model(*inputs)
        if self.it.nan_from is not None and self.step >= self.it.nan_from and self.model.training:
            answers = answers * 0.0 / 0.0
        if self.it.is_regression:
            return F.mse_loss(answers.squeeze(-1), targets), answers
        weights = None if self.it.class_weights is None else torch.tensor(self.it.class_weights)
        smoothing = self.it.smoothing if self.model.training else 0.0
        flat = answers.reshape(-1, answers.shape[-1])
        return F.cross_entropy(flat, targets.reshape(-1), weight=weights, label_smoothing=smoothing), answers

    def part_of_step(self, loss: Tensor) -> Tensor:
        """What a micro-batch's loss counts in the step."""
        return loss if self.it.sums_losses else loss / self.it.accumulation

    def factor(self, step: int) -> float:
        """Of the learning rate at a step."""
        if step <= self.it.warmup:
            return step / self.it.warmup
        return self.it.shape((step - self.it.warmup) / max(1, self.it.steps - self.it.warmup))

    def is_cleared(self, step: int) -> bool:
        """Whether gradients are cleared before this step."""
        return step == 1 or bool(self.it.clear_every and step % self.it.clear_every == 0)

    def begin(self, step: int) -> None:
        """What happens as a step begins: it may wait, and keep memory."""
        self.step = step
        clock.wait(self.it.waiting(step))
        if self.it.kept_bytes:
            self._kept.append(np.ones(self.it.kept_bytes, dtype=np.uint8))

    def evaluate(
        self, model: nn.Module | None = None, ask: Callable[[Batch], tuple[Tensor, Tensor]] | None = None
    ) -> dict[str, float]:
        """Loss and accuracy on the held-out samples, over counted targets; `ask`: through `model`, which holds ours."""
        model, ask = model or self.model, ask or self.loss
        was = model.training
        if not self.it.evaluates_in_training_mode:
            model.eval()
        total, count, right = 0.0, 0, 0
        inputs, targets = self.it.held_out
        size = 64
        limit = len(targets)
        with torch.no_grad():
            for begin in range(0, limit, size):
                part = slice(begin, min(begin + size, limit))
                batch = (tuple(one[part] for one in inputs), targets[part])
                loss, answers = ask(batch)
                counted = int((batch[1] != -100).sum()) if not self.it.is_regression else len(batch[1])
                total, count = total + float(loss) * counted, count + counted
                if not self.it.is_regression:
                    right += int(((answers.argmax(-1) == batch[1]) & (batch[1] != -100)).sum())
        model.train(was)
        found = {"loss": total / max(1, count)}
        return found if self.it.is_regression else found | {"accuracy": right / max(1, count)}


# Models.


class Layer(nn.Module):
    """One block of a decoder."""

    def __init__(self, width: int, heads: int, dropout: float, post_norm: bool) -> None:
        super().__init__()
        self.heads, self.post_norm = heads, post_norm
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attend, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)
        self.is_causal = True

    def mix(self, x_BTD: Tensor) -> Tensor:
        """Attention."""
        size, length, width = x_BTD.shape
        parts = self.attend(x_BTD).view(size, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(*parts, is_causal=self.is_causal)
        mixed: Tensor = self.dropout(self.project(seen.transpose(1, 2).reshape(size, length, width)))
        return mixed

    def think(self, x_BTD: Tensor) -> Tensor:
        """Feed-forward."""
        thought: Tensor = self.dropout(self.down(F.gelu(self.up(x_BTD))))
        return thought

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The residual stream after this block."""
        first, second = self.norms
        if self.post_norm:
            x_BTD = first(x_BTD + self.mix(x_BTD))
            return second(x_BTD + self.think(x_BTD))  # type: ignore[no-any-return]
        x_BTD = x_BTD + self.mix(first(x_BTD))
        return x_BTD + self.think(second(x_BTD))


class TinyDecoder(nn.Module):
    """Characters to scores of the next one."""

    def __init__(self, width: int, layers: int, heads: int, length: int, dropout: float, post_norm: bool) -> None:
        super().__init__()
        self.embedding, self.places = nn.Embedding(VOCABULARY, width), nn.Embedding(length, width)
        self.layers = nn.ModuleList(Layer(width, heads, dropout, post_norm) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, VOCABULARY)
        for embedding in (self.embedding, self.places):
            nn.init.normal_(embedding.weight, std=0.05)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """[B, T, V]."""
        x_BTD = self.embedding(tokens_BT) + self.places.weight[: tokens_BT.shape[1]]
        for layer in self.layers:
            x_BTD = layer(x_BTD)
        logits_BTV: Tensor = self.head(self.norm(x_BTD))
        return logits_BTV


class BagOfWords(nn.Module):
    """Hashed words to scores of classes, or to a number."""

    def __init__(self, width: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, width, padding_idx=0)
        self.layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width))
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(width, outputs)

    def forward(self, words_BT: Tensor) -> Tensor:
        """[B, V]."""
        counted = (words_BT > 0).sum(1, keepdim=True).clamp_min(1)
        mean_BD = self.embedding(words_BT).sum(1) / counted.sqrt()
        logits_BV: Tensor = self.head(self.dropout(F.relu(self.layers(mean_BD))))
        return logits_BV


class Translator(nn.Module):
    """Characters to characters: a recurrent reader and writer with attention."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.reader, self.writer = nn.GRU(width, width, batch_first=True), nn.GRU(width, width, batch_first=True)
        self.dropout, self.join = nn.Dropout(dropout), nn.Linear(2 * width, width)
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, source_BS: Tensor, before_BT: Tensor) -> Tensor:
        """[B, T, V]: scores of each character of the answer, given those before."""
        read_BSD, state = self.reader(self.dropout(self.embedding(source_BS)))
        written_BTD, _ = self.writer(self.dropout(self.embedding(before_BT)), state)
        weights = (written_BTD @ read_BSD.transpose(1, 2) / math.sqrt(read_BSD.shape[-1])).softmax(-1)
        joined = torch.tanh(self.join(torch.cat([written_BTD, weights @ read_BSD], dim=-1)))
        logits_BTV: Tensor = self.head(self.dropout(joined))
        return logits_BTV


class Pictures(nn.Module):
    """Pictures to classes: an MLP, or convolutions with batch normalization."""

    def __init__(self, size: int, hidden: int, outputs: int, dropout: float, maps: int | None) -> None:
        super().__init__()
        if maps is None:
            self.layers = nn.Sequential(
                nn.Flatten(), nn.Linear(size * size, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, hidden)
            )
            width = hidden
        else:
            self.layers = nn.Sequential(
                nn.Unflatten(1, (1, size)),
                nn.Conv2d(1, maps, 3, padding=1), nn.BatchNorm2d(maps), nn.ReLU(), nn.MaxPool2d(2),
                nn.Conv2d(maps, 2 * maps, 3, padding=1), nn.BatchNorm2d(2 * maps), nn.ReLU(), nn.MaxPool2d(2),
                nn.Flatten(),
            )  # fmt: skip
            width = 2 * maps * (size // 4) ** 2
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(width, outputs)

    def forward(self, pictures: Tensor) -> Tensor:
        """[B, V]."""
        logits_BV: Tensor = self.head(self.dropout(F.relu(self.layers(pictures))))
        return logits_BV


def build_model(it: Experiment) -> nn.Module:
    """The model of the task and part."""
    sizes, task = it.sizes, it.scenario.task
    width = max(sizes["heads"] if it.width_factor < 1 else 4, round(sizes["width"] * it.width_factor))
    width -= width % sizes["heads"]
    if task == "lm":
        return TinyDecoder(width, sizes["layers"], sizes["heads"], sizes["length"], it.dropout, it.post_norm)
    if task == "seq2seq":
        return Translator(width, it.dropout)
    if task == "classification" or it.is_regression:
        return BagOfWords(width, 1 if it.is_regression else it.num_classes, it.dropout)
    size = it.train[0][0].shape[-1]
    return Pictures(size, sizes["hidden"], it.num_classes, it.dropout, sizes["maps"] if task == "cnn" else None)


# Data.


def characters(text: str, length: int | None = None) -> list[int]:
    """A text as numbers, padded with -1 to `length`."""
    numbers = [ALPHABET.find(one) if one in ALPHABET else UNKNOWN for one in text]
    return numbers if length is None else (numbers + [-1] * length)[:length]


def text_samples(text: str, length: int) -> Batch:
    """Pieces of a text, and what follows each character."""
    numbers = torch.tensor(characters(text))
    count = (len(numbers) - 1) // length
    return (numbers[: count * length].view(count, length),), numbers[1 : count * length + 1].view(count, length)


def word_samples(rows: Sequence[dict[str, Any]], classes: Sequence[str]) -> Batch:
    """Hashed words of each row, and its class."""
    words = [[1 + sum(map(ord, word)) * 31 % (WORDS - 1) for word in row["text"].lower().split()][:24] for row in rows]
    inputs = torch.tensor([one + [0] * (24 - len(one)) for one in words])
    return (inputs,), torch.tensor([classes.index(row["label"]) for row in rows])


def pair_samples(rows: Sequence[dict[str, Any]]) -> Batch:
    """Signatures, and the words to write: what was written before, and what comes next."""
    source = torch.tensor([characters(row["signature"], 32) for row in rows])
    wanted = torch.tensor([characters(row["target"], 24) for row in rows])
    before = torch.cat([torch.full((len(rows), 1), BEGIN), wanted[:, :-1]], dim=1)
    clean = [torch.where(one < 0, UNKNOWN, one) for one in (source, before)]
    return (clean[0], clean[1]), torch.where(wanted < 0, -100, wanted)


def begin(scenario: Scenario, data: Path) -> Experiment:
    """A sound experiment of this part and task, with what is drawn for it."""
    is_spread, draw, task = scenario.part == "spread", scenario.draw("base"), scenario.task
    sizes = spread.sizes_of_loop(scenario) if is_spread else SIZES[scenario.part]
    steps = round(sizes["steps"] * draw.uniform(0.8, 1.3))
    num_classes = 0
    if task == "lm":
        text = (data / "corpus.txt").read_text(encoding="utf-8")
        start = draw.randrange(0, 300_000)
        train = text_samples(text[start : start + 250_000], sizes["length"])
        held_out = text_samples(text[start + 250_000 : start + 262_000], sizes["length"])
        num_classes = VOCABULARY
    elif task in ("classification", "seq2seq"):
        rows = read_rows(data)
        cut = round(len(rows) * 0.8)
        classes = sorted({row["label"] for row in rows})
        num_classes = len(classes) if task == "classification" else VOCABULARY
        read: Callable[[list[dict[str, Any]]], Batch] = (
            (lambda some: word_samples(some, classes)) if task == "classification" else pair_samples
        )
        train, held_out = read(rows[:cut]), read(rows[cut : cut + 400])
    else:
        kept = np.load(data / "pictures.npz")
        order = np.random.default_rng(scenario.seed).permutation(len(kept["classes"]))
        pictures, labels = torch.from_numpy(kept["pictures"][order]), torch.from_numpy(kept["classes"][order])
        cut = round(len(labels) * 0.8)
        train, held_out = ((pictures[:cut],), labels[:cut]), ((pictures[cut:],), labels[cut:])
        num_classes = int(labels.max()) + 1
    found = Experiment(
        scenario,
        data,
        steps,
        RATES[task] * draw.uniform(0.75, 1.25),
        sizes["batch"] if task == "lm" else 2 * sizes["batch"],
        sizes,
        train,
        held_out,
        num_classes,
    )
    found.evaluations = draw.choice([8, 10, 12, 15])
    found.logs = {
        "grad_norm": draw.random() < 0.75,
        "rate": draw.random() < 0.9,
        "times": draw.random() < 0.6,
        "memory": draw.random() < 0.3,
        "accuracy": draw.random() < 0.8,
    }
    if is_spread:
        for name, value in spread.loop_of(scenario).items():
            setattr(found, name, value)
    return found
