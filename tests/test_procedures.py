"""Procedures, sharpness and changed embeddings through the trainer: it learns, resumes to the same bits, is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from trimtab import Trainer, load_config
from trimtab.config import Config
from trimtab.errors import ConfigError
from trimtab.events import Event, StepsEnded
from trimtab.optimizer import AdamW, parameter_groups
from trimtab.training.procedures import build_making, held_back

ENCODER = {"name": "encoder", "num_layers": 1, "hidden_size": 16, "num_heads": 2, "dropout": {"residual": 0.1}}
DECODER = {**ENCODER, "name": "decoder"}
WORDS = {"good": ["kind", "bright", "happy", "warm", "calm"], "bad": ["cruel", "dark", "sad", "cold", "harsh"]}

CASES: dict[str, dict[str, Any]] = {
    "r_drop": {"procedure": {"name": "r_drop", "alpha": 1.0}},
    "fgm": {"procedure": {"name": "fgm", "radius": 0.3}},
    "pgd": {"procedure": {"name": "pgd", "radius": 0.3, "step_size": 0.1}},
    "free_lb": {"procedure": {"name": "free_lb", "radius": 0.3}},
    "sam": {"sharpness": {"name": "sam"}, "logging": {"every": 4, "noise_scale": {"every": 2}}},
    "asam": {"sharpness": {"name": "asam"}, "procedure": {"name": "fgm", "radius": 0.3}},
    "gradient_cache": {"procedure": {"name": "gradient_cache"}, "objective": {"mmce": 0.1}},
    "embedding": {"embedding": {"noise": {"alpha": 1.0}, "mixup": {"alpha": 0.3}, "cutout": {"rate": 0.1}}},
}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts of five words, most of them of the class."""
    path, generator = tmp_path_factory.mktemp("rows") / "rows.jsonl", torch.Generator().manual_seed(0)
    with path.open("w") as file:
        for index in range(240):
            label = ("good", "bad")[index % 2]
            picks = torch.randint(0, 5, (4 + index % 3,), generator=generator).tolist()
            text = " ".join(WORDS[label][pick] for pick in picks)
            print(json.dumps({"text": f"{index} {text}", "label": label, "value": float(index % 2)}), file=file)
    return path


def config_of(rows: Path, **more: Any) -> Config:
    source = {"name": "jsonl", "path": str(rows)}
    settings = {
        "task": {"name": "classification"},
        "model": ENCODER,
        "optimizer": {"name": "adamw", "learning_rate": 1e-2},
        "training": {"steps": 24, "micro_batch_size": 8, "accumulation": 2},
        "evaluation": {"every": 12, "gap_tokens": 0},
        "logging": {"every": 4},
        "data": {"source": source, "tokenizer": {"name": "bytes"}, "sequence_length": 48},
    }
    return load_config({**settings, **more}, environment={})


class Losses:
    def __init__(self) -> None:
        self.found: dict[str, list[float]] = {}

    def observe(self, event: Event) -> None:
        if isinstance(event, StepsEnded):
            for name, values in event.per_step.items():
                self.found.setdefault(name, []).extend(values)


class Leaves:
    def observe(self, event: Event) -> None:
        if isinstance(event, StepsEnded) and event.last_step >= 16:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "name",
    # What `asam` and `free_lb` do holds what `sam` and `pgd` do.
    [pytest.param(n, marks=pytest.mark.slow) if n in ("sam", "pgd") else n for n in CASES],
)
def test_it_learns_and_resumes_to_the_same_bits(name: str, rows: Path, tmp_path: Path) -> None:
    config, losses = config_of(rows, **CASES[name]), Losses()
    whole = Trainer(config, run=tmp_path / "whole", monitors=[losses])
    result = whole.fit()
    loss = losses.found["train/loss"]
    assert sum(loss[-4:]) < 0.75 * sum(loss[:4])
    assert result.metrics["validation/accuracy"] > 0.75
    added = {"r_drop": "r_drop", "fgm": "adversarial", "pgd": "adversarial", "free_lb": "adversarial"}.get(name)
    if added is not None:
        assert all(value > 0 for value in losses.found[f"train/loss/{added}"])
        assert losses.found["train/loss/cross_entropy"] == pytest.approx(loss)
    with pytest.raises(KeyboardInterrupt):
        Trainer(config, run=tmp_path / "parts", monitors=[Leaves()]).fit()
    again = Trainer(config, run=tmp_path / "parts")
    assert again.fit().metrics == result.metrics
    ours, theirs = whole.trained()[0].state_dict(), again.trained()[0].state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


BERT = {
    "name": "hugging_face",
    "config": {
        "model_type": "bert",
        "max_position_embeddings": 64,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    },
}
SEQ2SEQ = {"name": "seq2seq", "target": "label", "target_length": 8}
CONTRASTIVE: dict[str, Any] = {
    "task": {"name": "contrastive", "label": "label"},
    "objective": {"name": "supervised_contrastive"},
}
NOISE = {"noise": {"alpha": 5.0}, "cutout": {"rate": 0.2}}
OTHERS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "transformers": ({"model": BERT}, [CASES["fgm"], CASES["embedding"]]),
    "decoder": (
        {"task": {"name": "causal_lm"}, "model": {**ENCODER, "name": "decoder"}},
        [CASES["pgd"], {**CASES["r_drop"], "embedding": NOISE}],
    ),
    "encoder_decoder": (
        {"task": SEQ2SEQ, "model": {**ENCODER, "name": "encoder_decoder"}},
        [{**CASES["free_lb"], "embedding": NOISE}, CASES["asam"]],
    ),
    "vectors": (
        CONTRASTIVE,
        [{"embedding": {"noise": {"alpha": 0.1}}}, {"sharpness": {"name": "sam", "radius": 0.01}}],
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_models_and_tasks_are_reached_too(name: str, rows: Path, tmp_path: Path) -> None:
    """Two steps: the first update is another, and so is the loss of the second step; not by much."""
    settings, asked = OTHERS[name]
    seconds = []
    for index, more in enumerate(({}, *asked)):
        losses = Losses()
        training = {"steps": 2, "micro_batch_size": 8, "accumulation": 2}
        config = config_of(rows, **settings, training=training, **more)
        Trainer(config, run=tmp_path / f"run{index}", monitors=[losses]).fit()
        seconds.append(losses.found["train/loss"][1])
    assert len(set(seconds)) == len(seconds)
    assert seconds[1:] == pytest.approx([seconds[0]] * len(asked), rel=0.2)


REFUSED = [
    (
        {"procedure": {"name": "gradient_cache"}, **CONTRASTIVE},
        "procedure.name gradient_cache does not go with task contrastive, which caches gradients by itself",
    ),
    (
        {"procedure": {"name": "fgm"}, **CONTRASTIVE},
        "procedure.name fgm does not go with task contrastive, which compares all texts. Fitting: plain",
    ),
    (
        {"procedure": {"name": "r_drop"}, "model": {**ENCODER, "dropout": {}}},
        "procedure.name r_drop has no effect: its two passes are one, as every rate of model.dropout is 0",
    ),
    (
        {"procedure": {"name": "gradient_cache"}},
        "gradient_cache has no effect: objective.name cross_entropy is a sum over micro-batches",
    ),
    (
        {
            "procedure": {"name": "gradient_cache"},
            "objective": {"mmce": 1.0},
            "training": {"steps": 9, "micro_batch_size": 8},
        },
        "gradient_cache has no effect: a step has one micro-batch; raise training.accumulation",
    ),
    ({"objective": {"mmce": 1.0}}, "Fitting: training.accumulation 1, or procedure.name gradient_cache"),
    (
        {"embedding": {"mixup": {"alpha": 0.2}}, "task": {"name": "regression"}, "objective": {"name": "mse"}},
        "embedding.mixup.alpha mixes the losses of two texts' classes, and task regression has none. Fitting: class",
    ),
    (
        {"embedding": {"mixup": {"alpha": 0.2}}, "procedure": {"name": "r_drop"}},
        "embedding.mixup.alpha does not go with procedure.name r_drop, whose two passes would mix other texts",
    ),
    (
        {"embedding": {"mixup": {"alpha": 0.2}}, "training": {"steps": 9, "micro_batch_size": 1}},
        "embedding.mixup.alpha mixes texts of a micro-batch, and training.micro_batch_size is 1",
    ),
    (
        {"embedding": {"noise": {"alpha": 5.0}}, "training": {"steps": 9, "compile": "on"}},
        "embedding.noise.alpha cannot be compiled, and training.compile is on. Fitting: auto, off",
    ),
    (
        {
            "procedure": {"name": "gradient_cache"},
            "objective": {"mmce": 1.0},
            "logging": {"noise_scale": {"every": 2}},
        },
        "gradient_cache has no gradient of a single micro-batch, and logging.noise_scale compares these",
    ),
]


@pytest.mark.parametrize("more,message", REFUSED)
def test_what_does_not_go_together_is_refused(more: dict[str, Any], message: str, rows: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(rows, **more)
    assert message in str(caught.value)


def test_language_models_refuse_what_they_cannot_reach() -> None:
    custom = {"model": {"name": "custom", "target": "somewhere:Model"}, "embedding": {"noise": {"alpha": 5.0}}}
    with pytest.raises(ConfigError, match=r"embedding\.noise\.alpha changes .* model\.name custom are is not known"):
        load_config(custom, environment={})
    precise = {"procedure": {"name": "fgm"}, "training": {"precision": {"name": "fp8"}}}
    with pytest.raises(ConfigError, match=r"procedure\.name fgm does not go with training\.precision\.name fp8"):
        load_config(precise, environment={})
    config = load_config({"model": DECODER, "embedding": {"noise": {"alpha": 5.0}}}, environment={})
    with pytest.raises(ConfigError, match=r"embedding\.noise\.alpha changes .* those of Linear are is not known"):
        build_making(config, torch.nn.Linear(2, 2))


def test_a_procedure_says_why_its_step_is_not_captured(rows: Path, tmp_path: Path) -> None:
    trainer = Trainer(config_of(rows, training={"steps": 1, "micro_batch_size": 4}), run=tmp_path / "run")
    trainer.fit()
    model = trainer.trained()[0]
    full = {"task": {"name": "classification", "padding": "full"}}
    optimizer = AdamW(parameter_groups(model, 0.0))
    assert held_back(config_of(rows, **full), model, optimizer) is None
    for name, why in {
        "r_drop": "procedure.name r_drop draws twice in a micro-batch",
        "fgm": "procedure.name fgm draws the same dropout again",
        "sam": "sharpness.name sam goes twice over the micro-batches",
        "embedding": "embedding.noise.alpha changes embeddings as it goes",
    }.items():
        found = held_back(config_of(rows, **full, **CASES[name]), model, optimizer)
        assert found is not None
        assert found.startswith(why)


def test_the_search_for_a_micro_batch_goes_through_the_cache(rows: Path, tmp_path: Path) -> None:
    """No size is refused for an objective that needs the whole batch, and the loss does not depend on the size."""
    found = []
    for training in (
        {"batch_size": 16, "micro_batch_size": "auto", "memory_budget_bytes": 10**12},
        {"batch_size": 16, "micro_batch_size": 4},
    ):
        losses = Losses()
        dropless = {**ENCODER, "dropout": {}}
        order = {"name": "classification", "bucketing": 1}  # which texts are together depends on the micro-batch else
        training = {"steps": 3, **training}
        config = config_of(rows, **CASES["gradient_cache"], task=order, model=dropless, training=training)
        Trainer(config, run=tmp_path / str(len(found)), monitors=[losses]).fit()
        found.append(losses.found["train/loss"])
    assert found[0] == pytest.approx(found[1], rel=1e-4)
